"""Repairs of what records name (C12)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from buildkit_migrate.maintenance.facts import WorkerFacts
from buildkit_migrate.maintenance.mend import EditStore, Mend, Repair, RepairClass, worker_repair
from buildkit_migrate.maintenance.rule import Part
from buildkit_migrate.maintenance.rules.records import finished_alone
from buildkit_migrate.maintenance.rules.wording import path_of, subject
from buildkit_migrate.values import keys

__all__ = ["REPAIRS"]


@worker_repair("C12", needs=(Part.RECORDS,))
def finished(facts: WorkerFacts) -> Iterator[Mend]:
    """A record with a snapshot of its own does not name a mutable half that is gone, as after a start."""
    assert facts.records is not None
    store = facts.stores.records
    for row in finished_alone(facts):
        id = facts.records.ids[row] or b""
        change = EditStore(store, {keys.MAIN_BUCKET: {id: {keys.EQUAL_MUTABLE: b""}}})
        does = "clears cache.equalMutable"
        yield Mend(
            "C12", RepairClass.PROTECT, path_of(store), subject(id), does, (change,), record=(facts, id)
        )


REPAIRS: Final[tuple[Repair[WorkerFacts], ...]] = (finished,)
