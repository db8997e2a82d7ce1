"""Back to v1: what a migration did to containerd is taken back, and the new store moved aside.

The order protects the cache again: first the new store goes out of the way, so that no daemon uses what is
being taken apart; then the labels come back; only then the leases go. The v1 store was never changed.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from buildkit_migrate._native.plan import Records
from buildkit_migrate.bolt import Database, rename
from buildkit_migrate.containerd.plain import read_before
from buildkit_migrate.containerd.services import Containerd
from buildkit_migrate.errors import JournalError, UndoRefusedError
from buildkit_migrate.metadata.engines import engine_of, open_store
from buildkit_migrate.migration import journal
from buildkit_migrate.migration.journal import Journal, State
from buildkit_migrate.migration.report import named_text

__all__ = ["Undone", "UndoneOutcome", "undo"]

_MOVED_SUFFIX: Final = ".undone"


class UndoneOutcome(enum.StrEnum):
    UNDONE = "undone"
    NOTHING_TO_UNDO = "nothing-to-undo"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Undone:
    """Of one store. ``moved``: where the new store lies now, None if there was none.

    ``reason``: why it was skipped, "" if it was not.
    """

    from_path: Path
    to_path: Path
    outcome: UndoneOutcome
    moved: Path | None = None
    seconds: float = 0.0
    reason: str = ""

    @property
    def worker(self) -> Path:
        """The directory that the stores are in."""
        return self.to_path.parent

    def as_dict(self) -> dict[str, Any]:
        """For JSON, in the form of `Report.as_dict`."""
        return {
            **named_text("worker", self.worker),
            **named_text("from", self.from_path),
            **named_text("to", self.to_path),
            "outcome": str(self.outcome),
            **named_text("moved", self.moved),
            "seconds": self.seconds,
            **named_text("reason", self.reason or None),
        }


def undo(
    from_path: Path,
    to_path: Path,
    containerd: Containerd,
    *,
    force: bool = False,
    progress: Callable[[str], object] | None = None,
) -> Undone:
    """Takes the migration of one store back, be it finished or not; may be repeated if it is interrupted.

    ``force``: also if the new store, the v1 store or containerd's database were used since. Raises
    UndoRefusedError, JournalError (no journal tells what was done), BusyError, StorageError,
    CorruptDatabaseError, and the errors of the containerd.
    """
    started = time.perf_counter()
    progress = progress or (lambda step: None)
    path = journal.journal_path(to_path)
    if not from_path.exists():
        raise JournalError(f"there is no way back to v1: {from_path} is gone", hint="keep the v2 store")
    state = journal.read_state(path)
    previous = state is not None and state.previous
    with Database.open(from_path, exclusive=True, previous=previous) as source:
        found = Journal.open(path)
        if found is None:
            if to_path.exists():
                raise JournalError(
                    f"{to_path} has no journal: it was not made by this program, or the journal was removed",
                    hint="without it nobody knows what containerd's state was before",
                )
            return Undone(from_path, to_path, UndoneOutcome.NOTHING_TO_UNDO)
        with found:
            _check_is_the_same(found.state, containerd)
            if to_path.exists() and engine_of(to_path) == "bolt":
                Database.open(to_path, exclusive=True).close()  # so that no daemon has it open
            if not force:
                _refuse_used(found.state, source, to_path, containerd)
            ids = {*Records(source.reader).ids(), *found.finished_leases()}
            if not force:
                containerd.check_is_known(len(ids))
            go_back = _way_back(found, containerd, ids)
            found.update(phase=journal.UNDOING)
            moved = _move_aside(to_path)
            progress("restoring labels, then deleting leases")
            go_back()
    journal.discard(path)
    return Undone(from_path, to_path, UndoneOutcome.UNDONE, moved, time.perf_counter() - started)


def _check_is_the_same(state: State, containerd: Containerd) -> None:
    """Another namespace or snapshotter has nothing that could be taken back: the journal would be lost."""
    for what in ("namespace", "snapshotter"):
        then, now = state.containerd.get(what), containerd.identity[what]
        if now != then:
            raise JournalError(
                f"the migration was one of {what} {then}, not {now}", hint=f"give it with --{what} {then}"
            )


def _refuse_used(state: State, source: Database, to_path: Path, containerd: Containerd) -> None:
    reasons: list[str] = []
    if to_path.exists():
        reasons += _uses_of_new_store(state, source, to_path)
    if journal.fingerprint(source.path) != state.v1:
        reasons.append(f"{source.path} was changed since")
    database = containerd.database
    known = (state.kept, state.containerd_after)  # the former if an undo was interrupted
    if database is not None and state.containerd_after and journal.fingerprint(database) not in known:
        reasons.append(f"{database} was changed since")
    if reasons:
        raise UndoRefusedError(f"not going back to v1: {'; '.join(reasons)}", reasons)


def _uses_of_new_store(state: State, source: Database, to_path: Path) -> Iterator[str]:
    if journal.fingerprint(to_path) == state.v2:
        return
    before = set(Records(source.reader).ids())
    with open_store(to_path, read_only=True) as store:
        now = set(store.ids())
    yield (
        f"{to_path} was used since: {len(now - before)} records were added, {len(before - now)} are not in "
        "it, others may have changed"
    )


def _move_aside(to_path: Path) -> Path | None:
    if not to_path.exists():
        return None
    moved = to_path.with_name(to_path.name + _MOVED_SUFFIX)
    number = 1
    while moved.exists():
        number += 1
        moved = to_path.with_name(f"{to_path.name}{_MOVED_SUFFIX}.{number}")
    rename(to_path, moved)
    return moved


def _way_back(found: Journal, containerd: Containerd, ids: set[bytes]) -> Callable[[], None]:
    """What takes back what was done to containerd. All that it needs is found before anything is changed."""
    state = found.state
    if state.containerd["mode"] == "live":
        before = found.before()
        return lambda: containerd.restore(ids, before)
    if state.kept == state.containerd_after or journal.is_untouched(state, containerd.database):
        return lambda: None  # nothing was written, or it has been put back
    database, kept = containerd.database, journal.kept_path(state, containerd.database)
    if journal.fingerprint(kept) != state.kept:
        raise JournalError(f"{kept} is missing, or is not the database as it was before the migration")
    if database is not None and journal.fingerprint(database) == state.containerd_after and not state.used:
        return lambda: rename(kept, database)
    with Database.open(kept) as old:
        before = read_before(old.root, state.containerd["namespace"], state.containerd["snapshotter"], ids)
    return lambda: containerd.restore(ids, before)
