"""Dropping records as a daemon does when it starts: with all that is built on them, and then their leases.

dropped = drop_records({worker: Mask(len(worker.records), rows)}, facts.workers)

The values go, with the index entries and external data; then, in containerd's database, the leases. So a cut
in between leaves leases without a record, which hold too much, and never a record without its data.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from buildkit_migrate.bolt.edits import Edits, below
from buildkit_migrate.maintenance.facts import WorkerFacts
from buildkit_migrate.maintenance.leases import VARIANTS, is_of_record
from buildkit_migrate.maintenance.mend import EditStore
from buildkit_migrate.maintenance.record_data import there
from buildkit_migrate.schema.columns import NOT_FOUND, Mask, between
from buildkit_migrate.schema.records import Records
from buildkit_migrate.schema.snapshots import COMMITTED
from buildkit_migrate.values import keys

__all__ = ["Dropped", "drop_records", "with_descendants"]

_CLEARED: Final = b""


@dataclass(frozen=True)
class Dropped:
    """``rows``: of each worker all records that go. ``changes``: of the record stores, then ``last`` of
    containerd's.
    """

    rows: Mapping[WorkerFacts, Mask]
    changes: tuple[EditStore, ...]


def drop_records(rows: Mapping[WorkerFacts, Mask], workers: Collection[WorkerFacts]) -> Dropped:
    """Plans to drop these records, and all that can't be without them.

    ``workers``: all of the root; where several use one namespace of containerd, a record of the same id may
    be another's, too.
    """
    gone = {worker: with_descendants(worker, these) for worker, these in rows.items() if these}
    changes = [EditStore(worker.stores.records, _of_records(worker, gone[worker])) for worker in gone]
    for worker in gone:
        if leases := dict(_of_leases(worker, gone, workers)):
            path = (b"v1", worker.stores.namespace, b"leases")
            changes.append(EditStore(worker.stores.containerd, below(path, leases), last=True))
    return Dropped(gone, tuple(changes))


def with_descendants(facts: WorkerFacts, rows: Mask) -> Mask:
    """These records, what is built on them over parents of any kind, and what shares their data.

    An immutable record goes with the mutable one whose data it shares. With a committed snapshot of its own
    it stays, as in the daemon. The mutable one stays without the immutable one, with all the data.
    """
    loading = facts.references
    assert loading is not None
    return loading.failing(rows, there(loading.target) - _independent(facts))


def _independent(facts: WorkerFacts) -> Mask:
    """Records with a committed snapshot, which load without the one whose data they share."""
    assert facts.records is not None
    if facts.data is None or facts.backend is None:
        return Mask(len(facts.records))
    committed = between(facts.backend.kind, COMMITTED, COMMITTED).take(facts.data.stat)
    deleted = facts.records.flag(b"cache.deleted")
    return (committed & facts.records.flag(keys.COMMITTED)) - deleted - facts.data.loading.lazy


def _of_records(facts: WorkerFacts, gone: Mask) -> Edits:
    """The edits of a record store."""
    records, loading = facts.records, facts.references
    assert records is not None and loading is not None
    main: dict[bytes, Edits | None] = {records.ids[row] or b"": None for row in gone}
    for row in gone.take(loading.target) - gone:
        main[records.ids[row] or b""] = {keys.EQUAL_MUTABLE: _CLEARED}
    edits: dict[bytes, Edits] = {keys.MAIN_BUCKET: main}
    if index := dict.fromkeys(_entries(facts, gone)):
        edits[keys.INDEX_BUCKET] = index
    if external := dict.fromkeys(_external(facts, gone)):
        edits[keys.EXTERNAL_BUCKET] = external
    return edits


def _entries(facts: WorkerFacts, gone: Mask) -> Iterator[bytes]:
    """The keys of all index entries of these records."""
    records, entries = facts.records, facts.entries
    assert records is not None and entries is not None
    for place in gone.take(records.index.rows(entries.record)):
        yield entries.keys[place] or b""
    for row in facts.odd & gone:
        id = records.ids[row] or b""
        if b"::" in id:  # its entries look like those of other records
            for _, index in records.indexes(row):
                key = keys.index_key(index, id)
                if entries.have(key) and not _is_of_another(records, key, gone):
                    yield key


def _is_of_another(records: Records, key: bytes, gone: Mask) -> bool:
    """Whether this is an entry of a record that stays, as entries are read."""
    index, _, id = key.rpartition(b"::")
    row = records.index.row(id)
    return row >= 0 and row not in gone and any(index == its for _, its in records.indexes(row))


def _external(facts: WorkerFacts, gone: Mask) -> Iterator[bytes]:
    assert facts.records is not None and facts.external is not None
    for place in gone.take(facts.records.index.rows(facts.external.ids)):
        yield facts.external.ids[place] or b""


def _of_leases(
    facts: WorkerFacts, gone: Mapping[WorkerFacts, Mask], workers: Collection[WorkerFacts]
) -> Iterator[tuple[bytes, Edits | None]]:
    """The edits of each lease of the records of a worker that go."""
    if facts.namespace is None:
        return
    leases = facts.namespace.leases
    snapshotter = facts.stores.snapshotter
    listed = leases.snapshots(snapshotter)
    others = [
        it
        for it in workers
        if it is not facts
        and it.stores.containerd == facts.stores.containerd
        and it.stores.namespace == facts.stores.namespace
    ]
    for id in _leased(facts, gone[facts]):
        row = leases.index.row(id)
        if row < 0 or _stays(facts, id, gone):
            continue
        if not any(_stays(other, id, gone) for other in others):
            yield id, None
        elif listed.of(row):
            yield id, {b"snapshots": {snapshotter: None}}


def _leased(facts: WorkerFacts, gone: Mask) -> Iterator[bytes]:
    """Ids of the leases that these records may have, and of those of missing records that they shared."""
    records, loading, namespace = facts.records, facts.references, facts.namespace
    assert records is not None and loading is not None and namespace is not None
    owners = [records.ids[row] or b"" for row in gone]
    if lonely := gone & between(loading.target, NOT_FOUND, NOT_FOUND):
        named = records.text(keys.EQUAL_MUTABLE)
        owners += (id for row in lonely if (id := named[row]) and is_of_record(namespace.leases, id))
    for id in owners:
        yield id
        yield id + VARIANTS


def _stays(facts: WorkerFacts, lease: bytes, gone: Mapping[WorkerFacts, Mask]) -> bool:
    """Whether a record of this worker stays that has a lease of this id. If it can't be told, one does."""
    if facts.records is None:
        return True
    rows = (facts.records.index.row(id) for id in {lease, lease.removesuffix(VARIANTS)})
    dropped = gone.get(facts, ())
    return any(row >= 0 and row not in dropped for row in rows)
