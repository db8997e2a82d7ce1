"""What changed in a migrated root since: in the new store, and in containerd's database.

Pure: compares stores and trees, and opens nothing. In containerd's database only changes by others count; our
own leases and labels, and times, are ignored.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from buildkit_migrate.bolt.tree import Tree
from buildkit_migrate.containerd.services import ROOT_LABEL
from buildkit_migrate.model import Before
from buildkit_migrate.store.interface import ReadableStore
from buildkit_migrate.values import gojson, keys

__all__ = [
    "DatabaseChanges",
    "StoreChanges",
    "count_lost",
    "counted",
    "database_changes",
    "records_with_snapshot",
    "store_changes",
    "were",
]

Value = TypeVar("Value")


def counted(number: int, what: str) -> str:
    """``1 record``, ``2 records``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def were(number: int, what: str) -> str:
    """``1 record was``, ``2 records were``."""
    return f"{counted(number, what)} {'was' if number == 1 else 'were'}"


@dataclass(frozen=True)
class StoreChanges:
    """Numbers of records. ``added``: missing in v1.

    ``missing``: missing in v2, perhaps because they were left out. ``changed``: with other values of v1's
    keys.
    """

    added: int
    missing: int
    changed: int


def store_changes(v1: ReadableStore, v2: ReadableStore) -> StoreChanges:
    """Compares the stores.

    What the migration adds to records is not a change, nor is what only later daemons know.
    """
    counts = {"added": 0, "missing": 0, "changed": 0}
    for id, in_v1, in_v2 in _merged(((id, id) for id in v1.ids()), ((id, id) for id in v2.ids())):
        if in_v1 is None:
            counts["added"] += 1
        elif in_v2 is None:
            counts["missing"] += 1
        elif not _same_record(v1.view(id), v2.view(id)):
            counts["changed"] += 1
    return StoreChanges(**counts)


def _same_record(before: Mapping[bytes, bytes], now: Mapping[bytes, bytes]) -> bool:
    """Cleared and absent values are equal."""
    return all(
        (before.get(key) or b"") == (now.get(key) or b"")
        for key in {*before, *now} - keys.WRITTEN
        if key in before or keys.is_of_v1(key)
    )


def count_lost(
    before: Before, snapshots: Collection[bytes], blobs: Collection[bytes], v1: ReadableStore
) -> tuple[int, int]:
    """How many snapshots and blobs of v1's records existed before and are gone now.

    Those with a gc.root label that belong to no record are no loss: containerd may collect them.
    """
    lost = {name for name in before.snapshots if name not in snapshots}
    lost_blobs = {digest for digest in before.blobs if digest not in blobs}
    if not lost and not lost_blobs:
        return 0, 0
    needed: set[bytes] = set()
    needed_blobs: set[bytes] = set()
    for id in v1.ids():
        needed.add(id)
        try:
            mapping = gojson.blob_mapping(v1.view(id).get(keys.BLOB_MAPPING) or b"")
        except gojson.UndecodableValueError:
            continue
        if mapping is not None:
            needed_blobs.add(mapping[0])
    return len(lost & needed), len(lost_blobs & needed_blobs)


def records_with_snapshot(v1: ReadableStore) -> set[bytes]:
    """Ids of the records that need a snapshot of their own: those without an equal-mutable target."""
    return {id for id in v1.ids() if not gojson.string(v1.view(id).get(keys.EQUAL_MUTABLE))}


@dataclass
class _Rows:
    added: int = 0
    missing: int = 0
    changed: int = 0

    def __bool__(self) -> bool:
        return bool(self.added or self.missing or self.changed)


