"""Which parts of a root can be looked at, and why the others can't."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from buildkit_migrate.maintenance.rule import Part
from buildkit_migrate.text import printable
from buildkit_migrate.workspace.stores import DOCKER_BUILDER, Fault, Store, Stores, WorkerStores

__all__ = ["unavailable", "unavailable_in_worker"]

_REASONS: Final = {
    Fault.ELSEWHERE: "its containerd's files are not known (--containerd-root says where they are)",
    Fault.NOT_GIVEN: "only this file was given",
}

Unusable = Mapping[Store, str]
"""Stores that nobody may look into: what is wrong with each, as in "is damaged"."""


def unavailable_in_worker(worker: WorkerStores, unusable: Unusable) -> dict[Part, str]:
    """The parts of a worker that can't be looked at, each with the reason."""
    stores = {Part.RECORDS: worker.records, Part.CONTAINERD: worker.containerd}
    if worker.kind != DOCKER_BUILDER:
        stores[Part.SNAPSHOTS] = worker.snapshots
    missing = {part: why for part, store in stores.items() if (why := _why_not(store, unusable))}
    if worker.kind == DOCKER_BUILDER:
        missing[Part.SNAPSHOTS] = missing[Part.DIRECTORIES] = "Docker keeps snapshots in another form"
    elif worker.directories is None:
        missing[Part.DIRECTORIES] = missing[Part.SNAPSHOTS]
    if worker.content is None:
        missing[Part.CONTENT] = missing.get(Part.CONTAINERD, "it is not known where blobs are")
    return missing


def unavailable(stores: Stores, unusable: Unusable) -> dict[Part, str]:
    """Those of a whole root: a part of workers is there if all of them have it."""
    missing: dict[Part, str] = {}
    for worker in stores.workers:
        missing = unavailable_in_worker(worker, unusable) | missing
    for part, found in ((Part.CACHE, (stores.cache,)), (Part.HISTORY, stores.histories)):
        for store in found:
            if why := _why_not(store, unusable):
                missing[part] = why
    return missing


def _why_not(store: Store, unusable: Unusable) -> str:
    why = unusable.get(store) or (_REASONS.get(store.fault, "") if store.fault is not None else "")
    # A store that is missing where nothing else is, either, has nothing to be tested.
    return f"{printable(str(store.path))} {why}" if why and store.path is not None else why
