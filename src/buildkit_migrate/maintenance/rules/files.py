"""Rules about the files of a root: damaged, missing, or not migrated (C1 to C5, C7)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from buildkit_migrate.choices import SNAPSHOTTERS_WITH_DATABASE
from buildkit_migrate.errors import CorruptDatabaseError
from buildkit_migrate.files.errors import exists, storage_errors
from buildkit_migrate.maintenance.facts import Facts, WorkerFacts
from buildkit_migrate.maintenance.finding import Finding, Severity
from buildkit_migrate.maintenance.rules import pages
from buildkit_migrate.maintenance.rules.pages import Role, StorePages, check_pages
from buildkit_migrate.progress import Progress, reading
from buildkit_migrate.schema.columns import starting_with
from buildkit_migrate.schema.records import Records
from buildkit_migrate.schema.snapshots import Backend
from buildkit_migrate.store.engines import engine_of
from buildkit_migrate.values import keys
from buildkit_migrate.workspace.layout import CONTAINERD_WORKER
from buildkit_migrate.workspace.stores import DOCKER_BUILDER, Fault, Store, Stores

__all__ = ["NUMBERS", "FilesLookedAt", "look_at_files"]

NUMBERS: Final = (*pages.NUMBERS, "C2", "C6", "C7")
"""C6, that nobody holds a lock, is tested when the stores are opened; then it is an error."""

_WITH_DATABASE: Final = frozenset(map(os.fsencode, SNAPSHOTTERS_WITH_DATABASE))

_OTHER_ENGINE: Final = "is an LMDB store, which only `verify` reads"

_LOST: Final = {Fault.MISSING: "is missing", Fault.EMPTY: "has 0 bytes"}


@dataclass(frozen=True)
class FilesLookedAt:
    """``unusable``: stores that no rule may look into, and what is wrong with each, as in "is damaged".

    ``unsound``: the paths of those whose pages or free lists are damaged. ``facts``: views over the others.
    """

    findings: tuple[Finding, ...]
    unusable: Mapping[Store, str]
    unsound: tuple[Path, ...]
    facts: Facts


def look_at_files(stores: Stores, progress: Progress) -> FilesLookedAt:
    """Looks at every page of every store. Raises StorageError."""
    findings: list[Finding] = []
    unusable: dict[Store, str] = {}
    unsound = []
    unusable.update(dict.fromkeys(_of_other_engines(stores), _OTHER_ENGINE))
    asked = [store for store in stores.all if store not in unusable]
    for store, looked_at in zip(asked, _check_all(asked, stores, progress), strict=True):
        findings += looked_at.findings
        if looked_at.damage and store.path is not None:
            unsound.append(store.path)
        if not looked_at.usable:
            unusable[store] = looked_at.damage
    facts = Facts(stores, frozenset(unusable))
    for worker in facts.workers:
        progress(reading(f"reading {worker.stores.path}", *worker.stores.readers))
        worker.read()
    for finding, store, what in (*_not_migrated(stores), *_lost(facts)):
        if store in unusable:
            continue
        unusable[store] = what
        findings += [finding] if finding is not None else []
    if unusable.keys() != facts.unsound:
        facts = Facts(stores, frozenset(unusable))
    return FilesLookedAt(tuple(findings), unusable, tuple(unsound), facts)


def _check_all(asked: Sequence[Store], stores: Stores, progress: Progress) -> list[StorePages]:
    """Checks the largest store, and beside it, in another thread, the others."""
    largest = max(asked, key=_size, default=None)
    opened = [store.database.reader for store in asked if store.database is not None]
    progress(reading(f"checking the pages of {stores.root.path}", *opened))
    with ThreadPoolExecutor(1) as beside:
        others = beside.submit(
            lambda: [check_pages(store, _role(store, stores)) for store in asked if store is not largest]
        )
        found = iter([check_pages(largest, _role(largest, stores))] if largest is not None else [])
        rest = iter(others.result())
    return [next(found if store is largest else rest) for store in asked]


def _size(store: Store) -> int:
    return store.database.size if store.database is not None else 0


def _of_other_engines(stores: Stores) -> Iterator[Store]:
    """Record stores of programs that embed one."""
    for worker in stores.workers:
        store = worker.records
        if store.fault is Fault.CORRUPT and store.path is not None:
            with suppress(CorruptDatabaseError):
                if engine_of(store.path) == "lmdb":
                    yield store


def _role(store: Store, stores: Stores) -> Role:
    in_docker = any(worker.kind == DOCKER_BUILDER for worker in stores.workers)
    if store is stores.cache or (store in stores.histories and not in_docker):
        return Role.MOVED_ASIDE
    of_snapshotter = any(
        store is worker.snapshots and worker.kind != DOCKER_BUILDER for worker in stores.workers
    )
    return Role.SNAPSHOTTERS if of_snapshotter else Role.NEEDED


Lost = tuple[Finding | None, Store, str]
"""A finding if there is one; the store that can't be used, and what is wrong with it."""


