"""Opening the workers of a root: its locks, and the containerd that each worker belongs to."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from buildkit_migrate.bolt import Bucket, Database
from buildkit_migrate.containerd.docker import DOCKER_NAMESPACE, DockerBuilder, needed_by
from buildkit_migrate.containerd.driver_store import DriverStore
from buildkit_migrate.containerd.offline import (
    KEPT_SUFFIX,
    MetadataDatabase,
    OfflineContainerd,
    open_database,
)
from buildkit_migrate.containerd.services import ConnectionOptions, refuse_event_loop
from buildkit_migrate.errors import (
    BusyError,
    ContainerdStateError,
    ContainerdUnavailableError,
    Error,
    StorageError,
)
from buildkit_migrate.files.errors import exists, is_link
from buildkit_migrate.files.locks import lock
from buildkit_migrate.files.ownership import model_for, predict_access
from buildkit_migrate.progress import Progress
from buildkit_migrate.settings import DEFAULT, DEFAULT_NAMESPACE, Setting
from buildkit_migrate.workspace.docker import data_root, storage_driver
from buildkit_migrate.workspace.layout import (
    CONTAINERD_WORKER,
    DOCKER_BUILDER,
    LOCK_FILE,
    OCI_WORKER,
    Root,
    Worker,
)
from buildkit_migrate.workspace.new_files import foresee_migration
from buildkit_migrate.workspace.place import Place
from buildkit_migrate.workspace.places import docker_builder

if TYPE_CHECKING:
    from buildkit_migrate.containerd.connection import Connection
    from buildkit_migrate.containerd.live import LiveContainerd

    AnyContainerd = OfflineContainerd | LiveContainerd

__all__ = [
    "ONE_BY_ONE",
    "SKIP_UNREACHABLE",
    "ContainerdPlace",
    "Opener",
    "about",
    "about_docker",
    "containerd_place",
    "foresee_files",
    "foresee_lock",
    "lock_out_daemon",
    "lock_state",
    "metadata_database",
]

OCI_NAMESPACE: Final = "buildkit"
"""The namespace of OCI workers can't be configured."""

SKIP_UNREACHABLE: Final = "--skip-unreachable leaves this worker as it is and continues with the others"
ONE_BY_ONE: Final = "give the directory of another worker as ROOT to leave this one as it is"
_STOP_CONTAINERD: Final = (
    "stop containerd (and any other buildkit-migrate) and run the command again; or omit --offline and "
    "--containerd-root: a running containerd is used through its socket"
)
_STOP_DOCKER: Final = (
    "stop Docker Engine, and its socket, which would start it again (systemctl stop docker.socket docker), "
    "and run the command again"
)
_DOCKER_STATE: Final = ("cache.db", "history.db", "history_c8d.db")
"""Files that the engine holds open and a migration does not, in the directory of its builder."""
_SNAPSHOTS: Final = "snapshots/metadata.db"
_METADATA: Final = "io.containerd.metadata.v1.bolt/meta.db"


def metadata_database(containerd_root: str | os.PathLike[str]) -> Path:
    """Where a stopped containerd has its metadata database."""
    return Path(containerd_root, _METADATA)


def lock_state(root: Root, held: contextlib.ExitStack, *, dry_run: bool) -> None:
    """Keeps daemons from starting. Of the files in the state directory, only the lock file may be created."""
    lock_out_daemon(root, held, exclusive=not dry_run)
    # Docker has no lock file, and not each of its versions has each of these.
    names = _DOCKER_STATE if docker_builder(root.state) else ("cache.db",)
    for name in names:
        with about_docker(root):
            _lock_if_there(root.state / name, held, exclusive=not dry_run)


def lock_out_daemon(root: Root, held: contextlib.ExitStack, *, exclusive: bool) -> None:
    """Takes ``buildkitd.lock``; an exclusive one of a whole state directory is created if it is missing.

    The file is left behind, because removing it could pull it from under a daemon that is about to start.
    Daemons remove it themselves when they stop. Docker has no such file.
    """
    create = exclusive and _makes_lock(root)
    _lock_if_there(root.state / LOCK_FILE, held, exclusive=exclusive, create=create, like=_any_store(root))


