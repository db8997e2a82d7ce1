"""Whether a migration was right: what the plain-Python model makes of v1, compared with what is there.

Pure: stores are trees, containerd is a `PlainState`; nothing here uses the native plan or chain engine.

A verification is a fresh plan of v1 that needs what containerd said before the migration. Of that, labels and
leases do not count for what is in records: what the new plan still wants of them is missing. Snapshots and
blobs that have vanished since are put back in thought, as the records of v2 show that they were there.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from buildkit_migrate import reference
from buildkit_migrate.bolt.tree import Tree
from buildkit_migrate.metadata import gojson, keys
from buildkit_migrate.migration.model import (
    Blob,
    Kind,
    PlainPlan,
    PlainRecords,
    PlainState,
    PlainSurvey,
    Problem,
    Reason,
    Snapshot,
)

__all__ = [
    "Difference",
    "DifferenceKind",
    "Findings",
    "plain_records",
    "record_ids",
    "store_differences",
    "verify",
]

_BUCKET: Final = b"(bucket)"
"""Stands for a nested bucket where a difference shows values."""

_MAX_SHOWN: Final = 4096
"""Bytes of a value that a difference shows; of a longer one only the size."""

_COMMITTED_VALUE: Final = gojson.encode_value(True)


class DifferenceKind(enum.StrEnum):
    """What is wrong, and with what: the subject of the difference."""

    DAMAGED = "damaged-file"
    """Subject: the file; key: the page."""
    RECORD_MISSING = "record-missing"
    RECORD_UNEXPECTED = "record-unexpected"
    """Subject: the record; found: why it can't be migrated, nothing if v1 does not have it."""
    VALUE_MISSING = "value-missing"
    VALUE_DIFFERS = "value-differs"
    VALUE_UNEXPECTED = "value-unexpected"
    """Subject: the record; key: the metadata key."""
    INDEX_MISSING = "index-entry-missing"
    INDEX_DANGLING = "index-entry-dangling"
    """It is not in v1, or of a record that is left out, and no value of a record is behind it."""
    INDEX_UNEXPECTED = "index-entry-unexpected"
    """A value is behind it that the migration does not write. Subject, as above: the whole index key."""
    EXTERNAL_DIFFERS = "external-data-differs"
    """Subject: the record; key: the name of the data."""
    OTHER_DIFFERS = "other-data-differs"
    """Of the store, outside of records and indexes. Subject: the path, joined by slashes."""
    LEASE_MISSING = "lease-missing"
    LEASE_NOT_FLAT = "lease-without-gc.flat"
    RESOURCE_MISSING = "lease-resource-missing"
    """Subject: the lease; key: the type of the resource; expected: its id."""
    LABEL_ON_SNAPSHOT = "gc.root-on-snapshot"
    LABEL_ON_VIEW = "gc.root-on-view"
    LABEL_ON_BLOB = "gc.root-on-blob"
    SNAPSHOT_MISSING = "snapshot-missing"
    """Subject: the snapshot; key: the record that needs it."""
    SNAPSHOT_KIND = "snapshot-kind"
    """The snapshot is committed and the record is not, or the other way round. Subject: both."""
    BLOB_MISSING = "blob-missing"
    """Subject: the digest; key: a record that needs it."""
    BLOB_FILE_MISSING = "blob-file-missing"
    BLOB_FILE_DIFFERS = "blob-file-differs"
    """Subject: the digest; found: the digest of what is in the file."""


@dataclass(frozen=True)
class Difference:
    """Between what must be there and what is. ``expected``, ``found``: None for nothing, or if not asked."""

    kind: DifferenceKind
    subject: bytes
    key: bytes = b""
    expected: bytes | None = None
    found: bytes | None = None


@dataclass(frozen=True)
class Findings:
    """``records``: how many must be in v2; ``problems``: of those that are left out or repaired.

    ``upstream_exact``: whether v2 is one without sizes of blobs, as upstream writes it; None if not asked.
    """

    records: int
    problems: tuple[Problem, ...]
    differences: tuple[Difference, ...]
    upstream_exact: bool | None = None


