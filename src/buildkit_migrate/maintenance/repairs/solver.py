"""Repairs of the solver cache: results and keys mirror each other, and name the worker (C51, C52)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from buildkit_migrate.files.errors import exists
from buildkit_migrate.maintenance.facts import Facts
from buildkit_migrate.maintenance.mend import Mend, Repair, RepairClass, WriteFile, root_repair
from buildkit_migrate.maintenance.rule import Part
from buildkit_migrate.maintenance.rules.solver import former_id
from buildkit_migrate.maintenance.rules.wording import path_of, subject

__all__ = ["REPAIRS"]


@root_repair("C52", needs=(Part.CACHE, Part.RECORDS))
def known_worker(facts: Facts) -> Iterator[Mend]:
    """The worker gets the id back that all results name, before a start releases them."""
    if (id := former_id(facts)) is not None:
        worker = facts.workers[0].stores
        file = worker.path / "workerid"
        change = WriteFile(file, id, like=file if exists(file) else path_of(worker.records))
        does = "writes this id into the file"
        yield Mend("C52", RepairClass.PROTECT, file, subject(id), does, (change,))


REPAIRS: Final[tuple[Repair[Facts], ...]] = (known_worker,)
