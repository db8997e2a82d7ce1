"""Where the data of each record is: its snapshot, in containerd and for the snapshotter, and its blob."""

from __future__ import annotations

from array import array
from functools import cached_property
from typing import Final

from buildkit_migrate.maintenance.loading import BASE, LAYER, Loading
from buildkit_migrate.schema.columns import (
    ABSENT,
    NOT_FOUND,
    Index,
    Mask,
    Texts,
    between,
    count_rows,
    equal,
    equal_to,
    gather,
    present,
    same,
    take,
)
from buildkit_migrate.schema.containerd import Snapshots
from buildkit_migrate.schema.snapshots import COMMITTED, Backend

__all__ = ["RecordData", "key_in", "referred", "there"]

_MOST: Final = 2**31 - 1


def there(rows: array[int]) -> Mask:
    """Rows that refer to a row that exists."""
    return between(rows, 0, _MOST)


def referred(rows: array[int], size: int) -> Mask:
    """Which of ``size`` rows of another table these refer to."""
    return between(count_rows(rows, size), 1, _MOST)


def key_in(name: bytes) -> bytes:
    """The key in a snapshotter's name of a snapshot, ``<namespace>/<number>/<key>``."""
    return name.split(b"/", 2)[-1]


class RecordData:
    """Columns over the records, but for those that are dropped at the next start: nothing is said of them.

    ``snapshots`` and ``backend``: None where they are not known; then nothing is known of snapshots.
    ``stat``: rows of ``snapshots`` in ``backend``.
    """

    def __init__(
        self,
        loading: Loading,
        blobs: Index,
        snapshots: Snapshots | None,
        backend: Backend | None,
        stat: array[int] | None,
    ) -> None:
        records = loading.records
        self.loading = loading
        self.records = records
        digests = records.text(b"cache.blob")
        self.blob = blobs.rows(digests)
        for row in equal_to(digests, b""):
            self.blob[row] = ABSENT
        """Rows of the records' blobs; ABSENT also for ""."""
        self.snapshot = loading.snapshot
        """Rows of containerd's snapshots."""
        self.blob_only = records.flag(b"cache.blobonly")
        kinds = loading.kind
        self.layered = between(kinds, BASE, LAYER)
        """Records that are neither merges nor diffs."""
        self.shared = there(loading.target)
        """Immutable records whose data is that of a mutable one."""
        self.owners = loading.alive - self.shared
        """Records with data of their own."""
        self.immutable = (records.flag(b"snapshot.committed") | ~self.layered) & self.owners
        self._stat = stat if snapshots is not None and backend is not None else None
        self._backend = backend

    @cached_property
    def digests(self) -> Texts:
        """Of the records' blobs, whether those exist or not."""
        return self.records.text(b"cache.blob")

    @cached_property
    def keys(self) -> Texts:
        """Keys of the records' snapshots, whether those exist or not."""
        named = self.records.text(b"cache.snapshot")
        own = ~present(named) | equal_to(named, b"")
        if not own:
            return named
        return [
            id if row in own else key
            for row, (id, key) in enumerate(zip(self.records.ids, named, strict=True))
        ]

    @cached_property
    def stat(self) -> array[int]:
        """Rows of the snapshotter's snapshots; negative where there is none."""
        if self._stat is None:
            return array("i", [ABSENT]) * len(self.records)
        return gather(self._stat, self.snapshot)

    @cached_property
    def uncommitted(self) -> Mask:
        """Immutable records whose snapshot is not a committed one."""
        if self._backend is None:
            return Mask(len(self.records))
        committed = between(self._backend.kind, COMMITTED, COMMITTED)
        return (self.immutable & there(self.stat)) - committed.take(self.stat)

    @cached_property
    def lost(self) -> Mask:
        """Layers whose snapshot is gone, and that no daemon extracts again."""
        gone = between(self.snapshot, NOT_FOUND, NOT_FOUND)
        return (self.immutable & self.layered & gone) - self.blob_only

    @cached_property
    def parent_keys(self) -> Texts:
        """For each layer, the snapshot of its parent."""
        return take(self.keys, self.loading.parent)

    def misplaced(self, snapshots: Snapshots) -> Mask:
        """Layers whose snapshot stands on another one, for containerd, than that of their parent.

        One with the parent's chain, of another record or of a pulled layer, is as good as the parent's own.
        """
        parent = self.loading.parent
        placed = self.owners & there(parent) & there(self.snapshot) - self.shared.take(parent)
        is_at = gather(snapshots.parent_rows, self.snapshot)
        found = placed - (there(is_at) & same(is_at, gather(self.snapshot, parent)))
        if found:  # where a parent does not exist, keys can be equal all the same
            found -= equal(take(snapshots.parent, self.snapshot), self.parent_keys)
        chains = self.records.text(b"cache.chainID") if found else []
        for row in found:
            chain = chains[parent[row]]
            key = snapshots.parent[self.snapshot[row]]
            alike = equal_to(chains, chain) if chain else Mask(len(self.records))
            if (chain and key == chain) or any(self.keys[other] == key for other in alike):
                found -= Mask(len(self.records), [row])
        return found

    def users(self, snapshot_rows: Mask) -> list[int]:
        """Records with one of these snapshots, including dropped records."""
        return list(snapshot_rows.take(self.snapshot) - self.shared)

    @cached_property
    def unknown_size(self) -> Mask:
        """Records whose snapshot `du` has to measure."""
        size = self.records.integer(b"snapshot.size")
        known = between(size.values, 0, 2**63 - 1) & size.known
        return self.owners - known - self.blob_only

    @cached_property
    def missing_keys(self) -> frozenset[bytes]:
        """Keys of snapshots that containerd lacks and whose records are reported (C14, C23)."""
        gone = between(self.snapshot, NOT_FOUND, NOT_FOUND)
        unfinished = self.layered - self.records.flag(b"snapshot.committed")
        return frozenset(self.keys[row] or b"" for row in (gone & unfinished) | self.lost)