def verify(v1: Tree, v2: Tree, state: PlainState, *, upstream_exact: bool | None = None) -> Findings:
    """All differences between a migrated store, with what containerd has now, and what must be there.

    ``v1``, ``v2``: the root buckets. What a daemon has changed in them since the migration is different, too.
    ``upstream_exact``: whether it was a migration without sizes of blobs. If nobody knows (None), it was if
    no record has a size that it would have got otherwise.
    """
    records = plain_records(v1)
    after = _bucket(v2, keys.MAIN_BUCKET)
    if upstream_exact is None:
        upstream_exact = not _has_blob_sizes(records, after)
    survey, gone = _before_losses(records, after, state)
    plan = reference.plan(records, survey, upstream_exact=upstream_exact)
    differences = [
        *_compare_stores(v1, v2, plan),
        *gone,
        *_missing_ancestors(plan, survey),
        *_lease_differences(plan, state),
        *_labels_left(plan, state),
    ]
    return Findings(len(plan.records), tuple(plan.problems), tuple(differences), upstream_exact)


def store_differences(
    v1: Tree, v2: Tree, survey: PlainSurvey, *, upstream_exact: bool = False
) -> Iterator[Difference]:
    """Differences of a new store alone, with the survey that it was made with."""
    return _compare_stores(v1, v2, reference.plan(plain_records(v1), survey, upstream_exact=upstream_exact))


def record_ids(store: Tree) -> list[bytes]:
    """Ids of the records of a store, whose root bucket this is."""
    main = _bucket(store, keys.MAIN_BUCKET)
    return [id for id, record in main.items() if not isinstance(record, bytes)]


def _bucket(tree: Tree, name: bytes) -> Tree:
    """An empty one if there is none."""
    found = tree.get(name)
    return {} if found is None or isinstance(found, bytes) else found


def plain_records(store: Tree) -> PlainRecords:
    return {
        id: {key: value if isinstance(value, bytes) else None for key, value in record.items()}
        for id, record in _bucket(store, keys.MAIN_BUCKET).items()
        if not isinstance(record, bytes)
    }


# --- What was there before


def _before_losses(
    records: PlainRecords, after: Tree, state: PlainState
) -> tuple[PlainSurvey, list[Difference]]:
    """The state with the snapshots and blobs that the records of v2 need and that are not there any more.

    If containerd does not say how large a blob is, the records of v2 say it.
    """
    survey = replace(state, snapshots=dict(state.snapshots), blobs=dict(state.blobs))
    gone = []
    for id, stored in records.items():
        record = _bucket(after, id)
        if id not in state.snapshots and _had_snapshot(stored, record, after):
            survey.snapshots[id] = _snapshot_of(stored, record)
            gone.append(Difference(DifferenceKind.SNAPSHOT_MISSING, id, id))
        blob = _blob_put(stored, record)
        if not blob:
            continue
        if blob not in survey.blobs:
            survey.blobs[blob] = Blob()
            gone.append(Difference(DifferenceKind.BLOB_MISSING, blob, id))
        if survey.blobs[blob].size is None:
            size = _blob_size_put(stored, record)
            survey.blobs[blob] = replace(survey.blobs[blob], size=size)
    return survey, gone


def _has_blob_sizes(records: PlainRecords, after: Tree) -> bool:
    return any(
        _blob_put(stored, record) and _blob_size_put(stored, record) is not None
        for stored, record in ((stored, _bucket(after, id)) for id, stored in records.items())
    )


def _had_snapshot(stored: Mapping[bytes, bytes | None], record: Tree, after: Tree) -> bool:
    """Whether a record could only come to v2 with a snapshot of its own."""
    if not record:
        return False
    target = gojson.string(stored.get(keys.EQUAL_MUTABLE))
    was_repaired = record.get(keys.EQUAL_MUTABLE) == b"" and target not in after
    return not target or was_repaired


def _snapshot_of(stored: Mapping[bytes, bytes | None], record: Tree) -> Snapshot:
    """The snapshot as the migration saw it, from what it wrote."""
    parent = _added(keys.PARENT, stored, record)
    committed = keys.COMMITTED in record
    return Snapshot(Kind.COMMITTED if committed else Kind.ACTIVE, gojson.string(parent))


