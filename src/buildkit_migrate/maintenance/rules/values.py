"""Rules about the values of records: JSON, types, sizes of blobs (C8, C9, C63)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from buildkit_migrate.maintenance.facts import WorkerFacts
from buildkit_migrate.maintenance.finding import Finding, Severity
from buildkit_migrate.maintenance.odd import STRUCTURAL
from buildkit_migrate.maintenance.rule import Part, worker_rule
from buildkit_migrate.maintenance.rules.wording import path_of, quoted, subject
from buildkit_migrate.schema.columns import Mask, between, equal_to, present
from buildkit_migrate.schema.records import Kind, Records, kind_of
from buildkit_migrate.values import keys

__all__ = ["CLEARABLE", "RULES", "is_unknown", "without_size"]

CLEARABLE: Final = frozenset(
    {
        b"cache.createdAt",
        b"cache.description",
        b"cache.imageRefs",
        b"cache.lastUsedAt",
        b"cache.usageCount",
        b"snapshot.size",
    }
)
"""Keys that only describe a record, or that the daemon computes again."""

_KINDS: Final[dict[Kind | None, str]] = {
    Kind.TEXT: "a string",
    Kind.INTEGER: "a whole number",
    Kind.FLAG: "true or false",
    Kind.TEXTS: "a list of strings",
}

_CLEARED: Final = "`repair` clears the value."
_DROPPED: Final = "`repair --drop` removes the record and what is built on it."
_MEASURED: Final = "`repair` sets it to the size that containerd knows of the blob."
_NO_SIZE: Final = "`repair --drop` removes the record: containerd does not know the blob."


def _repair(facts: WorkerFacts, row: int, key: bytes) -> str:
    if key == keys.BLOB_SIZE:
        assert facts.records is not None
        return _size(facts, facts.records.text(keys.BLOB)[row]) or _MEASURED
    return _CLEARED if key in CLEARABLE else _DROPPED


@worker_rule("C8", needs=(Part.RECORDS,))
def values_decode(facts: WorkerFacts) -> Iterator[Finding]:
    records, path = facts.records, path_of(facts.stores.records)
    assert records is not None
    for row, key, value in records.undecodable:
        message = f"{quoted(key)} does not decode: {quoted(value)}"
        yield Finding(
            "C8", Severity.START, path, subject(records.ids[row]), message, repair=_repair(facts, row, key)
        )


@worker_rule("C9", needs=(Part.RECORDS,))
def values_have_their_type(facts: WorkerFacts) -> Iterator[Finding]:
    records, path = facts.records, path_of(facts.stores.records)
    assert records is not None
    for row, key, value in records.mistyped:
        severity = Severity.BUILD if key in STRUCTURAL or key == keys.BLOB_SIZE else Severity.HARMLESS
        kind = _KINDS.get(kind_of(key), "of its type")
        message = f"{quoted(key)} is not {kind}: {quoted(value)}"
        yield Finding(
            "C9", severity, path, subject(records.ids[row]), message, repair=_repair(facts, row, key)
        )


@worker_rule("C63", needs=(Part.RECORDS,))
def blobs_have_a_size(facts: WorkerFacts) -> Iterator[Finding]:
    records, path = facts.records, path_of(facts.stores.records)
    assert records is not None
    if not (lacking := without_size(records)):
        return
    digests, sizes = records.text(keys.BLOB), records.integer(keys.BLOB_SIZE)
    for row in lacking:
        digest = digests[row] or b""
        there = "it is absent" if row not in sizes.known else f"it is {sizes.values[row]}"
        message = f"cache.blobsize must be the size of the blob {quoted(digest)}, and {there}"
        yield Finding(
            "C63", Severity.BUILD, path, subject(records.ids[row]), message, repair=_size(facts, digest)
        )


def without_size(records: Records) -> Mask:
    """Records with a blob and no size of it."""
    digests = records.text(keys.BLOB)
    has_blob = present(digests) - equal_to(digests, b"")
    sizes = records.integer(keys.BLOB_SIZE)
    odd = records.has(keys.BLOB_SIZE) - sizes.known  # C8 or C9
    return has_blob - odd - between(sizes.values, 1, 2**63 - 1)


def is_unknown(facts: WorkerFacts, digest: bytes) -> bool:
    """Whether containerd does not know the size of this blob, so that nobody does."""
    if facts.namespace is None:
        return False
    size = facts.namespace.blobs.size
    row = facts.namespace.blobs.index.row(digest)
    return row < 0 or row not in size.known or size.values[row] <= 0


def _size(facts: WorkerFacts, digest: bytes | None) -> str | None:
    """What a repair would do; None if unknown."""
    if not digest:
        return _CLEARED
    if facts.namespace is None:
        return None
    if is_unknown(facts, digest):
        return _NO_SIZE
    blobs = facts.namespace.blobs
    size = blobs.size.values[blobs.index.row(digest)]
    return f"`repair` sets it to {size}, the size that containerd knows, if the file has it, too."


RULES = (values_decode, values_have_their_type, blobs_have_a_size)
