"""Verifies a migration: compares the oracle's result for v1 with the current state.

Pure: stores are trees, containerd is a `PlainState`; nothing here uses the native plan or chain engine.

A verification is a fresh plan of v1, which needs containerd's state from before the migration. Labels and
leases don't affect records, so that plan starts without leases and with all labels, and names everything that
must be done. Snapshots and blobs that have vanished since are assumed, because the records of v2 show that
they existed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from buildkit_migrate.bolt.tree import Tree, walking
from buildkit_migrate.migration import oracle
from buildkit_migrate.migration.belonging import is_wrong_place
from buildkit_migrate.migration.findings import Difference, DifferenceKind, Findings, shown
from buildkit_migrate.migration.rewritten import Migrated, best_explained
from buildkit_migrate.migration.snapshot_rules import descend, rule_differences
from buildkit_migrate.model import (
    Blob,
    Kind,
    PlainPlan,
    PlainRecords,
    PlainState,
    PlainSurvey,
    Reason,
    Snapshot,
)
from buildkit_migrate.progress import Progress, Stage, counting, silent
from buildkit_migrate.values import gojson, keys
from buildkit_migrate.values.times import nanoseconds

__all__ = [
    "Difference",
    "DifferenceKind",
    "Files",
    "Findings",
    "needed_snapshots",
    "plain_records",
    "record_ids",
    "store_differences",
    "verify",
]

_COMMITTED_VALUE: Final = gojson.encode_value(True)


@dataclass(frozen=True)
class Files:
    """The root buckets of a stopped containerd's databases: its own and the snapshotter's.

    ``snapshots``: None if the snapshotter is not one of containerd's, so that their rules don't apply.
    ``before``: of its own before the migration, None if unknown. ``later``: of those kept when it was
    replaced again, in any order.
    """

    namespace: bytes
    snapshotter: bytes
    metadata: Tree
    snapshots: Tree | None
    before: Tree | None = None
    later: tuple[Tree, ...] = ()


def verify(
    v1: Tree,
    v2: Tree,
    state: PlainState,
    files: Files | None = None,
    *,
    upstream_exact: bool | None = None,
    leases_before: Collection[bytes] = (),
    now: int = 0,
    progress: Progress = silent,
) -> Findings:
    """All differences of a migrated store, and of containerd's current state, from what must exist.

    ``v1``, ``v2``: root buckets. Changes made by daemons since the migration are differences, too. ``files``:
    the source of ``state``, None if containerd runs. ``upstream_exact``: whether sizes of blobs were omitted.
    If unknown (None), they were if no record has a size that it would otherwise have got. ``leases_before``:
    leases that a migration of a running containerd found; they need not be flat, as it does not change that.
    ``now``: nanoseconds since 1970.
    """
    progress(walking("reading the records of v1", v1))
    records = plain_records(v1)
    after = _bucket(v2, keys.MAIN_BUCKET)
    if upstream_exact is None:
        upstream_exact = not _has_blob_sizes(records, after)
    survey, gone = _before_losses(records, after, state, progress)
    passes = Stage(f"computing what becomes of {len(records):,} records", oracle.PASSES, "passes")
    progress(passes)
    plan = oracle.plan(records, _all_to_do(survey), upstream_exact=upstream_exact, passed=passes.advance)
    differences = [
        *_wrong_place(records, survey),
        *_compare_stores(v1, v2, plan, progress),
        *gone,
        *_missing_ancestors(survey),
        *_lease_differences(plan, state, {*leases_before, *_leases_before(files)}, now, progress),
        *_labels_left(plan, state),
    ]
    if files is not None:
        if files.snapshots is not None:
            progress("comparing the snapshots of both databases")
            differences += rule_differences(
                files.metadata, files.snapshots, files.namespace, files.snapshotter
            )
        if files.before is not None:
            about = "comparing containerd's database with the one before"
            progress(walking(about, files.before, files.metadata))
            migrated = Migrated(files.namespace, files.snapshotter, plan, survey.snapshots)
            differences += best_explained(files.before, files.metadata, files.later, migrated, differences)
    return Findings(
        len(plan.records), tuple(plan.problems), tuple(differences), len(records), (), upstream_exact
    )


def needed_snapshots(v2: Tree, state: PlainState) -> list[bytes]:
    """Existing snapshots of records, and their ancestors, in order of names."""
    waiting = [id for id in record_ids(v2) if id in state.snapshots]
    needed = set(waiting)
    while waiting:
        parent = state.snapshots[waiting.pop()].parent
        if parent in state.snapshots and parent not in needed:
            needed.add(parent)
            waiting.append(parent)
    return sorted(needed)


def store_differences(
    v1: Tree, v2: Tree, survey: PlainSurvey, *, upstream_exact: bool = False
) -> Iterator[Difference]:
    """Differences of a new store alone, given the survey that it was made with."""
    return _compare_stores(v1, v2, oracle.plan(plain_records(v1), survey, upstream_exact=upstream_exact))


def record_ids(store: Tree) -> list[bytes]:
    """Ids of the records of a store, given its root bucket."""
    main = _bucket(store, keys.MAIN_BUCKET)
    return [id for id, record in main.items() if not isinstance(record, bytes)]


def _bucket(tree: Tree, name: bytes) -> Tree:
    """The bucket, empty if it does not exist."""
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
    records: PlainRecords, after: Tree, state: PlainState, progress: Progress
) -> tuple[PlainSurvey, list[Difference]]:
    """The state, plus snapshots and blobs that records of v2 need but that no longer exist.

    If containerd does not know the size of a blob, the records of v2 give it.
    """
    survey = replace(state, snapshots=dict(state.snapshots), blobs=dict(state.blobs))
    gone = []
    for id, stored in counting(progress, "looking for what is gone", records.items(), "records"):
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
    """Whether a record could only be migrated to v2 with a snapshot of its own."""
    if not record:
        return False
    target = gojson.string(stored.get(keys.EQUAL_MUTABLE))
    was_repaired = record.get(keys.EQUAL_MUTABLE) == b"" and target not in after
    return not target or was_repaired


def _snapshot_of(stored: Mapping[bytes, bytes | None], record: Tree) -> Snapshot:
    """The snapshot as the migration saw it, deduced from what it wrote."""
    parent = _added(keys.PARENT, stored, record)
    committed = keys.COMMITTED in record
    return Snapshot(Kind.COMMITTED if committed else Kind.ACTIVE, gojson.string(parent))


def _blob_put(stored: Mapping[bytes, bytes | None], record: Tree) -> bytes:
    """The blob that the migration found and gave to a record; "" if none."""
    if not any(_added(key, stored, record) for key in (keys.BLOB, keys.DIFF_ID, keys.MEDIA_TYPE)):
        return b""
    try:
        mapping = gojson.blob_mapping(stored.get(keys.BLOB_MAPPING) or b"")
    except gojson.UndecodableValueError:
        return b""
    blob = mapping[0] if mapping is not None else b""
    return blob if record.get(keys.BLOB) == gojson.encode_value(blob) else b""


def _blob_size_put(stored: Mapping[bytes, bytes | None], record: Tree) -> int | None:
    """The size that the migration gave to a record's blob; None if none."""
    size = gojson.integer(_added(keys.BLOB_SIZE, stored, record))
    return size if size is not None and size > 0 else None


