"""All stores of one stopped root, opened for reading: whatever state they are in.

with open_stores(find_state(path), place) as stores:
    for worker in stores.workers:
        if worker.records.root is not None:
            records = Records(worker.records.root)
"""

from __future__ import annotations

import contextlib
import enum
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from buildkit_migrate.bolt import Bucket, Database, Reader
from buildkit_migrate.containerd.docker import DOCKER_NAMESPACE
from buildkit_migrate.errors import CorruptDatabaseError, Error, StorageError
from buildkit_migrate.files.errors import exists, storage_errors
from buildkit_migrate.files.locks import readable
from buildkit_migrate.settings import DEFAULT, Setting
from buildkit_migrate.workspace.finding import find_root
from buildkit_migrate.workspace.layout import (
    DOCKER_BUILDER,
    OCI_WORKER,
    Root,
    Worker,
    root_at,
    with_image_store,
)
from buildkit_migrate.workspace.opening import ContainerdPlace, Opener, about_docker, lock_out_daemon
from buildkit_migrate.workspace.places import docker_builder

__all__ = [
    "DOCKER_BUILDER",
    "Fault",
    "Store",
    "Stores",
    "WorkerStores",
    "find_state",
    "open_stores",
    "worker_ids",
]

_DOCKER_NAMESPACE: Final = "moby"
"""Namespace of Docker's containerd workers; the builder for graph drivers uses ``buildkit``."""
_DOCKER_WORKER_ID: Final = b"moby"
"""Worker id of versions that had no engine id yet."""

_LONGEST_ID: Final = 4096


class Fault(enum.Enum):
    """Why a store can't be used."""

    MISSING = "missing"
    EMPTY = "0 bytes"  # daemons take it for a new store, and so do we: it is open and empty
    CORRUPT = "corrupt"
    UNREADABLE = "unreadable"  # to us, at least
    ELSEWHERE = "elsewhere"  # in a containerd whose files nobody told us about
    NOT_GIVEN = "not given"  # another single file is being checked


@dataclass(frozen=True)
class Store:
    """A database file. ``path``: None if it is ELSEWHERE or NOT_GIVEN.

    ``database``: open and locked; None for every fault but EMPTY. ``error``: raised on opening it.
    """

    path: Path | None
    database: Database | None = None
    fault: Fault | None = None
    error: Error | None = None

    @property
    def root(self) -> Bucket | None:
        """The root bucket; None if the file is not open."""
        return self.database.root if self.database is not None else None


@dataclass(frozen=True)
class WorkerStores:
    """Stores of one worker, their places, and the names used in containerd.

    ``kind``: OCI_WORKER, CONTAINERD_WORKER or DOCKER_BUILDER. ``containerd``: containerd's metadata database.
    ``snapshots``: the snapshotter's own; for Docker's builder ``snapshots.db``, which has another layout.
    ``worker_id``: b"" if the file is empty, None if it is missing. ``old``: the v1 store, if that is the only
    one; it is not one of ``stores``. ``storage_driver``: of Docker, if one was given.
    """

    path: Path
    kind: str
    namespace: bytes
    snapshotter: bytes
    worker_id: bytes | None
    records: Store
    containerd: Store
    snapshots: Store
    content: Path | None
    old: Store | None = None
    storage_driver: Setting | None = None

    @property
    def stores(self) -> tuple[Store, Store, Store]:
        return self.records, self.containerd, self.snapshots

    @property
    def readers(self) -> list[Reader]:
        """Of the stores that are open."""
        return [store.database.reader for store in self.stores if store.database is not None]

    @property
    def directories(self) -> Path | None:
        """Where the snapshot directories are, each named by its number; None if unknown."""
        path = self.snapshots.path
        return None if path is None or self.kind == DOCKER_BUILDER else path.parent / "snapshots"


@dataclass(frozen=True)
class Stores:
    """Stores of one state directory. If the root is a worker's directory, ``workers`` has only that worker.

    ``cache_debug``: usually MISSING. ``histories``: ``history.db``, and that of Docker's containerd mode if
    it exists.
    """

    root: Root
    workers: tuple[WorkerStores, ...]
    cache: Store
    cache_debug: Store
    histories: tuple[Store, ...]

    @property
    def all(self) -> tuple[Store, ...]:
        """All stores, each once: containerd workers share containerd's database."""
        stores = [store for worker in self.workers for store in worker.stores]
        return tuple(dict.fromkeys([*stores, self.cache, self.cache_debug, *self.histories]))


def find_state(path: str | os.PathLike[str] | None = None) -> Root:
    """Like `find_root`, with the same errors; of Docker's builder also the workers of the image store."""
    return with_image_store(find_root(path))


