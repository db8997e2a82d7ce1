"""The repair of chain ids (C22): they are cleared, and made again when a layer is exported."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from buildkit_migrate.maintenance.facts import WorkerFacts
from buildkit_migrate.maintenance.mend import EditStore, Mend, Repair, RepairClass, worker_repair
from buildkit_migrate.maintenance.rule import Part
from buildkit_migrate.maintenance.rules.chains import to_be_cleared
from buildkit_migrate.maintenance.rules.wording import path_of, subject
from buildkit_migrate.values import gojson, keys

__all__ = ["REPAIRS"]

_IDS: Final = (keys.CHAIN_ID, keys.BLOB_CHAIN_ID)


@worker_repair("C22", needs=(Part.RECORDS,))
def chain_ids(facts: WorkerFacts) -> Iterator[Mend]:
    """The ids of a record and of what is built on it are cleared, with their index entries."""
    records, store = facts.records, facts.stores.records
    assert records is not None
    for rows in to_be_cleared(facts).values():
        values: dict[bytes, dict[bytes, bytes]] = {}
        entries: dict[bytes, None] = {}
        for row in rows:
            id = records.ids[row] or b""
            if there := [key for key in _IDS if gojson.string(records.cell(row, key))]:
                values[id] = dict.fromkeys(there, b"")
            for key, index in records.indexes(row):
                if key in _IDS:
                    entries[keys.index_key(index, id)] = None
        id = records.ids[rows[0]] or b""
        above = {1: "", 2: ", and those of a record on it"}
        does = "clears its chain ids" + above.get(len(rows), f", and those of {len(rows) - 1} records on it")
        change = EditStore(store, {keys.MAIN_BUCKET: values, keys.INDEX_BUCKET: entries})
        yield Mend(
            "C22", RepairClass.PROTECT, path_of(store), subject(id), does, (change,), record=(facts, id)
        )


REPAIRS: Final[tuple[Repair[WorkerFacts], ...]] = (chain_ids,)
