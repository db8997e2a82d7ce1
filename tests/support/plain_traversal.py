"""What a plain traversal of a damaged bbolt file reaches: an independent judge of salvage.

It follows references from a root page. A page counts if it has the number of its place and is a leaf or a
branch, and an element if it lies in the pages that the file has. Neither separators nor order are looked at,
and no page is followed twice.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

BRANCH, LEAF = 1, 2

Path = tuple[bytes, ...]


@dataclass
class Traversal:
    """Everything below ``root``: ``keys`` maps the path of each bucket to its keys in the order of the walk.

    ``sequences``: of the buckets whose header can be read. ``unread``: the pages that could not be read.
    """

    data: bytes
    page_size: int
    root: int
    keys: dict[Path, list[tuple[bytes, bytes]]] = field(default_factory=dict)
    sequences: dict[Path, int] = field(default_factory=dict)
    unread: set[int] = field(default_factory=set)
    visited: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._walk((), self.root)

    def _walk(self, path: Path, page: int) -> None:
        self.keys.setdefault(path, [])
        start = page * self.page_size
        if page in self.visited or page < 2 or start + self.page_size > len(self.data):
            self.unread.add(page)
            return
        id, kind, _count, overflow = struct.unpack_from("<QHHI", self.data, start)
        if id != page or kind not in (BRANCH, LEAF):
            self.unread.add(page)
            return
        self.visited.add(page)
        run = self.data[start : start + (overflow + 1) * self.page_size]
        if kind == LEAF:
            self._read_leaf(path, run)
            return
        for index in range(_count_of(run)):
            _position, _size, child = struct.unpack_from("<IIQ", run, 16 + 16 * index)
            self._walk(path, child)

    def _read_leaf(self, path: Path, run: bytes) -> None:
        for flags, key, value in _elements(run):
            if flags == 0:
                self.keys[path].append((key, value))
            elif len(value) >= 16:
                self._read_bucket((*path, key), value)

    def _read_bucket(self, path: Path, value: bytes) -> None:
        root, sequence = struct.unpack_from("<QQ", value)
        if root and len(value) == 16:
            self.sequences[path] = sequence
            self._walk(path, root)
        elif root == 0 and len(value) >= 32 and value[16:26] == struct.pack("<QH", 0, LEAF):
            self.sequences[path] = sequence
            self.keys.setdefault(path, []).extend(
                (key, inner) for flags, key, inner in _elements(value[16:]) if flags == 0
            )


def _count_of(run: bytes) -> int:
    return min(struct.unpack_from("<H", run, 10)[0], (len(run) - 16) // 16)


def _elements(run: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(flags, key, value) of the elements that lie within the run."""
    for index in range(_count_of(run)):
        flags, position, key_size, value_size = struct.unpack_from("<IIII", run, 16 + 16 * index)
        key = 16 + 16 * index + position
        end = key + key_size
        if flags <= 1 and 0 < key_size <= 32768 and end + value_size <= len(run):
            yield flags, run[key:end], run[end : end + value_size]
