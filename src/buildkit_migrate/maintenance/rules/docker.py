"""Rules about the snapshots of Docker's builder, which are in ``snapshots.db`` and the engine's layer store.

The same statements as for other snapshotters: C14, C23, C26, C27, C29, C30, C41, C42, C44 and C45. C40, that
what containerd names is there, is C14 and C23 here: only records name snapshots. C43 has nothing to count.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from buildkit_migrate.containerd.layers import is_chain_id
from buildkit_migrate.maintenance.facts import WorkerFacts
from buildkit_migrate.maintenance.finding import Finding, Severity
from buildkit_migrate.maintenance.record_data import RecordData, there
from buildkit_migrate.maintenance.rule import Part, worker_rule
from buildkit_migrate.maintenance.rules.wording import path_of, quoted, subject
from buildkit_migrate.model import Kind
from buildkit_migrate.schema.columns import Mask

__all__ = ["RULES"]

_NO_REPAIR: Final = "`repair` does nothing: only the engine can remove what the record holds."
_STAYS: Final = "`repair` does nothing, and nothing of Docker's frees it."
_NEEDS: Final = (Part.RECORDS, Part.CONTAINERD, Part.LAYERS)


def _mutable(data: RecordData) -> Mask:
    """Records that have an active snapshot of their own."""
    unfinished = data.layered - data.records.flag(b"snapshot.committed") - there(data.loading.target)
    return unfinished - data.blob_only


def _layers(data: RecordData) -> Mask:
    """Records that have a committed snapshot of their own."""
    return (data.immutable & data.layered) - data.blob_only


def _key(data: RecordData, row: int) -> bytes:
    """Name of the record's snapshot."""
    return (data.records.ids if row in _mutable(data) else data.keys)[row] or b""


@worker_rule("C14", "C23", "C30", "C44", needs=_NEEDS)
def snapshots_of_docker(facts: WorkerFacts) -> Iterator[Finding]:
    """Mutable records have an active snapshot, layers a committed one; and those have their data."""
    data, snapshots = facts.data, facts.docker_snapshots
    assert data is not None
    file = path_of(facts.stores.snapshots)
    ids = data.records.ids

    def finding(rule: str, severity: Severity, row: int, message: str) -> Finding:
        return Finding(rule, severity, file, subject(ids[row]), message, repair=_NO_REPAIR)

    for row in _mutable(data):
        snapshot = snapshots.get(ids[row] or b"")
        if snapshot is not None and snapshot.kind is not Kind.ACTIVE:
            message = "it is mutable, and its snapshot is committed, not active"
            yield finding("C14", Severity.BUILD, row, message)
        elif snapshot is None and (gone := _lost_data(facts, ids[row] or b"")):
            yield finding("C44", Severity.PRUNE, row, f"its snapshot has no data: {gone} does not exist")
        elif snapshot is None:
            message = "it is mutable, and its snapshot does not exist"
            yield finding("C14", Severity.HARMLESS, row, message)
    for row in _layers(data):
        key = data.keys[row] or b""
        snapshot = snapshots.get(key)
        if snapshot is not None and snapshot.kind is not Kind.COMMITTED:
            yield finding("C30", Severity.BUILD, row, f"its snapshot {quoted(key)} is active, not committed")
        elif snapshot is None and (gone := _lost_data(facts, key)):
            yield finding("C44", Severity.BUILD, row, f"its snapshot has no data: {gone} does not exist")
        elif snapshot is None:
            message = f"its snapshot {quoted(key)}, or the layer that this has become, does not exist"
            yield finding("C23", Severity.BUILD, row, message)


def _lost_data(facts: WorkerFacts, key: bytes) -> str:
    """The data that a snapshot lacks although ``snapshots.db`` has it; "" if there is no such snapshot."""
    row = facts.docker_rows.get(key)
    if row is None or row.chain or is_chain_id(row.id):
        return ""
    if not row.there or not facts.driver.lacks(row.data):
        return ""
    return f"{facts.driver.directory.name}'s {quoted(row.data)}"