def _blob_put(stored: Mapping[bytes, bytes | None], record: Tree) -> bytes:
    """The blob that the migration gave to a record, as it had found it in the content store; "" if none."""
    if not any(_added(key, stored, record) for key in (keys.BLOB, keys.DIFF_ID, keys.MEDIA_TYPE)):
        return b""
    try:
        mapping = gojson.blob_mapping(stored.get(keys.BLOB_MAPPING) or b"")
    except gojson.UndecodableValueError:
        return b""
    blob = mapping[0] if mapping is not None else b""
    return blob if record.get(keys.BLOB) == gojson.encode_value(blob) else b""


def _blob_size_put(stored: Mapping[bytes, bytes | None], record: Tree) -> int | None:
    """The size that the migration gave to a record's blob; None if it gave none."""
    size = gojson.integer(_added(keys.BLOB_SIZE, stored, record))
    return size if size is not None and size > 0 else None


def _added(key: bytes, stored: Mapping[bytes, bytes | None], record: Tree) -> bytes | None:
    """The value that v2 has and v1 has not."""
    value = record.get(key)
    return value if isinstance(value, bytes) and value != stored.get(key) else None


# --- The store


def _compare_stores(v1: Tree, v2: Tree, plan: PlainPlan) -> Iterator[Difference]:
    comparison = _StoreComparison(plan, _bucket(v2, keys.MAIN_BUCKET))
    parts = {
        keys.MAIN_BUCKET: comparison.records,
        keys.INDEX_BUCKET: comparison.index,
        keys.EXTERNAL_BUCKET: comparison.external,
    }
    if comparison.new_index:
        v1 = {keys.INDEX_BUCKET: {}, **v1}
    for name in sorted({*v1, *v2}):
        expected, found = v1.get(name), v2.get(name)
        if name in parts and isinstance(expected, Mapping) and isinstance(found, Mapping):
            yield from parts[name](expected, found)
        else:
            yield from _unequal(name, expected, found)


def _unequal(path: bytes, expected: bytes | Tree | None, found: bytes | Tree | None) -> Iterator[Difference]:
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for key in sorted({*expected, *found}):
            yield from _unequal(path + b"/" + key, expected.get(key), found.get(key))
    elif expected != found:
        yield Difference(DifferenceKind.OTHER_DIFFERS, path, b"", _shown(expected), _shown(found))


def _shown(value: bytes | Tree | None) -> bytes | None:
    if isinstance(value, Mapping):
        return _BUCKET
    if value is not None and len(value) > _MAX_SHOWN:
        return b"(%d bytes)" % len(value)
    return value


class _StoreComparison:
    """Of the three buckets of a store. Each method takes the bucket of v1 and that of v2."""

    def __init__(self, plan: PlainPlan, records_after: Tree) -> None:
        self._plan = plan
        self._records_after = records_after
        self._dropped = {
            problem.record: problem.reason
            for problem in plan.problems
            if problem.reason is not Reason.REPAIRED
        }
        self.new_index = {key for record in plan.records.values() for key in record.index}

    def records(self, before: Tree, after: Tree) -> Iterator[Difference]:
        for id, stored in before.items():
            record = after.get(id)
            if isinstance(stored, bytes):
                yield from _unequal(_path(keys.MAIN_BUCKET, id), stored, record)
            elif id in self._dropped:
                if record is not None:
                    reason = str(self._dropped[id]).encode()
                    yield Difference(DifferenceKind.RECORD_UNEXPECTED, id, found=reason)
            elif isinstance(record, Mapping):
                yield from self._values(id, {**stored, **self._plan.records[id].puts}, record)
            else:
                yield Difference(DifferenceKind.RECORD_MISSING, id)
        for id, record in after.items():
            if id not in before:
                if isinstance(record, bytes):
                    yield from _unequal(_path(keys.MAIN_BUCKET, id), None, record)
                else:
                    yield Difference(DifferenceKind.RECORD_UNEXPECTED, id)

    def _values(self, id: bytes, expected: Tree, found: Tree) -> Iterator[Difference]:
        for key in sorted({*expected, *found}):
            wanted, value = expected.get(key), found.get(key)
            if wanted == value:
                continue
            kind = DifferenceKind.VALUE_DIFFERS
            if key == keys.COMMITTED and _contradicts_snapshot(expected, wanted, value):
                kind = DifferenceKind.SNAPSHOT_KIND
            elif value is None:
                kind = DifferenceKind.VALUE_MISSING
            elif wanted is None:
                kind = DifferenceKind.VALUE_UNEXPECTED
            yield Difference(kind, id, key, _shown(wanted), _shown(value))

    def index(self, before: Tree, after: Tree) -> Iterator[Difference]:
        for key in sorted({*before, *self.new_index, *after}):
            expected = b"" if key in self.new_index else self._kept_entry(key, before)
            found = after.get(key)
            if expected is not None and found is None:
                yield Difference(DifferenceKind.INDEX_MISSING, key)
            elif expected is None and found is not None:
                has_value = self._has_value_behind(key)
                yield Difference(
                    DifferenceKind.INDEX_UNEXPECTED if has_value else DifferenceKind.INDEX_DANGLING, key
                )
            else:
                yield from _unequal(_path(keys.INDEX_BUCKET, key), expected, found)

    def _kept_entry(self, key: bytes, before: Tree) -> bytes | Tree | None:
        return None if keys.record_of_index_key(key) in self._dropped else before.get(key)

    def _has_value_behind(self, key: bytes) -> bool:
        """Whether a value of a record of v2 has the index of this index key."""
        id = keys.record_of_index_key(key)
        record = _bucket(self._records_after, id) if id is not None else {}
        return id is not None and any(keys.index_key(index, id) == key for index in _indexes(record))

    def external(self, before: Tree, after: Tree) -> Iterator[Difference]:
        for id in sorted({*before, *after}):
            expected = None if id in self._dropped else before.get(id)
            found = after.get(id)
            if isinstance(expected, Mapping) and isinstance(found, Mapping):
                for name in sorted({*expected, *found}):
                    wanted, value = expected.get(name), found.get(name)
                    if wanted != value:
                        yield _external_difference(id, name, wanted, value)
            elif expected != found:
                yield _external_difference(id, b"", expected, found)


