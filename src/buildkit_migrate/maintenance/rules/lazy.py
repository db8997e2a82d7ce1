"""The rule about lazy records that lost what they had (C16).

A lazy record waits for a blob that a daemon knows how to fetch. At rest that looks like one whose blob was
lost, and is healthy: the daemon drops it at its next start, and whoever needs it pulls it again. What tells
them apart is what only a blob that was here leaves behind:

- a lease ``<id>-variants``: made when the blob was fetched or made here;
- a size: computed when there was something to measure;
- a description: "pulled from ..." is set at the extraction, and steps have theirs from the beginning;
- a record built on it that is not lazy: the layer below was extracted for that.
"""

from __future__ import annotations

from collections.abc import Iterator

from buildkit_migrate.maintenance.facts import WorkerFacts
from buildkit_migrate.maintenance.finding import Finding, Severity
from buildkit_migrate.maintenance.loading import LAYER
from buildkit_migrate.maintenance.record_data import referred
from buildkit_migrate.maintenance.rule import Part, worker_rule
from buildkit_migrate.maintenance.rules.wording import path_of, quoted, subject
from buildkit_migrate.schema.columns import NOT_FOUND, between, chosen, equal_to, present
from buildkit_migrate.values import keys

__all__ = ["RULES"]


@worker_rule("C16", needs=(Part.RECORDS, Part.CONTAINERD, Part.SNAPSHOTS))
def lazy_records_never_had_their_data(facts: WorkerFacts) -> Iterator[Finding]:
    records, namespace, loading = facts.records, facts.namespace, facts.loading
    assert records is not None and namespace is not None and loading is not None
    digests = records.text(keys.BLOB)
    waiting = loading.lazy & between(namespace.blobs.index.rows(digests), NOT_FOUND, NOT_FOUND) - facts.odd
    if not waiting:
        return
    leases = namespace.leases.index
    descriptions = records.text(b"cache.description")
    described = present(descriptions) - equal_to(descriptions, b"")
    measured = between(records.integer(b"snapshot.size").values, 1, 2**63 - 1)
    layers = between(loading.kind, LAYER, LAYER) - records.flag(b"cache.blobonly")
    below = referred(chosen(loading.parent, layers), len(records))
    for row in waiting:
        id = records.ids[row] or b""
        signs = (
            (leases.row(id + b"-variants") >= 0, "its lease for variants is there"),
            (row in measured, "its size is known"),
            (row in described, f"its description is {quoted(descriptions[row])}"),
            (row in below, "a layer that is not lazy is built on it"),
        )
        told = [sign for holds, sign in signs if holds]
        if told:
            message = f"its blob {quoted(digests[row])} was here once, as {' and '.join(told)}; it is gone"
            yield Finding("C16", Severity.HARMLESS, path_of(facts.stores.records), subject(id), message)


RULES = (lazy_records_never_had_their_data,)
