"""The records of a root as `buildctl du` lists them, with their daemon stopped (spec buildkit-v2-stores, 9).

with open_stores(find_state(path), place) as stores:
    for worker in usage_of(stores).workers:
        for record in worker:
            print(record.id, record.size)
"""

from __future__ import annotations

import contextlib
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

from buildkit_migrate.errors import ContainerdStateError, CorruptDatabaseError, Error, StorageError
from buildkit_migrate.maintenance import filters
from buildkit_migrate.maintenance.facts import Facts, WorkerFacts
from buildkit_migrate.maintenance.loading import Found, Loading
from buildkit_migrate.maintenance.old_records import OldRecords, OldRecordsOfDocker
from buildkit_migrate.maintenance.shared import shared_records
from buildkit_migrate.maintenance.state_bytes import StateBytes, state_bytes
from buildkit_migrate.maintenance.usage import Sizes
from buildkit_migrate.maintenance.usage_record import UsageRecord
from buildkit_migrate.progress import Progress, reading, silent
from buildkit_migrate.schema.columns import Index, Integers, Mask, Texts
from buildkit_migrate.schema.records import Records
from buildkit_migrate.text import cut, named_text, printable
from buildkit_migrate.values import keys
from buildkit_migrate.workspace.layout import CONTAINERD_WORKER
from buildkit_migrate.workspace.stores import DOCKER_BUILDER, Fault, Store, Stores, WorkerStores

__all__ = ["DiskUsage", "Incomplete", "Totals", "UsageRecord", "WorkerUsage", "usage_of"]

_REGULAR: Final = b"regular"


class Totals(NamedTuple):
    """Bytes of records of a size above 0. ``reclaimable``: of those that are not in use."""

    shared: int
    private: int
    reclaimable: int
    total: int


@dataclass(frozen=True)
class Incomplete:
    """What could not be shown, or not in full. ``exit_code``: that of the command for it."""

    place: Path
    reason: str
    exit_code: int

    def as_dict(self) -> dict[str, Any]:
        return {**named_text("place", self.place), **named_text("reason", self.reason)}


