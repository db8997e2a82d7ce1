"""Repairs of the protection of data (C26, C27), and of layers that can be extracted again (C23)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from buildkit_migrate.bolt.edits import Edits
from buildkit_migrate.containerd.services import EXPIRE_LABEL, FLAT_LABEL
from buildkit_migrate.maintenance.facts import WorkerFacts
from buildkit_migrate.maintenance.mend import EditStore, Mend, Repair, RepairClass, worker_repair
from buildkit_migrate.maintenance.rule import Part
from buildkit_migrate.maintenance.rules.data import lost_for_good, protection
from buildkit_migrate.maintenance.rules.wording import path_of, subject
from buildkit_migrate.values import keys
from buildkit_migrate.values.gojson import encode_value
from buildkit_migrate.values.times import stored_time, text_time

__all__ = ["REPAIRS"]

_TEMPORARY: Final = b"buildkit/lease.temporary"
_BLOB_ONLY: Final = b"cache.blobonly"
_SIZE: Final = b"snapshot.size"


@worker_repair("C23", needs=(Part.RECORDS, Part.CONTAINERD, Part.SNAPSHOTS))
def extracted_again(facts: WorkerFacts) -> Iterator[Mend]:
    """A layer whose snapshot is gone becomes one that is not extracted, where its blob and parents allow."""
    data = facts.data
    if data is None or not data.lost:
        return
    for_good = lost_for_good(facts)
    for row in data.lost:
        if row not in for_good:
            values = {_BLOB_ONLY: encode_value(True), _SIZE: encode_value(-1)}
            id = data.records.ids[row] or b""
            yield _mend(
                facts,
                "C23",
                row,
                "marks the layer as not extracted, and has its lease list its snapshot and blob",
                EditStore(facts.stores.containerd, _lease(facts, row)),
                EditStore(facts.stores.records, {keys.MAIN_BUCKET: {id: values}}),
            )


@worker_repair("C26", "C27", needs=(Part.RECORDS, Part.CONTAINERD))
def protected(facts: WorkerFacts) -> Iterator[Mend]:
    """Each record with data has a lease that stays, and that lists its snapshot and its blob."""
    data, namespace, store = facts.data, facts.namespace, facts.stores.containerd
    if data is None or namespace is None:
        return
    found = protection(data, namespace, facts)
    for row in found.bare:
        lease = "makes its lease one that stays" if row in found.passing else "makes its lease"
        does = f"{lease}, with its snapshot{' and blob' if data.blob[row] >= 0 else ''}"
        yield _mend(facts, "C26", row, does, EditStore(store, _lease(facts, row)))
    for row in found.snapshot_open | found.blob_open:
        resources = _resources(facts, row, snapshot=row in found.snapshot_open, blob=row in found.blob_open)
        names = " and ".join({b"snapshots": "snapshot", b"content": "blob"}[name] for name in resources)
        change = EditStore(store, _of_lease(facts, row, resources))
        yield _mend(facts, "C27", row, f"lists the {names} in its lease", change)


def _lease(facts: WorkerFacts, row: int) -> Edits:
    """What a record's lease lacks, whether there is one or not."""
    assert facts.data is not None and facts.namespace is not None
    resources = _resources(facts, row, snapshot=True, blob=facts.data.blob[row] >= 0)
    leases = facts.namespace.leases
    lease = leases.index.row(facts.data.records.ids[row] or b"")
    flat: Edits = {FLAT_LABEL: text_time(facts.now)}
    if lease < 0:
        return _of_lease(facts, row, {b"createdat": stored_time(facts.now), b"labels": flat, **resources})
    if lease not in facts.passing:
        return _of_lease(facts, row, resources)
    labels: Edits = {_TEMPORARY: None, EXPIRE_LABEL: None, **({} if lease in leases.marks.flat else flat)}
    return _of_lease(facts, row, {b"labels": labels, **resources})


def _resources(facts: WorkerFacts, row: int, *, snapshot: bool, blob: bool) -> dict[bytes, Edits]:
    """Of a lease. The snapshot may be one that is still to be made."""
    assert facts.data is not None
    listed: dict[bytes, Edits] = {}
    key, digest = facts.data.keys[row] or b"", facts.data.digests[row] or b""
    if snapshot and len(key) <= keys.MAX_KEY:
        listed[b"snapshots"] = {facts.stores.snapshotter: {key: b""}}
    if blob:
        listed[b"content"] = {digest: b""}
    return listed


def _of_lease(facts: WorkerFacts, row: int, edits: Edits) -> Edits:
    assert facts.data is not None
    id = facts.data.records.ids[row] or b""
    return {b"v1": {facts.stores.namespace: {b"leases": {id: edits}}}}


def _mend(facts: WorkerFacts, rule: str, row: int, does: str, *changes: EditStore) -> Mend:
    assert facts.data is not None
    id = facts.data.records.ids[row] or b""
    file = path_of(facts.stores.containerd)
    return Mend(rule, RepairClass.PROTECT, file, subject(id), does, changes, record=(facts, id))


REPAIRS: Final[tuple[Repair[WorkerFacts], ...]] = (extracted_again, protected)
