"""Repairs of the solver cache: results and keys mirror each other, and name the worker (C51, C52).

What a result is can't be made up: one that only lists keys is gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from buildkit_migrate.bolt.edits import Edits, merged
from buildkit_migrate.files.errors import exists
from buildkit_migrate.maintenance.facts import Facts
from buildkit_migrate.maintenance.mend import EditStore, Mend, Repair, RepairClass, WriteFile, root_repair
from buildkit_migrate.maintenance.rule import Part
from buildkit_migrate.maintenance.rules.solver import former_id, unmirrored
from buildkit_migrate.maintenance.rules.wording import path_of, subject
from buildkit_migrate.schema.columns import equal_to, present, split_last
from buildkit_migrate.schema.solver import BACKLINKS, BY_RESULT, LINKS, SolverCache
from buildkit_migrate.text import cut

__all__ = ["REPAIRS"]


@root_repair("C51", needs=(Part.CACHE,))
def mirrored(facts: Facts) -> Iterator[Mend]:
    """A result lists the keys that have it, and no others; a search can start at each of these.

    Whole buckets that are missing are made, and filled as far as the others tell what was in them.
    """
    cache = facts.solver
    assert cache is not None
    changes = list(_mirroring(cache))
    if not cache.missing:
        for about, does, edits in changes:
            yield _mend(facts, about, does, edits)
        return
    more: dict[bytes, Edits] = {name: {} for name in cache.missing}
    if BACKLINKS in cache.missing:
        more[BACKLINKS] = _backlinks(cache)
    whole = merged(more, *(edits for _, _, edits in changes))
    for name in cache.missing:
        yield _mend(facts, name, "makes the bucket, with what the others tell of it", whole)


def _mirroring(cache: SolverCache) -> Iterator[tuple[bytes, str, Edits]]:
    """What each edit is about, what it does, and the edit."""
    results, by_result = cache.results, cache.by_result
    found = unmirrored(cache)
    listing = set()
    for place in found.unlisted:
        id, key = results.keys[place] or b"", cache.keys[results.rows[place]] or b""
        listing.add(id)
        yield id, f"adds key {cut(key)} to those of the result", {BY_RESULT: {id: {key: b""}}}
    stray: dict[int, list[bytes]] = {}
    for place in found.without_result:
        stray.setdefault(by_result.rows[place], []).append(by_result.keys[place] or b"")
    for row, listed in stray.items():
        id = cache.result_ids[row] or b""
        empty = len(listed) == len(by_result.of(row)) and id not in listing
        edits: Edits = {BY_RESULT: {id: None if empty else dict.fromkeys(listed)}}
        what = "a key that does" if len(listed) == 1 else f"{len(listed)} keys that do"
        yield id, f"deletes {what} not have the result", edits
    for row in found.without_links:
        key = cache.keys[row] or b""
        yield key, "makes the bucket of its links", {LINKS: {key: {}}}


def _backlinks(cache: SolverCache) -> Edits:
    """The way back of each link."""
    found: dict[bytes, dict[bytes, bytes]] = {}
    links, targets = cache.links, split_last(cache.links.keys, b"@")[1]
    for place in present(targets) - equal_to(targets, b""):
        source = cache.linked[links.rows[place]] or b""
        found.setdefault(targets[place] or b"", {})[source] = b""
    return found


def _mend(facts: Facts, about: bytes, does: str, edits: Edits) -> Mend:
    store = facts.stores.cache
    return Mend("C51", RepairClass.PROTECT, path_of(store), subject(about), does, (EditStore(store, edits),))


@root_repair("C52", needs=(Part.CACHE, Part.RECORDS))
def known_worker(facts: Facts) -> Iterator[Mend]:
    """The worker gets the id back that all results name, before a start releases them."""
    if (id := former_id(facts)) is not None:
        worker = facts.workers[0].stores
        file = worker.path / "workerid"
        change = WriteFile(file, id, like=file if exists(file) else path_of(worker.records))
        does = "writes this id into the file"
        yield Mend("C52", RepairClass.PROTECT, file, subject(id), does, (change,))


REPAIRS: Final[tuple[Repair[Facts], ...]] = (mirrored, known_worker)
