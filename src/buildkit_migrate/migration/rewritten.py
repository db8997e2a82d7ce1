"""Compares containerd's whole database after an offline migration with the one before.

Pure. The file is written anew, so anything in it could have been lost or changed, even in other namespaces.
Nothing may differ except what the migration does: its leases, removed labels, and times.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Union

from buildkit_migrate.bolt.tree import Tree, sequence_of
from buildkit_migrate.containerd.services import EXPIRE_LABEL, FLAT_LABEL, ROOT_LABEL
from buildkit_migrate.migration.findings import Difference, DifferenceKind, shown
from buildkit_migrate.migration.snapshot_rules import descend
from buildkit_migrate.model import PlainPlan, Resource
from buildkit_migrate.values.times import is_stored_time, nanoseconds

__all__ = ["Migrated", "best_explained", "rewrite_differences"]

_ZERO_TIME: Final = b"\x01" + bytes(12) + b"\xff\xff"
"""Go's zero time, and below the varint 0: what containerd writes where the old value is missing."""
_ZERO_SIZE: Final = b"\0"

_Path = tuple[bytes, ...]


class _Time(enum.Enum):
    """Placeholder for a time of the migration that nobody knows exactly, or for something unknowable."""

    STORED = enum.auto()
    TEXT = enum.auto()
    TEXT_OR_NONE = enum.auto()
    ANYTHING = enum.auto()

    def fits(self, found: bytes | Tree | None) -> bool:
        if self is _Time.ANYTHING or (self is _Time.TEXT_OR_NONE and found is None):
            return True
        if not isinstance(found, bytes):
            return False
        return is_stored_time(found) if self is _Time.STORED else nanoseconds(found) is not None


_Changes = Mapping[bytes, Union[bytes, _Time, "_Changes", None]]
"""The change of each key in a bucket: a new value, a time, removal (None), or changes within a nested bucket.
"""


@dataclass(frozen=True)
class Migrated:
    """A worker's part of the file.

    ``wanted``: a plan made as if there were no leases and everything had the gc.root label, so that it names
    all resources that each lease must have, and everything that must have no label. ``snapshots``: those
    known to the plan.
    """

    namespace: bytes
    snapshotter: bytes
    wanted: PlainPlan
    snapshots: Container[bytes]


def rewrite_differences(
    before: Tree, after: Tree, migrated: Migrated, known: Collection[Difference] = ()
) -> Iterator[Difference]:
    """Differences between the root buckets of containerd's database before and after a migration.

    ``known``: differences in leases, labels and snapshots found already; they are not repeated.
    """
    changes = {b"v1": {migrated.namespace: _changes(before, migrated)}}
    yield from _Comparison(migrated, known).bucket((), before, after, changes)


def best_explained(
    before: Tree,
    now: Tree,
    later: Iterable[Tree],
    migrated: Migrated,
    known: Collection[Difference] = (),
) -> list[Difference]:
    """Like `rewrite_differences`, for a file that may have been replaced again since, for another worker.

    ``later``: files kept on those occasions. The one kept next after this migration is its result.
    """
    leases_before = descend(before, b"v1", migrated.namespace, b"leases")
    new = [id for id in migrated.wanted.records if id not in leases_before]
    found = list(rewrite_differences(before, now, migrated, known))
    for tree in later:
        leases = descend(tree, b"v1", migrated.namespace, b"leases")
        if found and any(id in leases for id in new):
            found = min(found, list(rewrite_differences(before, tree, migrated)), key=len)
    return found


# --- What the migration does


def _changes(before: Tree, migrated: Migrated) -> _Changes:
    """Expected changes in the namespace's bucket."""
    top, wanted = descend(before, b"v1", migrated.namespace), migrated.wanted
    changes: dict[bytes, Any] = {}
    leases = descend(top, b"leases")
    if wanted.records:
        changes[b"leases"] = {
            id: _lease(leases.get(id), record.add_resources) for id, record in wanted.records.items()
        }
    blobs = _unlabelled(descend(top, b"content", b"blob"), wanted.unlabel_blobs, has_size=True)
    if blobs:
        changes[b"content"] = {b"blob": blobs}
    rows = descend(top, b"snapshots", migrated.snapshotter)
    snapshots = _unlabelled(rows, wanted.unlabel_snapshots, has_size=False)
    # Only the snapshotter knew whether it was a view, and so lost its label.
    unknown = (name for name in rows if name not in migrated.snapshots)
    for name in unknown:
        if ROOT_LABEL in descend(rows, name, b"labels"):
            snapshots[name] = {b"labels": {ROOT_LABEL: _Time.ANYTHING}, b"updatedat": _Time.ANYTHING}
    if snapshots:
        changes[b"snapshots"] = {migrated.snapshotter: snapshots}
    return changes