def _added(key: bytes, stored: Mapping[bytes, bytes | None], record: Tree) -> bytes | None:
    """A value in v2 that differs from v1's, None if there is none."""
    value = record.get(key)
    return value if isinstance(value, bytes) and value != stored.get(key) else None


def _wrong_place(records: PlainRecords, survey: PlainSurvey) -> Iterator[Difference]:
    """Records whose snapshots are all missing, or snapshots and blobs held for no record at all."""
    subject = survey.snapshotter.encode()
    needing = [id for id, stored in records.items() if not gojson.string(stored.get(keys.EQUAL_MUTABLE))]
    found = sum(id in survey.snapshots for id in needing)
    if is_wrong_place(len(needing), found):
        yield Difference(
            DifferenceKind.WRONG_PLACE,
            subject,
            expected=b"snapshots of %d records" % len(needing),
            found=b"%d" % found,
        )
    held = sum(snapshot.root_label for snapshot in survey.snapshots.values())
    held += sum(blob.root_label for blob in survey.blobs.values())
    if held and not records:
        yield Difference(
            DifferenceKind.WRONG_PLACE,
            subject,
            expected=b"records in v1",
            found=b"none, and %d snapshots and blobs with the gc.root label" % held,
        )


def _all_to_do(survey: PlainSurvey) -> PlainSurvey:
    """The survey as if nothing were done: its plan names all lease resources, and all labels to remove."""
    return replace(
        survey,
        snapshots={name: replace(snapshot, root_label=True) for name, snapshot in survey.snapshots.items()},
        blobs={digest: replace(blob, root_label=True) for digest, blob in survey.blobs.items()},
        leases={},
    )


# --- The store