def _lock_if_there(
    path: Path,
    held: contextlib.ExitStack,
    *,
    exclusive: bool,
    create: bool = False,
    like: Path | None = None,
) -> None:
    try:
        held.enter_context(lock(path, exclusive=exclusive, create=create, like=like))
    except StorageError as error:
        if not error.missing:
            raise


@contextlib.contextmanager
def about_docker(root: Root) -> Iterator[None]:
    """What to do if files of Docker's builder are in use."""
    try:
        yield
    except BusyError as error:
        if docker_builder(root.state) and error.hint == BusyError.hint:
            error.hint = _STOP_DOCKER
        raise


@contextlib.contextmanager
def about(
    worker: Worker, root: Root, skip_unreachable: bool, without_it: str = SKIP_UNREACHABLE
) -> Iterator[list[str]]:
    """Adds the worker's directory to errors.

    Yields a list that stays empty unless the worker is to be skipped. That is the case if
    ``skip_unreachable`` is set and its containerd can't be reached; then the list holds the reason.
    ``without_it``: a hint at how to continue with the other workers.
    """
    reasons: list[str] = []
    try:
        with about_docker(root):
            yield reasons
    except Error as error:
        unreachable = worker.kind == CONTAINERD_WORKER and _is_unreachable(error)
        if unreachable and skip_unreachable:
            reasons.append(error.message)
            return
        if unreachable and len(root.workers) > 1:
            error.hint = "; ".join(filter(None, (error.hint, without_it)))
        if worker.kind == OCI_WORKER and isinstance(error, ContainerdStateError) and len(root.workers) > 1:
            copy = f"if {worker.path} is a copy, or not in use, move it out of the root"
            error.hint = "; ".join(filter(None, (copy, error.hint)))
        if str(worker.path) not in error.message:
            error.message = f"{worker.path}: {error.message}"
            error.args = (error.message,)
        raise


def _is_unreachable(error: Error) -> bool:
    """Whether the containerd can't be reached at all.

    One that lacks the namespace or snapshotter is reachable: it is the wrong one, and that is no reason to
    skip.
    """
    return isinstance(error, ContainerdUnavailableError) or (
        isinstance(error, ContainerdStateError) and error.missing
    )


def foresee_files(root: Root, workers: Iterable[Worker], opener: Opener) -> None:
    """Raises StorageError if a file that a migration creates can't be created as it must be. Writes nothing.

    Raises EventLoopError if a running containerd can't be called here.
    """
    foresee_lock(root)
    for worker in workers:
        place = opener.place(worker)
        if not place.backend:
            refuse_event_loop()
        database = Path(place.containerd.value) if place.backend else None
        # A missing one is created for Docker; otherwise opening it will say so.
        there = database is not None and (worker.kind == DOCKER_BUILDER or exists(database))
        foresee_migration(worker.v1, worker.v2, database if there else None)


def foresee_lock(root: Root) -> None:
    """Raises StorageError if ``buildkitd.lock`` can't be made where `lock_out_daemon` does that."""
    path = root.state / LOCK_FILE
    if not _makes_lock(root):
        return
    if is_link(path):
        raise StorageError(f"{path} is a symbolic link", hint="remove it, if no daemon uses the root")
    if not exists(path):
        predict_access(path, *model_for(path, _any_store(root)))


def _makes_lock(root: Root) -> bool:
    return root.path == root.state and not docker_builder(root.state)


def _any_store(root: Root) -> Path | None:
    """A store that the daemon uses, None if there is none."""
    stores = (store for worker in root.workers for store in (worker.v1, worker.v2))
    return next((store for store in stores if exists(store)), None)


@dataclass(frozen=True)
class ContainerdPlace:
    """Where the containerd of containerd workers is, and what BuildKit used in it.

    ``root``: of a stopped containerd; None if it runs and is reached through ``connection``. ``snapshotter``:
    None for the one in the directory's name. ``snapshotter_root``: directory of the snapshotter's database,
    for the one worker that is processed offline; None if it is at its usual place. ``storage_driver``: of
    Docker Engine; None to find out.
    """

    connection: ConnectionOptions
    root: Setting | None
    namespace: Setting
    snapshotter: Setting | None
    snapshotter_root: Setting | None = None
    storage_driver: Setting | None = None


