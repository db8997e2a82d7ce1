"""A bbolt reader in a few lines of plain Python: an independent judge of the native one.

It trusts the file (spec bbolt-format, sections 3 to 6): no checks of checksums, bounds or order, and all in
memory at once. Use it on files that are known to be good.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

BucketDict = dict[bytes, "bytes | BucketDict"]
"""Key to value, or to the nested bucket."""

_PAGE_HEADER = struct.Struct("<QHHI")
_META = struct.Struct("<IIIIQQQQQQ")
_LEAF_ELEMENT = struct.Struct("<IIII")
_BRANCH_ELEMENT = struct.Struct("<IIQ")
_BUCKET_HEADER = struct.Struct("<QQ")
_BRANCH, _LEAF = 1, 2
_IS_BUCKET = 1


def load(data: bytes) -> BucketDict:
    """All buckets and keys of a database file with two good meta pages; sequences are left out."""
    page_size = struct.unpack_from("<I", data, 24)[0]
    metas = [_META.unpack_from(data, at + _PAGE_HEADER.size) for at in (0, page_size)]
    newest = max(metas, key=lambda meta: meta[8])
    return _bucket(data, page_size, newest[4])


def _bucket(data: bytes, page_size: int, root: int) -> BucketDict:
    tree: BucketDict = {}
    for flags, key, value in _elements(data, root * page_size, page_size):
        if not flags & _IS_BUCKET:
            tree[key] = value
            continue
        child, _sequence = _BUCKET_HEADER.unpack_from(value)
        if child:
            tree[key] = _bucket(data, page_size, child)
        else:
            inline = value[_BUCKET_HEADER.size :]
            tree[key] = {k: v for _, k, v in _elements(inline, 0, page_size)}
    return tree


def _elements(data: bytes, page: int, page_size: int) -> Iterator[tuple[int, bytes, bytes]]:
    """(flags, key, value) of each leaf element below the page that begins at byte ``page``."""
    _id, kind, count, _overflow = _PAGE_HEADER.unpack_from(data, page)
    for number in range(count):
        element = page + _PAGE_HEADER.size + 16 * number
        if kind == _BRANCH:
            _pos, _key_size, child = _BRANCH_ELEMENT.unpack_from(data, element)
            yield from _elements(data, child * page_size, page_size)
        else:
            assert kind == _LEAF
            flags, pos, key_size, value_size = _LEAF_ELEMENT.unpack_from(data, element)
            key, end = element + pos, element + pos + key_size
            yield flags, data[key:end], data[end : end + value_size]