def _lease(before: bytes | Tree | None, resources: Iterable[Resource]) -> _Changes:
    changes: dict[bytes, Any] = {}
    is_new = not isinstance(before, Mapping)
    lease: Tree = before if isinstance(before, Mapping) else {}
    for kind, name in resources:
        path = kind.encode().split(b"/", 1)
        if name not in descend(lease, *path):
            at = changes
            for step in path:
                at = at.setdefault(step, {})
            at[name] = b""
    if is_new:
        changes[b"createdat"] = _Time.STORED
        changes[b"labels"] = {FLAT_LABEL: _Time.TEXT}
        return changes
    # An existing lease is taken over, so it must not expire, and may be made flat. If it was created by
    # another worker's migration planned at the same time, this one has created it again, with other times.
    if is_stored_time(_bytes(lease.get(b"createdat"))):
        changes[b"createdat"] = _Time.STORED
    if b"labels" in lease:
        labels = descend(lease, b"labels")
        taken_over: dict[bytes, Any] = {EXPIRE_LABEL: None} if EXPIRE_LABEL in labels else {}
        flat = _bytes(labels.get(FLAT_LABEL))
        if flat is None or nanoseconds(flat) is not None:
            taken_over[FLAT_LABEL] = _Time.TEXT_OR_NONE if flat is None else _Time.TEXT
        changes[b"labels"] = taken_over
    return changes


def _unlabelled(rows: Tree, names: Iterable[bytes], *, has_size: bool) -> dict[bytes, _Changes]:
    """Objects that had the label lose it, and get a new time (section 6)."""
    changes: dict[bytes, _Changes] = {}
    for name in names:
        row = descend(rows, name)
        if ROOT_LABEL not in descend(row, b"labels"):
            if is_stored_time(_bytes(row.get(b"updatedat"))):
                changes[name] = {b"updatedat": _Time.STORED}  # again, for the same reason
            continue
        change: dict[bytes, Any] = {b"labels": {ROOT_LABEL: None}, b"updatedat": _Time.STORED}
        if b"createdat" not in row:
            change[b"createdat"] = _ZERO_TIME
        if has_size and b"size" not in row:
            change[b"size"] = _ZERO_SIZE
        changes[name] = change
    return changes


def _bytes(value: bytes | Tree | None) -> bytes | None:
    return value if isinstance(value, bytes) else None


# --- Comparing


