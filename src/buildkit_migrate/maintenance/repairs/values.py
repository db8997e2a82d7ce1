"""Repairs of the values of records (C8, C9, C63): what only describes is cleared, sizes of blobs are set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from buildkit_migrate.maintenance.facts import WorkerFacts
from buildkit_migrate.maintenance.mend import EditStore, Mend, Repair, RepairClass, worker_repair
from buildkit_migrate.maintenance.rule import Part
from buildkit_migrate.maintenance.rules.values import CLEARABLE, without_size
from buildkit_migrate.maintenance.rules.wording import path_of, quoted, subject
from buildkit_migrate.values import keys
from buildkit_migrate.values.gojson import encode_value

__all__ = ["REPAIRS"]

_CLEARED: Final = b""
"""As the store itself clears a value."""


@worker_repair("C8", "C9", needs=(Part.RECORDS,))
def descriptive(facts: WorkerFacts) -> Iterator[Mend]:
    """Values that only describe a record, or that the daemon computes again, are cleared."""
    records = facts.records
    assert records is not None
    sized = records.has(keys.BLOB)
    for rule, cells in (("C8", records.undecodable), ("C9", records.mistyped)):
        for row, key, _ in cells:
            if key in CLEARABLE or (key == keys.BLOB_SIZE and row not in sized):
                yield _mend(facts, rule, row, key, _CLEARED, f"clears {quoted(key)}")


@worker_repair("C8", "C9", "C63", needs=(Part.RECORDS, Part.CONTAINERD, Part.CONTENT))
def sizes(facts: WorkerFacts) -> Iterator[Mend]:
    """The size of a blob is set to the one that containerd and the blob's file agree on."""
    records, namespace = facts.records, facts.namespace
    assert records is not None and namespace is not None
    wrong: list[tuple[str, int]] = []
    for rule, cells in (("C8", records.undecodable), ("C9", records.mistyped)):
        wrong += [(rule, row) for row, key, _ in cells if key == keys.BLOB_SIZE]
    wrong += [("C63", row) for row in without_size(records)]
    if not wrong:
        return
    blobs, digests = namespace.blobs, records.text(keys.BLOB)
    for rule, row in wrong:
        blob = blobs.index.row(digests[row] or b"")
        if blob in facts.whole_blobs and (size := blobs.size.values[blob]) > 0:
            yield _mend(
                facts, rule, row, keys.BLOB_SIZE, encode_value(size), f"sets cache.blobsize to {size}"
            )


def _mend(facts: WorkerFacts, rule: str, row: int, key: bytes, value: bytes, does: str) -> Mend:
    assert facts.records is not None
    store, id = facts.stores.records, facts.records.ids[row] or b""
    change = EditStore(store, {keys.MAIN_BUCKET: {id: {key: value}}})
    return Mend(rule, RepairClass.PROTECT, path_of(store), subject(id), does, (change,), record=(facts, id))


REPAIRS: Final[tuple[Repair[WorkerFacts], ...]] = (descriptive, sizes)
