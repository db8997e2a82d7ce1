"""Sizes of records as a daemon's du gives them (spec buildkit-v2-stores, section 9).

What the daemon has measured once is in the record. Only for the others snapshots are looked at, directories
walked, and the blobs counted that belong to the record.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from buildkit_migrate.errors import StorageError
from buildkit_migrate.maintenance.disk import usage
from buildkit_migrate.maintenance.facts import WorkerFacts
from buildkit_migrate.maintenance.loading import Loading
from buildkit_migrate.progress import Progress, counting
from buildkit_migrate.schema.columns import ABSENT, NOT_FOUND, Mask, between, equal_to, present
from buildkit_migrate.schema.containerd import VARIANT
from buildkit_migrate.schema.snapshots import ACTIVE
from buildkit_migrate.workspace.stores import DOCKER_BUILDER

__all__ = ["UNKNOWN_SIZE", "Sizes", "Unsized", "snapshot_directory"]

UNKNOWN_SIZE: Final = -1

_MERGE_USAGE: Final = b"buildkit.mergeUsageSize"
_MEDIA_TYPE: Final = b"buildkit.io/blob/mediatype"
_OF_THE_HOST: Final = frozenset({b"zfs", b"btrfs", b"devmapper", b"erofs", b"blockfile"})
"""Snapshotters without directories of files below ``snapshots/``."""


@dataclass(frozen=True)
class Unsized:
    """A record whose size can't be told in full. ``row``: its row. ``reason``: for people.

    ``fails``: a daemon's du fails as a whole for it; else we can't tell, and it could.
    """

    row: int
    reason: str
    fails: bool


def snapshot_directory(worker: WorkerFacts, number: int) -> Path | None:
    """Where the files of a snapshot are; None if unknown or not in a directory."""
    directories = worker.stores.directories
    if directories is None or worker.stores.snapshotter in _OF_THE_HOST:
        return None
    own = directories / str(number)
    return own if worker.stores.snapshotter == b"native" else own / "fs"


class Sizes:
    """Sizes of a worker's records: those that a daemon stored, and those found by `measure`.

    ``values``: bytes, type code "q", UNKNOWN_SIZE where a record has not been measured. ``unsized``: those
    that `measure` could not tell.
    """

    def __init__(self, worker: WorkerFacts, loading: Loading) -> None:
        self._worker = worker
        self._loading = loading
        records = loading.records
        stored = records.integer(b"snapshot.size")
        self.values = array("q", stored.values)
        self.known = stored.known - between(stored.values, UNKNOWN_SIZE, UNKNOWN_SIZE)
        for row in ~self.known:
            self.values[row] = UNKNOWN_SIZE
        for row in ~self.known & ~between(loading.pair, ABSENT, ABSENT):
            partner = loading.pair[row]
            if partner in self.known and loading.target[row] != partner:
                self.values[row] = self.values[partner]
        self.unsized: list[Unsized] = []

    def measure(self, rows: Mask, progress: Progress) -> None:
        """Finds the unknown sizes of these rows; records that do not load have size 0."""
        unknown = [row for row in rows if self.values[row] == UNKNOWN_SIZE and row not in self.known]
        for row in counting(progress, "measuring what no daemon has measured", unknown, "records"):
            self.values[row] = self._measured(row) if row in self._loading.alive else 0

    def _measured(self, row: int) -> int:
        loading = self._loading
        partner = loading.pair[row]
        mutable, immutable = row, row
        if partner >= 0:
            mutable, immutable = (partner, row) if loading.target[row] == partner else (row, partner)
        size = 0 if immutable in self._blob_only else self._usage(row, loading.snapshot[mutable])
        return size + sum(self._sizes_of_blobs[blob] for blob in self._blobs_of(immutable))

    @cached_property
    def _blob_only(self) -> Mask:
        return self._loading.records.flag(b"cache.blobonly")

    # --- Snapshots

    def _usage(self, row: int, snapshot: int) -> int:
        """Size of a snapshot, by its row in containerd's table; 0 if it does not exist."""
        if self._worker.stores.kind == DOCKER_BUILDER:
            return self._usage_in_docker(row)
        if self._worker.snapshots is None or self._worker.backend is None:
            self._note(row, "its snapshot is not known, as a store is missing")
            return 0
        stat = self._stats[snapshot] if snapshot >= 0 else -1
        if stat < 0:
            return 0
        backend = self._worker.backend
        label = self._merge_usage[snapshot]
        if label is not None:
            if (size := _whole(label)) is not None:
                return size
            self._note(row, f"the label {_MERGE_USAGE.decode()} of its snapshot is no number", fails=True)
        if backend.kind[stat] != ACTIVE:
            return backend.size.values[stat]
        directory = snapshot_directory(self._worker, backend.id.values[stat])
        if directory is None:
            self._note(row, "only its snapshotter can measure its snapshot")
            return 0
        try:
            found = usage(directory)
        except StorageError as error:
            self._note(row, str(error), fails=True)
            return 0
        if found is None:
            self._note(row, f"{directory} does not exist", fails=True)
            return 0
        return found.bytes

    def _usage_in_docker(self, row: int) -> int:
        """Sizes that Docker has measured itself; directories of graph drivers are not read."""
        root = self._worker.root_of(self._worker.stores.snapshots)
        records = self._loading.records
        name = records.text(b"cache.snapshot")[row] or records.ids[row] or b""
        bucket = root.bucket(name) if root is not None else None
        size = _whole(bucket.get(b"size") or b"") if bucket is not None else None
        if size is None:
            self._note(row, "only Docker itself can measure its snapshot")
        return size or 0

    def _note(self, row: int, reason: str, *, fails: bool = False) -> None:
        self.unsized.append(Unsized(row, reason, fails))

    @cached_property
    def _stats(self) -> array[int]:
        """For each snapshot in containerd's table, its row in the snapshotter's."""
        assert self._worker.stat is not None
        return self._worker.stat

    @cached_property
    def _merge_usage(self) -> list[bytes | None]:
        assert self._worker.snapshots is not None
        return list(self._worker.snapshots.label(_MERGE_USAGE))

    # --- Blobs

    def _blobs_of(self, row: int) -> Iterator[int]:
        """Rows of a record's blob and of its variants in other compressions."""
        first = self._blobs[row]
        if first < 0:
            if first == NOT_FOUND and self._worker.namespace is None:
                self._note(row, "the size of its blob is not known, as a store is missing")
            return
        found = {first}
        waiting = [first]
        while waiting:
            blob = waiting.pop()
            yield blob
            for variant in self._variants.get(blob, ()):
                if variant not in found:
                    found.add(variant)
                    waiting.append(variant)

    @cached_property
    def _blobs(self) -> array[int]:
        digests = self._loading.records.text(b"cache.blob")
        if self._worker.namespace is None:
            named = present(digests) - equal_to(digests, b"")
            return array("i", (NOT_FOUND if row in named else ABSENT for row in range(len(digests))))
        return self._worker.namespace.blobs.index.rows(digests)

    @cached_property
    def _sizes_of_blobs(self) -> array[int]:
        return array("q") if self._worker.namespace is None else self._worker.namespace.blobs.size.values

    @cached_property
    def _variants(self) -> dict[int, list[int]]:
        """Rows of the blobs that each blob is linked to, of those with a media type."""
        if self._worker.namespace is None:
            return {}
        blobs = self._worker.namespace.blobs
        links = blobs.below(b"labels", prefix=VARIANT)
        described = present(blobs.label(_MEDIA_TYPE))
        found: dict[int, list[int]] = {}
        for blob, variant in zip(links.rows, blobs.index.rows(links.values), strict=True):
            if variant in described and variant != blob:
                found.setdefault(blob, []).append(variant)
        return found


def _whole(text: bytes) -> int | None:
    """Reads a number as Go's strconv.Atoi does."""
    digits = text[1:] if text[:1] in (b"+", b"-") else text
    if not digits.isdigit():
        return None
    number = int(text)
    return number if -(2**63) <= number < 2**63 else None
