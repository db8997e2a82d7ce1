"""What happened to a migrated root since: to the new store, and to containerd's database.

Pure: stores and trees are compared, and nothing is opened. Of containerd's database only what others did
counts; our own leases and labels, and times, are left out.
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

__all__ = ["DatabaseChanges", "StoreChanges", "counted", "database_changes", "gone", "store_changes", "were"]

Value = TypeVar("Value")


def counted(number: int, what: str) -> str:
    """``1 record``, ``2 records``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def were(number: int, what: str) -> str:
    """``1 record was``, ``2 records were``."""
    return f"{counted(number, what)} {'was' if number == 1 else 'were'}"


@dataclass(frozen=True)
class StoreChanges:
    """Numbers of records. ``added``: that v1 lacks. ``missing``: that v2 lacks, maybe as they were left out.
    ``changed``: with other values of v1's keys.
    """

    added: int
    missing: int
    changed: int


def store_changes(v1: ReadableStore, v2: ReadableStore) -> StoreChanges:
    """What the migration itself adds to records is no change, nor is what only later daemons know."""
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
    """A cleared value is as good as none."""
    return all(
        (before.get(key) or b"") == (now.get(key) or b"")
        for key in {*before, *now} - keys.WRITTEN
        if key in before or keys.is_of_v1(key)
    )


def gone(
    before: Before, snapshots: Collection[bytes], blobs: Collection[bytes], v1: ReadableStore
) -> tuple[int, int]:
    """How many snapshots and blobs of v1's records were there before and are not among those of now.

    What had a gc.root label and belongs to no record is no loss: containerd collects it.
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


@dataclass
class _Rows:
    added: int = 0
    missing: int = 0
    changed: int = 0

    def __bool__(self) -> bool:
        return bool(self.added or self.missing or self.changed)


@dataclass
class DatabaseChanges:
    """By others, of containerd's database. ``version``: that of the schema, before and now, if it changed.

    ``rows``: by the kind of thing; ``elsewhere``: in other namespaces, or of other kinds.
    """

    version: tuple[int, int] | None = None
    rows: dict[str, _Rows] = field(default_factory=dict)
    elsewhere: bool = False

    @property
    def are_harmless(self) -> bool:
        """Whether the database of before can take its place again without a loss."""
        return not self.elsewhere and not any(self.rows.values())

    def lines(self) -> Iterator[str]:
        """For people."""
        if self.version is not None:
            yield f"schema version {self.version[0]} -> {self.version[1]}"
        for what, rows in self.rows.items():
            numbers = {"added": rows.added, "gone": rows.missing, "changed": rows.changed}
            told = ", ".join(f"{number:,} {how}" for how, number in numbers.items() if number)
            if told:
                yield f"{what}: {told}"
        if self.elsewhere:
            yield "other parts of it changed"


def database_changes(
    before: Tree, now: Tree, namespace: str, snapshotter: str, ids: Collection[bytes]
) -> DatabaseChanges:
    """Between the root buckets of before the migration and of now. ``ids``: the leases that are ours."""
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
    """A number of one byte in zigzag form; 0 if there is none, as for containerd."""
    return stored[0] >> 1 if isinstance(stored, bytes) and len(stored) == 1 else 0


def _without_ours(row: bytes | Tree | None) -> bytes | Tree | None:
    """A snapshot or blob without what a migration changes in it."""
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
    """An empty bucket is as good as none."""
    if isinstance(one, bytes) or isinstance(other, bytes):
        return one == other
    return all(_same(value, value_now) for _, value, value_now in _merged(_items(one), _items(other)))


def _items(bucket: bytes | Tree | None) -> Iterator[tuple[bytes, bytes | Tree]]:
    if isinstance(bucket, Mapping):
        yield from bucket.items()


def _merged(
    one: Iterator[tuple[bytes, Value]], other: Iterator[tuple[bytes, Value]]
) -> Iterator[tuple[bytes, Value | None, Value | None]]:
    """The keys of both, each of which are in order, with what each has under them."""
    left, right = next(one, None), next(other, None)
    while left is not None or right is not None:
        key = min(item[0] for item in (left, right) if item is not None)
        in_one = in_other = None
        if left is not None and left[0] == key:
            in_one, left = left[1], next(one, None)
        if right is not None and right[0] == key:
            in_other, right = right[1], next(other, None)
        yield key, in_one, in_other
