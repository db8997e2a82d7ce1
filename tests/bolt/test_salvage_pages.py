"""What salvage keeps of damaged files, and how it names what is lost."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import pytest

from buildkit_migrate._native.bolt import Reader, check
from buildkit_migrate._native.building import Builder
from buildkit_migrate._native.salvaging import Damaged
from buildkit_migrate.errors import CorruptDatabaseError
from crafted import FREELIST, PAGE, Item, branch, bucket, file, freelist, inline, leaf, row, sign
from dicts import file_of
from judge import Judge
from plain_bbolt import BucketDict
from salvaged import Result, rows_of, salvaged, tree

A: list[Item] = [(b"a", b"1")]
ABC = [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]


def lost(result: Result) -> list[tuple[tuple[bytes, ...], int, bytes | None, bytes | None]]:
    return [loss[:4] for loss in result.losses]


def test_sound_file_is_kept_whole() -> None:
    content: BucketDict = {b"a": {b"b": {b"c": b"d"}, b"e": b""}, b"f": {}, b"g": b"x" * 9000}
    for page_size in (1024, 4096, 65536):
        result = salvaged(file_of(content, page_size))
        assert tree(result.data) == content
        assert (result.losses, result.unreached, result.buckets, result.keys) == ([], 0, 3, 3)


# Each file holds: bucket "b" with the keys a, b, ... in leaves of a branch page, and key "z" beside it.

LEFT, MIDDLE, RIGHT = leaf(4, A), leaf(5, [(b"b", b"2"), (b"bb", b"3")]), leaf(6, [(b"c", b"4")])
TOP = leaf(2, [row(b"b", 3), (b"z", b"")])
FORK = branch(3, [(b"a", 4), (b"b", 5), (b"c", 6)])
SOUND = {2: TOP, 3: FORK, 4: LEFT, 5: MIDDLE, 6: RIGHT}
WHOLE: BucketDict = {b"a": b"1", b"b": b"2", b"bb": b"3", b"c": b"4"}
NO_MIDDLE: BucketDict = {b"a": b"1", b"c": b"4"}
INSIDE = ((b"b",), 5, b"b", b"c")


def changed(page: bytes, offset: int, form: str, value: int) -> bytes:
    copy = bytearray(page)
    struct.pack_into(form, copy, offset, value)
    return bytes(copy)


PAGES: Mapping[str, tuple[Mapping[int, bytes], BucketDict, list[object]]] = {
    "sound": ({}, WHOLE, []),
    "zeros": ({5: bytes(PAGE)}, NO_MIDDLE, [INSIDE]),
    "garbage": ({5: b"\xa5" * PAGE}, NO_MIDDLE, [INSIDE]),
    "another page": ({5: leaf(7, [(b"b", b"2")])}, NO_MIDDLE, [INSIDE]),
    "free list": ({5: freelist(5, [])}, NO_MIDDLE, [INSIDE]),
    "two types": ({5: changed(MIDDLE, 8, "<H", 3)}, NO_MIDDLE, [INSIDE]),
    "empty": ({5: leaf(5, [])}, NO_MIDDLE, [INSIDE]),
    "empty branch": ({5: branch(5, [])}, NO_MIDDLE, [INSIDE]),
    "first leaf": ({4: bytes(PAGE)}, {b"b": b"2", b"bb": b"3", b"c": b"4"}, [((b"b",), 4, b"a", b"b")]),
    "last leaf": ({6: bytes(PAGE)}, {b"a": b"1", b"b": b"2", b"bb": b"3"}, [((b"b",), 6, b"c", None)]),
    "two leaves": (
        {4: bytes(PAGE), 5: bytes(PAGE)},
        {b"c": b"4"},
        [((b"b",), 4, b"a", b"b"), ((b"b",), 5, b"b", b"c")],
    ),
    "branch": ({3: bytes(PAGE)}, {}, [((b"b",), 3, None, None)]),
    "child is a meta page": (
        {3: branch(3, [(b"a", 4), (b"b", 1), (b"c", 6)])},
        NO_MIDDLE,
        [((b"b",), 1, b"a", b"c")],
    ),
    "child beyond the end": (
        {3: branch(3, [(b"a", 4), (b"b", 99), (b"c", 6)])},
        NO_MIDDLE,
        [((b"b",), 99, b"b", b"c")],
    ),
    "child is the page itself": (
        {3: branch(3, [(b"a", 4), (b"b", 3), (b"c", 6)])},
        NO_MIDDLE,
        [((b"b",), 3, b"a", b"c")],
    ),
    "cycle": ({5: branch(5, [(b"b", 3)])}, NO_MIDDLE, [((b"b",), 3, b"b", b"c")]),
    "page used twice": (
        {3: branch(3, [(b"a", 4), (b"b", 4), (b"c", 6)])},
        NO_MIDDLE,
        [((b"b",), 4, b"b", b"c")],
    ),
    "keys of another range": ({5: leaf(5, [(b"x", b"2")])}, NO_MIDDLE, [INSIDE]),
    "deeper": (
        {5: branch(5, [(b"b", 7)]), 7: leaf(7, [(b"b", b"2"), (b"bb", b"3")])},
        WHOLE,
        [],
    ),
    "overlong run": ({5: changed(MIDDLE, 12, "<I", 2**32 - 1)}, WHOLE, []),
    "run over its neighbour": ({5: changed(MIDDLE, 12, "<I", 1)}, WHOLE, []),
    "count too high": ({5: changed(MIDDLE, 10, "<H", 66)}, WHOLE, []),
    "count too low": (
        {5: changed(leaf(5, [(b"b", b"2"), (b"ba", b""), (b"bb", b"3")]), 10, "<H", 1)},
        {**WHOLE, b"ba": b""},
        [],
    ),
    "count of the branch too low": ({3: changed(FORK, 10, "<H", 1)}, WHOLE, []),
    "count of the branch too high": ({3: changed(FORK, 10, "<H", 60)}, WHOLE, []),
    "separator too low": ({3: branch(3, [(b"a", 4), (b"aa", 5), (b"c", 6)])}, WHOLE, []),
    "separator too high": ({3: branch(3, [(b"a", 4), (b"bz", 5), (b"c", 6)])}, WHOLE, []),
    "separator out of order": ({3: branch(3, [(b"a", 4), (b"x", 5), (b"c", 6)])}, WHOLE, []),
    "first separator out of order": ({3: branch(3, [(b"x", 4), (b"b", 5), (b"c", 6)])}, WHOLE, []),
    "separator out of the page": ({3: changed(FORK, 16 + 16, "<I", 5000)}, WHOLE, []),
    "zeros for separators": ({3: FORK[:64] + bytes(PAGE - 64)}, WHOLE, []),
    "key out of order": (
        {5: leaf(5, [(b"b", b"2"), (b"ba", b""), (b"xx", b""), (b"bb", b"3"), (b"bc", b"4")])},
        {**WHOLE, b"ba": b"", b"bc": b"4"},
        [((b"b",), 5, b"ba", b"bb")],
    ),
    "key twice": (
        {5: leaf(5, [(b"b", b"2"), (b"bb", b"3"), (b"bb", b"3")])},
        WHOLE,
        [((b"b",), 5, b"b", b"bb")],
    ),
    "keys of zeros": (
        {5: leaf(5, [(b"b", b"2"), (bytes(2), b""), (bytes(3), b""), (bytes(4), b""), (b"bb", b"3")])},
        WHOLE,
        [((b"b",), 5, b"b", b"bb")],
    ),
    "empty key": (
        {5: leaf(5, [(b"b", b"2"), (b"", b""), (b"bb", b"3")])},
        WHOLE,
        [((b"b",), 5, b"b", b"bb")],
    ),
    "key out of the page": (
        {5: changed(MIDDLE, 16 + 4, "<I", 5000)},
        {**NO_MIDDLE, b"bb": b"3"},
        [((b"b",), 5, b"b", b"bb")],
    ),
    "key in the table": (
        {5: changed(MIDDLE, 32 + 4, "<I", 1)},
        {**NO_MIDDLE, b"b": b"2"},
        [((b"b",), 5, b"b", b"c")],
    ),
    "value out of the page": (
        {5: changed(MIDDLE, 32 + 12, "<I", 5000)},
        {**NO_MIDDLE, b"b": b"2"},
        [((b"b",), 5, b"b", b"c")],
    ),
    "value over the next key": (
        {5: changed(leaf(5, [(b"b", b"2"), (b"bb", b"v" * 900)]), 16 + 12, "<I", 100)},
        {**NO_MIDDLE, b"bb": b"v" * 900},
        [((b"b",), 5, b"b", b"bb")],
    ),
    "unknown flags": (
        {5: changed(MIDDLE, 16, "<I", 2)},
        {**NO_MIDDLE, b"bb": b"3"},
        [((b"b",), 5, b"b", b"bb")],
    ),
    "value that is no bucket": (
        {5: leaf(5, [(b"b", b"2" * 9, 1), (b"bb", b"3")])},
        {**NO_MIDDLE, b"bb": b"3"},
        [((b"b", b"b"), 5, None, None)],
    ),
}


@pytest.mark.parametrize("name", PAGES)
def test_damaged_pages(name: str) -> None:
    pages, content, losses = PAGES[name]
    result = salvaged(file({**SOUND, **pages}))
    assert tree(result.data) == {b"b": content, b"z": b""}
    assert lost(result) == losses


def test_page_of_a_branch_is_not_lost_to_a_broken_reference() -> None:
    """A reference that leads astray comes first, but the page is beyond doubt the other's."""
    pages = {
        **SOUND,
        2: leaf(2, [row(b"b", 3), row(b"c", 7), row(b"d", 9)]),
        7: branch(7, [(b"b", 8), (b"d", 9)]),
    }
    pages |= {8: leaf(8, [(b"b", b"5")]), 9: leaf(9, [(b"d", b"6")])}
    pages[3] = branch(3, [(b"a", 4), (b"b", 9), (b"c", 6)])
    result = salvaged(file(pages))
    assert tree(result.data) == {b"b": NO_MIDDLE, b"c": {b"b": b"5", b"d": b"6"}, b"d": {}}
    assert lost(result) == [((b"b",), 9, b"b", b"c"), ((b"d",), 9, None, None)]


