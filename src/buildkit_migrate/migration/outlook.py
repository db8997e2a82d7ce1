"""Predicts an undo from the files alone, without locks and without opening stores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from buildkit_migrate.errors import CorruptDatabaseError, StorageError
from buildkit_migrate.files.errors import exists
from buildkit_migrate.files.fingerprint import digest, fingerprint
from buildkit_migrate.migration import journal
from buildkit_migrate.migration.journal import State

__all__ = ["Outlook", "outlook_of"]


@dataclass(frozen=True)
class Outlook:
    """``obstacles``: why there is no way back. ``doubts``: what an undo must check first, and may refuse for.

    ``goes_on``: whether an interrupted migration may continue; not if the v1 store was used since.
    """

    obstacles: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    goes_on: bool = True


def outlook_of(state: State, from_path: Path, to_path: Path, database: Path | None = None) -> Outlook:
    """Predicts the undo of a migration with this journal state. Raises StorageError.

    ``database``: that of a stopped containerd, None if it is where it was when the root was migrated.
    """
    obstacles: list[str] = []
    doubts: list[str] = []
    now = fingerprint(from_path)
    if not now:
        obstacles.append(f"{from_path} is gone")
    elif now != state.v1:
        doubts.append(f"{from_path} was changed since")
    if state.kept_path:
        _look_at_containerd(state, database or _present_place(state, to_path, doubts), obstacles, doubts)
    elif state.containerd["mode"] == "live":
        doubts.append("a running containerd is not asked here")
    if fingerprint(to_path) not in ("", state.v2):
        doubts.append(f"{to_path} was used since")
    return Outlook(tuple(obstacles), tuple(doubts), now == state.v1)


def _present_place(state: State, to_path: Path, doubts: list[str]) -> Path:
    """Of containerd's database."""
    database = Path(state.containerd["place"])
    beside = to_path.with_name(database.name)
    if not exists(beside):
        return database
    # The worker's own, which may have been moved with it. Docker's snapshotter is another.
    own = to_path.with_name("snapshots.db")
    _look_at_snapshotter(own if exists(own) else to_path.with_name("snapshots") / "metadata.db", doubts)
    return beside


def _look_at_containerd(state: State, database: Path, obstacles: list[str], doubts: list[str]) -> None:
    now = fingerprint(database)
    if journal.is_untouched(state, database):
        return
    if not now:
        doubts.append(f"{database} is not there")
        return
    if state.kept == state.containerd_after:
        return
    if not journal.had_no_database(state):
        _look_at_kept(state, journal.kept_path(state, database), obstacles, doubts)
    if now != state.containerd_after or state.used:
        doubts.append(f"{database} was used since")


def _look_at_kept(state: State, kept: Path, obstacles: list[str], doubts: list[str]) -> None:
    try:
        old = fingerprint(kept)
        whole = digest(kept) if old and state.kept_digest else ""
    except CorruptDatabaseError as error:
        obstacles.append(str(error))
        return
    except StorageError as error:
        if not error.missing:
            raise
        old = ""  # an undo is putting it back right now
    if not old:
        obstacles.append(f"{kept} is missing")
    elif old != state.kept or whole != state.kept_digest:
        doubts.append(f"{kept} has changed")


def _look_at_snapshotter(database: Path, doubts: list[str]) -> None:
    """Checks the usual place of a worker with its own database; an undo may be given another place."""
    try:
        if not fingerprint(database):
            doubts.append(f"{database}, the snapshotter's database, is not there")
    except CorruptDatabaseError as error:
        doubts.append(str(error))
