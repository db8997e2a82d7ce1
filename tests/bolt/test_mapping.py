"""How much of a file the passes over a whole one read."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from buildkit_migrate._native.bolt import count_check
from buildkit_migrate.bolt import Database, check, compacted_size
from dicts import file_of
from planting import grow
from trees import PlainBucket, write


def mapped(path: Path) -> int:
    """Bytes of the file that this process has read through mappings of it."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    sizes = (
        next(rest for rest in lines if rest.startswith("Rss:")) for line in lines if line.endswith(str(path))
    )
    return sum(int(size.split()[1]) << 10 for size in sizes)


@pytest.mark.parametrize("free", [0, 1000])
def test_free_pages_are_not_read_if_they_are_most_of_the_file(free: int, tmp_path: Path) -> None:
    """For a file of gigabytes with little in it, that would take seconds."""
    path = tmp_path / "file"
    path.write_bytes(file_of({b"b": {b"%06d" % n: b"v" * 300 for n in range(1000)}}, 16384))
    grow(path, free)
    with Database.open(path) as database:
        assert check(database.reader) == []
        assert compacted_size(database.root) < 2 * (database.size - (free << 14))
        if free:
            assert mapped(path) < database.size / 2
        else:
            assert mapped(path) > database.size - (256 << 10)


@pytest.mark.parametrize("fill", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("free", [0, 500])
@pytest.mark.parametrize("size", [20, 300, 9000])
def test_fill_is_estimated_from_some_pages(fill: float, free: int, size: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    items = {b"%06d" % n: b"v" * size for n in range(600_000 // size)}
    write(path, PlainBucket({b"b": PlainBucket(items)}), fill=fill)
    grow(path, free)
    with Database.open(path) as database:
        _, _, used, content = count_check(database.reader)
        exact = content / (used << 12) * used / (used + free)
        estimated = database.estimated_fill()
    assert exact - 0.1 < estimated <= 1
    assert size > 4096 or estimated < exact + 0.1  # a run of pages can't be filled better


def test_damaged_file_has_some_fill(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(file_of({b"%06d" % n: b"v" * 300 for n in range(1000)}))
    for seed in range(50):
        content = bytearray(path.read_bytes())
        for at in Random(seed).sample(range(2 << 12, len(content)), 5000):
            content[at] ^= 0xA5
        path.write_bytes(content)
        with Database.open(path) as database:
            assert 0 <= database.estimated_fill() <= 1
