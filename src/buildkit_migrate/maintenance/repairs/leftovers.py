"""The repair of what containers left beside the stores (C60)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from buildkit_migrate.maintenance.facts import WorkerFacts
from buildkit_migrate.maintenance.mend import Mend, RemoveDirectory, Repair, RepairClass, worker_repair
from buildkit_migrate.maintenance.rule import Part
from buildkit_migrate.maintenance.rules.leftovers import left_by_containers

__all__ = ["REPAIRS"]


@worker_repair("C60", needs=(Part.RECORDS,))
def run_state(facts: WorkerFacts) -> Iterator[Mend]:
    """Run bundles and mount points are removed where they can be moved away."""
    for left in left_by_containers(facts.stores):
        if not left.fixed:
            change = RemoveDirectory(left.place / left.name)
            yield Mend("C60", RepairClass.PROTECT, left.place, left.name, "removes the directory", (change,))


REPAIRS: Final[tuple[Repair[WorkerFacts], ...]] = (run_state,)
