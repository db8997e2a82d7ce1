"""Operations on all workers of a root: migrate, undo, clean, verify, check, and show status."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from buildkit_migrate.bolt import Database
from buildkit_migrate.choices import check_options
from buildkit_migrate.containerd.offline import OfflineContainerd
from buildkit_migrate.containerd.services import ConnectionOptions, refuse_event_loop
from buildkit_migrate.errors import DifferencesError, JournalError, StorageError
from buildkit_migrate.files.errors import exists
from buildkit_migrate.files.foreseeing import foresee_moved
from buildkit_migrate.maintenance.check import Checked, check_stores
from buildkit_migrate.maintenance.du import DiskUsage, usage_of
from buildkit_migrate.maintenance.finding import Severity
from buildkit_migrate.migration.clean import Cleaned, CleanedOutcome, faults, leftovers, remove_leftovers
from buildkit_migrate.migration.finished import reporting_finished
from buildkit_migrate.migration.journal import journal_path, leases_before, read_state
from buildkit_migrate.migration.kept import open_kept
from buildkit_migrate.migration.migrate import Migration, OnBroken, StrPath, refuse_broken, report_settled
from buildkit_migrate.migration.report import Outcome, Report
from buildkit_migrate.migration.resuming import noted_driver
from buildkit_migrate.migration.room import refuse_lacking_room
from buildkit_migrate.migration.status import Stage, Status, status
from buildkit_migrate.migration.undo import Undo, Undone, UndoneOutcome, refuse_losses
from buildkit_migrate.migration.verification import (
    Stopped,
    Verdict,
    Verification,
    open_migrated,
    verify_files,
)
from buildkit_migrate.progress import Progress, silent
from buildkit_migrate.settings import DEFAULT_NAMESPACE, Setting
from buildkit_migrate.store.engines import Engine
from buildkit_migrate.workspace.finding import Host, find_root, find_roots
from buildkit_migrate.workspace.layout import CONTAINERD_WORKER, DOCKER_BUILDER, Root, Skipped, Worker
from buildkit_migrate.workspace.one_file import find_stores, open_found
from buildkit_migrate.workspace.opening import (
    ONE_BY_ONE,
    Opener,
    about,
    containerd_place,
    foresee_files,
    foresee_lock,
    lock_state,
    metadata_database,
)
from buildkit_migrate.workspace.places import default_places
from buildkit_migrate.workspace.stores import find_state, open_stores

__all__ = [
    "Host",
    "Root",
    "Worker",
    "check_root",
    "clean_root",
    "default_places",
    "du_root",
    "find_root",
    "find_roots",
    "migrate_root",
    "open_usage",
    "root_status",
    "undo_root",
    "verify_root",
]


def migrate_root(
    path: StrPath | Root | None = None,
    *,
    containerd: ConnectionOptions | None = None,
    containerd_root: StrPath | Setting | None = None,
    namespace: str | Setting = DEFAULT_NAMESPACE,
    snapshotter: str | Setting | None = None,
    snapshotter_root: StrPath | Setting | None = None,
    storage_driver: str | Setting | None = None,
    on_broken: OnBroken = "fail",
    dry_run: bool = False,
    verify: bool = False,
    engine: Engine = "bolt",
    upstream_exact: bool = False,
    previous_transaction: bool = False,
    missing_ok: bool = False,
    skip_unreachable: bool = False,
    progress: Progress | None = None,
) -> list[Report]:
    """Migrates all workers of a stopped BuildKit. Returns one report each, sorted by directory.

    ``path``, ``missing_ok``: as for `find_root`, or its result. ``verify``, ``engine``, ``upstream_exact``,
    ``previous_transaction``: as for `migrate_v2`. Containerd workers need the containerd that BuildKit used:
    either running and reached through ``containerd``, or stopped, with its ``containerd_root``.
    ``namespace``: BuildKit's, in that containerd. ``snapshotter``: by default the one in the directory's
    name. ``snapshotter_root``: the directory with the snapshotter's ``metadata.db`` if not at its usual
    place; only for a single worker processed offline. ``storage_driver``: of Docker Engine when its builder
    wrote the records; by default the one with their layers. A `Setting` also names its origin.
    ``skip_unreachable``: leave workers whose containerd can't be reached unchanged, and report them.

    All workers are locked and planned before anything is written, so broken records in one leave all
    unchanged. A dry run creates no files and makes no calls that change anything. Raises the errors of
    `find_root` and `migrate_v2`.
    """
    check_options(on_broken=on_broken, engine=engine, verify=verify)
    root = path if isinstance(path, Root) else find_root(path, missing_ok=missing_ok)
    place = containerd_place(
        containerd, containerd_root, namespace, snapshotter, snapshotter_root, storage_driver
    )
    reports = {worker: report_settled(worker.v1, worker.v2, engine) for worker in root.workers}
    waiting = [worker for worker in root.workers if reports[worker] is None]
    if waiting:
        with reporting_finished(root.path, reports), contextlib.ExitStack() as held:
            opener = Opener(held, root, place, exclusive=not dry_run, progress=progress)
            foresee_files(root, waiting, opener)
            lock_state(root, held, dry_run=dry_run)
            migrations = {}
            for worker in waiting:
                with about(worker, root, skip_unreachable) as unreachable:
                    migrations[worker] = held.enter_context(
                        Migration(
                            worker.v1,
                            worker.v2,
                            opener.containerd(worker, _noted_driver(worker, resuming=True)),
                            exclusive=not dry_run,
                            engine=engine,
                            upstream_exact=upstream_exact,
                            previous_transaction=previous_transaction,
                            place=opener.place(worker),
                            progress=progress,
                        )
                    )
                if unreachable:
                    reports[worker] = _skipped(worker, unreachable[0])
            if on_broken == "drop" or not dry_run:
                refuse_broken(list(migrations.values()), on_broken)
            refuse_lacking_room([migration.room for migration in migrations.values()])
            for worker, migration in migrations.items():
                if dry_run:
                    reports[worker] = migration.report(Outcome.PLANNED)
                else:
                    migration.prepare()
                    if verify:
                        migration.verify()
            if not dry_run:
                for worker, migration in migrations.items():
                    reports[worker] = migration.carry_out()
    done = [report for report in reports.values() if report is not None]
    done += [_skipped(one, one.reason) for one in root.skipped]
    return sorted(done, key=lambda report: report.worker)


def _skipped(directory: Worker | Skipped, reason: str) -> Report:
    return Report(directory.v1, directory.v2, Outcome.SKIPPED, reason=reason)


def _noted_driver(worker: Worker, *, resuming: bool = False) -> str:
    """The storage driver that the journal of a worker of Docker's names, else ""."""
    if worker.kind != DOCKER_BUILDER:
        return ""
    return noted_driver(worker.v2, worker.path / "containerdmeta.db" if resuming else None)


