"""BuildKit's state directories: finding them, locking them, and what can be done with all of their workers.

Layout: spec containerd-metadata-db, section 1.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from buildkit_migrate.bolt import Database, lock, missing
from buildkit_migrate.containerd.offline import (
    KEPT_SUFFIX,
    MetadataDatabase,
    OfflineContainerd,
    open_database,
)
from buildkit_migrate.containerd.services import ConnectionOptions
from buildkit_migrate.errors import ContainerdStateError, Error, RootNotFoundError, StorageError
from buildkit_migrate.metadata.engines import Engine
from buildkit_migrate.migration.journal import journal_path, read_state
from buildkit_migrate.migration.migrate import (
    Migration,
    OnBroken,
    Progress,
    StrPath,
    check_policy,
    refuse_broken,
    settled,
)
from buildkit_migrate.migration.report import Outcome, Report
from buildkit_migrate.migration.status import Status, status
from buildkit_migrate.migration.undo import Undone, UndoneOutcome, undo
from buildkit_migrate.migration.verification import Verdict, Verification, opened_store, verify_files

if TYPE_CHECKING:
    from buildkit_migrate.containerd.live import Connection, LiveContainerd

__all__ = [
    "Root",
    "Worker",
    "default_places",
    "find_root",
    "migrate_root",
    "root_status",
    "undo_root",
    "verify_root",
]

SYSTEM_ROOT: Final = Path("/var/lib/buildkit")
OCI_WORKER: Final = "runc"
CONTAINERD_WORKER: Final = "containerd"

OCI_NAMESPACE: Final = "buildkit"
"""The OCI worker's namespace can't be configured."""

LOCK_FILE: Final = "buildkitd.lock"
_STATE_FILES: Final = {LOCK_FILE, "cache.db", "history.db"}


@dataclass(frozen=True)
class Worker:
    """A worker directory. ``kind``: OCI_WORKER or CONTAINERD_WORKER."""

    path: Path
    kind: str
    snapshotter: str

    @property
    def v1(self) -> Path:
        return self.path / "metadata.db"

    @property
    def v2(self) -> Path:
        return self.path / "metadata_v2.db"


@dataclass(frozen=True)
class Root:
    """What was found at ``path``. ``state``: the state directory, which is the parent of a lone worker."""

    path: Path
    state: Path
    workers: tuple[Worker, ...]


def default_places(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Where BuildKit keeps its state when nothing else is configured, in order of preference."""
    data_home = environ.get("XDG_DATA_HOME", "").split(":")[0]
    home = Path(data_home) if data_home else Path(environ.get("HOME") or "~").expanduser() / ".local/share"
    return [SYSTEM_ROOT, home / "buildkit"]


def find_root(path: StrPath | None = None) -> Root:
    """The state or worker directory at ``path``, or at the first default place that has one.

    Raises RootNotFoundError, which says what was looked for, and StorageError.
    """
    if path is not None:
        root = _root_at(Path(path))
        if root is not None:
            return root
        raise RootNotFoundError(
            f"{path} is no BuildKit state directory (with runc-* or containerd-* directories in it) "
            "and no such worker directory"
        )
    tried = []
    without_workers = None
    for place in default_places():
        try:
            root = _root_at(place)
        except StorageError as error:
            tried.append(str(error))
            continue
        if root is None:
            tried.append(f"{place}: no state directory")
        elif root.workers:
            return root
        else:
            # An empty system directory must not hide the root of a rootless daemon.
            without_workers = without_workers or root
    if without_workers is not None:
        return without_workers
    raise RootNotFoundError(
        f"found no BuildKit state directory ({'; '.join(tried)})", hint="give the directory as an argument"
    )