def containerd_place(
    connection: ConnectionOptions | None,
    root: str | os.PathLike[str] | Setting | None,
    namespace: str | Setting,
    snapshotter: str | Setting | None,
    snapshotter_root: str | os.PathLike[str] | Setting | None,
    storage_driver: str | Setting | None = None,
) -> ContainerdPlace:
    """Of the options that all functions for whole roots take.

    Raises ValueError for an empty name: it would silently mean another place.
    """
    return ContainerdPlace(
        connection or ConnectionOptions(origin=DEFAULT),
        _setting("containerd_root", root),
        _setting("namespace", namespace) or DEFAULT_NAMESPACE,
        _setting("snapshotter", snapshotter),
        _setting("snapshotter_root", snapshotter_root),
        _setting("storage_driver", storage_driver),
    )


def _setting(name: str, given: str | os.PathLike[str] | Setting | None) -> Setting | None:
    if given is None:
        return None
    setting = Setting.of(given)
    if not setting.value:
        raise ValueError(f"{name} is empty: is a variable not set?")
    return setting


class Opener:
    """Opens the containerds of a root's workers; one that is shared by several workers is opened once.

    Raises ContainerdStateError if a single snapshotter, or its files, are given for several workers.
    """

    def __init__(
        self,
        held: contextlib.ExitStack,
        root: Root,
        place: ContainerdPlace,
        *,
        exclusive: bool,
        progress: Progress | None,
    ) -> None:
        workers = [worker for worker in root.workers if worker.kind == CONTAINERD_WORKER]
        if place.snapshotter is not None and len(workers) > 1:
            raise ContainerdStateError(
                f"{root.path} has {len(workers)} containerd workers, which can't all use the snapshotter "
                f"{place.snapshotter.value}",
                hint="omit --snapshotter and $CONTAINERD_SNAPSHOTTER, or give one worker directory",
            )
        on_files = [
            worker
            for worker in root.workers
            if worker.kind == OCI_WORKER or (worker.kind == CONTAINERD_WORKER and place.root is not None)
        ]
        if place.snapshotter_root is not None and root.workers and len(on_files) != 1:
            raise ContainerdStateError(
                f"{root.path} has {len(on_files)} workers that are processed offline, but "
                f"{place.snapshotter_root.value} can be the directory of one snapshotter only",
                hint="omit --snapshotter-root, or give one worker directory; a running containerd knows "
                "where its snapshots are",
            )
        self._held = held
        self._root = root
        self._place = place
        self._exclusive = exclusive
        self._progress = progress
        self._stopped: MetadataDatabase | None = None
        self._running: Connection | None = None

    def content(self, worker: Worker) -> Path:
        """The directory of the content store."""
        if worker.kind != CONTAINERD_WORKER:
            return worker.path / "content"
        if self._place.root is None:
            raise ContainerdStateError(
                f"the blob files of {worker.path} belong to a running containerd and can't be hashed here",
                hint="omit --content, or stop containerd and use --offline",
            )
        return Path(self._place.root.value, "io.containerd.content.v1.content")

    def place(self, worker: Worker) -> Place:
        """Where the worker's containerd is, and the origin of each setting.

        Docker's storage driver is not known before the services needed it.
        """
        root = Setting(str(self._root.path), self._root.origin)
        if worker.kind == DOCKER_BUILDER:
            return Place(
                "Docker",
                root,
                Setting(str(worker.path / "containerdmeta.db"), "of the builder"),
                Setting(DOCKER_NAMESPACE, "fixed"),
                Setting(worker.snapshotter, "fixed"),
                str(worker.path / "snapshots.db"),
            )
        named = Setting(worker.snapshotter, "name of the directory")
        if worker.kind == OCI_WORKER:
            database = Setting(str(worker.path / "containerdmeta.db"), "of the worker")
            namespace = Setting(OCI_NAMESPACE, "fixed")
            return Place("OCI", root, database, namespace, named, self._backend(worker.path / _SNAPSHOTS))
        snapshotter, connection = self._place.snapshotter or named, self._place.connection
        if self._place.root is None:
            socket = Setting(connection.address, connection.origin)
            return Place("containerd", root, socket, self._place.namespace, snapshotter)
        stopped = Path(self._place.root.value)
        database = Setting(str(metadata_database(stopped)), self._place.root.origin)
        backend = stopped / f"io.containerd.snapshotter.v1.{snapshotter.value}" / "metadata.db"
        return Place("containerd", root, database, self._place.namespace, snapshotter, self._backend(backend))

    def _backend(self, usual: Path) -> str:
        """Path of the snapshotter's database: ``usual`` unless another place was given."""
        given = self._place.snapshotter_root
        path = usual if given is None else Path(given.value, usual.name)
        # Remote snapshotters (stargz) have it one level below.
        below = path.parent / "snapshotter" / path.name
        return str(below if not exists(path) and exists(below) else path)

    def containerd(self, worker: Worker, noted_driver: str = "") -> AnyContainerd:
        """Opens the worker's containerd. Raises ContainerdStateError with a hint for this kind of worker.

        ``noted_driver``: Docker's storage driver when the worker was migrated, which is used unless another
        one was given; "" if that is not known.
        """
        place = self.place(worker)
        snapshotter, namespace = place.snapshotter.value, place.namespace.value
        if not place.backend:
            return self._live(snapshotter)
        metadata, backend = Path(place.containerd.value), Path(place.backend)
        try:
            if worker.kind == DOCKER_BUILDER:
                return self._docker(worker, metadata, self._database(backend), noted_driver)
            if worker.kind == OCI_WORKER:
                return OfflineContainerd(
                    self._metadata(metadata), self._database(backend), namespace, snapshotter
                )
            if self._stopped is None:
                self._stopped = self._metadata(metadata)
            # The file may be replaced once for each namespace and snapshotter.
            suffix = f"{KEPT_SUFFIX}-{namespace}-{snapshotter}"
            return OfflineContainerd(
                self._stopped, self._database(backend), namespace, snapshotter, kept_suffix=suffix
            )
        except ContainerdStateError as error:
            error.hint = error.hint or _hint_for_missing(worker, place)
            raise
        except BusyError as error:
            if worker.kind == CONTAINERD_WORKER and error.hint == BusyError.hint:
                error.hint = _STOP_CONTAINERD
            raise

    def _docker(
        self, worker: Worker, metadata: Path, snapshots: Database, noted_driver: str
    ) -> DockerBuilder:
        given = self._place.storage_driver
        is_noted = bool(noted_driver) and (given is None or given.value == noted_driver)
        named = Setting(noted_driver, "noted by the migration") if is_noted else given

        def choose(root: Bucket, ids: Collection[bytes]) -> DriverStore:
            data = data_root(worker.path)
            return DriverStore(data, named if is_noted else storage_driver(data, given, needed_by(root, ids)))

        database = MetadataDatabase(metadata, exclusive=self._exclusive, like=worker.v1)
        self._held.enter_context(contextlib.closing(database))
        return DockerBuilder(database, snapshots, choose, named)

    def _live(self, snapshotter: str) -> LiveContainerd:
        # gRPC is only loaded when needed.
        from buildkit_migrate.containerd.connection import Connection
        from buildkit_migrate.containerd.live import LiveContainerd

        if self._running is None:
            connection = Connection(self._place.connection, self._place.namespace.value, self._progress)
            self._running = self._held.enter_context(contextlib.closing(connection))
        return LiveContainerd(self._running, snapshotter)

    def _metadata(self, path: Path) -> MetadataDatabase:
        return self._held.enter_context(contextlib.closing(MetadataDatabase(path, exclusive=self._exclusive)))

    def _database(self, path: Path) -> Database:
        return self._held.enter_context(open_database(path, exclusive=self._exclusive))


def _hint_for_missing(worker: Worker, place: Place) -> str:
    if worker.kind == DOCKER_BUILDER:
        return (
            f"restore all of {worker.path} from one backup; without the file the cache is lost, and moving "
            f"{worker.v1.name} away starts an empty one"
        )
    if worker.kind == OCI_WORKER:
        # The other database has one place only.
        elsewhere = ", or see --snapshotter-root" if exists(Path(place.containerd.value)) else ""
        return (
            f"restore all of {worker.path} from one backup{elsewhere}; without the file the cache is lost, "
            f"and moving {worker.v1.name} away starts an empty one"
        )
    return (
        "give the root of the containerd that BuildKit used with --containerd-root, and its --snapshotter "
        f"(now {place.snapshotter}), or the --snapshotter-root if that is elsewhere; omit --offline if "
        "it runs"
    )