def test_page_within_the_run_of_another_is_lost() -> None:
    """Its bytes are a value; otherwise any number of pages could repeat them."""
    inner = leaf(4, A).ljust(PAGE, b"v")
    run = leaf(3, [(b"k", b"v" * (PAGE - 33) + inner)], overflow=1)
    result = salvaged(file({2: leaf(2, [row(b"a", 3), row(b"b", 4)]), 3: run}))
    assert tree(result.data) == {b"a": {b"k": b"v" * (PAGE - 33) + inner}, b"b": {}}
    assert lost(result) == [((b"b",), 4, None, None)]


def test_pages_in_no_tree_are_counted_but_not_kept() -> None:
    data = file({2: leaf(2, A), 3: freelist(3, [4]), 4: leaf(4, ABC), 5: leaf(5, [(b"lost", b"")])}, free=3)
    result = salvaged(data)
    assert tree(result.data) == {b"a": b"1"}
    assert (result.losses, result.unreached) == ([], 1)


@pytest.mark.parametrize("page", [bytes(PAGE), freelist(3, [4], count=9000), freelist(4, [4])])
def test_unreadable_free_list_leaves_the_question_open(page: bytes) -> None:
    result = salvaged(file({2: leaf(2, A), 3: page, 4: leaf(4, ABC)}, free=3))
    assert (tree(result.data), result.unreached) == ({b"a": b"1"}, None)