@worker_rule("C26", "C27", needs=_NEEDS)
def leases_of_docker(facts: WorkerFacts) -> Iterator[Finding]:
    """Each record has a lease that lists its snapshot: by leases alone the engine knows what is in use."""
    data, namespace, snapshots = facts.data, facts.namespace, facts.docker_snapshots
    assert data is not None and namespace is not None
    leases, file = namespace.leases, path_of(facts.stores.containerd)
    listed = leases.snapshots(facts.stores.snapshotter)
    pairs = set(zip(listed.rows, listed.keys, strict=True))
    rows = leases.index.rows(data.records.ids)
    repair = "`repair` does nothing, as only Docker itself removes what leases hold."
    for row in _mutable(data) | _layers(data):
        key = _key(data, row)
        if key not in snapshots:
            continue
        if rows[row] < 0:
            message = (
                "it has no lease: removing images removes its layers, and a prune does not free its data"
            )
            yield Finding("C26", Severity.BUILD, file, subject(data.records.ids[row]), message, repair=repair)
        elif (rows[row], key) not in pairs:
            message = f"its lease does not list its snapshot {quoted(key)}"
            yield Finding("C27", Severity.BUILD, file, subject(data.records.ids[row]), message, repair=repair)


@worker_rule("C29", "C42", needs=_NEEDS)
def parents_of_docker(facts: WorkerFacts) -> Iterator[Finding]:
    """What the snapshots of records stand on exists, and is the snapshot of the record's parent."""
    data, snapshots, rows = facts.data, facts.docker_snapshots, facts.docker_rows
    assert data is not None
    file, parents = path_of(facts.stores.snapshots), facts.docker_parents
    for row in _mutable(data) | _layers(data):
        snapshot, id = snapshots.get(_key(data, row)), data.records.ids[row]
        if snapshot is None:
            continue
        if snapshot.parent and snapshot.parent not in parents:
            message = f"its snapshot stands on {quoted(snapshot.parent)}, which does not exist"
            yield Finding("C42", Severity.BUILD, file, subject(id), message, repair=_NO_REPAIR)
            continue
        above = data.loading.parent[row]
        if above < 0 or above in data.shared:
            continue
        key = _key(data, above)
        own = rows.get(key)
        if key in snapshots and snapshot.parent not in {key, own.chain if own is not None else key}:
            what = quoted(snapshot.parent) if snapshot.parent else "nothing"
            message = f"its snapshot stands on {what}, not on {quoted(key)}, that of its parent"
            yield Finding("C29", Severity.HARMLESS, file, subject(id), message)


@worker_rule("C41", needs=_NEEDS)
def unnamed_by_docker(facts: WorkerFacts) -> Iterator[Finding]:
    """Each snapshot is that of a record, or what one was made of or stands on, or a lease lists it."""
    data, namespace, rows = facts.data, facts.namespace, facts.docker_rows
    assert data is not None and namespace is not None
    if not len(data.records):
        return  # a lost or new store: C39
    named = {it for column in (data.keys, data.records.ids) for it in column if it}
    named |= set(filter(None, namespace.leases.snapshots(facts.stores.snapshotter).keys))
    used = named | {row.data for row in rows.values() if row.id in named}
    used |= {row.parent for row in rows.values() if row.parent}
    committed = {row.data for row in rows.values() if row.committed}
    for row in rows.values():
        if row.id in used or row.id in committed or is_chain_id(row.id):
            continue
        if row.committed or row.parent is not None:
            message = f"no record and no lease names it; its data is {quoted(row.data)}"
            file = path_of(facts.stores.snapshots)
            yield Finding("C41", Severity.LEAK, file, subject(row.id), message, repair=_STAYS)


@worker_rule("C45", needs=(Part.LAYERS,))
def strange_data(facts: WorkerFacts) -> Iterator[Finding]:
    """Each directory of the storage driver is of a snapshot, a layer or a container."""
    driver, rows = facts.driver, facts.docker_rows
    if driver.ids is None:
        return
    known = {it for row in rows.values() for it in (row.id, row.data)} | driver.layers.data_ids()
    for id in sorted(driver.ids - known):
        message = "no snapshot of the builder, layer or container has this directory"
        path = driver.directory
        yield Finding("C45", Severity.LEAK, path, subject(id), message, repair=_STAYS)


RULES = (snapshots_of_docker, leases_of_docker, parents_of_docker, unnamed_by_docker, strange_data)
