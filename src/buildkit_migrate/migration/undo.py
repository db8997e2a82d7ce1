"""Undo: takes back what a migration did to containerd, and moves the new store aside.

Everything is examined before anything is changed: what there is to take back, and what going back would lose.
The order protects the cache again: first the new store is moved out of the way, so that no daemon uses what
is being taken apart; then the labels are restored; only then the leases are deleted. The v1 store is never
changed.
"""

from __future__ import annotations

import contextlib
import enum
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from buildkit_migrate.bolt import Bucket, BucketView, Database, check, nothing_at
from buildkit_migrate.containerd.plain import existing, read_before
from buildkit_migrate.containerd.services import Containerd
from buildkit_migrate.errors import (
    ContainerdStateError,
    CorruptDatabaseError,
    Error,
    JournalError,
    UndoRefusedError,
)
from buildkit_migrate.files.directories import move
from buildkit_migrate.files.durable import remove, rename
from buildkit_migrate.files.errors import exists
from buildkit_migrate.files.fingerprint import digest, fingerprint
from buildkit_migrate.files.foreseeing import foresee_moved, foresee_replaced
from buildkit_migrate.migration import journal
from buildkit_migrate.migration.changes import (
    count_lost,
    counted,
    database_changes,
    records_with_snapshot,
    store_changes,
    were,
)
from buildkit_migrate.migration.journal import EDIT, NOTHING, PUT_BACK, REMOVE, Journal
from buildkit_migrate.migration.plan import read_records
from buildkit_migrate.model import Before
from buildkit_migrate.progress import Progress, reading, silent
from buildkit_migrate.store.bolt_store import BoltStore
from buildkit_migrate.store.engines import engine_of
from buildkit_migrate.store.interface import ReadableStore
from buildkit_migrate.text import named_text

__all__ = ["Undo", "Undone", "UndoneOutcome", "refuse_losses"]

_MOVED_SUFFIX: Final = ".undone"
_LOCK_SUFFIX: Final = "-lock"

_NO_KEPT: Final = "put it back from a backup, or keep the v2 store"