# --- Buckets

INLINE: Mapping[str, tuple[bytes, BucketDict | None, int]] = {
    "sound": (inline(ABC), {b"a": b"1", b"b": b"2", b"c": b"3"}, 0),
    "no room for a header": (b"x" * 15, None, 1),
    "root is a meta page": (bucket(1), None, 1),
    "something behind the header": (bucket(3) + b"x", None, 1),
    "page with a number": (bucket(0) + leaf(7, A), {}, 1),
    "branch": (bucket(0) + branch(0, [(b"a", 3)]), {}, 1),
    "bucket inside": (inline([(b"a", b"1"), row(b"b", 3), (b"c", b"3")]), {b"a": b"1", b"c": b"3"}, 1),
    "data out of the value": (
        inline([*ABC, (b"d", b"4" * 50)])[:-1],
        {b"a": b"1", b"b": b"2", b"c": b"3"},
        1,
    ),
    "key out of order": (
        inline([(b"a", b"1"), (b"b", b"2"), (b"x", b""), (b"c", b"3")]),
        {b"a": b"1", b"b": b"2", b"c": b"3"},
        1,
    ),
    "keys of zeros": (
        inline([(b"a", b"1"), (bytes(2), b""), (bytes(3), b""), (bytes(4), b""), (b"b", b"2")]),
        {b"a": b"1", b"b": b"2"},
        1,
    ),
    "count too low": (changed(inline(ABC), 16 + 10, "<H", 1), {b"a": b"1", b"b": b"2", b"c": b"3"}, 0),
    "count too high": (changed(inline(ABC), 16 + 10, "<H", 5), {b"a": b"1", b"b": b"2", b"c": b"3"}, 0),
    "root beyond the end": (bucket(99), {}, 1),
    "root is the page above": (bucket(2), {}, 1),
    "root is a free page": (bucket(3), {}, 1),
    "larger than usual": (inline([(b"a", b"v" * 600)]), {b"a": b"v" * 600}, 0),
}


