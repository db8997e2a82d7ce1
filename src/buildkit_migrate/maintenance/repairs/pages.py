"""Repairs of database files as such (C1, C3, C4): what is whole of a file becomes a new one.

A file that has grown (C5) is no fault of its content: `compact` makes it small.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from buildkit_migrate.maintenance.facts import Facts
from buildkit_migrate.maintenance.mend import Mend, Repair, RepairClass, RewriteStore, root_repair
from buildkit_migrate.maintenance.rules.pages import has_broken_trees, whole_before
from buildkit_migrate.maintenance.rules.wording import path_of
from buildkit_migrate.workspace.stores import Fault

__all__ = ["REPAIRS"]


@root_repair("C1", "C3", "C4", needs=())
def whole_files(facts: Facts) -> Iterator[Mend]:
    """Whole trees get a new free list; where the newest transaction is torn, the one before comes back."""
    for store in facts.stores.all:
        if store.database is None and store.fault is not Fault.CORRUPT:
            continue
        file = path_of(store)
        if store.database is not None and not (store in facts.unsound and has_broken_trees(store.database)):
            does = "copies the trees into a new file, and makes its free list"
            for rule in ("C1", "C4"):
                yield Mend(rule, RepairClass.PROTECT, file, "", does, (RewriteStore(store),))
        elif (transaction := whole_before(file)) is not None:
            does = f"goes back to transaction {transaction}, the one before the newest"
            loses = "what the newest transaction changed"
            change = RewriteStore(store, previous=True)
            for rule in ("C1", "C3"):
                yield Mend(rule, RepairClass.PROTECT, file, "", does, (change,), loses)


REPAIRS: Final[tuple[Repair[Facts], ...]] = (whole_files,)
