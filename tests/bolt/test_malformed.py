"""Every class of malformed file gives an error that names page and rule (spec bbolt-format, section 14)."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buildkit_migrate._native.bolt import Reader, check, scan
from buildkit_migrate._native.building import rewrite
from buildkit_migrate.errors import CorruptDatabaseError
from dicts import Image, file_of, tree_of

PAGE = 4096
ROWS = {b"key%04d" % i: b"v" * 30 for i in range(300)}


def meta_checksum(page: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in page[16:72]:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def with_meta(data: bytearray, offset: int, form: str, value: int) -> None:
    """Sets a field of both meta pages and signs them again."""
    for page in (0, PAGE):
        struct.pack_into(form, data, page + offset, value)
        struct.pack_into("<Q", data, page + 72, meta_checksum(bytes(data[page : page + 80])))


def root_page(data: bytes) -> int:
    return struct.unpack_from("<Q", data, 32)[0] * PAGE


def first_leaf(data: bytes) -> int:
    at = root_page(data)
    while struct.unpack_from("<H", data, at + 8)[0] == 1:
        at = struct.unpack_from("<Q", data, at + 16 + 8)[0] * PAGE
    return at


def put(form: str, where: Callable[[bytes], int], offset: int, value: int) -> Callable[[bytearray], None]:
    def damage(data: bytearray) -> None:
        struct.pack_into(form, data, where(data) + offset, value)

    return damage


def meta(offset: int, form: str, value: int) -> Callable[[bytearray], None]:
    return lambda data: with_meta(data, offset, form, value)


def metas(offset: int, form: str, value: int) -> Callable[[bytearray], None]:
    def damage(data: bytearray) -> None:
        for page in (0, PAGE):
            struct.pack_into(form, data, page + offset, value)

    return damage


def cut(size: int) -> Callable[[bytearray], None]:
    return lambda data: data.__delitem__(slice(size, None))


OPENING = {
    "too short": (cut(2000), "too short"),
    "bad magic": (metas(16, "<I", 1), "magic"),
    "foreign byte order": (metas(16, ">I", 0xED0CDAED), "big-endian"),
    "bad version": (metas(20, "<I", 3), "version"),
    "bad checksum": (metas(72, "<Q", 1), "checksum"),
    "page size no power of two": (meta(24, "<I", 5000), "page size"),
    "page size too small": (meta(24, "<I", 512), "page size"),
    "root below the data pages": (meta(32, "<Q", 1), "root"),
    "root beyond the end": (meta(32, "<Q", 10**9), "root"),
    "free list beyond the end": (meta(48, "<Q", 10**9), "free list"),
    "high-water mark too low": (meta(56, "<Q", 2), "high-water"),
    "high-water mark beyond the file": (meta(56, "<Q", 10**6), "truncated"),
    "high-water mark that overflows": (meta(56, "<Q", 2**63), "truncated"),
    "file cut at a page": (lambda data: data.__delitem__(slice(len(data) - PAGE, None)), "truncated"),
}

WALKING = {
    "page id": (put("<Q", first_leaf, 0, 77), "another page"),
    "page flags": (put("<H", first_leaf, 8, 4), "type of page"),
    "mixed flags": (put("<H", first_leaf, 8, 3), "type of page"),
    "overflow beyond the end": (put("<I", first_leaf, 12, 2**32 - 1), "beyond"),
    "elements out of page": (put("<H", first_leaf, 10, 60000), "element table"),
    "position into the table": (put("<I", first_leaf, 16 + 4, 1), "outside"),
    "position out of page": (put("<I", first_leaf, 16 + 4, 2**32 - 1), "outside"),
    "empty key": (put("<I", first_leaf, 16 + 8, 0), "empty key"),
    "key too long": (put("<I", first_leaf, 16 + 8, 32769), "32768"),
    "value out of page": (put("<I", first_leaf, 16 + 12, 2**31 - 2), "outside"),
    "value too long": (put("<I", first_leaf, 16 + 12, 2**31), "value longer"),
    "element flags": (put("<I", first_leaf, 16, 2), "element flags"),
    "short bucket value": (
        lambda data: (put("<I", first_leaf, 16, 1)(data), put("<I", first_leaf, 16 + 12, 8)(data)),
        "bucket header",
    ),
    "branch without children": (put("<H", root_page, 10, 0), "without children"),
    "child is a meta page": (put("<Q", root_page, 16 + 8, 1), "number of a child"),
    "child is the page itself": (
        lambda data: put("<Q", root_page, 16 + 8, root_page(data) // PAGE)(data),
        "number of a child",
    ),
    "child beyond the end": (put("<Q", root_page, 16 + 8, 2**60), "beyond"),
    "page shared by two branches": (
        lambda data: put("<Q", root_page, 32 + 8, first_leaf(data) // PAGE)(data),
        "reached twice|order",
    ),
    "child below its branch key": (
        lambda data: put("<B", first_leaf, first_key(data), 0)(data),
        "order",
    ),
}


def first_key(data: bytes) -> int:
    leaf = first_leaf(data)
    return 16 + struct.unpack_from("<I", data, leaf + 16 + 4)[0]


def broken(damage: Callable[[bytearray], object]) -> bytes:
    data = bytearray(file_of(ROWS))
    damage(data)
    return bytes(data)


@pytest.mark.parametrize("name", OPENING)
def test_open_refuses_malformed_meta_pages(name: str) -> None:
    damage, text = OPENING[name]
    with pytest.raises(CorruptDatabaseError, match=text) as caught:
        Reader(broken(damage), "some.db")
    assert caught.value.path == "some.db"
    assert "some.db" in str(caught.value)


@pytest.mark.parametrize("name", WALKING)
def test_walk_refuses_malformed_pages(name: str) -> None:
    damage, text = WALKING[name]
    reader = Reader(broken(damage), "some.db")
    with pytest.raises(CorruptDatabaseError, match=text):
        rewrite(reader.root, Image().builder, [])
    assert check(Reader(broken(damage)))


def test_keys_out_of_order_are_refused() -> None:
    def swap(data: bytearray) -> None:
        at = first_leaf(data) + first_key(data)
        data[at : at + 7], data[at + 37 : at + 44] = data[at + 37 : at + 44], data[at : at + 7]

    with pytest.raises(CorruptDatabaseError, match="order"):
        tree_of(Reader(broken(swap)).root)


@pytest.mark.parametrize("page", [0, 1])
def test_one_bad_meta_page_is_tolerated(page: int) -> None:
    data = bytearray(file_of(ROWS))
    data[page * PAGE + 72] ^= 1
    reader = Reader(bytes(data))
    assert "checksum" in reader.other_meta
    assert tree_of(reader.root) == ROWS


def test_newer_meta_page_counts() -> None:
    data = bytearray(file_of(ROWS))
    struct.pack_into("<Q", data, PAGE + 64, 9)
    struct.pack_into("<Q", data, PAGE + 72, meta_checksum(bytes(data[PAGE : PAGE + 80])))
    assert Reader(bytes(data)).transaction == 9


def test_meta_pages_with_different_page_sizes_are_refused() -> None:
    data = bytearray(file_of(ROWS))
    struct.pack_into("<I", data, PAGE + 24, 8192)
    struct.pack_into("<Q", data, PAGE + 72, meta_checksum(bytes(data[PAGE : PAGE + 80])))
    with pytest.raises(CorruptDatabaseError, match="different page sizes"):
        Reader(bytes(data))


def test_check_finds_what_bbolt_misses() -> None:
    data = bytearray(file_of({b"k%05d" % i: b"v" * 30 for i in range(300)}))
    root = root_page(data)
    key = root + 16 + struct.unpack_from("<I", data, root + 16)[0]
    count = struct.unpack_from("<H", data, root + 10)[0]
    shortened = bytearray(data)
    struct.pack_into("<I", shortened, root + 16 + 16 + 4, 5)
    assert any("branch key differs" in text for _, text in check(Reader(bytes(shortened))))
    single = bytearray(data)
    struct.pack_into("<H", single, root + 10, 1)
    struct.pack_into("<I", single, root + 16, key - root - 16)
    texts = [text for _, text in check(Reader(bytes(single)))]
    assert "branch page with a single child" in texts
    assert texts.count("neither in use nor free") == count - 1


def test_check_finds_a_free_list_that_names_live_pages() -> None:
    data = bytearray(file_of(ROWS))
    freelist = struct.unpack_from("<Q", data, 48)[0] * PAGE
    struct.pack_into("<HI", data, freelist + 10, 1, 0)
    struct.pack_into("<Q", data, freelist + 16, 2)
    assert (2, "in use and named by the free list") in check(Reader(bytes(data)))
    struct.pack_into("<H", data, freelist + 10, 0xFFFF)
    struct.pack_into("<Q", data, freelist + 16, 2**62)
    assert any("free list runs out" in text for _, text in check(Reader(bytes(data))))


@settings(max_examples=400)
@given(st.data())
def test_no_damage_crashes_or_hangs(data: st.DataObject) -> None:
    """Changes bytes anywhere; reading works or raises CorruptDatabaseError."""
    image = bytearray(file_of({b"a": dict(list(ROWS.items())[:150]), b"b": {b"x": b"y"}, b"c": b"d" * 5000}))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(2 * PAGE, len(image) - 1) | st.integers(2 * PAGE, 2 * PAGE + 200))
        image[at] = data.draw(st.integers(0, 255))
    reader = Reader(bytes(image))
    check(reader)
    for walk in (
        lambda: tree_of(reader.root),
        lambda: rewrite(reader.root, Image().builder, []),
        lambda: scan(reader.root, [(b"key0001",)]),
    ):
        try:
            walk()
        except CorruptDatabaseError as error:
            assert error.rule
