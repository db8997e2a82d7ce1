"""Deletes what a finished migration keeps for undo. Afterwards there is no way back.

What would be deleted, and whether it may be, is determined before anything is deleted. The v1 store is never
touched.
"""

from __future__ import annotations

import enum
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from buildkit_migrate.bolt import Database, check
from buildkit_migrate.errors import CorruptDatabaseError, DifferencesError, JournalError
from buildkit_migrate.files.durable import remove
from buildkit_migrate.files.errors import exists, is_directory, look, storage_errors
from buildkit_migrate.migration import journal
from buildkit_migrate.progress import Progress, reading
from buildkit_migrate.store.engines import engine_of
from buildkit_migrate.text import named_text

__all__ = ["Cleaned", "CleanedOutcome", "faults", "leftovers", "remove_leftovers"]

_LEFT_IN_WORKER: Final = re.compile(
    r"metadata_v2\.db\.undone(\.\d+)?(-lock)?"
    r"|metadata_v2\.db\.tmp(-lock)?"
    r"|metadata_v2\.db-lock"
    r"|containerdmeta\.db\.tmp"
    r"|containerdmeta\.db\.before-v2(\.tmp|\.~\d+~)?"
)


class CleanedOutcome(enum.StrEnum):
    CLEANED = "cleaned"
    PLANNED = "planned"
    """A dry run: nothing was deleted."""
    NOTHING_TO_CLEAN = "nothing-to-clean"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Cleaned:
    """Result for one worker. ``files``: what was deleted, or would be, with sizes in bytes.

    ``faults``: why a dry run predicts that nothing would be deleted. ``reason``: why the worker was skipped.
    """

    worker: Path
    outcome: CleanedOutcome
    files: tuple[tuple[Path, int], ...] = ()
    faults: tuple[JournalError | DifferencesError, ...] = ()
    reason: str = ""

    @property
    def size(self) -> int:
        """Total size of all files in bytes."""
        return sum(size for _, size in self.files)

    @property
    def done(self) -> str:
        """What happened to the worker, for people."""
        return "was cleaned"

    @property
    def exit_code(self) -> int:
        return self.faults[0].exit_code if self.faults else 0

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, in the style of `Report.as_dict`."""
        return {
            **named_text("worker", self.worker),
            "outcome": str(self.outcome),
            "files": [{**named_text("path", path), "bytes": size} for path, size in self.files],
            "bytes": self.size,
            "faults": [named_text("message", fault.message)["message"] for fault in self.faults],
            "exit_code": self.exit_code,
            **named_text("reason", self.reason or None),
        }


def leftovers(v2: Path, kept: Path | None) -> tuple[tuple[Path, int], ...]:
    """The files that can be deleted, and their sizes. Raises StorageError.

    ``kept``: the old database of a stopped containerd, beside its database. If there is no new store, old
    databases are not listed.
    """
    places = [v2.with_name(name) for name in _names(v2.parent) if _LEFT_IN_WORKER.fullmatch(name)]
    lock = v2.with_name(v2.name + "-lock")
    if lock in places and exists(v2) and _is_lmdb(v2):
        places.remove(lock)  # it belongs to the store in use
    noted = journal.journal_path(v2)
    places += [noted / name for name in (_names(noted) if is_directory(noted, follow_symlinks=False) else ())]
    if kept is not None and kept.parent != v2.parent:
        left = re.compile(re.escape(kept.name) + r"(\.tmp|\.~\d+~)?")
        places += [kept.with_name(name) for name in _names(kept.parent) if left.fullmatch(name)]
    if not exists(v2):
        places = [path for path in places if path.suffix == ".tmp" or ".before-v2" not in path.name]
    return tuple((path, size) for path in places if (size := _size(path)) is not None)


def _names(directory: Path) -> list[str]:
    with storage_errors(directory):
        return sorted(path.name for path in directory.iterdir())


def _size(path: Path) -> int | None:
    """Size of a regular file, None for anything else."""
    info = look(path, follow_symlinks=False)
    return info.st_size if info is not None and stat.S_ISREG(info.st_mode) else None


def _is_lmdb(path: Path) -> bool:
    try:
        return engine_of(path) == "lmdb"
    except CorruptDatabaseError:
        return False


def faults(
    v1: Path, v2: Path, databases: Iterable[Database], progress: Progress
) -> Iterator[JournalError | DifferencesError]:
    """Why nothing may be deleted yet: an interrupted migration, or a damaged file.

    The store in use is the new one, or the old one after an undo. ``databases``: containerd's and the
    snapshotter's, if they can be read. Raises BusyError, StorageError.
    """
    try:
        state = journal.read_state(journal.journal_path(v2))
    except JournalError as error:
        yield error
        state = None
    if state is not None and (state.phase == journal.UNDOING or not exists(v2)):
        begun = "going back to v1" if state.phase == journal.UNDOING else "a migration"
        yield JournalError(
            f"{v2.parent}: {begun} was begun and interrupted",
            hint="buildkit-migrate status shows how to finish it",
        )
        return
    store = v2 if exists(v2) else v1
    if not exists(store):
        yield DifferencesError(
            f"{v2.parent} has neither {v1.name} nor {v2.name}", (), hint="put one of them back"
        )
        return
    for path, rule in (*_damage_of_store(store, progress), *_damage(databases, progress)):
        yield DifferencesError(f"{path} is damaged: {rule}", (), hint="keep what undo needs")


def _damage_of_store(path: Path, progress: Progress) -> Iterator[tuple[Path, str]]:
    try:
        if engine_of(path) == "bolt":
            with Database.open(path) as database:
                yield from _damage([database], progress)
        else:
            from buildkit_migrate.store.lmdb_store import check_store

            progress(f"checking {path}")
            check_store(path)
    except CorruptDatabaseError as error:
        yield path, error.rule


def _damage(databases: Iterable[Database], progress: Progress) -> Iterator[tuple[Path, str]]:
    for database in databases:
        progress(reading(f"checking {database.path}", database.reader))
        found = check(database.reader)
        if found:
            yield database.path, found[0][1]


def remove_leftovers(v2: Path, files: Iterable[tuple[Path, int]]) -> None:
    """Deletes the files. May be interrupted and repeated.

    The journal is deleted first, as nothing uses the rest without it. Raises StorageError.
    """
    journal.discard(journal.journal_path(v2))
    for path, _ in files:
        remove(path)
