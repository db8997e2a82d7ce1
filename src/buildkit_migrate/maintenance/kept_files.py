"""The old files that `compact` keeps: listing them, putting them back, deleting them."""

from __future__ import annotations

import contextlib
import enum
import os
import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from buildkit_migrate.bolt import Database, check, same_content
from buildkit_migrate.errors import CorruptDatabaseError, Error, UndoRefusedError
from buildkit_migrate.files.durable import remove
from buildkit_migrate.files.errors import is_directory, look, storage_errors
from buildkit_migrate.progress import Progress, reading, silent
from buildkit_migrate.text import named_text
from buildkit_migrate.workspace.stores import Fault, Store, Stores

if TYPE_CHECKING:
    from buildkit_migrate.errors import Finished

__all__ = [
    "KeptFile",
    "KeptFiles",
    "KeptOutcome",
    "discard_kept",
    "fault_of",
    "kept_in",
    "kept_name",
    "put_back_kept",
    "telling_done",
]

_SUFFIX: Final = ".before-compact"

_KEPT: Final = re.compile(rf"(.+){re.escape(_SUFFIX)}(\.tmp|\.~\d+~)?")

_KEEP_NEW: Final = "keep the compacted file; compact --discard-kept deletes the old one"
_KEEP_OLD: Final = "keep the old file: compact --undo puts it back if the new one is lost"


def kept_name(path: Path) -> Path:
    """The second name under which the old file is kept when ``path`` is compacted."""
    return path.with_name(path.name + _SUFFIX)


class KeptOutcome(enum.StrEnum):
    KEPT = "kept"
    PUT_BACK = "put-back"
    DISCARDED = "discarded"
    PLANNED = "planned"
    """A dry run: nothing was changed."""


@dataclass(frozen=True)
class KeptFile:
    """An old file: ``path``, of ``bytes``; the file that took its place, ``database``.

    ``obstacle``: why it can't be put back, or deleted.
    """

    path: Path
    database: Path
    bytes: int
    outcome: KeptOutcome = KeptOutcome.KEPT
    obstacle: Error | None = None

    @property
    def worker(self) -> Path:
        """What an error names as finished before it."""
        return self.database

    @property
    def done(self) -> str:
        """What happened to the database, for people."""
        return "is back" if self.outcome is KeptOutcome.PUT_BACK else "has no old file any more"

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            **named_text("path", self.path),
            **named_text("database", self.database),
            "bytes": self.bytes,
            "outcome": str(self.outcome),
            **named_text("obstacle", None if self.obstacle is None else self.obstacle.message),
        }


@dataclass(frozen=True)
class KeptFiles:
    """Result for a root, or one file."""

    root: Path
    files: tuple[KeptFile, ...]
    dry_run: bool

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def exit_code(self) -> int:
        """The exit status of a refusal that a dry run predicts, otherwise 0."""
        return next((file.obstacle.exit_code for file in self.files if file.obstacle is not None), 0)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            **named_text("root", self.root),
            "dry_run": self.dry_run,
            "kept": [file.as_dict() for file in self.files],
            "kept_bytes": self.bytes,
        }


def kept_in(directory: Path) -> tuple[KeptFile, ...]:
    """What compactions keep in a directory, or a killed one has left. Raises StorageError.

    A second name of the file in use, which a killed run may have left, takes no space.
    """
    if not is_directory(directory):
        return ()
    with storage_errors(directory):
        names = sorted(entry.name for entry in os.scandir(directory))
    found = []
    for match in filter(None, map(_KEPT.fullmatch, names)):
        path, database = directory / match[0], directory / match[1]
        info, current = look(path, follow_symlinks=False), look(database)
        if info is not None and stat.S_ISREG(info.st_mode):
            is_current = current is not None and os.path.samestat(info, current)
            found.append(KeptFile(path, database, 0 if is_current else info.st_size))
    return tuple(found)


def _kept_beside(path: Path) -> tuple[KeptFile, ...]:
    return tuple(file for file in kept_in(path.parent) if file.database.name == path.name)


