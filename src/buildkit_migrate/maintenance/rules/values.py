"""Rules about the values of records: JSON, types, keys that nobody writes, sizes of blobs (C8, C9, C62, C63)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from buildkit_migrate.maintenance.facts import WorkerFacts
from buildkit_migrate.maintenance.finding import Finding, Severity, named, quoted
from buildkit_migrate.maintenance.rule import Part, worker_rule
from buildkit_migrate.schema.columns import between, equal_to, present
from buildkit_migrate.schema.records import KEYS, Kind, Records, kind_of
from buildkit_migrate.values import keys

__all__ = ["RULES", "STRUCTURAL"]

STRUCTURAL: Final = frozenset(
    {
        b"cache.blob",
        b"cache.blobChainID",
        b"cache.blobonly",
        b"cache.chainID",
        b"cache.deleted",
        b"cache.diffID",
        b"cache.equalMutable",
        b"cache.lowerDiffParent",
        b"cache.mediatype",
        b"cache.mergeParents",
        b"cache.parent",
        b"cache.snapshot",
        b"cache.upperDiffParent",
        b"snapshot.committed",
    }
)
"""Keys that say what a record is and where its data is: it is not the same record without them."""

_CLEARED: Final = "`repair` clears the value."
_DROPPED: Final = "`repair --drop` removes the record and what is built on it."
_MEASURED: Final = "`repair` sets it to the size that containerd knows of the blob."
_NO_SIZE: Final = "`repair --drop` removes the record: containerd does not know the blob."


def _is_descriptive(key: bytes) -> bool:
    """Whether the daemon goes on without the value, or makes it again."""
    return key in KEYS and key not in STRUCTURAL and key != keys.BLOB_SIZE


def _repair(key: bytes) -> str:
    if key == keys.BLOB_SIZE:
        return _MEASURED
    return _CLEARED if _is_descriptive(key) else _DROPPED


@worker_rule("C8", needs=(Part.RECORDS,))
def values_decode(facts: WorkerFacts) -> Iterator[Finding]:
    records, path = facts.records, facts.stores.records.path
    if records is None or path is None:
        return
    for row, key, value in records.undecodable:
        message = f"{quoted(key)} does not decode: {quoted(value or b'')}"
        yield Finding("C8", Severity.START, path, _id(records, row), message, repair=_repair(key))


@worker_rule("C9", needs=(Part.RECORDS,))
def values_have_their_type(facts: WorkerFacts) -> Iterator[Finding]:
    records, path = facts.records, facts.stores.records.path
    if records is None or path is None:
        return
    for row, key, value in records.mistyped:
        severity = Severity.HARMLESS if _is_descriptive(key) else Severity.BUILD
        kind = kind_of(key) or Kind.ANY
        message = f"{quoted(key)} is not a {kind.value}: {quoted(value or b'')}"
        yield Finding("C9", severity, path, _id(records, row), message, repair=_repair(key))


@worker_rule("C63", needs=(Part.RECORDS,))
def blobs_have_a_size(facts: WorkerFacts) -> Iterator[Finding]:
    records, path = facts.records, facts.stores.records.path
    if records is None or path is None:
        return
    digests = records.text(keys.BLOB)
    has_blob = present(digests) - equal_to(digests, b"")
    sizes = records.integer(keys.BLOB_SIZE)
    odd = records.has(keys.BLOB_SIZE) - sizes.known  # C8 or C9
    for row in has_blob - odd - between(sizes.values, 1, 2**63 - 1):
        digest = digests[row] or b""
        there = "it is absent" if row not in sizes.known else f"it is {sizes.values[row]}"
        message = f"cache.blobsize must be the size of the blob {quoted(digest)}, and {there}"
        yield Finding("C63", Severity.BUILD, path, _id(records, row), message, repair=_size(facts, digest))


def _size(facts: WorkerFacts, digest: bytes) -> str | None:
    """What a repair would do; None if that is not known."""
    if facts.namespace is None:
        return None
    blobs = facts.namespace.blobs
    row = blobs.index.row(digest)
    if row < 0 or row not in blobs.size.known:
        return _NO_SIZE
    return f"`repair` sets it to {blobs.size.values[row]}, which containerd knows, if the file has that length."


def _id(records: Records, row: int) -> str:
    return named(records.ids[row] or b"")


RULES = (values_decode, values_have_their_type, blobs_have_a_size)