def undo_root(
    path: StrPath | None = None,
    *,
    containerd: ConnectionOptions | None = None,
    containerd_root: StrPath | Setting | None = None,
    namespace: str | Setting = DEFAULT_NAMESPACE,
    snapshotter: str | Setting | None = None,
    snapshotter_root: StrPath | Setting | None = None,
    storage_driver: str | Setting | None = None,
    force: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> list[Undone]:
    """Undoes the migration of each worker of a stopped BuildKit. Returns results sorted by directory.

    All workers are locked and examined before anything is changed: if one can't go back, or would lose what
    was done since, none does. ``force``: go back whatever is lost. ``dry_run``: report what would be done,
    and why it would be refused; change nothing. Other parameters are those of `migrate_root`. Raises
    UndoRefusedError with everything that would be lost, JournalError if there is no way back, BusyError,
    StorageError, CorruptDatabaseError, and the errors of a containerd; ``reports`` of the error lists the
    workers that are back already.
    """
    root = find_root(path)
    place = containerd_place(
        containerd, containerd_root, namespace, snapshotter, snapshotter_root, storage_driver
    )
    if place.root is None and any(
        worker.kind == CONTAINERD_WORKER and exists(worker.v2) for worker in root.workers
    ):
        refuse_event_loop()  # before a lock file is created
    results: dict[Worker, Undone] = {}
    undos: dict[Worker, Undo] = {}
    obstacles: list[JournalError] = []
    with reporting_finished(root.path, results), contextlib.ExitStack() as held:
        foresee_lock(root)
        lock_state(root, held, dry_run=dry_run)
        opener = Opener(held, root, place, exclusive=not dry_run, progress=progress)
        coming: dict[Path, Database] = {}
        # If several workers share a containerd's file, the last one must be undone first.
        for worker in reversed(root.workers):
            if not exists(worker.v1) and not exists(worker.v2):
                continue
            try:
                if not exists(worker.v2) and read_state(journal_path(worker.v2)) is None:
                    # No containerd needs to be started for that.
                    results[worker] = Undone(worker.v1, worker.v2, UndoneOutcome.NOTHING_TO_UNDO)
                    continue
                with about(worker, root, False, ONE_BY_ONE):
                    found = opener.containerd(worker, _noted_driver(worker))
                    undos[worker] = undo = Undo(
                        worker.v1,
                        worker.v2,
                        found,
                        exclusive=not dry_run,
                        force=force,
                        coming=coming.get(found.database) if found.database is not None else None,
                        progress=progress,
                    )
            except JournalError as error:
                obstacles.append(error)
                results[worker] = Undone(worker.v1, worker.v2, UndoneOutcome.PLANNED, obstacle=error)
                continue
            held.enter_context(undo)
            if found.database is not None and undo.coming is not None:
                coming[found.database] = undo.coming
        if dry_run:
            results |= {worker: undo.report() for worker, undo in undos.items()}
        else:
            _refuse(obstacles)
            if not force:
                refuse_losses(list(undos.values()))
            for worker, undo in undos.items():
                results[worker] = undo.carry_out()
    skipped = [Undone(one.v1, one.v2, UndoneOutcome.SKIPPED, reason=one.reason) for one in root.skipped]
    return sorted([*results.values(), *skipped], key=lambda undone: undone.worker)


def _refuse(errors: Sequence[JournalError | DifferencesError]) -> None:
    """Raises one error that combines all of them."""
    if errors:
        message = "; ".join(error.message for error in errors)
        hint = "; ".join(sorted({error.hint for error in errors if error.hint}))
        interrupted = any(isinstance(error, JournalError) for error in errors)
        raise JournalError(message, hint=hint) if interrupted else DifferencesError(message, (), hint=hint)


def clean_root(
    path: StrPath | None = None,
    *,
    containerd_root: StrPath | Setting | None = None,
    namespace: str | Setting = DEFAULT_NAMESPACE,
    snapshotter: str | Setting | None = None,
    snapshotter_root: StrPath | Setting | None = None,
    storage_driver: str | Setting | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> list[Cleaned]:
    """Deletes what the migration of a stopped BuildKit keeps for undo. Returns a result for each worker.

    That is: old databases of containerd, journals, new stores that were moved aside, temporary files of
    killed runs, and lock files of stores that are gone. The v1 stores stay. Afterwards undo is impossible.

    All workers are examined before anything is deleted: if a migration or undo of one is not finished, or the
    store in use or containerd's databases are not sound, nothing is. For a worker that went back to v1, old
    databases stay. For containerd workers, the databases are only examined, and the old one deleted, with
    ``containerd_root``. Other parameters are those of `migrate_root`. Raises JournalError, DifferencesError
    (damage, or a worker without a store), BusyError, StorageError, CorruptDatabaseError,
    ContainerdStateError.
    """
    root = find_root(path)
    place = containerd_place(None, containerd_root, namespace, snapshotter, snapshotter_root, storage_driver)
    results: dict[Worker, Cleaned] = {}
    with reporting_finished(root.path, results), contextlib.ExitStack() as held:
        foresee_lock(root)
        lock_state(root, held, dry_run=dry_run)
        opener = Opener(held, root, place, exclusive=not dry_run, progress=progress)
        for worker in root.workers:
            stopped = opener.place(worker).backend and (exists(worker.v1) or exists(worker.v2))
            found = opener.containerd(worker) if stopped else None
            offline = found if isinstance(found, OfflineContainerd) else None
            files = leftovers(worker.v2, offline.kept if offline else None)
            if not files:
                results[worker] = Cleaned(worker.path, CleanedOutcome.NOTHING_TO_CLEAN)
                continue
            databases = offline.databases if offline else ()
            wrong = tuple(faults(worker.v1, worker.v2, databases, progress or silent))
            results[worker] = Cleaned(worker.path, CleanedOutcome.PLANNED, files, wrong)
            foresee_moved(*(path for path, _ in files))
        if not dry_run:
            _refuse([fault for planned in results.values() for fault in planned.faults])
            for worker, planned in results.items():
                if planned.files:
                    remove_leftovers(worker.v2, planned.files)
                    results[worker] = replace(planned, outcome=CleanedOutcome.CLEANED)
    skipped = [Cleaned(one.path, CleanedOutcome.SKIPPED, reason=one.reason) for one in root.skipped]
    return sorted([*results.values(), *skipped], key=lambda cleaned: cleaned.worker)


def root_status(
    path: StrPath | None = None,
    *,
    containerd_root: StrPath | Setting | None = None,
    missing_ok: bool = False,
    engine: Engine = "bolt",
) -> list[Status]:
    """The status of each worker, sorted by directory, from the files alone. Writes nothing.

    ``path``, ``missing_ok``: as for `find_root`. ``containerd_root``: where a stopped containerd's files are
    now, by default where they were when the root was migrated. ``engine``: required engine of v2 stores.
    Raises the errors of `find_root`, ValueError for an invalid engine, JournalError and StorageError.
    """
    check_options(engine=engine)
    root = find_root(path, missing_ok=missing_ok)
    place = containerd_place(None, containerd_root, DEFAULT_NAMESPACE, None, None)
    stopped = None if place.root is None else metadata_database(place.root.value)
    statuses = [
        status(worker.v1, worker.v2, engine, stopped if worker.kind == CONTAINERD_WORKER else None)
        for worker in root.workers
    ]
    statuses += [
        Status(one.v1, one.v2, Stage.SKIPPED, _is_there(one.v1), None, None, reason=one.reason)
        for one in root.skipped
    ]
    return sorted(statuses, key=lambda status: status.worker)


def _is_there(path: Path) -> bool | None:
    """Whether the path exists; None if unknown, as skipped directories need not be readable."""
    with contextlib.suppress(StorageError):
        return exists(path)
    return None


def verify_root(
    path: StrPath | None = None,
    *,
    containerd: ConnectionOptions | None = None,
    containerd_root: StrPath | Setting | None = None,
    namespace: str | Setting = DEFAULT_NAMESPACE,
    snapshotter: str | Setting | None = None,
    snapshotter_root: StrPath | Setting | None = None,
    storage_driver: str | Setting | None = None,
    content: bool = False,
    missing_ok: bool = False,
    skip_unreachable: bool = False,
    progress: Progress | None = None,
) -> list[Verification]:
    """Compares each migrated worker of a stopped BuildKit with its v1 store; sorted by directory.

    Meant for a root that no daemon has used since it was migrated: a daemon's changes are differences, too.
    Everything is computed again, in plain Python. ``content``: also hash blob files and check that snapshot
    directories exist, except those of a running containerd. Other parameters and the errors are those of
    `migrate_root`. Writes nothing.
    """
    root = find_root(path, missing_ok=missing_ok)
    place = containerd_place(
        containerd, containerd_root, namespace, snapshotter, snapshotter_root, storage_driver
    )
    with contextlib.ExitStack() as held:
        lock_state(root, held, dry_run=True)
        opener = Opener(held, root, place, exclusive=False, progress=progress)
        done = []
        for worker in root.workers:
            with about(worker, root, skip_unreachable) as unreachable:
                if skip_unreachable:
                    opener.containerd(worker)  # skipped here, too, if skipped by the migration
                done.append(_verify(worker, opener, content, progress or silent))
            if unreachable:
                done.append(Verification(worker.v1, worker.v2, Verdict.SKIPPED, reason=unreachable[0]))
    done += [Verification(one.v1, one.v2, Verdict.SKIPPED, reason=one.reason) for one in root.skipped]
    return sorted(done, key=lambda verification: verification.worker)


def _verify(worker: Worker, opener: Opener, content: bool, progress: Progress) -> Verification:
    started = time.perf_counter()
    if report_settled(worker.v1, worker.v2) is None:
        return Verification(worker.v1, worker.v2, Verdict.NOT_MIGRATED)
    state = read_state(journal_path(worker.v2))
    try:
        source = Database.open(worker.v1, previous=state is not None and state.previous)
    except StorageError as error:
        if error.missing:
            return Verification(worker.v1, worker.v2, Verdict.NOTHING_TO_VERIFY)
        raise
    with source, open_migrated(worker.v2) as (store, files), contextlib.ExitStack() as held:
        containerd = opener.containerd(worker, _noted_driver(worker))
        blobs = opener.content(worker) if content else None
        stopped = None
        if isinstance(containerd, OfflineContainerd):
            kept = held.enter_context(open_kept(state, containerd.database, containerd.kept))
            stopped = Stopped(
                containerd.databases,
                *(containerd.root, containerd.backend),
                *(containerd.identity["namespace"], containerd.identity["snapshotter"]),
                kept,
                blobs,
            )
        findings = verify_files(
            source.root,
            store,
            containerd,
            (source, *files),
            progress,
            upstream_exact=None if state is None else state.upstream_exact,
            leases_before=leases_before(journal_path(worker.v2)),
            stopped=stopped,
        )
    verdict = Verdict.DIFFERENT if findings.differences else Verdict.OK
    return Verification(worker.v1, worker.v2, verdict, findings, time.perf_counter() - started)


def check_root(
    path: StrPath | None = None,
    *,
    containerd: ConnectionOptions | None = None,
    containerd_root: StrPath | Setting | None = None,
    namespace: str | Setting = DEFAULT_NAMESPACE,
    snapshotter: str | Setting | None = None,
    snapshotter_root: StrPath | Setting | None = None,
    storage_driver: str | Setting | None = None,
    rules: Collection[str] | None = None,
    severities: Collection[Severity] | None = None,
    content: bool = False,
    progress: Progress | None = None,
) -> Checked:
    """Checks the stores of a stopped BuildKit against all rules, or a single database file against its own.

    ``rules``: only these, such as ``{"C8"}``; ``severities``: only findings of these; ``content``: reads all
    blobs and counts the files of all layers, however many there are. Other parameters are those of
    `migrate_root`; for a single file those for a containerd change nothing. Writes nothing. Damage in a store
    is a finding and raises nothing. Raises the errors of `find_root`, BusyError, which names the daemon,
    StorageError, ContainerdStateError.
    """
    place = containerd_place(
        containerd, containerd_root, namespace, snapshotter, snapshotter_root, storage_driver
    )
    with open_found(find_stores(path), place) as stores:
        return check_stores(stores, rules=rules, severities=severities, content=content, progress=progress)


def du_root(path: StrPath | None = None, **options: Any) -> DiskUsage:
    """The records of a stopped BuildKit as `buildctl du` lists them: `open_usage`, all of it in memory.

    Options and errors are those of `open_usage`.
    """
    with open_usage(path, **options) as usage:
        return usage.in_memory()


@contextlib.contextmanager
def open_usage(
    path: StrPath | None = None,
    *,
    containerd: ConnectionOptions | None = None,
    containerd_root: StrPath | Setting | None = None,
    namespace: str | Setting = DEFAULT_NAMESPACE,
    snapshotter: str | Setting | None = None,
    snapshotter_root: StrPath | Setting | None = None,
    storage_driver: str | Setting | None = None,
    filter: Sequence[str] = (),
    after_start: bool = False,
    top: int | None = None,
    progress: Progress | None = None,
) -> Iterator[DiskUsage]:
    """The records of a stopped BuildKit, read from its stores when they are iterated over.

    ``filter``, ``after_start``, ``top``: as for `maintenance.du.usage_of`. Other parameters are those of
    `migrate_root`. Nothing is written. Raises the errors of `find_root`, BusyError, which names the daemon,
    StorageError, ContainerdStateError, and FilterError (a ValueError).
    """
    place = containerd_place(
        containerd, containerd_root, namespace, snapshotter, snapshotter_root, storage_driver
    )
    with open_stores(find_state(path), place) as stores:
        yield usage_of(stores, filter=filter, after_start=after_start, top=top, progress=progress)
