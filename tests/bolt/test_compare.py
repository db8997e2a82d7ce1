"""Whether two files hold the same, whatever their pages look like."""

from __future__ import annotations

from pathlib import Path

import pytest

from buildkit_migrate.bolt import Builder, Database, Reader, compacted_size, rewrite, same_content
from buildkit_migrate.errors import CorruptDatabaseError
from planting import damage_page
from trees import PlainBucket, read, write

SMALL = PlainBucket({b"key": b"value", b"none": b""}, sequence=3)
LARGE = PlainBucket({b"%05d" % n: b"x" * 90 for n in range(3000)}, sequence=5)
TREE = PlainBucket({b"a": SMALL, b"b": LARGE, b"c": PlainBucket({b"in": SMALL}), b"top": b"value"})

CHANGED = {
    "value": PlainBucket({**TREE.items, b"top": b"other"}),
    "key": PlainBucket({**TREE.items, b"topp": b"value"}),
    "empty bucket": PlainBucket({**TREE.items, b"d": PlainBucket()}),
    "bucket for a value": PlainBucket({**TREE.items, b"top": PlainBucket()}),
    "sequence": PlainBucket({**TREE.items, b"b": PlainBucket(LARGE.items, sequence=6)}),
    "sequence of an inline bucket": PlainBucket({**TREE.items, b"a": PlainBucket(SMALL.items, sequence=4)}),
    "value below": PlainBucket({**TREE.items, b"c": PlainBucket({b"in": PlainBucket({b"key": b"valuE"})})}),
    "last value": PlainBucket({**TREE.items, b"b": PlainBucket({**LARGE.items, b"02999": b""}, 5)}),
    "none at all": PlainBucket(),
}


def file(path: Path, tree: PlainBucket, page_size: int = 4096, fill: float = 0.9) -> Reader:
    write(path, tree, page_size, fill)
    return read(path)


@pytest.mark.parametrize(("page_size", "fill"), [(4096, 0.9), (4096, 0.5), (1024, 1.0), (65536, 0.7)])
def test_layout_does_not_matter(page_size: int, fill: float, tmp_path: Path) -> None:
    other = file(tmp_path / "other", TREE, page_size, fill)
    assert same_content(file(tmp_path / "one", TREE), other)
    assert same_content(other, file(tmp_path / "again", TREE))


@pytest.mark.parametrize("what", CHANGED)
def test_any_difference_is_seen_from_both_sides(what: str, tmp_path: Path) -> None:
    one, other = file(tmp_path / "one", TREE), file(tmp_path / "other", CHANGED[what], fill=0.6)
    assert not same_content(one, other)
    assert not same_content(other, one)


def test_damage_is_named_with_its_file(tmp_path: Path) -> None:
    one = file(tmp_path / "one", TREE)
    write(tmp_path / "other", TREE)
    damage_page(tmp_path / "other", 3)
    other = read(tmp_path / "other")
    for pair in ((one, other), (other, one)):
        with pytest.raises(CorruptDatabaseError) as raised:
            same_content(*pair)
        assert raised.value.page == 3


@pytest.mark.parametrize("free_list", [True, False])
@pytest.mark.parametrize("sequence", [0, 1, 2**64 - 1])
def test_end_of_a_file(free_list: bool, sequence: int, tmp_path: Path) -> None:
    source = file(tmp_path / "source", TREE)
    image = bytearray()
    builder = Builder(image.extend)
    rewrite(source.root, builder, ())
    metas = builder.finish(9, sequence=sequence, free_list=free_list)
    image[: len(metas)] = metas
    made = Reader(bytes(image))
    assert (made.freelist is not None) == free_list
    assert (made.transaction, made.root.sequence) == (9, sequence)
    assert len(image) == compacted_size(source.root, free_list=free_list)
    assert same_content(source, made) == (sequence == 0)


def test_readers_must_be_two(tmp_path: Path) -> None:
    write(tmp_path / "one", TREE)
    with Database.open(tmp_path / "one") as database:
        with pytest.raises(RuntimeError):
            same_content(database.reader, database.reader)
        assert same_content(database.reader, database.another_reader())