def _compare_stores(v1: Tree, v2: Tree, plan: PlainPlan, progress: Progress = silent) -> Iterator[Difference]:
    comparison = _StoreComparison(plan, _bucket(v2, keys.MAIN_BUCKET), progress)
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
        yield Difference(DifferenceKind.OTHER_DIFFERS, path, b"", shown(expected), shown(found))


class _StoreComparison:
    """Comparison of a store's three buckets. Each method takes the bucket of v1 and that of v2."""

    def __init__(self, plan: PlainPlan, records_after: Tree, progress: Progress) -> None:
        self._plan = plan
        self._progress = progress
        self._records_after = records_after
        self._dropped = {
            problem.record: problem.reason
            for problem in plan.problems
            if problem.reason is not Reason.REPAIRED
        }
        self.new_index = {key for record in plan.records.values() for key in record.index}

    def records(self, before: Tree, after: Tree) -> Iterator[Difference]:
        for id, stored in counting(self._progress, "comparing records", before.items(), "records"):
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
            yield Difference(kind, id, key, shown(wanted), shown(value))

    def index(self, before: Tree, after: Tree) -> Iterator[Difference]:
        all_keys = sorted({*before, *self.new_index, *after})
        for key in counting(self._progress, "comparing index entries", all_keys, "entries"):
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
        """Whether any value of a record in v2 has the index in this index key."""
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
    return Difference(DifferenceKind.EXTERNAL_DIFFERS, id, name, shown(expected), shown(found))


def _path(*names: bytes) -> bytes:
    return b"/".join(names)


def _contradicts_snapshot(record: Tree, expected: bytes | Tree | None, found: bytes | Tree | None) -> bool:
    """Whether only one of record and snapshot is committed, for a record with its own snapshot."""
    equal_mutable = record.get(keys.EQUAL_MUTABLE)
    has_own = not isinstance(equal_mutable, bytes) or not gojson.string(equal_mutable)
    return has_own and (expected, found) in ((None, _COMMITTED_VALUE), (_COMMITTED_VALUE, None))


def _indexes(record: Tree) -> Iterator[bytes]:
    for value in record.values():
        if isinstance(value, bytes) and value:
            with contextlib.suppress(gojson.UndecodableValueError):
                yield gojson.decode(value).index


# --- containerd


def _missing_ancestors(survey: PlainSurvey) -> Iterator[Difference]:
    """Missing ancestors of snapshots. (Snapshots needed by records themselves were added to the survey.)"""
    found = set()
    for name in sorted(survey.snapshots):
        parent = survey.snapshots[name].parent
        if parent and parent not in survey.snapshots and parent not in found:
            found.add(parent)
            yield Difference(DifferenceKind.SNAPSHOT_MISSING, parent, name)


def _leases_before(files: Files | None) -> Iterable[bytes]:
    if files is None or files.before is None:
        return ()
    return descend(files.before, b"v1", files.namespace, b"leases")


def _lease_differences(
    plan: PlainPlan, state: PlainState, taken_over: Collection[bytes], now: int, progress: Progress
) -> Iterator[Difference]:
    """``taken_over``: leases that existed before; the migration does not make them flat."""
    for id, record in counting(progress, "comparing leases", plan.records.items(), "leases"):
        if id not in state.leases:
            yield Difference(DifferenceKind.LEASE_MISSING, id)
            continue
        if id not in state.flat_leases and id not in taken_over:
            yield Difference(DifferenceKind.LEASE_NOT_FLAT, id)
        if id in state.expiring_leases:
            expire = state.expiring_leases[id]
            time = nanoseconds(expire)
            expired = time is not None and time < now
            kind = DifferenceKind.LEASE_EXPIRED if expired else DifferenceKind.LEASE_EXPIRES
            yield Difference(kind, id, found=shown(expire))
        if id in state.undated_leases:
            yield Difference(DifferenceKind.LEASE_UNDATED, id)
        for type_, resource in sorted(record.add_resources - state.leases[id]):
            yield Difference(DifferenceKind.RESOURCE_MISSING, id, type_.encode(), resource)


def _labels_left(plan: PlainPlan, state: PlainState) -> Iterator[Difference]:
    for name in sorted(plan.unlabel_snapshots & state.snapshots.keys()):
        snapshot = state.snapshots[name]
        if snapshot.root_label:
            is_view = snapshot.kind is Kind.VIEW
            yield Difference(
                DifferenceKind.LABEL_ON_VIEW if is_view else DifferenceKind.LABEL_ON_SNAPSHOT, name
            )
    for digest in sorted(plan.unlabel_blobs & state.blobs.keys()):
        if state.blobs[digest].root_label:
            yield Difference(DifferenceKind.LABEL_ON_BLOB, digest)