@pytest.mark.parametrize("name", INLINE)
def test_damaged_buckets(name: str) -> None:
    value, content, losses = INLINE[name]
    result = salvaged(file({2: leaf(2, [(b"b", value, 1), (b"z", b"")])}))
    kept = {b"z": b""} if content is None else {b"b": content, b"z": b""}
    assert tree(result.data) == kept
    assert len(result.losses) == losses
    assert all(loss[0] == (b"b",) for loss in result.losses)


def test_buckets_nested_too_deep_are_lost() -> None:
    pages = {2 + i: leaf(2 + i, [(b"k", b""), row(b"n", 3 + i)]) for i in range(66)}
    result = salvaged(file({**pages, 68: leaf(68, A)}))
    assert lost(result) == [((b"n",) * 65, 66, None, None)]
    assert (result.buckets, result.keys) == (64, 65)


def test_sequences_are_kept_even_of_lost_buckets() -> None:
    """New ids would else be those of what is there."""
    values = {
        b"i": struct.pack("<QQ", 0, 7) + leaf(0, A),
        b"p": struct.pack("<QQ", 3, 8),
        b"x": struct.pack("<QQ", 9, 9),
    }
    data = bytearray(file({2: leaf(2, [(key, value, 1) for key, value in values.items()]), 3: leaf(3, A)}))
    for meta in (0, PAGE):
        struct.pack_into("<Q", data, meta + 40, 6)
    sign(data, PAGE)
    result = salvaged(bytes(data))
    sequences = {path: value for path, key, value in rows_of(result.data) if key is None}
    assert sequences == {(): 6, (b"i",): 7, (b"p",): 8, (b"x",): 9}
    assert lost(result) == [((b"x",), 9, None, None)]


# --- Meta pages

TWO_STATES = {2: leaf(2, [(b"old", b"")]), 3: leaf(3, [(b"new", b"")])}


def two_states(pages: Mapping[int, bytes] = TWO_STATES) -> bytearray:
    """The newest state, in page 0, has page 3 for its root; the one before has page 2."""
    data = bytearray(file(pages, root=3))
    struct.pack_into("<Q", data, PAGE + 32, 2)
    sign(data, PAGE)
    return data


def test_newest_state_is_read() -> None:
    result = salvaged(bytes(two_states()))
    assert tree(result.data) == {b"new": b""}
    assert result.losses == []
    assert (result.is_newest, result.is_verified, result.other_meta) == (True, True, "")


@pytest.mark.parametrize("page", [bytes(PAGE), leaf(4, A), freelist(3, []), leaf(3, A, flags=FREELIST)])
def test_state_before_is_read_if_the_newest_root_is_lost(page: bytes) -> None:
    result = salvaged(bytes(two_states({**TWO_STATES, 3: page})))
    assert tree(result.data) == {b"old": b""}
    assert lost(result) == [((), 3, None, None)]
    assert (result.is_newest, result.is_verified) == (False, True)


@pytest.mark.parametrize(("page", "kept"), [(0, b"old"), (1, b"new")])
def test_one_meta_page_is_enough(page: int, kept: bytes) -> None:
    data = two_states()
    data[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)
    result = salvaged(bytes(data))
    assert tree(result.data) == {kept: b""}
    assert result.losses == []
    assert "magic" in result.other_meta