class _Comparison:
    def __init__(self, migrated: Migrated, known: Collection[Difference]) -> None:
        self._known = {place for difference in known for place in _places(difference, migrated)}
        self._sequences = {known.subject for known in known if known.kind is DifferenceKind.SEQUENCE}

    def bucket(self, path: _Path, before: Tree, after: Tree, changes: _Changes) -> Iterator[Difference]:
        wanted, found, name = sequence_of(before), sequence_of(after), b"/".join(path)
        if wanted != found and name not in self._sequences:
            yield Difference(DifferenceKind.SEQUENCE, name, b"", b"%d" % wanted, b"%d" % found)
        expected, there = dict(before.items()), dict(after.items())
        for key in sorted({*expected, *there, *changes}):
            at = (*path, key)
            if at in self._known:
                continue
            if key in changes:
                yield from self._changed(at, expected.get(key), there.get(key), changes[key])
            else:
                yield from self._same(at, expected.get(key), there.get(key))

    def _changed(
        self,
        path: _Path,
        before: bytes | Tree | None,
        after: bytes | Tree | None,
        change: bytes | _Time | _Changes | None,
    ) -> Iterator[Difference]:
        if isinstance(change, _Time):
            if not change.fits(after):
                yield Difference(DifferenceKind.REST_TIME, b"/".join(path), found=shown(after))
        elif isinstance(change, Mapping):
            expected: Tree = before if isinstance(before, Mapping) else {}
            if isinstance(after, Mapping):
                yield from self.bucket(path, expected, after, change)
            elif after is not None or not self._is_known(path, expected, change):
                yield _difference(path, expected, after)
        else:
            yield from self._same(path, change, after)

    def _same(
        self, path: _Path, expected: bytes | Tree | None, after: bytes | Tree | None
    ) -> Iterator[Difference]:
        if isinstance(expected, Mapping) and isinstance(after, Mapping):
            yield from self.bucket(path, expected, after, {})
        elif isinstance(expected, Mapping) and after is None and self._is_known(path, expected, {}):
            return
        elif expected != after:
            yield _difference(path, expected, after)

    def _is_known(self, path: _Path, expected: Tree, changes: _Changes) -> bool:
        """Whether a missing bucket would have contained only things known to be missing."""
        inside = {*expected, *(key for key, change in changes.items() if change is not None)}
        return bool(inside) and all(
            (*path, key) in self._known
            or (isinstance(change := changes.get(key), Mapping) and self._is_known((*path, key), {}, change))
            for key in inside
        )


def _difference(path: _Path, expected: bytes | Tree | None, found: bytes | Tree | None) -> Difference:
    kind = DifferenceKind.REST_DIFFERS
    if found is None:
        kind = DifferenceKind.REST_MISSING
    elif expected is None:
        kind = DifferenceKind.REST_UNEXPECTED
    return Difference(kind, b"/".join(path), b"", shown(expected), shown(found))


def _places(difference: Difference, migrated: Migrated) -> Iterator[_Path]:
    """Where in the file a difference is that was found by other means."""
    find = _PLACES.get(difference.kind)
    if find is not None:
        yield (b"v1", migrated.namespace, *find(difference, (b"snapshots", migrated.snapshotter)))
    elif difference.kind is DifferenceKind.VERSION:
        yield b"v1", b"version"


_PLACES: Final[Mapping[DifferenceKind, Callable[[Difference, _Path], _Path]]] = {
    DifferenceKind.LEASE_MISSING: lambda found, _: (b"leases", found.subject),
    DifferenceKind.LEASE_UNDATED: lambda found, _: (b"leases", found.subject, b"createdat"),
    DifferenceKind.LEASE_NOT_FLAT: lambda found, _: (b"leases", found.subject, b"labels", FLAT_LABEL),
    DifferenceKind.LEASE_EXPIRED: lambda found, _: (b"leases", found.subject, b"labels", EXPIRE_LABEL),
    DifferenceKind.LEASE_EXPIRES: lambda found, _: (b"leases", found.subject, b"labels", EXPIRE_LABEL),
    DifferenceKind.RESOURCE_MISSING: lambda found, _: (
        *(b"leases", found.subject),
        *(*found.key.split(b"/", 1), found.expected or b""),
    ),
    DifferenceKind.BLOB_MISSING: lambda found, _: (b"content", b"blob", found.subject),
    DifferenceKind.LABEL_ON_BLOB: lambda found, _: (
        *(b"content", b"blob"),
        *(found.subject, b"labels", ROOT_LABEL),
    ),
    DifferenceKind.LABEL_ON_SNAPSHOT: lambda found, bucket: (*bucket, found.subject, b"labels", ROOT_LABEL),
    DifferenceKind.LABEL_ON_VIEW: lambda found, bucket: (*bucket, found.subject, b"labels", ROOT_LABEL),
    DifferenceKind.SNAPSHOT_MISSING: lambda found, bucket: (*bucket, found.subject),
    DifferenceKind.SNAPSHOT_NAME: lambda found, bucket: (*bucket, found.subject, b"name"),
    DifferenceKind.SNAPSHOT_TIME: lambda found, bucket: (*bucket, found.subject, found.key),
    DifferenceKind.BLOB_TIME: lambda found, _: (b"content", b"blob", found.subject, found.key),
    DifferenceKind.SNAPSHOT_CHILD: lambda found, bucket: (*bucket, found.subject, b"children", found.key),
}
