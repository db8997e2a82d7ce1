"""The plan of a repair: what becomes of each finding, and the changes for that, in a safe order.

with open_stores(find_state(path), place, exclusive=True) as stores:
    plan = plan_repair(stores, {RepairClass.PROTECT})
    for mend in plan.mends:
        print(mend.rule, mend.subject, mend.does)

Pure: nothing is changed here. What protects comes first, what gives up comes last, and records go before
their leases, so that a repair that is cut off anywhere is safe, and can be run again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from buildkit_migrate.bolt.edits import merged
from buildkit_migrate.maintenance.available import unavailable
from buildkit_migrate.maintenance.check import Checked, Examination, examine_stores
from buildkit_migrate.maintenance.dropping import drop_records
from buildkit_migrate.maintenance.facts import Facts, WorkerFacts
from buildkit_migrate.maintenance.finding import Finding
from buildkit_migrate.maintenance.mend import (
    Change,
    DropRecord,
    EditStore,
    MakeDirectory,
    Mend,
    MoveAside,
    RemoveDirectory,
    Repair,
    RepairClass,
    RewriteStore,
    WriteFile,
)
from buildkit_migrate.maintenance.repairs import (
    builds,
    chains,
    data,
    dropped,
    history,
    indexes,
    leftovers,
    pages,
    records,
    released,
    set_aside,
    snapshotter,
    solver,
    values,
)
from buildkit_migrate.progress import Progress
from buildkit_migrate.schema.columns import Mask
from buildkit_migrate.workspace.stores import Store, Stores

__all__ = ["ROOT_REPAIRS", "WORKER_REPAIRS", "RepairPlan", "plan_repair", "protecting_first"]

WORKER_REPAIRS: Final[tuple[Repair[WorkerFacts], ...]] = (
    *values.REPAIRS,
    *records.REPAIRS,
    *indexes.REPAIRS,
    *chains.REPAIRS,
    *data.REPAIRS,
    *snapshotter.REPAIRS,
    *leftovers.REPAIRS,
    *dropped.REPAIRS,
    *released.WORKER_REPAIRS,
)
ROOT_REPAIRS: Final[tuple[Repair[Facts], ...]] = (
    *pages.REPAIRS,
    *released.ROOT_REPAIRS,
    *builds.REPAIRS,
    *set_aside.REPAIRS,
    *solver.REPAIRS,
    *history.REPAIRS,
)


@dataclass(frozen=True)
class RepairPlan:
    """``checked``: what was found. ``mends``: what is done about it, in the order of the rules; ``offered``:
    what else could be done if it were asked for.

    ``changes``: in the order in which they are made; no DropRecord is among them, and no store is twice
    among those that are not ``last``. ``dropped``: ids of the records that go.
    """

    checked: Checked
    classes: frozenset[RepairClass]
    mends: tuple[Mend, ...]
    offered: tuple[Mend, ...]
    changes: tuple[Change, ...]
    dropped: tuple[bytes, ...] = ()

    @cached_property
    def left(self) -> tuple[Finding, ...]:
        """Findings about which nothing is done."""
        mended = {(mend.rule, mend.file, mend.subject) for mend in self.mends}
        return tuple(
            finding
            for finding in self.checked.findings
            if (finding.rule, finding.file, finding.subject) not in mended
        )


def plan_repair(
    stores: Stores, classes: Collection[RepairClass], *, progress: Progress | None = None
) -> RepairPlan:
    """Checks all stores and plans a repair of what is found. Raises the errors of `examine_stores`."""
    found = examine_stores(stores, progress=progress)
    open_mends = list(_mends_for(found))
    wanted = [mend for mend in open_mends if mend.kind in classes]
    drops = [change for mend in wanted for change in mend.changes if isinstance(change, DropRecord)]
    changes, dropped = _dropping(drops, found.facts)
    chosen = []
    for mend in wanted:
        if any(isinstance(change, DropRecord) for change in mend.changes) or mend.record not in dropped:
            chosen.append(mend)
            changes += (change for change in mend.changes if not isinstance(change, DropRecord))
    return RepairPlan(
        found.checked,
        frozenset(classes),
        tuple(chosen),
        tuple(mend for mend in open_mends if mend.kind not in classes and mend.record not in dropped),
        tuple(_in_order(changes, stores)),
        tuple(sorted({id for _, id in dropped})),
    )


def _mends_for(found: Examination) -> Iterator[Mend]:
    """The mends of findings, in the order of the findings. What is no finding is not mended."""
    mends: dict[tuple[str, str, str], list[Mend]] = {}
    rules = found.checked.counts.keys()
    for worker in found.facts.workers:
        for repair in WORKER_REPAIRS:
            if not rules.isdisjoint(repair.numbers) and found.lacking[worker].isdisjoint(repair.needs):
                _collect(repair.mends(worker), mends)
    lacking = unavailable(found.facts.stores, found.unusable).keys()
    for root_repair in ROOT_REPAIRS:
        if not rules.isdisjoint(root_repair.numbers) and lacking.isdisjoint(root_repair.needs):
            _collect(root_repair.mends(found.facts), mends)
    for finding in found.checked.findings:
        yield from mends.pop((finding.rule, str(finding.file), finding.subject), ())


def _collect(mends: Iterable[Mend], into: dict[tuple[str, str, str], list[Mend]]) -> None:
    for mend in mends:
        into.setdefault((mend.rule, str(mend.file), mend.subject), []).append(mend)


def _dropping(
    drops: Sequence[DropRecord], facts: Facts
) -> tuple[list[Change], set[tuple[WorkerFacts, bytes]]]:
    """The changes that drop these records and what is built on them, and the ids of all that go."""
    by_worker: dict[WorkerFacts, list[int]] = {}
    for drop in drops:
        by_worker.setdefault(drop.worker, []).append(drop.row)
    masks = {it: Mask(len(it.records), rows) for it, rows in by_worker.items() if it.records is not None}
    result = drop_records(masks, facts.workers)
    dropped = {
        (worker, worker.records.ids[row] or b"")
        for worker, rows in result.rows.items()
        if worker.records is not None
        for row in rows
    }
    return list(result.changes), dropped


def _in_order(changes: Iterable[Change], stores: Stores) -> Iterator[Change]:
    """Merges the edits of each store, and sorts: what protects, then what describes, then what gives up."""
    first: dict[Store, list[EditStore]] = {}
    last: dict[Store, list[EditStore]] = {}
    rewritten: dict[Store, RewriteStore] = {}
    others: dict[Change, None] = {}
    for change in changes:
        if isinstance(change, EditStore):
            (last if change.last else first).setdefault(change.store, []).append(change)
        elif isinstance(change, RewriteStore):
            if change.previous or change.store not in rewritten:
                rewritten[change.store] = change
        else:
            others[change] = None
    yield from (change for change in others if isinstance(change, MakeDirectory | WriteFile))
    order = tuple(dict.fromkeys(protecting_first(stores)))
    for store in order:
        if store in first:  # which writes the whole file anew
            yield _merged(first[store])
        elif store in rewritten:
            yield rewritten[store]
    for store in order:
        if store in last:
            yield _merged(last[store])
    yield from (change for change in others if isinstance(change, MoveAside))
    yield from (change for change in others if isinstance(change, RemoveDirectory))


def _merged(changes: Sequence[EditStore]) -> EditStore:
    """Of one store."""
    sequences: dict[tuple[bytes, ...], int] = {}
    for change in changes:
        for path, number in change.sequences.items():
            sequences[path] = max(number, sequences.get(path, 0))
    edits = merged(*(change.edits for change in changes))
    return EditStore(changes[0].store, edits, changes[0].last, sequences)


def protecting_first(stores: Stores) -> Iterator[Store]:
    """Stores of snapshotters, containerd's, records, and what is shared; some of them twice."""
    for worker in stores.workers:
        yield worker.snapshots
    for worker in stores.workers:
        yield worker.containerd
    for worker in stores.workers:
        yield worker.records
    yield from stores.all
