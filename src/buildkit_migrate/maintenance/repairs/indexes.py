"""Repairs of the indexes of records and of their external data (C17 to C21): all of it can be told anew."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from buildkit_migrate.bolt.edits import Edits
from buildkit_migrate.maintenance.facts import WorkerFacts
from buildkit_migrate.maintenance.mend import EditStore, Mend, Repair, RepairClass, worker_repair
from buildkit_migrate.maintenance.rule import Part
from buildkit_migrate.maintenance.rules.indexes import differing, unowned_data, unowned_entries, unsplit
from buildkit_migrate.maintenance.rules.wording import path_of, quoted, subject
from buildkit_migrate.values import keys

__all__ = ["REPAIRS"]


@worker_repair("C17", "C19", needs=(Part.RECORDS,))
def matching(facts: WorkerFacts) -> Iterator[Mend]:
    """Entries are made for indexes that have none, and deleted where a record does not have the index."""
    records, entries = facts.records, facts.entries
    assert records is not None and entries is not None
    differences = differing(facts)
    for row, key, index in differences.missing:
        id = records.ids[row] or b""
        entry = keys.index_key(index, id)
        if len(entry) <= keys.MAX_KEY:
            does = f"adds the entry {quoted(index)} for {quoted(key)}"
            yield _mend(facts, "C17", id, does, {keys.INDEX_BUCKET: {entry: b""}}, id)
    for place in differences.stray:
        yield _without_entry(facts, "C19", place)


@worker_repair("C18", "C20", needs=(Part.RECORDS,))
def named(facts: WorkerFacts) -> Iterator[Mend]:
    """Entries that name no record are deleted."""
    for place in unsplit(facts):
        yield _without_entry(facts, "C20", place)
    for place in unowned_entries(facts):
        yield _without_entry(facts, "C18", place)


@worker_repair("C21", needs=(Part.RECORDS,))
def external_data(facts: WorkerFacts) -> Iterator[Mend]:
    """External data of no record is deleted."""
    external = facts.external
    assert external is not None
    for place in unowned_data(facts):
        id = external.ids[place] or b""
        yield _mend(facts, "C21", id, "deletes the data", {keys.EXTERNAL_BUCKET: {id: None}})


def _without_entry(facts: WorkerFacts, rule: str, place: int) -> Mend:
    assert facts.entries is not None
    entry = facts.entries.keys[place] or b""
    return _mend(facts, rule, entry, "deletes the entry", {keys.INDEX_BUCKET: {entry: None}})


def _mend(
    facts: WorkerFacts, rule: str, name: bytes, does: str, edits: Edits, record: bytes | None = None
) -> Mend:
    store = facts.stores.records
    change, of = EditStore(store, edits), None if record is None else (facts, record)
    return Mend(rule, RepairClass.PROTECT, path_of(store), subject(name), does, (change,), record=of)


REPAIRS: Final[tuple[Repair[WorkerFacts], ...]] = (matching, named, external_data)