def _external_difference(
    id: bytes, name: bytes, expected: bytes | Tree | None, found: bytes | Tree | None
) -> Difference:
    return Difference(DifferenceKind.EXTERNAL_DIFFERS, id, name, _shown(expected), _shown(found))


def _path(*names: bytes) -> bytes:
    return b"/".join(names)


def _contradicts_snapshot(record: Tree, expected: bytes | Tree | None, found: bytes | Tree | None) -> bool:
    """Whether one of record and snapshot is committed, for a record that has its own snapshot."""
    equal_mutable = record.get(keys.EQUAL_MUTABLE)
    has_own = not isinstance(equal_mutable, bytes) or not gojson.string(equal_mutable)
    return has_own and (expected, found) in ((None, _COMMITTED_VALUE), (_COMMITTED_VALUE, None))


def _indexes(record: Tree) -> Iterator[bytes]:
    for value in record.values():
        if isinstance(value, bytes) and value:
            with contextlib.suppress(gojson.UndecodableValueError):
                yield gojson.decode(value).index


# --- containerd


def _missing_ancestors(plan: PlainPlan, survey: PlainSurvey) -> Iterator[Difference]:
    """Snapshots below those of records that have no record and are not there."""
    found = set()
    for id in plan.records:
        parent = survey.snapshots[id].parent if id in survey.snapshots else b""
        if parent and parent not in survey.snapshots and parent not in found:
            found.add(parent)
            yield Difference(DifferenceKind.SNAPSHOT_MISSING, parent, id)


def _lease_differences(plan: PlainPlan, state: PlainState) -> Iterator[Difference]:
    for id, record in plan.records.items():
        if record.create_lease:
            yield Difference(DifferenceKind.LEASE_MISSING, id)
            continue
        if id not in state.flat_leases:
            yield Difference(DifferenceKind.LEASE_NOT_FLAT, id)
        for kind, resource in sorted(record.add_resources):
            yield Difference(DifferenceKind.RESOURCE_MISSING, id, kind.encode(), resource)


def _labels_left(plan: PlainPlan, state: PlainState) -> Iterator[Difference]:
    for name in sorted(plan.unlabel_snapshots):
        is_view = state.snapshots[name].kind is Kind.VIEW
        yield Difference(DifferenceKind.LABEL_ON_VIEW if is_view else DifferenceKind.LABEL_ON_SNAPSHOT, name)
    for digest in sorted(plan.unlabel_blobs):
        yield Difference(DifferenceKind.LABEL_ON_BLOB, digest)
