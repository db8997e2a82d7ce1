"""containerd's database from before an offline migration, as far as it still exists."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from buildkit_migrate.bolt import Bucket, Database, check, nothing_at
from buildkit_migrate.errors import BusyError, CorruptDatabaseError, StorageError
from buildkit_migrate.files.errors import storage_errors
from buildkit_migrate.files.fingerprint import fingerprint
from buildkit_migrate.migration import journal
from buildkit_migrate.migration.journal import State

__all__ = ["Kept", "open_kept"]


@dataclass(frozen=True)
class Kept:
    """``original``: root bucket of the one from before this worker's migration, empty if there was none.

    None if it is missing or unreliable, see ``why_not``.

    ``others``: from before the migrations of other workers of the same containerd.
    """

    original: Bucket | None
    others: tuple[Database, ...]
    why_not: str = ""


@contextlib.contextmanager
def open_kept(state: State | None, database: Path, usual: Path) -> Iterator[Kept]:
    """Opens the kept databases for the worker whose journal has this state.

    ``usual``: the usual second name of ``database``. Raises StorageError if the directory can't be read.
    """
    if state is not None and journal.had_no_database(state) and not state.used:
        yield Kept(nothing_at(database).root, ())
        return
    path, why_not = _place(state, database, usual)
    with contextlib.ExitStack() as held:
        original = None
        if path is not None:
            original = _sound(path, held)
            why_not = "" if original is not None else f"{path} is damaged or can't be read"
        suffixed = f"{database.name}.before-v2-"
        with storage_errors(database.parent):
            names = [other for other in sorted(database.parent.iterdir()) if other.name.startswith(suffixed)]
        names = [
            name for name in names if name != path and not name.name.endswith("~")
        ]  # see `files.durable.keep`
        others = [_sound(name, held) for name in names] if original is not None else []
        root = None if original is None else original.root
        yield Kept(root, tuple(other for other in others if other is not None), why_not)


def _place(state: State | None, database: Path, usual: Path) -> tuple[Path | None, str]:
    """The kept file if it exists and is the one that was kept; otherwise why not."""
    if state is None:
        return _if_file(usual)
    if not state.kept_path:
        return None, "it was migrated over a running containerd, so no original was kept"
    path = journal.kept_path(state, database)
    if state.used:
        return None, "it was used between an interrupted migration and its end"
    found, why_not = _if_file(path)
    if found is None:
        return None, why_not
    try:
        if fingerprint(found) == state.kept:
            return found, ""
    except StorageError as error:
        return None, str(error)
    return None, f"{path} is not the file that was kept"


def _if_file(path: Path) -> tuple[Path | None, str]:
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        return None, f"there is no {path}"
    except OSError as error:
        return None, f"{path}: {error.strerror or error}"
    return (path, "") if stat.S_ISREG(kind) else (None, f"{path} is not a regular file")


def _sound(path: Path, held: contextlib.ExitStack) -> Database | None:
    try:
        database = held.enter_context(Database.open(path))
        return None if check(database.reader) else database
    except (BusyError, CorruptDatabaseError, StorageError):
        return None
