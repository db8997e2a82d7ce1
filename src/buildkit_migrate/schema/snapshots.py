"""The snapshotter's own database (spec containerd-metadata-db, section 4)."""

from __future__ import annotations

from array import array
from functools import cached_property
from typing import Final

from buildkit_migrate._native.bolt import items
from buildkit_migrate._native.numbers import counters, links, small
from buildkit_migrate.bolt import Bucket
from buildkit_migrate.schema.columns import Index, Integers, Texts, column
from buildkit_migrate.schema.tables import Times, integers, read_table, read_times

__all__ = ["ACTIVE", "COMMITTED", "UNKNOWN", "VIEW", "Backend", "ParentLinks", "counters"]

UNKNOWN, VIEW, ACTIVE, COMMITTED = range(4)
"""Kinds of snapshots, as they are stored."""

_PATHS: Final = (b"id", b"kind", b"parent", b"size", b"inodes", b"createdat", b"updatedat")


class Backend:
    """``names``: the snapshotter's, ``<namespace>/<number>/<key>``, in byte order. ``parent``: name of the
    parent, None if there is none. ``sequence``: the last id that was given out.
    """

    def __init__(self, root: Bucket) -> None:
        self._root = root
        bucket = root.bucket(b"v1", b"snapshots")
        self.sequence = bucket.sequence if bucket is not None else 0
        self.names, columns, _ = read_table(bucket, [(path,) for path in _PATHS], ())
        self._id, self._kind, self.parent, self._size, self._inodes, self._created, self._updated = columns

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def index(self) -> Index:
        """Finds snapshots by name."""
        return Index(self.names)

    @cached_property
    def id(self) -> Integers:
        """Number of the directory."""
        return integers(self._id, signed=False)

    @cached_property
    def kind(self) -> array[int]:
        """Kind of each snapshot, UNKNOWN if it is none of the others; type code "b"."""
        return small(self._kind, COMMITTED)

    @cached_property
    def size(self) -> Integers:
        """Bytes, of committed ones."""
        return integers(self._size)

    @cached_property
    def inodes(self) -> Integers:
        return integers(self._inodes)

    @cached_property
    def created(self) -> Times:
        return read_times(self._created)

    @cached_property
    def updated(self) -> Times:
        return read_times(self._updated)

    @cached_property
    def links(self) -> ParentLinks:
        return ParentLinks(self._root.bucket(b"v1", b"parents"))


class ParentLinks:
    """The keys of ``parents/``: ids of parent and child, 0 where ``broken``. ``names``: of the children."""

    def __init__(self, bucket: Bucket | None) -> None:
        keys: Texts = column(())
        self.names: Texts = column(())
        if bucket is not None:
            keys, self.names = items(bucket)
        self.parent, self.child, self.broken = links(keys)

    def __len__(self) -> int:
        return len(self.names)
