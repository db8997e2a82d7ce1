"""bbolt files put together page by page, sound or not (spec bbolt-format, sections 2 to 7)."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

PAGE = 1024
BRANCH, LEAF, META, FREELIST = 1, 2, 4, 16
NO_FREELIST = 2**64 - 1

Item = tuple[bytes, bytes] | tuple[bytes, bytes, int]
"""Key, value, element flags."""


def checksum(page: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in page[16:72]:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def sign(data: bytearray, page_size: int) -> None:
    """Corrects the checksums of both meta pages."""
    for page in (0, page_size):
        struct.pack_into("<Q", data, page + 72, checksum(bytes(data[page : page + 80])))


def header(id: int, flags: int, count: int, overflow: int = 0) -> bytes:
    return struct.pack("<QHHI", id, flags, count, overflow)


def leaf(id: int, items: Sequence[Item], *, flags: int = LEAF, overflow: int = 0) -> bytes:
    table, data = b"", b""
    for number, (key, value, *kind) in enumerate(items):
        position = 16 * (len(items) - number) + len(data)
        table += struct.pack("<IIII", kind[0] if kind else 0, position, len(key), len(value))
        data += key + value
    return header(id, flags, len(items), overflow) + table + data


def branch(id: int, children: Sequence[tuple[bytes, int]]) -> bytes:
    table, data = b"", b""
    for number, (key, child) in enumerate(children):
        table += struct.pack("<IIQ", 16 * (len(children) - number) + len(data), len(key), child)
        data += key
    return header(id, BRANCH, len(children)) + table + data


def freelist(id: int, ids: Sequence[int], *, count: int | None = None, flags: int = FREELIST) -> bytes:
    return header(id, flags, len(ids) if count is None else count) + struct.pack(f"<{len(ids)}Q", *ids)


def bucket(root: int) -> bytes:
    return struct.pack("<QQ", root, 0)


def inline(items: Sequence[Item]) -> bytes:
    return bucket(0) + leaf(0, items)


def row(name: bytes, root: int) -> Item:
    """An element that is a bucket."""
    return name, bucket(root), 1


def file(
    pages: Mapping[int, bytes], *, root: int = 2, page_size: int = PAGE, free: int = NO_FREELIST
) -> bytes:
    """A file of these pages and two good meta pages. A long page covers the next page numbers."""
    used = max(id + -(-len(page) // page_size) for id, page in pages.items())
    used = max(used, 3)
    data = bytearray(used * page_size)
    for id in (0, 1):
        fields = (0xED0CDAED, 2, page_size, 0, root, 0, free, used, 2 - id)
        struct.pack_into("<QHHI4I5Q", data, id * page_size, id, META, 0, 0, *fields)
    for id, page in sorted(pages.items()):
        data[id * page_size : id * page_size + len(page)] = page
    sign(data, page_size)
    return bytes(data)