def put_back_kept(
    stores: Stores,
    held: contextlib.ExitStack,
    *,
    only: Collection[Path] | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> KeptFiles:
    """Puts the old file of each compacted store back, byte for byte; the compacted one is deleted.

    The stores must be locked exclusively unless ``dry_run``. ``held``: gets the locks of the old files.
    ``only``: these old files (absolute paths), and no others.
    Raises UndoRefusedError before anything is changed if any compacted file does not hold exactly what the
    old one holds, or can't be read; CorruptDatabaseError, StorageError.
    """
    tell = progress or silent
    planned: list[KeptFile] = []
    olds: dict[Path, Database] = {}
    for store in _present(stores):
        assert store.path is not None
        for file in _kept_beside(store.path):
            if file.path == kept_name(store.path) and (only is None or file.path.absolute() in only):
                obstacle = None
                if file.bytes:
                    old = olds[file.path] = held.enter_context(
                        Database.open(file.path, exclusive=not dry_run)
                    )
                    tell(reading(f"comparing {file.path} with {store.path.name}", old.reader))
                    obstacle = _would_lose(store, old)
                planned.append(replace(file, outcome=KeptOutcome.PLANNED, obstacle=obstacle))
    if not dry_run:
        _refuse(planned)
        with telling_done(lambda: _done(planned)):
            for number, file in enumerate(planned):
                if file.path in olds:
                    olds[file.path].rename(file.database)
                else:
                    remove(file.path)  # it is the file in use
                planned[number] = replace(file, outcome=KeptOutcome.PUT_BACK)
    return KeptFiles(stores.root.path, tuple(planned), dry_run)


def _would_lose(store: Store, old: Database) -> Error | None:
    if store.fault is Fault.MISSING:
        return None
    if store.fault is Fault.UNREADABLE:
        return store.error
    if store.database is None:
        what = f"{store.path} can't be read, so nobody knows what was added to it"
    elif same_content(old.reader, store.database.reader):
        return None
    else:
        what = f"{store.path} was used since it was compacted"
    return UndoRefusedError(f"{old.path} is not put back: {what}", [what], hint=_KEEP_NEW)


def discard_kept(stores: Stores, *, dry_run: bool = False, progress: Progress | None = None) -> KeptFiles:
    """Deletes the old files of all compacted stores, which must be locked exclusively unless ``dry_run``.

    Raises the error of any store that is missing or not sound before anything is deleted, StorageError.
    """
    tell = progress or silent
    planned: list[KeptFile] = []
    for store in _present(stores):
        assert store.path is not None
        files = _kept_beside(store.path)
        if files:
            of_store = [store.database.reader] if store.database is not None else []
            tell(reading(f"checking the pages of {store.path}", *of_store))
            fault = fault_of(store, _KEEP_OLD)
            planned += (replace(file, outcome=KeptOutcome.PLANNED, obstacle=fault) for file in files)
    if not dry_run:
        _refuse(planned)
        with telling_done(lambda: _done(planned)):
            for number, file in enumerate(planned):
                remove(file.path)
                planned[number] = replace(file, outcome=KeptOutcome.DISCARDED)
    return KeptFiles(stores.root.path, tuple(planned), dry_run)


def fault_of(store: Store, hint: str) -> Error | None:
    """Why the file in use is not sound, with this hint."""
    if store.database is None:
        error = store.error
        assert error is not None
        error.hint = hint
        return error
    found = check(store.database.reader)
    if not found:
        return None
    page, rule = found[0]
    return CorruptDatabaseError(rule, path=str(store.path), page=page, hint=hint)


def _present(stores: Stores) -> Iterator[Store]:
    return (store for store in stores.all if store.path is not None)


def _refuse(planned: Sequence[KeptFile]) -> None:
    for file in planned:
        if file.obstacle is not None:
            raise file.obstacle


@contextlib.contextmanager
def telling_done(finished: Callable[[], Iterable[Finished]]) -> Iterator[None]:
    """Sets ``reports`` of any exception that ends the block early, including KeyboardInterrupt."""
    try:
        yield
    except BaseException as error:
        error.reports = tuple(finished())  # type: ignore[attr-defined]
        raise


def _done(files: Sequence[KeptFile]) -> Iterator[KeptFile]:
    return (file for file in files if file.outcome is not KeptOutcome.PLANNED)
