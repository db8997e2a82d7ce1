"""Repairs of cache.db and history.db that can't be read (C1, C3): the daemon makes a new one in their place.

Newer daemons do that by themselves if the damage is met while the file is opened. Older ones do not start,
and damage that is met later stops any of them, again and again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from buildkit_migrate.maintenance.facts import Facts
from buildkit_migrate.maintenance.mend import Mend, MoveAside, Repair, RepairClass, root_repair
from buildkit_migrate.maintenance.rules.pages import whole_before
from buildkit_migrate.schema.columns import starting_with
from buildkit_migrate.workspace.stores import Fault

__all__ = ["REPAIRS"]

_HITS: Final = "all that the solver cache knows: no step is found in it, until it has run once more"
_FOR_DEBUGGING: Final = "what was saved to find out why steps are not cached"


@root_repair("C1", "C3", needs=())
def unreadable(facts: Facts) -> Iterator[Mend]:
    """What holds no data of a build, and can't be mended without loss, gets another name."""
    stores = facts.stores
    builds = _builds(facts)
    costs = {
        stores.cache: _HITS,
        stores.cache_debug: _FOR_DEBUGGING,
        **dict.fromkeys(
            stores.histories,
            f"the list of builds ({builds} have a lease): "
            "what they hold stays on disk until `repair --release-leaks` gives up those leases",
        ),
    }
    for store, loses in costs.items():
        is_damaged = store in facts.unsound and store.fault in (None, Fault.CORRUPT)
        if store.path is None or not is_damaged:
            continue
        if whole_before(store.path) is not None:
            continue  # `repair` goes back to that
        for rule in ("C1", "C3"):
            does = "moves the file aside, as a new daemon would"
            change = MoveAside(store.path)
            yield Mend(rule, RepairClass.SET_ASIDE, store.path, "", does, (change,), loses)


def _builds(facts: Facts) -> int:
    spaces = {(it.stores.containerd.path, it.stores.namespace): it.history_namespace for it in facts.workers}
    return sum(len(starting_with(it.leases.keys, b"ref_")) for it in spaces.values() if it is not None)


REPAIRS: Final[tuple[Repair[Facts], ...]] = (unreadable,)
