"""The rule about what leases list and what is not there (C37).

A daemon lists in the lease of a record what the record names before it is made: the snapshot of a merge, the
blob of a lazy layer. That may never come, or be lost, of which other rules tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from buildkit_migrate.maintenance.facts import WorkerFacts
from buildkit_migrate.maintenance.finding import Finding, Severity
from buildkit_migrate.maintenance.rule import Part, worker_rule
from buildkit_migrate.maintenance.rules.wording import path_of, quoted, subject
from buildkit_migrate.schema.columns import NOT_FOUND, Index, between
from buildkit_migrate.values import keys

__all__ = ["RULES"]

_VARIANTS: Final = b"-variants"


@worker_rule("C37", needs=(Part.RECORDS, Part.CONTAINERD, Part.SNAPSHOTS))
def leases_list_what_is_there(facts: WorkerFacts) -> Iterator[Finding]:
    """What the lease of a record lists is there, or some record names it."""
    records, namespace, snapshots = facts.records, facts.namespace, facts.snapshots
    assert records is not None and namespace is not None and snapshots is not None
    leases = namespace.leases
    missing: dict[int, list[str]] = {}
    for what, listed, rows, named in (
        ("blob", leases.content, facts.listed_blobs, keys.BLOB),
        ("snapshot", leases.snapshots(facts.stores.snapshotter), facts.listed_snapshots, keys.SNAPSHOT),
    ):
        gone = [
            place
            for place in between(rows, NOT_FOUND, NOT_FOUND)
            if records.index.row(listed.keys[place] or b"") < 0
        ]
        by_records = Index(records.text(named) if gone else ())
        for place in gone:
            key = listed.keys[place] or b""
            if by_records.row(key) < 0:
                missing.setdefault(listed.rows[place], []).append(f"the {what} {quoted(key)}")
    for row, objects in sorted(missing.items()):
        id = leases.keys[row] or b""
        owner = records.index.row(id.removesuffix(_VARIANTS))
        if row not in facts.passing and owner >= 0 and owner not in facts.odd:
            message = f"it lists {' and '.join(objects)}, which no record names and which does not exist"
            yield Finding("C37", Severity.HARMLESS, path_of(facts.stores.containerd), subject(id), message)


RULES = (leases_list_what_is_there,)