class WorkerUsage:
    """Those of one worker, ordered by size, then id. They are made of columns when asked for.

    ``dropped``: how many records the next start of the daemon drops, shown or not. ``abandoned``: how many
    snapshots there are, if there are no records at all.
    """

    def __init__(
        self,
        worker: WorkerFacts,
        loading: Loading | None,
        *,
        matches: filters.Matches | None,
        after_start: bool,
        progress: Progress,
    ) -> None:
        self.path = worker.stores.path
        self.worker = worker
        self.loading = loading
        self.dropped = 0
        self.rows = array("i")
        self._ids: Texts = []
        self.incomplete: list[Incomplete] = []
        self.abandoned = _abandoned(worker, loading)
        if loading is None:
            return
        self.dropped = len(loading.dropped)
        records = loading.records
        self._ids = records.ids
        shown = _shown(loading, after_start)
        self.shared = _shared(worker, loading, shown)
        self.sizes = Sizes(worker, loading)
        if matches is not None:
            shown = Mask(shown.size, (row for row in shown if matches(self.record_at(row).field)))
        self.sizes.measure(shown, progress)
        self.rows = array("i", sorted(shown, key=self.sizes.values.__getitem__))
        self._note_what_is_missing(loading)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[UsageRecord]:
        return map(self.record_at, self.rows)

    def type_of(self, row: int) -> bytes:
        return self._types[row] or _REGULAR

    def id_of(self, row: int) -> bytes:
        return self._ids[row] or b""

    def row_of(self, id: bytes) -> int:
        assert self.loading is not None
        return self.loading.records.index.row(id)

    def is_mutable(self, row: int) -> bool:
        return self.loading is not None and row in self.loading.mutable

    def keep_last(self, count: int) -> None:
        """Leaves out all others. The totals do not change."""
        _ = self.totals
        self.rows = self.rows[len(self.rows) - count :]

    def load(self) -> None:
        """Copies what the records are made from, so that the stores can be closed."""
        if self.loading is not None:
            self._ids = list(self._ids)
        _ = self._descriptions, self._types, self._created, self._used, self._counts

    # Not all lists show these.

    @cached_property
    def _descriptions(self) -> Texts:
        return self._text(b"cache.description")

    @cached_property
    def _types(self) -> Texts:
        return self._text(b"cache.recordType")

    @cached_property
    def _created(self) -> Integers:
        return self._integer(b"cache.createdAt")

    @cached_property
    def _used(self) -> Integers:
        return self._integer(b"cache.lastUsedAt")

    @cached_property
    def _counts(self) -> Integers:
        return self._integer(b"cache.usageCount")

    def _text(self, key: bytes) -> Texts:
        return self.loading.records.text(key) if self.loading is not None else []

    def _integer(self, key: bytes) -> Integers:
        return (
            self.loading.records.integer(key) if self.loading is not None else Integers(array("q"), Mask(0))
        )

    @cached_property
    def totals(self) -> Totals:
        shared = total = 0
        for row in self.rows:
            size = max(self.sizes.values[row], 0)
            total += size
            shared += size if row in self.shared else 0
        return Totals(shared, total - shared, total, total)

    def record_at(self, row: int) -> UsageRecord:
        loading = self.loading
        assert loading is not None
        ids = self._ids
        used, count = self._used.values[row], self._counts.values[row]
        was_used = used != 0 and row in self._counts.known
        created = self._created.values[row]
        return UsageRecord(
            ids[row] or b"",
            row in loading.mutable,
            False,
            self.sizes.values[row],
            created if created or row in self._created.known else None,
            used if was_used else None,
            count,
            tuple([ids[parent] or b"" for parent in loading.shown_parents_of(row)]),
            self._descriptions[row] or b"",
            self._types[row] or _REGULAR,
            row in self.shared,
            row in loading.alive,
        )

    def _note_what_is_missing(self, loading: Loading) -> None:
        """Records shown in part, and what keeps a daemon from showing anything."""
        records, stores = loading.records, self.worker.stores
        place = (stores.old or stores.records).path or self.path
        corrupt = CorruptDatabaseError.exit_code
        undecodable = [
            f"{cut(cell.key)} of the record {cut(records.ids[cell.row] or b'')} does not decode; no daemon "
            "starts with it"
            for cell in records.undecodable[:_NAMED]
        ]
        self._note(place, undecodable, len(records.undecodable), "values that do not decode", corrupt)
        if loading.cyclic:
            first = cut(records.ids[next(iter(loading.cyclic))] or b"")
            reason = (
                f"{len(loading.cyclic)} records are their own ancestors, among them {first}: they are left "
                "out, with what stands on them; no daemon starts with them"
            )
            self.incomplete.append(Incomplete(place, reason, corrupt))
        unsized = [
            f"the size of {cut(records.ids[one.row] or b'')}: {one.reason}"
            + ("; du fails as a whole for it" if one.fails else "")
            for one in self.sizes.unsized[:_NAMED]
        ]
        count = len(self.sizes.unsized)
        self._note(place, unsized, count, "records of no known size", ContainerdStateError.exit_code)

    def _note(self, place: Path, reasons: list[str], count: int, what: str, code: int) -> None:
        """``count``: of all there are; ``reasons``: of the first ones."""
        if count > len(reasons):
            reasons.append(f"and {count - len(reasons)} more {what}")
        self.incomplete += [Incomplete(place, reason, code) for reason in reasons]


_NAMED: Final = 20
"""How many reasons of each kind are given; the others are counted."""


def _shown(loading: Loading, after_start: bool) -> Mask:
    """Of two records that share data: the mutable one, or the immutable one if others are built on it."""
    there = loading.alive if after_start else loading.alive | loading.waiting
    referred = loading.referred_by(there)
    hidden = loading.paired - referred
    replaced = (loading.target[row] for row in loading.paired & referred)
    shown = there - hidden - Mask(there.size, (row for row in replaced if loading.pair[row] in referred))
    return shown | loading.zombie if after_start else shown


def _shared(worker: WorkerFacts, loading: Loading, shown: Mask) -> Mask:
    content = worker.stores.content
    if worker.stores.kind != CONTAINERD_WORKER or worker.namespace is None or content is None:
        return Mask(shown.size)
    return shared_records(loading, shown, worker.namespace, content)


