"""Rules about the indexes of records, their ids and their external data (C17 to C21)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from buildkit_migrate.maintenance.facts import WorkerFacts
from buildkit_migrate.maintenance.finding import Finding, Severity
from buildkit_migrate.maintenance.rule import Part, worker_rule
from buildkit_migrate.maintenance.rules.values import CLEARABLE
from buildkit_migrate.maintenance.rules.wording import path_of, quoted, subject
from buildkit_migrate.schema.columns import NOT_FOUND, Mask, between, present
from buildkit_migrate.schema.records import IndexDifferences, index_differences
from buildkit_migrate.values.keys import index_key

__all__ = ["RULES", "differing", "unowned_data", "unowned_entries", "unsplit"]

_DEAD: Final = b"blobmap::"
"""Indexes that no version with a v2 store searches."""

_SEARCHED: Final = (
    b"cache-dir",
    b"cache.blobChainID",
    b"cache.chainID",
    b"git-",
    b"http.checksum",
    b"local.sharedKey",
)
"""Beginnings of the keys that records are found by."""


@worker_rule("C17", "C19", needs=(Part.RECORDS,))
def indexes_match(facts: WorkerFacts) -> Iterator[Finding]:
    """Each index that a value names has its entry, and each entry of a record such a value."""
    records, entries = facts.records, facts.entries
    assert records is not None and entries is not None
    path = path_of(facts.stores.records)
    differences = differing(facts)
    for row, key, index in differences.missing:
        message = f"{quoted(key)} has the index {quoted(index)}, which has no entry for the record"
        yield Finding("C17", Severity.HARMLESS, path, subject(records.ids[row]), message)
    for place in differences.stray:
        id, text = entries.record[place] or b"", entries.text[place] or b""
        severity = Severity.HARMLESS if text.startswith(_DEAD) else Severity.CONTENT
        message = f"no value of the record {quoted(id)} has this index"
        yield Finding("C19", severity, path, subject(entries.keys[place]), message)


def differing(facts: WorkerFacts) -> IndexDifferences:
    """Where indexes and their entries differ, but for entries that may be those of a value that is lost."""
    records, entries = facts.records, facts.entries
    assert records is not None and entries is not None
    differences = index_differences(records, entries)
    # What a value that does not decode, or was replaced by one of another type, is found by is not known.
    lost = [cell.row for cell in records.undecodable if cell.key not in CLEARABLE]
    lost += [cell.row for cell in records.mistyped if cell.key.startswith(_SEARCHED)]
    unknown = Mask(len(records), lost)
    stray = [
        place
        for place in differences.stray
        if not lost or records.index.row(entries.record[place] or b"") not in unknown
    ]
    return IndexDifferences(differences.missing, stray)


@worker_rule("C18", "C20", needs=(Part.RECORDS,))
def entries_name_records(facts: WorkerFacts) -> Iterator[Finding]:
    """Each index entry can be split, and its record exists."""
    records, entries = facts.records, facts.entries
    assert records is not None and entries is not None
    path = path_of(facts.stores.records)
    for place in unsplit(facts):
        message = "it is an index entry without ::, so a search that meets it never ends"
        yield Finding("C20", Severity.PRUNE, path, subject(entries.keys[place]), message)
    for row in _unnameable(facts):
        message = "the id of the record has :: in it, so no index entry can name it"
        yield Finding("C20", Severity.HARMLESS, path, subject(records.ids[row]), message)
    for place in unowned_entries(facts):
        named = quoted(entries.record[place]) or "with an empty id"
        message = f"it is an index entry of the record {named}, which does not exist"
        yield Finding("C18", Severity.HARMLESS, path, subject(entries.keys[place]), message)


def unsplit(facts: WorkerFacts) -> Mask:
    """Index entries without ``::``."""
    assert facts.entries is not None
    return ~present(facts.entries.record)


def _unnameable(facts: WorkerFacts) -> Iterator[int]:
    """Records with ``::`` in their ids."""
    assert facts.records is not None
    return (row for row in facts.odd if b"::" in (facts.records.ids[row] or b""))


def unowned_entries(facts: WorkerFacts) -> Iterator[int]:
    """Index entries whose record does not exist."""
    records, entries = facts.records, facts.entries
    assert records is not None and entries is not None
    if _is_reset(facts):
        return
    cut_wrongly = {
        index_key(index, records.ids[row] or b"")
        for row in _unnameable(facts)
        for _, index in records.indexes(row)
    }
    for place in between(records.index.rows(entries.record), NOT_FOUND, NOT_FOUND):
        if entries.keys[place] not in cut_wrongly:
            yield place


@worker_rule("C21", needs=(Part.RECORDS,))
def external_data_has_a_record(facts: WorkerFacts) -> Iterator[Finding]:
    """External data belongs to a record that exists."""
    external, path = facts.external, path_of(facts.stores.records)
    assert external is not None
    for place in unowned_data(facts):
        message = "it is the external data of a record that does not exist"
        size = external.sizes[place]
        yield Finding("C21", Severity.LEAK, path, subject(external.ids[place]), message, size)


def unowned_data(facts: WorkerFacts) -> Mask:
    """External data whose record does not exist."""
    assert facts.records is not None and facts.external is not None
    if _is_reset(facts):
        return Mask(len(facts.external))
    return between(facts.records.index.rows(facts.external.ids), NOT_FOUND, NOT_FOUND)


def _is_reset(facts: WorkerFacts) -> bool:
    """Whether there are leases and no record at all: that is the fault (C39), and these follow from it."""
    return not len(facts.records or ()) and facts.namespace is not None and len(facts.namespace.leases) > 0


RULES = (indexes_match, entries_name_records, external_data_has_a_record)