def _not_migrated(stores: Stores) -> Iterator[Lost]:
    """C7."""
    for worker in stores.workers:
        v1 = worker.path / "metadata.db"
        if worker.records.fault is Fault.MISSING and exists(v1):
            message, repair = "it was not migrated: there is no metadata_v2.db", None
            if worker.old is not None and _is_v2(worker.old):
                message = "it is a v2 store under the name of a v1 store"
                repair = "`repair` does nothing: give it its name metadata_v2.db back."
            yield Finding("C7", Severity.START, v1, "", message, repair=repair), worker.records, "is missing"


def _is_v2(store: Store) -> bool:
    """Whether any record has a key that v1 does not know. Raises StorageError if it can't be read."""
    try:
        if store.error is not None:
            raise store.error
        if store.root is None:
            return False
        records = Records(store.root)
        return any(records.has(key) for key in (keys.SNAPSHOT, keys.COMMITTED))
    except CorruptDatabaseError:
        return False


def _lost(facts: Facts) -> Iterator[Lost]:
    """C2: missing, empty, or made anew, beside stores that have what belongs to it."""
    for worker in facts.workers:
        yield from _lost_of_worker(worker)
    stores = facts.stores
    records = sum(len(worker.records or ()) for worker in facts.workers)
    whole = stores.root.path == stores.root.state
    if records and whole and (why := _fault(stores.cache)) and not _was_set_aside(stores.cache):
        yield _is_lost(stores.cache, why, f"{records} records")
    builds = sum(_builds(worker) for worker in facts.workers)
    if builds and all(map(_fault, stores.histories)) and not any(map(_was_set_aside, stores.histories)):
        store = stores.histories[0]
        yield _is_lost(store, _fault(store), f"leases of {builds} builds")


def _was_set_aside(store: Store) -> bool:
    """Whether the file got the name that daemons give to one that they can't open."""
    if store.path is None:
        return False
    start = f"{store.path.name}."
    with storage_errors(store.path.parent):
        names = [path.name for path in store.path.parent.iterdir()]
    return any(name.startswith(start) and name.endswith(".bak") for name in names)


def _lost_of_worker(facts: WorkerFacts) -> Iterator[Lost]:
    worker = facts.stores
    records = len(facts.records or ())
    known, own = len(facts.snapshots or ()), _named(facts.backend, worker.namespace)
    namespace = facts.namespace
    has_own_containerd = worker.kind != CONTAINERD_WORKER
    held = 0 if namespace is None else len(namespace.leases) + len(namespace.blobs)

    if why := _fault(worker.records):
        snapshots = max(known, own)
        if snapshots or (held and has_own_containerd):
            yield _is_lost(worker.records, why, f"{snapshots} snapshots and {held} leases and blobs")
    # Where nothing of a containerd is, it is more likely that its place is another one.
    is_there = has_own_containerd or Fault.MISSING not in (worker.containerd.fault, worker.snapshots.fault)
    if why := _fault(worker.containerd):
        if records or own:
            what = why if is_there or own else f"{why} (--containerd-root says where containerd's files are)"
            beside = f"{records} records and {own} snapshots"
            yield _is_lost(worker.containerd, what, beside, found=is_there or own > 0)
    elif namespace is not None and records and not held and not known:
        # With a containerd of somebody else's it is more likely that this is not the namespace.
        name = worker.namespace.decode(errors="backslashreplace")
        why = f"has nothing in its namespace {name}"
        yield _is_lost(worker.containerd, why, f"{records} records", found=has_own_containerd)
    why = _fault(worker.snapshots) or ("has no snapshots" if facts.backend is not None and not own else "")
    if why and (known or (records and facts.snapshots is None)):
        has_one = worker.kind == DOCKER_BUILDER or worker.snapshotter in _WITH_DATABASE
        beside = f"{known} snapshots and {records} records"
        yield _is_lost(worker.snapshots, why, beside, found=has_one and (is_there or known > 0))


def _fault(store: Store) -> str:
    return _LOST.get(store.fault, "") if store.fault is not None else ""


def _named(backend: Backend | None, namespace: bytes) -> int:
    """How many snapshots of the snapshotter belong to a namespace."""
    return 0 if backend is None else len(starting_with(backend.names, namespace + b"/"))


def _is_lost(store: Store, what: str, beside: str, *, found: bool = True) -> Lost:
    """``found``: whether this is a fault of the root."""
    assert store.path is not None
    finding = Finding("C2", Severity.LEAK, store.path, "", f"it {what}, beside {beside}")
    return finding if found else None, store, what


def _builds(worker: WorkerFacts) -> int:
    """Leases of builds."""
    namespaces = (worker.namespace, worker.history_namespace)
    return sum(len(starting_with(it.leases.keys, b"ref_")) for it in namespaces if it is not None)
