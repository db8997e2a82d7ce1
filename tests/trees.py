"""Database files in memory from trees of dicts, and back, by way of the native builder and rewrite."""

from __future__ import annotations

from collections.abc import Iterable

import plain_bbolt
from buildkit_migrate._native.bolt import Builder, Reader, rewrite
from plain_bbolt import Tree

__all__ = ["edited", "file_of"]


class _File:
    """A file that a builder writes to."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.builder = Builder(self._write)

    def _write(self, block: memoryview) -> None:
        self.data += block

    def finished(self) -> bytes:
        metas = self.builder.finish()
        return metas + bytes(self.data[len(metas) :])


def file_of(tree: Tree) -> bytes:
    """A database file with this content."""
    file = _File()
    _put(file.builder, tree)
    return file.finished()


def _put(builder: Builder, tree: Tree) -> None:
    for key, value in sorted(tree.items()):
        if isinstance(value, dict):
            builder.open_bucket(key)
            _put(builder, value)
            builder.close_bucket()
        else:
            builder.put(key, value)


def edited(reader: Reader, edits: Iterable[bytes]) -> Tree:
    """Content of the file after these edits of its root bucket."""
    file = _File()
    rewrite(reader.root, file.builder, edits)
    return plain_bbolt.load(file.finished())
