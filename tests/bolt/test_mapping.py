"""How much of a file the passes over a whole one read."""

from __future__ import annotations

from pathlib import Path

import pytest

from buildkit_migrate.bolt import Database, check, compacted_size
from dicts import file_of
from planting import grow


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
