"""Rules about the indexes of records, their ids and their external data (C17 to C21)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from buildkit_migrate.maintenance.facts import WorkerFacts
from buildkit_migrate.maintenance.finding import Finding, Severity
from buildkit_migrate.maintenance.rule import Part, worker_rule
from buildkit_migrate.maintenance.rules.wording import path_of, quoted, subject
from buildkit_migrate.schema.columns import NOT_FOUND, Mask, between, present
from buildkit_migrate.schema.records import index_differences
from buildkit_migrate.values.keys import index_key

__all__ = ["RULES"]

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
    differences = index_differences(records, entries)
    for row, key, index in differences.missing:
        message = f"{quoted(key)} has the index {quoted(index)}, which has no entry for the record"
        yield Finding("C17", Severity.HARMLESS, path, subject(records.ids[row]), message)
    # What a value that does not decode, or was replaced by one of another type, is found by is not known.
    lost = [cell.row for cell in records.undecodable]
    lost += [cell.row for cell in records.mistyped if cell.key.startswith(_SEARCHED)]
    unknown = Mask(len(records), lost)
    for place in differences.stray:
        id, text = entries.record[place] or b"", entries.text[place] or b""
        if records.index.row(id) in unknown:
            continue
        severity = Severity.HARMLESS if text.startswith(_DEAD) else Severity.CONTENT
        message = f"no value of the record {quoted(id)} has this index"
        yield Finding("C19", severity, path, subject(entries.keys[place]), message)


@worker_rule("C18", "C20", needs=(Part.RECORDS,))
def entries_name_records(facts: WorkerFacts) -> Iterator[Finding]:
    """Each index entry can be split, and its record exists."""
    records, entries = facts.records, facts.entries
    assert records is not None and entries is not None
    path = path_of(facts.stores.records)
    for place in ~present(entries.record):
        message = "it is an index entry without ::, so a search that meets it never ends"
        yield Finding("C20", Severity.PRUNE, path, subject(entries.keys[place]), message)
    theirs: set[bytes] = set()  # entries that are cut in the wrong place
    for row in facts.odd:
        id = records.ids[row] or b""
        if b"::" in id:
            message = "the id of the record has :: in it, so no index entry can name it"
            yield Finding("C20", Severity.HARMLESS, path, subject(id), message)
            theirs.update(index_key(index, id) for _, index in records.indexes(row))
    if _is_reset(facts):
        return
    for place in between(records.index.rows(entries.record), NOT_FOUND, NOT_FOUND):
        key = entries.keys[place] or b""
        if key not in theirs:
            named = quoted(entries.record[place]) or "with an empty id"
            message = f"it is an index entry of the record {named}, which does not exist"
            yield Finding("C18", Severity.HARMLESS, path, subject(key), message)


@worker_rule("C21", needs=(Part.RECORDS,))
def external_data_has_a_record(facts: WorkerFacts) -> Iterator[Finding]:
    """External data belongs to a record that exists."""
    records, external = facts.records, facts.external
    assert records is not None and external is not None
    if _is_reset(facts):
        return
    path = path_of(facts.stores.records)
    for place in between(records.index.rows(external.ids), NOT_FOUND, NOT_FOUND):
        message = "it is the external data of a record that does not exist"
        size = external.sizes[place]
        yield Finding("C21", Severity.LEAK, path, subject(external.ids[place]), message, size)


def _is_reset(facts: WorkerFacts) -> bool:
    """Whether there are leases and no record at all: that is the fault (C39), and these follow from it."""
    return not len(facts.records or ()) and facts.namespace is not None and len(facts.namespace.leases) > 0


RULES = (indexes_match, entries_name_records, external_data_has_a_record)
