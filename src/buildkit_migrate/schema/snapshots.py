"""The snapshotter's own database (spec containerd-metadata-db, section 4)."""

from __future__ import annotations

from functools import cached_property
from typing import Final

from buildkit_migrate._native.bolt import items
from buildkit_migrate._native.numbers import counters, links, small
from buildkit_migrate.bolt import Bucket
from buildkit_migrate.schema.columns import Index, Integers, Texts, column
from buildkit_migrate.schema.tables import integers, read_table, read_times

__all__ = ["ACTIVE", "COMMITTED", "UNKNOWN", "VIEW", "Backend", "ParentLinks", "counters"]

UNKNOWN, VIEW, ACTIVE, COMMITTED = range(4)
"""Kinds of snapshots, as they are stored."""

_PATHS: Final = (b"id", b"kind", b"parent", b"createdat", b"updatedat")


class Backend:
    """``names``: the snapshotter's, ``<namespace>/<number>/<key>``, in byte order. ``parent``: name of the
    parent, None if there is none. ``sequence``: the last id that was given out. ``id``: number of the
    directory. ``kind``: UNKNOWN if it is none of the others; type code "b". ``size``: bytes, of committed
    ones. ``broken_times``: snapshots with a time that can't be read.
    """

    def __init__(self, root: Bucket) -> None:
        self._root = root
        bucket = root.bucket(b"v1", b"snapshots")
        self.sequence = bucket.sequence if bucket is not None else 0
        self.names, columns, _ = read_table(bucket, [(path,) for path in _PATHS], ())
        id, kind, self.parent, created, updated = columns
        # Numbers take less memory than where they are.
        self.id = integers(id, signed=False)
        self.kind = small(kind, COMMITTED)
        self.broken_times = read_times(created).broken | read_times(updated).broken

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def index(self) -> Index:
        """Finds snapshots by name."""
        return Index(self.names)

    # Not all rules ask for these.

    @cached_property
    def size(self) -> Integers:
        return self._integers(b"size")

    @cached_property
    def inodes(self) -> Integers:
        return self._integers(b"inodes")

    def _integers(self, key: bytes) -> Integers:
        return integers(read_table(self._root.bucket(b"v1", b"snapshots"), [(key,)], ())[1][0])

    @property
    def links(self) -> ParentLinks:
        """Read anew each time."""
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