@dataclass(frozen=True)
class DiskUsage:
    """Of a whole root. ``incomplete``: what could not be shown, or not in full. ``facts``: what it was read
    from.
    """

    root: Path
    workers: tuple[WorkerUsage, ...]
    incomplete: tuple[Incomplete, ...]
    facts: Facts

    def __iter__(self) -> Iterator[tuple[WorkerUsage, UsageRecord]]:
        """All records, ordered by size, then id, as a daemon with all these workers gives them."""
        return ((worker, worker.record_at(row)) for worker, row in self.in_order())

    def in_order(self) -> Iterator[tuple[WorkerUsage, int]]:
        """The same, as rows."""
        if len(self.workers) == 1:
            return ((self.workers[0], row) for row in self.workers[0].rows)
        import heapq

        def keyed(worker: WorkerUsage) -> Iterator[tuple[int, bytes, WorkerUsage, int]]:
            return ((worker.sizes.values[row], worker.id_of(row), worker, row) for row in worker.rows)

        merged = heapq.merge(*map(keyed, self.workers), key=lambda entry: entry[:2])
        return ((worker, row) for _, _, worker, row in merged)

    def state_bytes(self, progress: Progress | None = None) -> StateBytes:
        """Where the bytes of the whole root are. Walks all of it. The stores must be open."""
        loadings = {one.worker: one.loading for one in self.workers if one.loading is not None}
        return state_bytes(self.facts, loadings, progress or silent)

    def in_memory(self) -> DiskUsage:
        """The same, of use when the stores are closed."""
        for worker in self.workers:
            worker.load()
        return self

    @property
    def totals(self) -> Totals:
        return Totals(
            *(sum(column) for column in zip(_NOTHING, *(one.totals for one in self.workers), strict=True))
        )


_NOTHING: Final = Totals(0, 0, 0, 0)


def usage_of(
    stores: Stores,
    *,
    filter: Sequence[str] = (),
    after_start: bool = False,
    top: int | None = None,
    progress: Progress | None = None,
) -> DiskUsage:
    """What du of the daemon showed last; ``after_start``: what it shows after the next one.

    The difference are records that only a running daemon knows how to fetch: they are dropped when it
    starts, but for some that stay listed once more. ``filter``: filters as `buildctl du` takes them, one of
    which must match. ``top``: only so many, the largest ones; totals are of all. Raises FilterError. What
    can't be shown is noted, and raises nothing.
    """
    matches = filters.parse(filter) if filter else None
    tell = progress or silent
    usages = []
    incomplete: list[Incomplete] = []
    unsound: set[Store] = set()
    for worker in stores.workers:
        damaged: dict[Store, CorruptDatabaseError] = {}
        usage = None
        while usage is None:
            unread = frozenset(damaged)
            try:
                tell(reading(f"reading {worker.path}", *worker.readers))
                usage = WorkerUsage(
                    WorkerFacts(worker, unread),
                    # With views of its own, which are not kept: most is never looked at again.
                    _loading(WorkerFacts(worker, unread), after_start),
                    matches=matches,
                    after_start=after_start,
                    progress=tell,
                )
            except CorruptDatabaseError as error:
                # Noticed only now, because pages are checked when they are first read.
                asked = (*worker.stores, *([worker.old] if worker.old is not None else []))
                store = next((one for one in asked if str(one.path) == error.path), None)
                if store is None or store in damaged:
                    raise
                damaged[store] = error
        unsound |= damaged.keys()
        incomplete += [*_closed(worker, damaged), *usage.incomplete]
        usages.append(usage)
    if top is not None:
        _keep_largest(usages, top)
    root_facts = Facts(stores, frozenset(unsound))
    root_facts.workers = tuple(usage.worker for usage in usages)
    return DiskUsage(stores.root.path, tuple(usages), tuple(incomplete), root_facts)


def _keep_largest(usages: Sequence[WorkerUsage], count: int) -> None:
    """Totals of all workers together."""
    import heapq

    sizes = (
        (usage.sizes.values[row], row, number) for number, usage in enumerate(usages) for row in usage.rows
    )
    largest = Counter(number for _, _, number in heapq.nlargest(count, sizes))
    for number, usage in enumerate(usages):
        usage.keep_last(largest[number])