@pytest.mark.parametrize("page_size", [1024, 4096, 65536])
def test_two_damaged_meta_pages_are_tried_all_the_same(page_size: int) -> None:
    content: BucketDict = {b"k%04d" % n: b"v" * 90 for n in range(3000)}
    data = bytearray(file_of({b"b": content}, page_size))
    for meta in (0, page_size):
        data[meta + 16 : meta + 28] = bytes(12)  # magic, version, page size
    result = salvaged(bytes(data))
    assert tree(result.data) == {b"b": content}
    assert lost(result) == [((), 0, None, None)]
    assert not result.is_verified


@pytest.mark.parametrize("data", [b"", b"x", bytes(4096), b"\xa5" * 100_000, bytes(1 << 20)])
def test_nothing_can_be_read_of_what_is_no_database(data: bytes) -> None:
    with pytest.raises(CorruptDatabaseError):
        Damaged(data)


def test_root_beyond_a_cut_is_an_error_that_names_it() -> None:
    data = file({9: leaf(9, A), 2: leaf(2, A)}, root=9)
    with pytest.raises(CorruptDatabaseError, match="page 9: truncated"):
        Damaged(data[: 5 * PAGE])


def test_file_that_is_cut_keeps_what_is_before() -> None:
    data = file(SOUND)
    result = salvaged(data[: 5 * PAGE])
    assert tree(result.data) == {b"b": {b"a": b"1"}, b"z": b""}
    assert lost(result) == [((b"b",), 5, b"b", b"c"), ((b"b",), 6, b"c", None)]
    assert all(loss[4].startswith("truncated") for loss in result.losses)


# --- Hostile files


def test_pages_that_overlap_do_not_multiply() -> None:
    """Each of 500 leaves claims all pages behind it for values of its own."""
    count = 500
    pages = {
        3 + n: leaf(3 + n, [(b"k%d" % i, b"") for i in range(20)], overflow=count - n)[:336].ljust(PAGE, b"k")
        for n in range(count)
    }
    for n, page in pages.items():
        for i in range(20):
            page = changed(page, 16 + 16 * i + 12, "<I", 1000 * (3 + count - n) // 2)
        pages[n] = page
    result = salvaged(file({2: leaf(2, [row(b"%05d" % n, n) for n in pages][:20]), **pages}))
    assert len(result.data) < 2 * count * PAGE


def test_tables_that_overlap_are_given_up() -> None:
    """All pages have the table of elements that the rest of the file is."""
    count = 2000
    page = struct.pack("<QHHI", 0, 2, 0xFFFF, count) + struct.pack("<IIII", 0, 16, 1, 0) * (PAGE // 16 - 1)
    pages = {n: changed(page, 0, "<Q", n) for n in range(30, 30 + count)}
    top = leaf(2, [row(b"%05d" % n, n) for n in pages], overflow=28)
    result = salvaged(file({2: top.ljust(28 * PAGE + PAGE, b"\0")[: 28 * PAGE], **pages}))
    assert result.buckets <= count


def test_interrupt_ends_a_salvage() -> None:
    class StoppedError(Exception):
        pass

    def sink(block: memoryview) -> None:
        raise StoppedError

    damaged = Damaged(file_of({b"k%06d" % n: b"v" * 200 for n in range(30_000)}))
    with pytest.raises(StoppedError):
        damaged.salvage(Builder(sink, 4096), 10)


def test_losses_beyond_the_limit_are_counted() -> None:
    data = file({2: leaf(2, [row(b"%02d" % n, 99) for n in range(40)], overflow=1)})
    damaged = Damaged(data)
    buckets, _, losses, count, _ = damaged.salvage(Builder(bytearray().extend, PAGE), 7)
    assert (buckets, len(losses), count) == (40, 7, 40)


@pytest.mark.real
@pytest.mark.parametrize("name", PAGES)
def test_go_accepts_what_is_left(name: str, judge: Judge, tmp_path: Path) -> None:
    pages, _, _ = PAGES[name]
    path = tmp_path / "db"
    path.write_bytes(salvaged(file({**SOUND, **pages})).data)
    assert judge.check(path) == []
    assert judge.update(path, 1, 20) == []


def test_result_is_sound() -> None:
    for pages, _, _ in PAGES.values():
        assert check(Reader(salvaged(file({**SOUND, **pages})).data)) == []
