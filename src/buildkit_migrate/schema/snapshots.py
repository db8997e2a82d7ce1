"""The snapshotter's own database (spec containerd-metadata-db, section 4)."""

from __future__ import annotations

from array import array
from functools import cached_property
from typing import Final

from buildkit_migrate.bolt import Bucket, scan
from buildkit_migrate.schema.columns import Index, Integers, Mask, Texts
from buildkit_migrate.schema.tables import Times, integers, read_times
from buildkit_migrate.values.numbers import unsigned

__all__ = ["ACTIVE", "COMMITTED", "UNKNOWN", "VIEW", "Backend", "ParentLinks"]

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
        self.names: Texts = []
        columns: list[Texts] = [[] for _ in _PATHS]
        self.sequence = 0
        if bucket is not None:
            self.names, found = scan(bucket, [(path,) for path in _PATHS])
            columns = list(found)
            self.sequence = bucket.sequence
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
        """UNKNOWN where it is none of the others; type code "b"."""
        return array(
            "b", (stored[0] if stored and len(stored) == 1 and stored[0] <= 3 else 0 for stored in self._kind)
        )

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
        self.parent = array("q")
        self.child = array("q")
        names: list[bytes] = []
        broken = []
        for key, name in bucket.items() if bucket is not None else ():
            ids = _ids(key)
            if ids is None:
                broken.append(len(names))
            parent, child = ids or (0, 0)
            self.parent.append(parent)
            self.child.append(child)
            names.append(name if isinstance(name, bytes) else b"")
        self.names: Texts = names
        self.broken = Mask(len(names), broken)

    def __len__(self) -> int:
        return len(self.names)


def _ids(key: bytes) -> tuple[int, int] | None:
    """Parent and child of a key: two numbers with a zero byte between them."""
    end = next((at for at, byte in enumerate(key) if byte < 0x80), len(key)) + 1
    parent, child = unsigned(key[:end]), unsigned(key[end + 1 :])
    if parent is None or child is None or key[end : end + 1] != b"\0":
        return None
    return (parent, child) if max(parent, child) < 1 << 63 else None