@contextlib.contextmanager
def open_stores(root: Root, place: ContainerdPlace, *, exclusive: bool = False) -> Iterator[Stores]:
    """Locks ``buildkitd.lock`` and all stores without waiting: shared, or ``exclusive`` to replace them.

    Writes nothing, but an exclusive lock file is created if it is missing.

    Raises BusyError, naming the process, if a daemon or another tool uses any of them, and StorageError if
    the directory can't be read. Damage in a store raises nothing. That the snapshotter's database can be
    locked does not mean that no daemon runs: daemons open it only when they first need it.
    """
    with contextlib.ExitStack() as held, about_docker(root):
        lock_out_daemon(root, held, exclusive=exclusive)
        opened = _Opened(held, exclusive)
        opener = Opener(held, root, place, exclusive=exclusive, progress=None)
        workers = tuple(_worker(worker, root, place, opener, opened) for worker in root.workers)
        histories = [opened.store(root.state / "history.db")]
        if exists(root.state / "history_c8d.db"):
            histories.append(opened.store(root.state / "history_c8d.db"))
        yield Stores(
            root,
            workers,
            opened.store(root.state / "cache.db"),
            opened.store(root.state / "cache-debug.db"),
            tuple(histories),
        )


def worker_ids(stores: Stores) -> frozenset[bytes]:
    """The ids of all workers of the state directory, also of those that are not looked at."""
    ids = {worker.worker_id for worker in stores.workers}
    if stores.root.path != stores.root.state:
        whole = root_at(stores.root.state)
        ids |= {_text(worker.path / "workerid") for worker in (whole.workers if whole else ())}
    return frozenset(id for id in ids if id)


class _Opened:
    """Open stores, by path."""

    def __init__(self, held: contextlib.ExitStack, exclusive: bool) -> None:
        self._held = held
        self._exclusive = exclusive
        self._stores: dict[Path, Store] = {}

    def store(self, path: Path) -> Store:
        if path not in self._stores:
            self._stores[path] = self._open(path)
        return self._stores[path]

    def _open(self, path: Path) -> Store:
        try:
            database = self._held.enter_context(Database.open(path, exclusive=self._exclusive))
        except CorruptDatabaseError as error:
            return Store(path, fault=Fault.CORRUPT, error=error)
        except StorageError as error:
            return Store(path, fault=Fault.MISSING if error.missing else Fault.UNREADABLE, error=error)
        return Store(path, database, fault=None if database.size else Fault.EMPTY)


def _worker(
    worker: Worker, root: Root, place: ContainerdPlace, opener: Opener, opened: _Opened
) -> WorkerStores:
    if worker.kind == DOCKER_BUILDER:
        return _docker_builder(worker, opened, place.storage_driver)
    found = opener.place(worker)
    namespace = found.namespace
    if worker.kind != OCI_WORKER and docker_builder(root.state) and place.namespace.origin == DEFAULT:
        namespace = Setting(_DOCKER_NAMESPACE, "of Docker")
    elsewhere = Store(None, fault=Fault.ELSEWHERE)
    return WorkerStores(
        worker.path,
        worker.kind,
        namespace.value.encode(),
        found.snapshotter.value.encode(),
        _text(worker.path / "workerid"),
        opened.store(worker.v2),
        opened.store(Path(found.containerd.value)) if found.backend else elsewhere,
        opened.store(Path(found.backend)) if found.backend else elsewhere,
        opener.content(worker) if found.backend else None,
        _old(worker, opened),
    )


def _old(worker: Worker, opened: _Opened) -> Store | None:
    if opened.store(worker.v2).fault is not Fault.MISSING:
        return None
    store = opened.store(worker.v1)
    return None if store.fault is Fault.MISSING else store


def _docker_builder(worker: Worker, opened: _Opened, storage_driver: Setting | None) -> WorkerStores:
    id = _text(worker.path.parent / "engine-id")
    return WorkerStores(
        worker.path,
        worker.kind,
        DOCKER_NAMESPACE.encode(),
        worker.snapshotter.encode(),
        _DOCKER_WORKER_ID if id is None else id.strip(),
        opened.store(worker.v2),
        opened.store(worker.path / "containerdmeta.db"),
        opened.store(worker.path / "snapshots.db"),
        worker.path / "content",
        _old(worker, opened),
        storage_driver,
    )


def _text(path: Path) -> bytes | None:
    """The beginning of a small file, None if it does not exist."""
    try:
        with readable(path) as fd, storage_errors(path):
            return os.read(fd, _LONGEST_ID)
    except StorageError as error:
        if error.missing:
            return None
        raise
