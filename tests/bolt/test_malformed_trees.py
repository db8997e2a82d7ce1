"""Damage that takes more than one field: pages and buckets in cycles, shared pages, overlapping bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from buildkit_migrate._native.bolt import Bucket, Reader, check, scan
from buildkit_migrate._native.building import rewrite
from buildkit_migrate._native.facts import Survey
from buildkit_migrate.errors import CorruptDatabaseError
from buildkit_migrate.migration.plan import read_records
from crafted import (
    FREELIST,
    PAGE,
    Item,
    branch,
    bucket,
    file,
    freelist,
    header,
    inline,
    leaf,
    row,
    sign,
)
from dicts import Image, file_of, tree_of

A: list[Item] = [(b"a", b"1")]
PAGE_SIZES = [1024, 2048, 4096, 8192, 16384, 32768, 65536]


def copy(data: bytes) -> None:
    rewrite(Reader(data).root, Image(1024).builder, [])


def texts(data: bytes) -> list[str]:
    return [text for _, text in check(Reader(data))]


def test_crafted_sound_file_is_accepted() -> None:
    """So what is refused below is refused for its fault."""
    data = file(
        {
            2: leaf(2, [(b"b", inline(A), 1), row(b"c", 3)]),
            3: branch(3, [(b"a", 4), (b"b", 5)]),
            4: leaf(4, A),
            5: leaf(5, [(b"b", b"v" * 2000)], overflow=1),
        }
    )
    assert check(Reader(data)) == []
    assert tree_of(Reader(data).root) == {b"b": {b"a": b"1"}, b"c": {b"a": b"1", b"b": b"v" * 2000}}


# --- Trees

TREES = {
    "cycle of two branches": (
        {
            2: branch(2, [(b"a", 3), (b"b", 4)]),
            3: branch(3, [(b"a", 2), (b"aa", 4)]),
            4: leaf(4, [(b"b", b"")]),
        },
        "reached twice",
    ),
    "bucket that contains itself": ({2: leaf(2, [row(b"a", 2)])}, "reached twice"),
    "bucket that contains the one above": (
        {2: leaf(2, [row(b"a", 3)]), 3: leaf(3, [row(b"b", 4)]), 4: leaf(4, [row(b"c", 3)])},
        "reached twice",
    ),
    "two buckets with one tree": ({2: leaf(2, [row(b"a", 3), row(b"b", 3)]), 3: leaf(3, A)}, "reached twice"),
    "leaf of two branches": (
        {
            2: leaf(2, [row(b"a", 3), row(b"b", 4)]),
            3: branch(3, [(b"a", 5), (b"b", 6)]),
            4: branch(4, [(b"a", 5), (b"c", 7)]),
            5: leaf(5, A),
            6: leaf(6, [(b"b", b"")]),
            7: leaf(7, [(b"c", b"")]),
        },
        "reached twice",
    ),
    "page within the run of another": (
        {
            2: leaf(2, [row(b"a", 3), row(b"b", 4)]),
            3: leaf(3, [(b"k", b"v" * 975 + leaf(4, A))], overflow=1)[:1000].ljust(PAGE, b"v") + leaf(4, A),
        },
        "reached twice",
    ),
    "leaves at different depths": (
        {
            2: branch(2, [(b"a", 3), (b"c", 4)]),
            3: branch(3, [(b"a", 5), (b"b", 6)]),
            4: leaf(4, [(b"c", b"")]),
            5: leaf(5, A),
            6: leaf(6, [(b"b", b"")]),
        },
        "different depths",
    ),
    "empty leaf below a branch": (
        {2: branch(2, [(b"a", 3), (b"b", 4)]), 3: leaf(3, []), 4: leaf(4, [(b"b", b"")])},
        "empty leaf",
    ),
    "keys that belong below the next branch key": (
        {2: branch(2, [(b"a", 3), (b"b", 4)]), 3: leaf(3, [*A, (b"bb", b"")]), 4: leaf(4, [(b"b", b"")])},
        "not in order",
    ),
    "keys beyond a bound from further above": (
        {
            2: branch(2, [(b"a", 3), (b"c", 4)]),
            3: branch(3, [(b"a", 5), (b"b", 6)]),
            4: branch(4, [(b"c", 7), (b"d", 8)]),
            5: leaf(5, A),
            6: leaf(6, [(b"b", b""), (b"cc", b"")]),
            7: leaf(7, [(b"c", b"")]),
            8: leaf(8, [(b"d", b"")]),
        },
        "not in order",
    ),
    "deeper than any file": (
        {
            **{
                2 + i: branch(2 + i, [(b"a", 3 + i), (bytes([200 - i]), 80 + i)])
                for i in range(66)
            },
            68: leaf(68, A),
            **{80 + i: leaf(80 + i, [(bytes([200 - i]), b"")]) for i in range(66)},
        },
        "deeper",
    ),
    "nested too deep": (
        {**{2 + i: leaf(2 + i, [row(b"n", 3 + i)]) for i in range(66)}, 68: leaf(68, A)},
        "nested deeper than 64",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TREES)
def test_malformed_trees_are_refused(name: str) -> None:
    pages, text = TREES[name]
    data = file(pages)
    with pytest.raises(CorruptDatabaseError, match=text) as caught:
        copy(data)
    assert caught.value.page >= 2
    assert any(text in found for found in texts(data))


# --- Buckets in values

INLINE = {
    "no room for a header": (b"x" * 15, "bucket header"),
    "no room for a page": (bucket(0) + b"x" * 15, "bucket header"),
    "root is a meta page": (bucket(1), "bucket header"),
    "something behind the header": (bucket(3) + b"x", "bucket header"),
    "inline page with a number": (bucket(0) + leaf(7, A), "inline bucket"),
    "inline branch": (bucket(0) + branch(0, [(b"a", 3)]), "inline bucket"),
    "inline page with overflow": (bucket(0) + leaf(0, A, overflow=1), "inline bucket"),
    "inline free list": (bucket(0) + freelist(0, [3]), "inline bucket"),
    "table out of the value": (bucket(0) + header(0, 2, 9), "element table"),
    "data out of the value": (inline([(b"a", b"1" * 50)])[:-1], "outside"),
    "bucket in an inline bucket": (inline([row(b"a", 3)]), "element flags"),
    "inline bucket in an inline bucket": (inline([(b"a", inline(A), 1)]), "element flags"),
    "keys out of order": (inline([(b"b", b""), (b"a", b"")]), "not in order"),
    "empty key": (inline([(b"", b"x")]), "empty key"),
}


@pytest.mark.parametrize("name", INLINE)
def test_malformed_bucket_values_are_refused(name: str) -> None:
    value, text = INLINE[name]
    data = file({2: leaf(2, [(b"a", value, 1)]), 3: leaf(3, A)})
    with pytest.raises(CorruptDatabaseError, match=text) as caught:
        copy(data)
    assert caught.value.page == 2
    with pytest.raises(CorruptDatabaseError, match=text):
        Reader(data).root.bucket(b"a")
    assert any(text in found for found in texts(data))


def test_wrong_page_types_are_refused() -> None:
    for flags in (0, 4, FREELIST, 3, 0x8002):
        data = file({2: leaf(2, A, flags=flags)})
        with pytest.raises(CorruptDatabaseError, match="wrong type"):
            copy(data)


# --- Free lists

FREELISTS = {
    "names a page twice": (freelist(3, [4, 4]), "named twice"),
    "names a meta page": (freelist(3, [1]), "impossible page number"),
    "names what is beyond the end": (freelist(3, [6]), "impossible page number"),
    "names a page in use": (freelist(3, [2, 4, 5]), "in use and named"),
    "names itself": (freelist(3, [3, 4, 5]), "in use and named"),
    "runs out of the page": (freelist(3, [4, 5], count=200), "runs out"),
    "is longer than any file": (freelist(3, [2**61, 4], count=0xFFFF), "runs out"),
    "runs out of the file": (header(3, FREELIST, 0, 9), "beyond"),
    "is a leaf": (freelist(3, [4, 5], flags=2), "wrong type"),
    "is another page": (freelist(4, [4, 5]), "another page"),
    "lacks a page": (freelist(3, [4]), "neither in use nor free"),
}


@pytest.mark.parametrize("name", FREELISTS)
def test_check_finds_malformed_free_lists(name: str) -> None:
    page, text = FREELISTS[name]
    data = file({2: leaf(2, A), 3: page, 5: b"\0"}, free=3)
    assert any(text in found for found in texts(data))
    copy(data)  # reading needs no free list


def test_long_form_of_the_free_list_is_accepted() -> None:
    data = file({2: leaf(2, A), 3: freelist(3, [1, 4], count=0xFFFF), 4: b"\0"}, free=3)
    assert check(Reader(data)) == []


# --- Sizes


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_truncation_at_any_page_is_refused(page_size: int) -> None:
    data = file_of({b"key%04d" % i: b"v" * (page_size // 40) for i in range(150)}, page_size)
    assert check(Reader(data)) == []
    for end in range(0, len(data), page_size):
        with pytest.raises(CorruptDatabaseError, match=r"truncated|too short") as caught:
            Reader(data[:end])
        assert caught.value.page in (-1, 0)
    with pytest.raises(CorruptDatabaseError, match="truncated"):
        Reader(data[:-1])


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_lost_first_meta_page_is_tolerated(page_size: int) -> None:
    data = bytearray(file_of({b"a": b"b"}, page_size))
    data[:page_size] = bytes(page_size)
    reader = Reader(bytes(data))
    assert (reader.page_size, tree_of(reader.root)) == (page_size, {b"a": b"b"})
    assert check(reader)
    data[page_size:] = data[page_size + 512 :]  # the second meta page at the wrong place
    with pytest.raises(CorruptDatabaseError, match="magic"):
        Reader(bytes(data))


def test_second_meta_page_at_the_wrong_place_is_refused() -> None:
    data = bytearray(file_of({b"a": b"b"}, 1024))
    data[:1024] = bytes(1024)
    struct.pack_into("<I", data, 1024 + 24, 4096)
    sign(data, 1024)
    with pytest.raises(CorruptDatabaseError, match="magic"):
        Reader(bytes(data))


@pytest.mark.parametrize("size", [0, 1, 79, 1024, 2047])
def test_file_that_is_too_short_is_refused(size: int) -> None:
    with pytest.raises(CorruptDatabaseError, match="too short"):
        Reader(file_of({})[:size])


# --- A small file must not expand


def shared_value(count: int) -> bytes:
    """A leaf whose elements share one large value: the data behind their keys."""
    table_end = 16 + 16 * count
    data = bytes(range(1, 1 + count)) * 20
    table = b""
    for i in range(count):
        table += struct.pack("<IIII", 0, table_end + i - (16 + 16 * i), 1, len(data) - i - 1)
    return header(2, 2, count) + table + data


def test_overlapping_elements_are_refused() -> None:
    assert len(shared_value(20)) < PAGE
    data = file({2: shared_value(20)})
    with pytest.raises(CorruptDatabaseError, match="overlap"):
        copy(data)
    assert "keys and values of the page overlap" in texts(data)


def sharing_rows(count: int, target: Callable[[int], bytes]) -> bytes:
    """A bucket "t" with many rows, all of one page."""
    rows = leaf(3, [row(b"%04d" % i, 9) for i in range(count)])
    pages = -(-len(rows) // PAGE)
    assert pages <= 6
    rows = leaf(3, [row(b"%04d" % i, 9) for i in range(count)], overflow=pages - 1)
    return file({2: leaf(2, [row(b"t", 3)]), 3: rows, 9: target(9)})


def test_rows_that_share_a_page_are_refused() -> None:
    data = sharing_rows(100, lambda id: leaf(id, [(b"name", b"n" * 900)]))
    bucket = Reader(data).root.bucket(b"t")
    assert bucket is not None
    with pytest.raises(CorruptDatabaseError, match="reached twice"):
        scan(bucket, [(b"name",)])
    assert len(scan(bucket, [(b"other",)])[0]) == 100


def test_same_column_may_be_asked_for_twice() -> None:
    data = file({2: leaf(2, [(b"t", inline([(b"name", b"n" * 800)]), 1)])})
    _, columns = scan(Reader(data).root, [(b"name",)] * 9)
    assert [list(column) for column in columns] == [[b"n" * 800]] * 9


def test_leases_that_share_a_page_are_refused() -> None:
    resources = inline([(b"%02d" % i, b"") for i in range(40)])
    leases = leaf(5, [row(b"%04d" % i, 9) for i in range(100)], overflow=3)
    pages = {
        2: leaf(2, [row(b"v1", 3)]),
        3: leaf(3, [row(b"buildkit", 4)]),
        4: leaf(4, [row(b"leases", 5)]),
        5: leases,
        9: leaf(9, [(b"content", resources, 1)]),
    }
    assert len(leases) < 4 * PAGE
    assert len(leaf(9, [(b"content", resources, 1)])) < PAGE
    reader = Reader(file(pages))
    with pytest.raises(CorruptDatabaseError, match="reached twice"):
        Survey.offline(reader, None, "buildkit", "overlayfs")


def test_records_that_share_a_page_are_refused() -> None:
    data = file({2: leaf(2, [row(b"_main", 3)]), 3: leaf(3, [row(b"a", 4), row(b"b", 4)]), 4: leaf(4, A)})
    with pytest.raises(CorruptDatabaseError, match="reached twice"):
        read_records(Reader(data))


def test_check_reports_a_damaged_page_once() -> None:
    """A page reached many times gives one finding about its damage, and one for each further path to it."""
    rows = [row(b"%03d" % i, 4) for i in range(20)]
    findings = check(Reader(file({2: leaf(2, rows), 4: leaf(4, [(b"b", b""), (b"a", b"")])})))
    assert [text for _, text in findings].count("keys are not in order") == 1


def test_check_ends_after_many_findings() -> None:
    """Otherwise a sparse file of some TiB would fill the memory with findings."""
    data = bytearray(30_000 * PAGE)
    sound = file({2: leaf(2, A), 3: freelist(3, [])}, free=3)
    data[: len(sound)] = sound
    for meta in (0, PAGE):
        struct.pack_into("<Q", data, meta + 56, 30_000)
    sign(data, PAGE)
    findings = check(Reader(bytes(data)))
    assert len(findings) == 10_001
    assert findings[-1] == (-1, "more findings are left out")


# --- After a failure


def test_other_buckets_can_be_read_after_a_failed_walk() -> None:
    data = file({2: leaf(2, [row(b"bad", 3), row(b"good", 4)]), 3: leaf(9, A), 4: leaf(4, A)})
    root = Reader(data).root
    bad, good = root.bucket(b"bad"), root.bucket(b"good")
    assert isinstance(bad, Bucket)
    assert isinstance(good, Bucket)
    with pytest.raises(CorruptDatabaseError, match="another page"):
        list(bad.items())
    assert list(good.items()) == [(b"a", b"1")]


def test_bucket_root_beyond_the_end_is_refused() -> None:
    data = file({2: leaf(2, [(b"a", bucket(2**63), 1)])})
    with pytest.raises(CorruptDatabaseError, match="beyond"):
        copy(data)