def _loading(worker: WorkerFacts, after_start: bool) -> Loading | None:
    """With what there is of containerd's stores; None without records.

    A daemon makes those that are missing anew, and so finds nothing in them when it starts; nor in a damaged
    one of the snapshotter.
    """
    records = _records(worker)
    if records is None:
        return None
    faults = {store: store.fault if after_start else None for store in worker.stores.stores}
    found = None if worker.snapshots is None else Found.of(worker.snapshots, worker.stat)
    blobs = None if worker.namespace is None else worker.namespace.blobs.index
    if faults[worker.stores.containerd] is Fault.MISSING:
        found, blobs = Found(Index([]), Mask(0), Mask(0)), Index([])
    elif faults[worker.stores.snapshots] in (Fault.MISSING, Fault.CORRUPT) and found is not None:
        found = Found(found.index, Mask(found.there.size), Mask(found.there.size))
    return Loading(records, found, blobs)


def _records(worker: WorkerFacts) -> Records | None:
    """With the columns that are shown. Of a v1 store those that it would be migrated to, or nearly."""
    root = worker.root_of(worker.stores.records)
    if root is not None:
        return Records(root, _KEYS)
    old = worker.stores.old
    root = worker.root_of(old) if old is not None else None
    if root is None:
        return None
    snapshots = worker.root_of(worker.stores.snapshots)
    if worker.stores.kind == DOCKER_BUILDER and snapshots is not None:
        with contextlib.suppress(ContainerdStateError):  # nothing tells the storage driver
            return OldRecordsOfDocker(root, _KEYS, snapshots, worker.driver)
    return OldRecords(root, _KEYS, worker.snapshots, worker.backend)


_KEYS: Final = frozenset(
    {
        keys.BLOB,
        keys.BLOB_MAPPING,
        keys.COMMITTED,
        keys.CREATED_AT,
        keys.EQUAL_MUTABLE,
        keys.PARENT,
        keys.SNAPSHOT,
        b"cache.blobonly",
        b"cache.deleted",
        b"cache.description",
        b"cache.imageRefs",
        b"cache.lastUsedAt",
        b"cache.lowerDiffParent",
        b"cache.mergeParents",
        b"cache.recordType",
        b"cache.upperDiffParent",
        b"cache.usageCount",
        b"snapshot.size",
    }
)


def _abandoned(worker: WorkerFacts, loading: Loading | None) -> int:
    """Snapshots of a worker whose record store has been lost or made anew."""
    known = worker.stores.records.fault in (None, Fault.MISSING, Fault.EMPTY) and worker.stores.old is None
    return len(worker.snapshots or ()) if known and (loading is None or not len(loading.records)) else 0


_CODES: Final[dict[Fault | None, int]] = {
    Fault.CORRUPT: CorruptDatabaseError.exit_code,
    Fault.UNREADABLE: StorageError.exit_code,
}


def _closed(stores: WorkerStores, damaged: Mapping[Store, CorruptDatabaseError]) -> Iterator[Incomplete]:
    """Stores that could not be opened or read."""
    records = stores.old or stores.records
    asked = [
        (records, "its records can't be shown"),
        (stores.containerd, "what records have in containerd is not known, and taken to be there"),
    ]
    if stores.kind != DOCKER_BUILDER:
        asked.append((stores.snapshots, "what records have in the snapshotter is not known"))
    for store, meaning in asked:
        error = damaged.get(store) or store.error
        if (store.root is not None and store not in damaged) or _is_new(store, records):
            continue
        if store is stores.containerd and stores.kind == DOCKER_BUILDER and stores.old is not None:
            continue  # made by the migration
        code = _CODES.get(store.fault) if store not in damaged else CorruptDatabaseError.exit_code
        yield Incomplete(
            store.path or stores.path,
            f"{_why(store, error)}: {meaning}",
            code or ContainerdStateError.exit_code,
        )


def _is_new(store: Store, records: Store) -> bool:
    """A worker that never had a record need not have a store."""
    return store.fault is Fault.MISSING and records.fault is Fault.MISSING


def _why(store: Store, error: Error | None) -> str:
    if store.fault is Fault.ELSEWHERE:
        return "its containerd's files are not known; --containerd-root says where they are"
    return printable(error.message.removeprefix(f"{store.path}: ")) if error else "can't be opened"