@dataclass
class DatabaseChanges:
    """Changes by others in containerd's database. ``version``: of the schema, before and now, if it changed.

    ``rows``: by kind of object; ``elsewhere``: something changed in other namespaces, or of other kinds.
    """

    version: tuple[int, int] | None = None
    rows: dict[str, _Rows] = field(default_factory=dict)
    elsewhere: bool = False

    @property
    def are_harmless(self) -> bool:
        """Whether the old database can be put back without a loss."""
        return not self.elsewhere and not any(self.rows.values())

    def lines(self) -> Iterator[str]:
        """Lines for people."""
        if self.version is not None:
            yield f"schema version {self.version[0]} -> {self.version[1]}"
        for what, rows in self.rows.items():
            numbers = {"added": rows.added, "gone": rows.missing, "changed": rows.changed}
            text = ", ".join(f"{number:,} {how}" for how, number in numbers.items() if number)
            if text:
                yield f"{what}: {text}"
        if self.elsewhere:
            yield "other parts of it changed"


def database_changes(
    before: Tree, now: Tree, namespace: str, snapshotter: str, ids: Collection[bytes]
) -> DatabaseChanges:
    """Changes between the root buckets before the migration and now. ``ids``: our own leases."""
    changes = DatabaseChanges()
    ours = (b"v1", namespace.encode())
    parts = {
        (*ours, b"leases"): "leases",
        (*ours, b"snapshots", snapshotter.encode()): "snapshots",
        (*ours, b"content", b"blob"): "blobs",
    }
    on_the_way = {path[:length] for path in parts for length in range(1, 4)}

    def compare(path: tuple[bytes, ...], old: bytes | Tree | None, new: bytes | Tree | None) -> None:
        if path == (b"v1", b"version"):
            if old != new:
                changes.version = _version(old), _version(new)
        elif path in parts:
            rows = changes.rows.setdefault(parts[path], _Rows())
            for id, row, row_now in _merged(_items(old), _items(new)):
                if parts[path] != "leases":
                    row, row_now = _without_ours(row), _without_ours(row_now)
                elif id in ids:
                    continue
                if row is None:
                    rows.added += 1
                elif row_now is None:
                    rows.missing += 1
                elif not _same(row, row_now):
                    rows.changed += 1
        elif path in on_the_way or not path:
            for key, inner, inner_now in _merged(_items(old), _items(new)):
                compare((*path, key), inner, inner_now)
        elif not _same(old, new):
            changes.elsewhere = True

    compare((), before, now)
    return changes


def _version(stored: bytes | Tree | None) -> int:
    """A one-byte number in zigzag form; 0 if missing, as for containerd."""
    return stored[0] >> 1 if isinstance(stored, bytes) and len(stored) == 1 else 0


def _without_ours(row: bytes | Tree | None) -> bytes | Tree | None:
    """A snapshot or blob without the parts that a migration changes."""
    if not isinstance(row, Mapping):
        return row
    rest: dict[bytes, bytes | Tree] = {}
    for key, value in row.items():
        if key == b"labels" and isinstance(value, Mapping):
            rest[key] = {label: text for label, text in value.items() if label != ROOT_LABEL}
        elif key != b"updatedat":
            rest[key] = value
    return rest


def _same(one: bytes | Tree | None, other: bytes | Tree | None) -> bool:
    """Empty and absent buckets are equal."""
    if isinstance(one, bytes) or isinstance(other, bytes):
        return one == other
    return all(_same(value, value_now) for _, value, value_now in _merged(_items(one), _items(other)))


def _items(bucket: bytes | Tree | None) -> Iterator[tuple[bytes, bytes | Tree]]:
    if isinstance(bucket, Mapping):
        yield from bucket.items()


def _merged(
    one: Iterator[tuple[bytes, Value]], other: Iterator[tuple[bytes, Value]]
) -> Iterator[tuple[bytes, Value | None, Value | None]]:
    """Merges two iterators sorted by key: yields each key with the value of both."""
    left, right = next(one, None), next(other, None)
    while left is not None or right is not None:
        key = min(item[0] for item in (left, right) if item is not None)
        in_one = in_other = None
        if left is not None and left[0] == key:
            in_one, left = left[1], next(one, None)
        if right is not None and right[0] == key:
            in_other, right = right[1], next(other, None)
        yield key, in_one, in_other
