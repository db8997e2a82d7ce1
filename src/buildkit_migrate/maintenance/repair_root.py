"""The functions behind the command ``repair``, and what `undo` and `status` need of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from buildkit_migrate.errors import ContainerdStateError, CorruptDatabaseError, Error, StorageError
from buildkit_migrate.files.errors import exists, is_file
from buildkit_migrate.files.fingerprint import fingerprint
from buildkit_migrate.files.foreseeing import Space
from buildkit_migrate.files.locks import using_own_locks
from buildkit_migrate.maintenance import kept_files
from buildkit_migrate.maintenance.check import FINDINGS, Checked, check_stores, finding_as_dict
from buildkit_migrate.maintenance.compact_root import files_kept, opened_stores
from buildkit_migrate.maintenance.kept_files import KeptFiles, fault_of, kept_name
from buildkit_migrate.maintenance.mend import Mend, RepairClass
from buildkit_migrate.maintenance.repair import RepairPlan, plan_repair
from buildkit_migrate.maintenance.repair_apply import Application, Changed, begin
from buildkit_migrate.maintenance.repair_journal import Entry, Kind, RepairJournal
from buildkit_migrate.maintenance.repair_undo import (
    KeptRepairs,
    RepairUndone,
    discard_entries,
    last_of,
    refuse_mounted,
    refuse_unfinished,
    undo_entry,
)
from buildkit_migrate.progress import Progress
from buildkit_migrate.settings import DEFAULT_NAMESPACE, Setting
from buildkit_migrate.text import named_text
from buildkit_migrate.workspace.finding import find_root
from buildkit_migrate.workspace.layout import Root
from buildkit_migrate.workspace.one_file import find_stores, lock_out_daemons, state_of
from buildkit_migrate.workspace.opening import lock_out_daemon
from buildkit_migrate.workspace.stores import Fault, Stores

__all__ = [
    "Repaired",
    "discard_kept_repairs",
    "repair_root",
    "repairs_kept",
    "undo_maintenance",
]

_KEEP: Final = "keep the originals: undo puts them back if the new files are lost"

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Repaired:
    """Result for a root, or one file. ``changes``: what it changes, or would change in a dry run.

    ``verdict``: what a check finds afterwards; None in a dry run, and if ``unchecked`` says why the repaired
    root could not be checked. ``obstacle``: why nothing can be changed.
    """

    root: Path
    plan: RepairPlan
    changes: tuple[Changed, ...]
    dry_run: bool
    verdict: Checked | None = None
    obstacle: Error | None = None
    unchecked: Error | None = None
    space: tuple[Space, ...] = ()
    """Of a dry run: the room for the new files on each file system, and what is free."""

    @property
    def exit_code(self) -> int:
        """That of the check, or of its error; in a dry run, of a refusal, or of what would be left."""
        if self.unchecked is not None:
            return self.unchecked.exit_code
        if self.verdict is not None:
            return self.verdict.exit_code
        if self.obstacle is not None:
            return self.obstacle.exit_code
        changed = {change.path for change in self.changes}
        if any(path.absolute() not in changed for path in self.plan.checked.unsound):
            return CorruptDatabaseError.exit_code
        if self.plan.left:
            return FINDINGS
        return 0 if self.plan.checked.finished else StorageError.exit_code

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            **named_text("root", self.root),
            "dry_run": self.dry_run,
            "classes": sorted(self.plan.classes),
            "mends": [_mend_as_dict(mend) for mend in self.plan.mends],
            "offered": [_mend_as_dict(mend) for mend in self.plan.offered],
            "changes": [change.as_dict() for change in self.changes],
            "dropped": [named_text("id", id) for id in self.plan.dropped],
            "left": [finding_as_dict(finding) for finding in self.plan.left],
            "space": [space.as_dict() for space in self.space],
            "verdict": None if self.verdict is None else self.verdict.as_dict(),
            **named_text("unchecked", None if self.unchecked is None else self.unchecked.message),
            **named_text("obstacle", None if self.obstacle is None else self.obstacle.message),
        }


def _mend_as_dict(mend: Mend) -> dict[str, Any]:
    return {
        "rule": mend.rule,
        "class": str(mend.kind),
        **named_text("file", mend.file),
        **named_text("subject", mend.subject),
        **named_text("does", mend.does),
        **named_text("loses", mend.loses),
        "freed": mend.freed,
        "freed_by": mend.freed_by and str(mend.freed_by),
    }


def repair_root(
    path: StrPath | None = None,
    *,
    classes: Collection[RepairClass] = (RepairClass.PROTECT,),
    containerd_root: StrPath | Setting | None = None,
    namespace: str | Setting = DEFAULT_NAMESPACE,
    snapshotter: str | Setting | None = None,
    snapshotter_root: StrPath | Setting | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Repaired:
    """Repairs the stores of a stopped BuildKit, or a single database file, and checks them afterwards.

    ``classes``: what may be done. A containerd's databases are only repaired with ``containerd_root``, of a
    stopped one. The originals are kept: `undo_maintenance` puts them back as long as nobody used the root
    since, `discard_kept_repairs` deletes them. A repair that was cut off is finished by the next one. Other
    parameters are those of `migrate_root`.

    Everything is planned and examined before anything is changed; a sound root is not changed. Raises the
    errors of `find_root`, BusyError, which names the daemon, CorruptDatabaseError for a database with damaged
    trees that would have to be changed, DifferencesError if the disk does not hold what was written to it,
    StorageError, also if there is no room for the new files, JournalError and ContainerdStateError.
    """
    place = containerd_root, namespace, snapshotter, snapshotter_root
    chosen = frozenset(map(RepairClass, classes))
    with contextlib.ExitStack() as held, using_own_locks():
        stores = held.enter_context(opened_stores(path, *place, exclusive=not dry_run))
        plan = plan_repair(stores, chosen, progress=progress)
        journal = _journal(stores.root.path, stores.root.state)
        before, entry = begin(journal, stores, sorted(chosen), _marks(stores))
        application = Application(
            stores, plan.changes, journal, before, entry, exclusive=not dry_run, progress=progress
        )
        with contextlib.closing(application):
            obstacle = application.obstacles[0] if application.obstacles else None
            root = stores.root.path
            if dry_run:
                return Repaired(
                    root,
                    plan,
                    application.changed,
                    dry_run,
                    obstacle=obstacle,
                    space=application.space,
                )
            if obstacle is not None:
                raise obstacle
            application.carry_out(held)
            found = Repaired(root, plan, application.changed, dry_run, plan.checked)
            if not plan.changes:
                return found
            try:
                # No daemon gets in before the check: all locks are still held.
                with opened_stores(path, *place, exclusive=False) as stores:
                    return replace(found, verdict=check_stores(stores, progress=progress))
            except Error as error:
                return replace(found, verdict=None, unchecked=error)


def _journal(path: Path, state: Path) -> RepairJournal:
    """The journal of a root, or of one file."""
    if not is_file(path):
        return RepairJournal.of_root(state)
    found = state_of(path)
    return RepairJournal.of_file(path) if found is None else RepairJournal.of_root(found)


def _marks(stores: Stores) -> Mapping[Path, str]:
    """Fingerprints of the files that compactions keep beside the stores."""
    kept = (kept_name(store.path).absolute() for store in stores.all if store.path is not None)
    return {path: mark for path in kept if (mark := fingerprint(path))}


def undo_maintenance(
    path: StrPath | None = None,
    *,
    containerd_root: StrPath | Setting | None = None,
    namespace: str | Setting = DEFAULT_NAMESPACE,
    snapshotter: str | Setting | None = None,
    snapshotter_root: StrPath | Setting | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> RepairUndone | KeptFiles | None:
    """Takes the last repair or compaction of a root, of one worker, or of one file, back, byte for byte.

    None if there is none to take back; called again, it takes back the one before. A repair that was cut off
    is taken back, too. Repairs that only changed other workers or files stay. Parameters are those of
    `repair_root`. Raises UndoRefusedError, before anything is changed, if anybody used the root since, if the
    repair changed more than was named, or if a later one is in the way; BusyError, JournalError,
    StorageError, and the errors of `find_root`.
    """
    root = find_stores(path)
    journal = _journal(root.path, root.state)
    place = containerd_root, namespace, snapshotter, snapshotter_root
    if not journal.entries() and not _has_compactions(root, containerd_root):
        return None
    with contextlib.ExitStack() as held, using_own_locks():
        if is_file(root.path):
            lock_out_daemons(root.path, held, exclusive=not dry_run)
        else:
            lock_out_daemon(root, held, exclusive=not dry_run)
        entries = journal.entries()
        with opened_stores(path, *place, exclusive=not dry_run) as stores:
            for store in stores.all:
                if store.fault is Fault.UNREADABLE and store.error is not None:
                    raise store.error
            entries, obstacle = last_of(entries, _named(stores), journal.path.parent)
            known = entries[-1].compactions if entries else {}
            newer = [kept for kept, mark in _marks(stores).items() if known.get(kept) != mark]
            if newer:
                return kept_files.put_back_kept(stores, held, only=newer, dry_run=dry_run, progress=progress)
        if not entries:
            return None
        return undo_entry(root.path, journal, entries, held, obstacle, dry_run=dry_run, progress=progress)


def _named(stores: Stores) -> Callable[[Path], bool]:
    """Tells of a path whether a repair of what these are the stores of may have changed it."""
    root = stores.root
    if root.path == root.state:
        return lambda _: True
    files = {_real(store.path) for store in stores.all if store.path is not None}
    if is_file(root.path):
        return lambda path: _real(path) in files
    places = {root.path.absolute()}
    places |= {store.path.parent for worker in stores.workers if (store := worker.snapshots).path is not None}
    directories = {_real(place) for place in places}
    return lambda path: _real(path) in files or not directories.isdisjoint(_real(path).parents)


def _real(path: Path) -> Path:
    """The same for all names of a file, but for links in its own place."""
    return Path(os.path.realpath(path.parent), path.name)


def _has_compactions(root: Root, containerd_root: StrPath | Setting | None) -> bool:
    """Whether compactions keep anything, judged by file names."""
    if is_file(root.path):
        return exists(kept_name(root.path))
    return bool(files_kept(root.path, containerd_root=containerd_root).files)


def repairs_kept(path: StrPath | None = None, *, missing_ok: bool = False) -> KeptRepairs:
    """The repairs of a root that are in its journal, without a lock. Parameters are those of `find_root`.

    Raises the errors of `find_root`, JournalError, StorageError.
    """
    root = find_root(path, missing_ok=missing_ok)
    return KeptRepairs(root.path, tuple(_journal(root.path, root.state).entries()))


def discard_kept_repairs(
    path: StrPath | None = None,
    *,
    containerd_root: StrPath | Setting | None = None,
    namespace: str | Setting = DEFAULT_NAMESPACE,
    snapshotter: str | Setting | None = None,
    snapshotter_root: StrPath | Setting | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> KeptRepairs:
    """Deletes all originals that repairs of a root, or of one file, keep. Takes the parameters of
    `repair_root`.

    Nothing is deleted if a database in use has damaged pages, or is missing: raises CorruptDatabaseError,
    StorageError; JournalError if the last repair or its undo was cut off; and the errors of `repair_root`.
    """
    place = containerd_root, namespace, snapshotter, snapshotter_root
    with opened_stores(path, *place, exclusive=not dry_run) as stores:
        journal = _journal(stores.root.path, stores.root.state)
        entries = journal.entries()
        obstacle: Error | None = None
        try:
            refuse_unfinished(journal, entries)
            refuse_mounted(entries)
            _refuse_unsound(stores, entries)
        except Error as error:
            if not dry_run:
                raise
            obstacle = error
        if not dry_run:
            discard_entries(journal, entries)
        return KeptRepairs(stores.root.path, tuple(entries), not dry_run, obstacle)


def _refuse_unsound(stores: Stores, entries: Sequence[Entry]) -> None:
    """Raises the error of a repaired database in use that is missing or not sound."""
    open_ones = {store.path.absolute(): store for store in stores.all if store.path is not None}
    items = (
        item for entry in entries for item in entry.items if item.kind is Kind.REPLACED and not item.went_back
    )
    for path in dict.fromkeys(item.path for item in items):
        if path in open_ones and (fault := fault_of(open_ones[path], _KEEP)) is not None:
            raise fault
        if path not in open_ones and path.suffix == ".db":
            raise ContainerdStateError(
                f"{path} was repaired, and is not among the databases of {stores.root.path}",
                hint="--containerd-root tells where a containerd's databases are",
            )
