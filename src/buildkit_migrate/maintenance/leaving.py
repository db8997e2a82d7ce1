"""What a root gets rid of by itself: no record names it, and the next start and collection remove it.

What is wrong with such data is no fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from buildkit_migrate.maintenance.collection import Collection, Objects
from buildkit_migrate.maintenance.record_data import RecordData, referred
from buildkit_migrate.schema.columns import Mask
from buildkit_migrate.schema.containerd import Namespace

__all__ = ["Leaving"]


class Leaving:
    """Of one worker, whose ``data`` is known."""

    def __init__(
        self, data: RecordData, namespaces: Sequence[Namespace], snapshotter: bytes, passing: Mask, now: int
    ) -> None:
        """``namespaces``: that of the worker, then that of its builds. ``passing``: leases of the worker
        that go by themselves. ``now``: nanoseconds since 1970.
        """
        self._data = data
        self._namespaces = namespaces
        self._snapshotter = snapshotter
        self._passing = passing
        self._now = now

    @cached_property
    def snapshots(self) -> Mask:
        """Rows of containerd's table."""
        size = len(self._namespaces[0].snapshots(self._snapshotter))
        kept = self._kept[0].snapshots.get(self._snapshotter, Mask(size))
        # Without any record it can't be told what belongs to one.
        return ~kept - referred(self._data.snapshot, size) if len(self._data.records) else Mask(size)

    def has_blob(self, digest: bytes) -> bool:
        """Whether a blob is one of them."""
        if not len(self._data.records) or digest in self._named:
            return False
        spaces = zip(self._kept, self._namespaces, strict=True)
        return not any(space.blobs.index.row(digest) in kept.blobs for kept, space in spaces)

    @cached_property
    def _named(self) -> frozenset[bytes | None]:
        return frozenset(self._data.digests)

    @cached_property
    def _kept(self) -> list[Objects]:
        """Of each namespace what stays."""
        return [
            Collection(space, self._now).kept(None if place else self._passing)
            for place, space in enumerate(self._namespaces)
        ]