class UndoneOutcome(enum.StrEnum):
    UNDONE = "undone"
    PLANNED = "planned"
    """A dry run: nothing was changed."""
    NOTHING_TO_UNDO = "nothing-to-undo"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Undone:
    """Result for one store. ``moved``: where the new store is now, or would be; None if there is none.

    ``database``: what happens to containerd's database (``nothing``, ``put-back``, ``remove`` or ``edit``);
    "" if there is nothing to undo. ``changes``: changes since the migration that are not lost. ``losses``:
    what going back loses. ``obstacle``: why there is no way back at all. ``counts``: in a dry run, leases to
    delete and labels to restore. ``reason``: why it was skipped, otherwise "".
    """

    from_path: Path
    to_path: Path
    outcome: UndoneOutcome
    moved: Path | None = None
    seconds: float = 0.0
    database: str = ""
    changes: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    obstacle: Error | None = None
    counts: dict[str, int] | None = None
    reason: str = ""

    @property
    def worker(self) -> Path:
        """The directory of the stores."""
        return self.to_path.parent

    @property
    def done(self) -> str:
        """What happened to the worker, for people."""
        return "is back at v1"

    @property
    def exit_code(self) -> int:
        """The exit status of a refusal if an undo without ``force`` would be refused; otherwise 0."""
        if self.obstacle is not None:
            return self.obstacle.exit_code
        return UndoRefusedError.exit_code if self.losses else 0

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, in the style of `Report.as_dict`."""
        return {
            **named_text("worker", self.worker),
            **named_text("from", self.from_path),
            **named_text("to", self.to_path),
            "outcome": str(self.outcome),
            **named_text("moved", self.moved),
            "database": self.database,
            "changes": [_text(line) for line in self.changes],
            "losses": [_text(line) for line in self.losses],
            **named_text("obstacle", None if self.obstacle is None else self.obstacle.message),
            "counts": self.counts,
            "exit_code": self.exit_code,
            "seconds": self.seconds,
            **named_text("reason", self.reason or None),
        }


def _text(line: str) -> str:
    return line.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _damaged(kept: Path, rule: str) -> JournalError:
    return JournalError(
        f"there is no way back to v1: {kept}, the old database of containerd, is damaged: {rule}",
        hint=_NO_KEPT,
    )


def refuse_losses(undos: Sequence[Undo]) -> None:
    """Raises UndoRefusedError, with all reasons, if going back would lose anything."""
    reasons = [loss for undo in undos for loss in undo.losses]
    if reasons:
        raise UndoRefusedError(f"not going back to v1: {'; '.join(reasons)}", reasons)


class Undo:
    """The undo of one store's migration, finished or not; a context manager that holds its locks.

    The constructor examines everything and changes nothing. ``exclusive``: required for `carry_out`.
    ``coming``: the future database of containerd after the undos that come first; None for the current one.
    Raises JournalError if there is no way back, BusyError, StorageError, CorruptDatabaseError, and the errors
    of the containerd.
    """

    def __init__(
        self,
        from_path: Path,
        to_path: Path,
        containerd: Containerd,
        *,
        exclusive: bool = True,
        force: bool = False,
        coming: Database | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._started = time.perf_counter()
        self._from_path = from_path
        self._to_path = to_path
        self._containerd = containerd
        self._force = force
        self._progress = progress or silent
        self._before = Before()
        self._kept: Database | None = None
        self._way = NOTHING
        self._losses: list[str] = []
        self._changes: list[str] = []
        with contextlib.ExitStack() as held:
            self._source = held.enter_context(self._open_source(exclusive))
            self._journal = held.enter_context(self._open_journal(exclusive))
            self._state = self._journal.state
            self._check_is_the_same()
            self._progress(reading(f"reading {to_path} and {from_path.name}", self._source.reader))
            self._examine_new_store(held, exclusive)
            self._ids = {*read_records(self._source.reader).ids(), *self._journal.finished_leases()}
            if not force:
                containerd.check_is_known(len(self._ids))
            if fingerprint(from_path) != self._state.v1:
                self._changes.append(f"{from_path} was changed, and stays as it is")
            self._look_at_containerd(held, coming, exclusive)
            self._look_for_snapshots()
            self.changes = tuple(self._changes)
            # An undo that has moved the new store is decided: finishing it loses nothing more.
            begun = self._state.phase == journal.UNDOING and not exists(to_path)
            self._foresee()
            self.losses = () if begun else tuple(self._losses)
            self._held = held.pop_all()

    # --- Examining

    def _open_source(self, exclusive: bool) -> Database:
        if not exists(self._from_path):
            raise JournalError(
                f"there is no way back to v1: {self._from_path} is gone", hint="keep the v2 store"
            )
        state = journal.read_state(journal.journal_path(self._to_path))
        previous = state is not None and state.previous
        try:
            return Database.open(self._from_path, exclusive=exclusive, previous=previous)
        except CorruptDatabaseError as error:
            error.hint = _NO_KEPT
            raise

    def _open_journal(self, exclusive: bool) -> Journal:
        found = Journal.open(journal.journal_path(self._to_path), read_only=not exclusive)
        if found is None:
            raise JournalError(
                f"{self._to_path} has no journal: it was not made by this program, or the journal was "
                "removed",
                hint="without it nobody knows what containerd's state was before",
            )
        return found

    def _check_is_the_same(self) -> None:
        """Another namespace or snapshotter has nothing to take back."""
        for what in ("namespace", "snapshotter"):
            then, now = self._state.containerd.get(what), self._containerd.identity[what]
            if now != then:
                raise JournalError(
                    f"{self._to_path}: the migration was one of {what} {then}, not {now}",
                    hint=f"give it with --{what} {then}",
                )
        noted, given = (
            it.get("storage_driver") for it in (self._state.containerd, self._containerd.identity)
        )
        if noted and given and noted != given:
            raise JournalError(
                f"{self._to_path}: the migration was one of the storage driver {noted}, not {given}",
                hint="omit --storage-driver",
            )

    def _examine_new_store(self, held: contextlib.ExitStack, exclusive: bool) -> None:
        path = self._to_path
        if not exists(path):
            return
        try:
            if engine_of(path) == "bolt":
                # Kept open, so that no daemon opens it meanwhile.
                store: ReadableStore = BoltStore(
                    held.enter_context(Database.open(path, exclusive=exclusive)).root
                )
                self._compare_stores(store)
            else:
                from buildkit_migrate.store.lmdb_store import LmdbStore

                with LmdbStore.open_once(path) as store:
                    self._compare_stores(store)
        except CorruptDatabaseError as error:
            self._losses.append(f"{path} can't be read, so nobody knows what was added to it: {error.rule}")

    def _compare_stores(self, store: ReadableStore) -> None:
        path = self._to_path
        v2_is_used = fingerprint(path) != self._state.v2
        v1_is_used = fingerprint(self._from_path) != self._state.v1
        if not v1_is_used and not v2_is_used:
            return
        found = store_changes(BoltStore(self._source.root), store)
        if found.added and v1_is_used:
            self._losses.append(
                f"{self._from_path} was changed since, and lacks {counted(found.added, 'record')} of {path}"
            )
        elif found.added:
            self._losses.append(f"{path} was used since: {were(found.added, 'record')} added")
        if found.changed and v2_is_used:
            self._losses.append(f"{path} was used since: {were(found.changed, 'record')} changed")
        if found.missing:
            self._changes.append(f"{path} lacks {counted(found.missing, 'record')} of v1")

    def _look_at_containerd(
        self, held: contextlib.ExitStack, coming: Database | None, exclusive: bool
    ) -> None:
        state, containerd = self._state, self._containerd
        self._progress(reading("looking at containerd", *self._containerd.readers[:-1]))
        if state.containerd["mode"] == "live":
            self._way, self._before = EDIT, self._journal.before()
            self._count_what_is_gone(*self._existing(containerd.root))
            return
        database = containerd.database
        place = database if coming is None else coming.path
        if state.kept == state.containerd_after or journal.is_untouched(state, place):
            return  # nothing was written, or it was put back already
        old, is_same = self._old_root(held, exclusive)
        back = PUT_BACK if self._kept is not None else REMOVE
        root = containerd.root if coming is None else coming.root
        is_used = place is None or fingerprint(place) != state.containerd_after or state.used
        if root is not None and (is_used or not is_same):
            found = database_changes(BucketView(old), BucketView(root), *self._names(), self._ids)
            self._changes += [f"{database}: {line}" for line in found.lines()]
            self._way = back if found.are_harmless else EDIT
        else:
            self._way = EDIT if root is None else back
        self._before = read_before(old, *self._names(), self._ids)
        if self._way == EDIT or not is_same:
            snapshots, blobs = self._existing(root)
            if not is_same:
                self._refuse_another_database(snapshots - self._existing(old)[0])
            self._count_what_is_gone(snapshots, blobs)

    def _look_for_snapshots(self) -> None:
        """Notes snapshots of v1's records that are gone since, where no label tells that they existed."""
        then = self._state.lacking
        if then is None or self._force or (self._way == NOTHING and not exists(self._to_path)):
            return
        needed = records_with_snapshot(BoltStore(self._source.root))
        known = {id.encode("latin-1") for id in self._state.lacking_records}
        gone = needed - self._containerd.state(needed).snapshots.keys() - known
        # Of records that were left out for another reason it is only known how many had none.
        if len(gone) > then - len(known):
            self._note_what_is_gone(len(gone) - (then - len(known)), "snapshot")

    def _names(self) -> tuple[str, str]:
        return self._state.containerd["namespace"], self._state.containerd["snapshotter"]

    def _existing(self, root: Bucket | None) -> tuple[set[bytes], set[bytes]]:
        """Names of the snapshots and blobs in a database; None: in a running containerd."""
        if root is not None:
            return existing(root, *self._names())
        state = self._containerd.state(())
        return set(state.snapshots), set(state.blobs)

    def _old_root(self, held: contextlib.ExitStack, exclusive: bool) -> tuple[Bucket, bool]:
        """Root bucket of the old database, and whether that is unchanged."""
        if journal.had_no_database(self._state):
            return nothing_at(journal.kept_path(self._state, self._containerd.database)).root, True
        self._kept, is_same = self._open_kept(held, exclusive)
        return self._kept.root, is_same

    def _open_kept(self, held: contextlib.ExitStack, exclusive: bool) -> tuple[Database, bool]:
        """The old database, and whether it is unchanged.

        A changed one can be used with ``force`` if sound.
        """
        kept = journal.kept_path(self._state, self._containerd.database)
        known = self._state.kept_digest
        try:
            now = fingerprint(kept)
            if not now:
                raise JournalError(
                    f"there is no way back to v1: {kept}, the old database of containerd, is missing",
                    hint=_NO_KEPT,
                )
            is_same = now == self._state.kept and (not known or digest(kept) == known)
            old = held.enter_context(Database.open(kept, exclusive=exclusive))
            damage = check(old.reader) if not known or not is_same else []
        except CorruptDatabaseError as error:
            raise _damaged(kept, error.rule) from error
        if damage:
            raise _damaged(kept, damage[0][1])
        if not is_same:
            self._losses.append(
                f"{kept} has changed: its record of containerd's old state may be out of date"
            )
        return old, is_same

    def _refuse_another_database(self, unknown: set[bytes]) -> None:
        """Raises JournalError if the old database lacks snapshots of v1's records.

        ``unknown``: current snapshots that the old database lacks.
        """
        lacking = len(unknown & self._ids)
        if lacking:
            kept = journal.kept_path(self._state, self._containerd.database)
            raise JournalError(
                f"there is no way back to v1: {kept}, the old database of containerd, lacks "
                f"{counted(lacking, 'snapshot')} of v1's records",
                hint=_NO_KEPT,
            )

    def _count_what_is_gone(self, snapshots: set[bytes], blobs: set[bytes]) -> None:
        lost = count_lost(self._before, snapshots, blobs, BoltStore(self._source.root))
        for number, what in zip(lost, ("snapshot", "blob"), strict=True):
            if number:
                self._note_what_is_gone(number, what)

    def _note_what_is_gone(self, number: int, what: str) -> None:
        are = "is" if number == 1 else "are"
        place = " from containerd" if self._containerd.has_root_labels else ""
        self._losses.append(f"{self._from_path}: {counted(number, what)} of its records {are} gone{place}")

    @property
    def coming(self) -> Database | None:
        """The database that will replace containerd's; None if nothing does."""
        return self._kept if self._way == PUT_BACK else None

    def _foresee(self) -> None:
        """Raises StorageError if the system will refuse to go back."""
        if exists(self._to_path):
            foresee_moved(self._to_path)
        foresee_moved(self._journal.path)
        database = self._containerd.database
        if database is None or self._way == NOTHING or not exists(database):
            return
        if self._way == EDIT:
            foresee_replaced(database)
        else:
            foresee_moved(database)

    # --- Reporting and carrying out

    def report(self) -> Undone:
        """Reports what would be done."""
        moved = self._free_name() if exists(self._to_path) else None
        counts = {"leases": 0, "snapshots": 0, "blobs": 0}
        if self._way != NOTHING:
            # A containerd that knows none of the snapshots has nothing of ours; `force` accepts it as it is.
            with contextlib.suppress(ContainerdStateError):
                counts = self._counts()
        return self._undone(UndoneOutcome.PLANNED, moved, counts)

    def _counts(self) -> dict[str, int]:
        state = self._containerd.state(self._ids)
        return {
            "leases": sum(1 for id in state.leases if id in self._ids and id not in self._before.leases),
            "snapshots": sum(
                1
                for name in self._before.snapshots
                if name in state.snapshots and not state.snapshots[name].root_label
            ),
            "blobs": sum(
                1
                for digest in self._before.blobs
                if digest in state.blobs and not state.blobs[digest].root_label
            ),
        }

    def carry_out(self) -> Undone:
        """Goes back, or continues to; may be interrupted and repeated."""
        self._journal.update(phase=journal.UNDOING, way_back=self._way)
        moved = self._move_aside()
        self._progress(reading("restoring labels, then deleting leases", *self._containerd.readers[:-1]))
        if self._way == REMOVE:
            self._containerd.put_back(None)
        elif self._way == PUT_BACK and self._kept is not None:
            self._containerd.put_back(self._kept)
        elif self._way == EDIT:
            self._containerd.restore(self._ids, self._before)
        self._journal.close()
        journal.discard(self._journal.path)
        return self._undone(UndoneOutcome.UNDONE, moved)

    def _undone(
        self, outcome: UndoneOutcome, moved: Path | None, counts: dict[str, int] | None = None
    ) -> Undone:
        return Undone(
            self._from_path,
            self._to_path,
            outcome,
            moved,
            time.perf_counter() - self._started,
            self._way,
            self.changes,
            self.losses,
            counts=counts,
        )

    def _move_aside(self) -> Path | None:
        """Moves the new store aside.

        LMDB's lock file moves with it, or is deleted if the store was moved before.
        """
        lock = self._to_path.with_name(self._to_path.name + _LOCK_SUFFIX)
        if not exists(self._to_path):
            remove(lock)
            return None
        moved = self._free_name()
        move(self._to_path, moved)
        if exists(lock, follow_symlinks=False):
            rename(lock, moved.with_name(moved.name + _LOCK_SUFFIX))
        return moved

    def _free_name(self) -> Path:
        moved = self._to_path.with_name(self._to_path.name + _MOVED_SUFFIX)
        number = 1
        while exists(moved, follow_symlinks=False):
            number += 1
            moved = self._to_path.with_name(f"{self._to_path.name}{_MOVED_SUFFIX}.{number}")
        return moved

    def close(self) -> None:
        """Releases the locks."""
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