def _root_at(path: Path) -> Root | None:
    try:
        names = sorted(entry.name for entry in os.scandir(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from error
    workers = tuple(worker for name in names if (worker := _worker_at(path / name)) is not None)
    if workers or _is_state_without_workers(set(names)):
        return Root(path, path, workers)
    real = path.resolve()
    worker = _worker_at(real)
    return None if worker is None else Root(path, real.parent, (worker,))


def _is_state_without_workers(names: set[str]) -> bool:
    """So is a new volume. Docker has its records right beside ``cache.db``; that is another layout."""
    return not names - {"lost+found"} or (bool(_STATE_FILES & names) and "metadata.db" not in names)


def _worker_at(path: Path) -> Worker | None:
    kind, dash, snapshotter = path.name.partition("-")
    if kind not in (OCI_WORKER, CONTAINERD_WORKER) or not dash or not snapshotter or not path.is_dir():
        return None
    if not snapshotter.isascii():
        raise RootNotFoundError(f"{os.fsencode(path)!r} names no snapshotter that containerd could have")
    return Worker(path, kind, snapshotter)


def migrate_root(
    path: StrPath | None = None,
    *,
    containerd: ConnectionOptions | None = None,
    containerd_root: StrPath | None = None,
    namespace: str = "buildkit",
    snapshotter: str | None = None,
    on_broken: OnBroken = "fail",
    dry_run: bool = False,
    verify: bool = False,
    engine: Engine = "bolt",
    progress: Progress | None = None,
) -> list[Report]:
    """Migrates all workers of a stopped BuildKit; one report for each, sorted by directory.

    ``path``: as for `find_root`; ``verify``, ``engine``: as for `migrate_v2`. Containerd workers need the
    containerd that BuildKit used: running and reached as ``containerd`` says, or stopped, with its
    ``containerd_root``. ``namespace``: BuildKit's in it; ``snapshotter``: by default the one in the
    directory's name.
    All workers are locked and planned before anything is written, so broken records in one leave all
    unchanged. A dry run creates no file and makes no call that changes anything.
    Raises the errors of `find_root` and `migrate_v2`.
    """
    check_policy(on_broken)
    root = find_root(path)
    reports = {worker: settled(worker.v1, worker.v2) for worker in root.workers}
    waiting = [worker for worker in root.workers if reports[worker] is None]
    if waiting:
        with contextlib.ExitStack() as held:
            _lock_state(root, held, dry_run=dry_run)
            opener = _Opener(
                held,
                containerd or ConnectionOptions(),
                None if containerd_root is None else Path(containerd_root),
                namespace,
                snapshotter,
                exclusive=not dry_run,
                engine=engine,
                progress=progress,
            )
            migrations = {worker: opener.open(worker) for worker in waiting}
            if on_broken == "fail" and not dry_run:
                refuse_broken(list(migrations.values()))
            for worker, migration in migrations.items():
                if dry_run:
                    reports[worker] = migration.report(Outcome.PLANNED)
                else:
                    migration.prepare()
                    if verify:
                        migration.verify()
            if not dry_run:
                _carry_out(migrations, reports)
    return [report for report in reports.values() if report is not None]


def _carry_out(migrations: Mapping[Worker, Migration], reports: dict[Worker, Report | None]) -> None:
    finished: list[Report] = []
    for worker, migration in migrations.items():
        try:
            reports[worker] = report = migration.carry_out()
        except Error as error:
            error.reports = tuple(finished)
            raise
        finished.append(report)


def undo_root(
    path: StrPath | None = None,
    *,
    containerd: ConnectionOptions | None = None,
    containerd_root: StrPath | None = None,
    namespace: str = "buildkit",
    snapshotter: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> list[Undone]:
    """Takes the migration of each worker of a stopped BuildKit back; a result for each, sorted by directory.

    Parameters and errors are those of `migrate_root` and `undo`. If one worker is refused, those before it in
    reverse order are done, and running it again goes on.
    """
    root = find_root(path)
    done = []
    with contextlib.ExitStack() as state:
        _lock_state(root, state, dry_run=False)
        # Of several that share a containerd's file the last one has to be taken back first.
        for worker in reversed(root.workers):
            if not worker.v1.exists() and not worker.v2.exists():
                continue
            if not worker.v2.exists() and read_state(journal_path(worker.v2)) is None:
                # Nobody has to start a containerd for that.
                done.append(Undone(worker.v1, worker.v2, UndoneOutcome.NOTHING_TO_UNDO))
                continue
            with contextlib.ExitStack() as held:
                opener = _Opener(
                    held,
                    containerd or ConnectionOptions(),
                    None if containerd_root is None else Path(containerd_root),
                    namespace,
                    snapshotter,
                    exclusive=True,
                    progress=progress,
                )
                done.append(
                    undo(worker.v1, worker.v2, opener.containerd(worker), force=force, progress=progress)
                )
    return done[::-1]


def root_status(path: StrPath | None = None) -> list[Status]:
    """How far each worker is, sorted by directory; from the files alone, without any lock.

    Raises the errors of `find_root`, JournalError and StorageError.
    """
    return [status(worker.v1, worker.v2) for worker in find_root(path).workers]


def verify_root(
    path: StrPath | None = None,
    *,
    containerd: ConnectionOptions | None = None,
    containerd_root: StrPath | None = None,
    namespace: str = "buildkit",
    snapshotter: str | None = None,
    content: bool = False,
    progress: Progress | None = None,
) -> list[Verification]:
    """Compares each migrated worker of a stopped BuildKit with its v1 store; sorted by directory.

    Meant for a root that no daemon has used since it was migrated: what one has changed since is different,
    too. Everything is computed anew, in plain Python. ``content``: the blob files are hashed as well, but
    not those of a running containerd. The other parameters and the errors are those of `migrate_root`.
    Nothing is written.
    """
    root = find_root(path)
    with contextlib.ExitStack() as held:
        _lock_state(root, held, dry_run=True)
        opener = _Opener(
            held,
            containerd or ConnectionOptions(),
            None if containerd_root is None else Path(containerd_root),
            namespace,
            snapshotter,
            exclusive=False,
            progress=progress,
        )
        return [_verify(worker, opener, content, progress or (lambda step: None)) for worker in root.workers]


def _verify(worker: Worker, opener: _Opener, content: bool, progress: Progress) -> Verification:
    started = time.perf_counter()
    if settled(worker.v1, worker.v2) is None:
        return Verification(worker.v1, worker.v2, Verdict.NOT_MIGRATED)
    try:
        source = Database.open(worker.v1)
    except StorageError as error:
        if missing(error):
            return Verification(worker.v1, worker.v2, Verdict.NOTHING_TO_VERIFY)
        raise
    with source, opened_store(worker.v2) as (store, files):
        containerd = opener.containerd(worker)
        if isinstance(containerd, OfflineContainerd):
            files += containerd.databases
        blobs = opener.content(worker) if content else None
        findings = verify_files(source.root, store, containerd, (source, *files), progress, content=blobs)
    verdict = Verdict.DIFFERENT if findings.differences else Verdict.OK
    return Verification(worker.v1, worker.v2, verdict, findings, time.perf_counter() - started)


def _lock_state(root: Root, held: contextlib.ExitStack, *, dry_run: bool) -> None:
    """Keeps daemons from starting. Of the state directory's files only the lock file may be created."""
    create = not dry_run and root.path == root.state
    # The lock file is left behind, as removing it could pull it from under a daemon that waits to start;
    # the daemon removes it itself when it stops.
    for name, created in ((LOCK_FILE, create), ("cache.db", False)):
        try:
            held.enter_context(lock(root.state / name, exclusive=not dry_run, create=created))
        except StorageError as error:
            if not missing(error):
                raise


class _Opener:
    """Opens workers; a containerd that several of them share is opened once."""

    def __init__(
        self,
        held: contextlib.ExitStack,
        containerd: ConnectionOptions,
        containerd_root: Path | None,
        namespace: str,
        snapshotter: str | None,
        *,
        exclusive: bool,
        engine: Engine = "bolt",
        progress: Progress | None,
    ) -> None:
        self._held = held
        self._options = containerd
        self._engine = engine
        self._containerd_root = containerd_root
        self._namespace = namespace
        self._snapshotter = snapshotter
        self._exclusive = exclusive
        self._progress = progress
        self._stopped: MetadataDatabase | None = None
        self._running: Connection | None = None

    def open(self, worker: Worker) -> Migration:
        containerd = self.containerd(worker)
        migration = Migration(
            worker.v1,
            worker.v2,
            containerd.content_store,
            containerd.snapshotter,
            containerd.lease_manager,
            exclusive=self._exclusive,
            engine=self._engine,
            progress=self._progress,
        )
        return self._held.enter_context(migration)

    def content(self, worker: Worker) -> Path:
        """The directory of the content store."""
        if worker.kind == OCI_WORKER:
            return worker.path / "content"
        if self._containerd_root is None:
            raise ContainerdStateError(
                f"the blob files of {worker.path} belong to a running containerd and can't be hashed here",
                hint="leave --content out, or stop containerd and use --offline",
            )
        return self._containerd_root / "io.containerd.content.v1.content"

    def containerd(self, worker: Worker) -> OfflineContainerd | LiveContainerd:
        if worker.kind == OCI_WORKER:
            metadata = self._metadata(worker.path / "containerdmeta.db")
            snapshots = self._snapshots(worker.path / "snapshots")
            return OfflineContainerd(metadata, snapshots, OCI_NAMESPACE, worker.snapshotter)
        snapshotter = self._snapshotter or worker.snapshotter
        if self._containerd_root is None:
            return self._live(snapshotter)
        if self._stopped is None:
            self._stopped = self._metadata(
                self._containerd_root / "io.containerd.metadata.v1.bolt" / "meta.db"
            )
        snapshots = self._snapshots(self._containerd_root / f"io.containerd.snapshotter.v1.{snapshotter}")
        # The file may be replaced for several namespaces and snapshotters, one after the other.
        suffix = f"{KEPT_SUFFIX}-{self._namespace}-{snapshotter}"
        return OfflineContainerd(self._stopped, snapshots, self._namespace, snapshotter, kept_suffix=suffix)

    def _live(self, snapshotter: str) -> LiveContainerd:
        # gRPC is loaded for those who need it.
        from buildkit_migrate.containerd.live import Connection, LiveContainerd

        if self._running is None:
            connection = Connection(self._options, self._namespace, self._progress)
            self._running = self._held.enter_context(contextlib.closing(connection))
        return LiveContainerd(self._running, snapshotter)

    def _metadata(self, path: Path) -> MetadataDatabase:
        return self._held.enter_context(contextlib.closing(MetadataDatabase(path, exclusive=self._exclusive)))

    def _snapshots(self, directory: Path) -> Database:
        path = directory / "metadata.db"
        return self._held.enter_context(open_database(path, exclusive=self._exclusive))
