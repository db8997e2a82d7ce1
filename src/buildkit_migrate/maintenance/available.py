"""Which parts of a root can be looked at, and why the others can't."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from buildkit_migrate.maintenance.rule import Part
from buildkit_migrate.text import printable
from buildkit_migrate.workspace.stores import DOCKER_BUILDER, Fault, Store, Stores, WorkerStores

__all__ = ["NOTHING_THERE", "OF_DOCKER", "unavailable", "unavailable_in_worker"]

NOTHING_THERE: Final = ""
"""The reason for a part that has nothing to test."""

OF_DOCKER: Final = "Docker keeps snapshots in another form"
"""The reason for parts that Docker's builder has in another form, for which there are rules of its own."""

_REASONS: Final = {
    Fault.ELSEWHERE: "its containerd's files are not known (--containerd-root says where they are)",
    Fault.NOT_GIVEN: "only this file was given",
}

Unusable = Mapping[Store, str]
"""Stores that must not be read, with what is wrong with each, as in "is damaged"."""


_PLAIN_DIRECTORIES: Final = (b"overlayfs", b"native", b"fuse-overlayfs")
"""Snapshotters whose directories hold the files of snapshots. Those of stargz may be mounts."""


def unavailable_in_worker(worker: WorkerStores, unusable: Unusable) -> dict[Part, str]:
    """The parts of a worker that can't be looked at, each with the reason."""
    stores = {Part.RECORDS: worker.records, Part.CONTAINERD: worker.containerd}
    if worker.kind != DOCKER_BUILDER:
        stores[Part.SNAPSHOTS] = worker.snapshots
    missing = {part: why for part, store in stores.items() if (why := _why_not(store, unusable)) is not None}
    if worker.kind != DOCKER_BUILDER:
        missing[Part.LAYERS] = NOTHING_THERE
    elif (why := _why_not(worker.snapshots, unusable)) is not None:
        missing[Part.LAYERS] = why
    if worker.kind == DOCKER_BUILDER:
        missing[Part.SNAPSHOTS] = missing[Part.DIRECTORIES] = OF_DOCKER
    elif worker.directories is None:
        missing[Part.DIRECTORIES] = missing[Part.SNAPSHOTS]
    elif worker.snapshotter not in _PLAIN_DIRECTORIES:
        name = printable(worker.snapshotter)
        missing[Part.DIRECTORIES] = f"what the directories of the snapshotter {name} look like is not known"
    if worker.content is None:
        missing[Part.CONTENT] = missing.get(Part.CONTAINERD, "it is not known where blobs are")
    return missing


def unavailable(stores: Stores, unusable: Unusable) -> dict[Part, str]:
    """The same for a whole root. A part that some worker has, and others never had, is available."""
    workers = [unavailable_in_worker(worker, unusable) for worker in stores.workers]
    reasons = {part: [missing.get(part) for missing in workers] for part in Part}
    reasons[Part.CACHE] = [_why_not(stores.cache, unusable)]
    reasons[Part.HISTORY] = [_why_not(store, unusable) for store in stores.histories]
    found = {part: _of_all(whys) for part, whys in reasons.items()}
    return {part: why for part, why in found.items() if why is not None}


def _of_all(reasons: Sequence[str | None]) -> str | None:
    """The first real reason; NOTHING_THERE only if that is the reason for all of them."""
    why = next(filter(None, reasons), None)
    return NOTHING_THERE if why is None and reasons and None not in reasons else why


def _why_not(store: Store, unusable: Unusable) -> str | None:
    """Why a store can't be read; None if it can, NOTHING_THERE if it is missing and that is no fault."""
    why = unusable.get(store) or (_REASONS.get(store.fault) if store.fault is not None else None)
    if why and store.path is not None:
        return f"{printable(str(store.path))} {why}"
    return NOTHING_THERE if why is None and store.root is None else why
