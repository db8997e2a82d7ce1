"""The migration of one store, from v1 to v2 (spec buildkit-metadata, sections 4 and 5).

Everything is planned before anything is written. Then follow, in this order: the new store, written aside and
synced; the journal; containerd's leases and labels; the switch. Whatever happens, v1 is not changed, and
running the migration again finishes the job.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from buildkit_migrate._native.plan import Plan
from buildkit_migrate.bolt import Database
from buildkit_migrate.choices import check_options
from buildkit_migrate.containerd.services import Containerd, Service
from buildkit_migrate.errors import BrokenRecordsError, BusyError, Error, JournalError
from buildkit_migrate.files.beside import beside
from buildkit_migrate.files.durable import Aside
from buildkit_migrate.files.errors import exists
from buildkit_migrate.files.fingerprint import digesting, fingerprint
from buildkit_migrate.files.openers import refuse_others
from buildkit_migrate.files.ownership import (
    changed_access,
    is_read_only,
)
from buildkit_migrate.migration import journal
from buildkit_migrate.migration.belonging import check_belonging
from buildkit_migrate.migration.journal import Journal, State
from buildkit_migrate.migration.newer import newer_records
from buildkit_migrate.migration.plan import cautions_of, problems_of, read_records
from buildkit_migrate.migration.previous import check_going_back, reporting_previous
from buildkit_migrate.migration.report import Outcome, Report
from buildkit_migrate.migration.resuming import check_is_the_same, foresee_journal
from buildkit_migrate.migration.room import Room, refuse_lacking_room
from buildkit_migrate.migration.target import target_at
from buildkit_migrate.model import Problem, Reason
from buildkit_migrate.progress import Progress, reading, silent
from buildkit_migrate.store.engines import Engine, write_store
from buildkit_migrate.workspace.new_files import foresee_migration
from buildkit_migrate.workspace.place import Place

if TYPE_CHECKING:
    from buildkit_migrate.files.locks import Lock

__all__ = ["Migration", "OnBroken", "migrate_v2", "refuse_broken", "report_settled"]

OnBroken = Literal["fail", "drop"]
"""What to do if records can't be migrated: change nothing at all, or leave them out of the new store."""

StrPath = str | os.PathLike[str]


def migrate_v2(
    from_path: StrPath,
    to_path: StrPath,
    content_store: Service,
    snapshotter: Service,
    lease_manager: Service,
    *,
    on_broken: OnBroken = "fail",
    dry_run: bool = False,
    verify: bool = False,
    engine: Engine = "bolt",
    upstream_exact: bool = False,
    previous_transaction: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Creates the v2 store at ``to_path`` from the v1 store at ``from_path``, and leases from root labels.

    Does nothing if a v2 store exists already, or no v1 store. The services must belong to one
    `OfflineContainerd` or `LiveContainerd`.

    ``engine``: "bolt" is what BuildKit reads. ``verify``: compute the new store a second time in plain Python
    before anything is changed; raises DifferencesError. ``upstream_exact``: write exactly the bytes of
    BuildKit's own migration, which omits the sizes of blobs; exports need those since v0.8.
    ``previous_transaction``: migrate the state of v1 before its newest transaction, which must be torn.

    Broken records raise BrokenRecordsError with "fail", except that a dry run reports them; with "drop" only
    if no record would be left. Raises ValueError for an invalid option; BusyError, CorruptDatabaseError,
    UnusableTargetError, ContainerdStateError, JournalError, StorageError, and the errors of a running
    containerd.
    """
    check_options(on_broken=on_broken, engine=engine, verify=verify)
    source, target = Path(from_path), Path(to_path)
    report = report_settled(source, target, engine)
    if report is not None:
        return report
    containerd = content_store.containerd
    if not (containerd is snapshotter.containerd is lease_manager.containerd):
        raise ValueError("content store, snapshotter and lease manager belong to different containerds")
    with Migration(
        source,
        target,
        containerd,
        exclusive=not dry_run,
        engine=engine,
        upstream_exact=upstream_exact,
        previous_transaction=previous_transaction,
        progress=progress,
    ) as migration:
        if on_broken == "drop" or not dry_run:
            refuse_broken([migration], on_broken)
        refuse_lacking_room([migration.room])
        if dry_run:
            return migration.report(Outcome.PLANNED)
        migration.prepare()
        if verify:
            migration.verify()
        return migration.carry_out()


def report_settled(from_path: Path, to_path: Path, engine: Engine | None = None) -> Report | None:
    """Returns a report if there is nothing to do, None if there is a v1 store to migrate.

    ``engine``: required engine of the v2 store; None for any, and then v1 is not read. Raises
    UnusableTargetError if what is at ``to_path`` is another store or not a store; upstream takes that for
    migrated, and BuildKit then starts with an empty cache or not at all. Raises StorageError.
    """
    target = target_at(to_path, engine)
    if target is not None:
        target.check()
        newer = None if engine is None else newer_records(from_path, to_path, target.engine)
        return Report(from_path, to_path, Outcome.ALREADY_MIGRATED, engine=target.engine, newer_in_v1=newer)
    if not exists(from_path):
        return Report(from_path, to_path, Outcome.NOTHING_TO_MIGRATE)
    return None


class Migration:
    """A planned migration, which can be carried out once. Holds the lock on the v1 store until `close`."""

    def __init__(
        self,
        from_path: Path,
        to_path: Path,
        containerd: Containerd,
        *,
        exclusive: bool = True,
        engine: Engine = "bolt",
        upstream_exact: bool = False,
        previous_transaction: bool = False,
        place: Place | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Reads records and survey, and plans. ``exclusive`` is required for `carry_out`.

        ``place``: of the services, with the origin of each setting. Raises ContainerdStateError if the v1
        store and containerd don't belong together.
        """
        self._started = time.perf_counter()
        self._from_path = from_path
        self._to_path = to_path
        self._containerd = containerd
        self.place = place or Place.of_services(containerd.identity)
        self._engine = engine
        self._upstream_exact = upstream_exact
        self._progress = progress or silent
        self._aside: Aside[Database | Lock] = Aside(to_path)
        self._store: Database | Lock | None = None
        self._digest = ""
        self._journal: Journal | None = None
        self._previous = previous_transaction
        with reporting_previous(from_path, previous=previous_transaction):
            self._source = Database.open(from_path, exclusive=exclusive, previous=previous_transaction)
        try:
            # Only the holder of the lock on v1 creates v2, so from here on this answer stays true.
            if report_settled(from_path, to_path) is not None:
                raise BusyError(
                    f"{from_path} was migrated by another process just now",
                    hint="buildkit-migrate status shows how far the migration got",
                )
            if previous_transaction:
                check_going_back(from_path)
            self._models = foresee_migration(from_path, to_path, self._containerd.database)
            self._journal = self._interrupted(exclusive)
            if self._journal is None:
                foresee_journal(journal.journal_path(to_path))
            with reporting_previous(from_path, previous=previous_transaction):
                self.plan = self._make_plan()
        except BaseException:
            self.close()
            raise

    def _notes(self, outcome: Outcome) -> tuple[str, ...]:
        """Notes on owners and modes that differ, or would; on a read-only mount; and on what nobody frees."""
        planned = outcome is Outcome.PLANNED
        notes = [
            note
            for path, (wanted, foreseen) in self._models.items()
            for note in changed_access(wanted, path, foreseen if planned else None)
        ]
        dropped = [one.record for one in self.problems if one.reason is not Reason.REPAIRED]
        if dropped and (left := self._containerd.left_behind(dropped)):
            notes.append(left)
        directory = self._to_path.parent
        if planned and is_read_only(directory):
            notes.append(f"{directory}: mounted read-only, so that a migration will be refused")
        return tuple(notes)

    def _interrupted(self, exclusive: bool) -> Journal | None:
        """The journal of an interrupted run, if this run can continue it.

        Raises JournalError if it can't.
        """
        path = journal.journal_path(self._to_path)
        state = journal.read_state(path)
        if state is None:
            return None
        if state.phase == journal.UNDOING:
            raise JournalError(
                f"{self._from_path}: going back to v1 was begun and interrupted",
                hint="finish it with buildkit-migrate undo; after that, migrate again",
            )
        if journal.is_untouched(state, self._containerd.database):
            return None  # nothing was done yet; a new journal replaces it
        check_is_the_same(
            state,
            self._from_path,
            is_changed=fingerprint(self._from_path) != state.v1,
            containerd=self._containerd.identity,
            upstream_exact=self._upstream_exact,
            previous=self._previous,
        )
        return Journal.open(path) if exclusive else None

    def _make_plan(self) -> Plan:
        finished: frozenset[bytes] = frozenset()
        if self._journal is not None and self._journal.state.phase == journal.APPLYING:
            finished = self._journal.finished_leases()
        identity = self._containerd.identity
        doing = ", asking" if identity["mode"] == "live" else " and"
        about = f"reading {self._from_path}{doing} {identity.get('place', 'containerd')}"
        self._progress(reading(about, self._source.reader, *self._containerd.readers))
        with beside(lambda: read_records(self._source.reader)) as read:
            try:
                survey = self._containerd.survey(read, finished)
            except Error:
                read()  # what is wrong with v1 is said first
                raise
            records = read()
        self.place = replace(self.place, storage_driver=self._containerd.storage_driver)
        self._progress(f"planning what becomes of {len(records):,} records")
        plan = Plan(records, survey, upstream_exact=self._upstream_exact)
        check_belonging(self._source, plan, self.place, self._containerd)
        return plan

    @property
    def from_path(self) -> Path:
        return self._from_path

    @property
    def room(self) -> Room:
        """What the new files need on disk."""
        return Room(self._source, self._to_path, self._engine, self._containerd, self.plan)

    @property
    def problems(self) -> list[Problem]:
        """Problems of the plan."""
        return problems_of(self.plan)

    def report(self, outcome: Outcome) -> Report:
        return Report(
            self._from_path,
            self._to_path,
            outcome,
            counts=self.plan.counts,
            problems=tuple(self.problems),
            cautions=tuple(sorted(cautions_of(self.plan))),
            notes=self._notes(outcome),
            engine=self._engine,
            place=self.place,
            space=self.room.space() if outcome is Outcome.PLANNED else (),
            seconds=time.perf_counter() - self._started,
            plan=self.plan,
        )

    def prepare(self) -> None:
        """Writes the new store aside. Most failures occur here, before anything is changed."""
        self._progress(reading(f"writing {self._to_path}", self._source.reader))
        digest = hashlib.sha256()

        def edits() -> Iterator[bytes]:
            for chunk in self.plan.store_edits():
                digest.update(chunk)
                yield chunk

        source = self._source.root
        with reporting_previous(self._from_path, previous=self._previous):
            self._store = self._aside.write(
                lambda path: write_store(self._engine, path, source, edits(), like=self._from_path)
            )
        self._digest = digest.hexdigest()

    def verify(self) -> None:
        """Compares the new store, written by `prepare`, with the oracle's result for v1.

        Raises DifferencesError.
        """
        # Imported only when needed, as it loads the oracle.
        from buildkit_migrate.migration.verification import verify_new_store

        assert isinstance(self._store, Database)  # see `check_options`
        self._progress(f"verifying {self._to_path}")
        verify_new_store(self._source, self._store, self._containerd, upstream_exact=self._upstream_exact)

    def carry_out(self) -> Report:
        """The rest, after `prepare`: containerd's leases and labels, and the switch."""
        assert self._store is not None
        refuse_others(self._from_path)  # a daemon that waits for v1 would go on with it
        goes_on = self._journal is not None
        written = self._note_what_will_be_replaced()
        self._progress(reading("writing leases and labels", *self._containerd.readers[:-1]))
        with self._digesting_old_database(written.state, goes_on) as kept_digest:
            try:
                self._containerd.apply(
                    self.plan,
                    written.lease_finished,
                    keep=not goes_on,
                    # If this process dies right after the switch, undo still recognises the file.
                    switching=lambda new: written.update(containerd_after=fingerprint(new)),
                )
            except BaseException:
                self._forget_what_was_not_begun(written)
                raise
        written.update(
            phase=journal.APPLIED,
            v2=fingerprint(self._aside.path),
            containerd_after=self._database_now(),
            kept_digest=kept_digest(),
        )
        self._aside.switch()
        return self.report(Outcome.MIGRATED)

    def _note_what_will_be_replaced(self) -> Journal:
        before = self._containerd.before(self.plan)
        kept = self._containerd.kept
        if self._journal is not None:
            if self._journal.state.plan != self._digest:
                raise JournalError(
                    f"{self._from_path}: a migration was interrupted, and what containerd says of the "
                    "records has changed since",
                    hint="take back what it did with buildkit-migrate undo; after that, migrate again",
                )
            if self._database_now() != self._journal.state.containerd_after:
                self._journal.update(used=True)
            self._journal.add(before)
        else:
            state = State(
                v1=fingerprint(self._from_path),
                plan=self._digest,
                containerd=self._containerd.identity,
                kept_path="" if kept is None else os.fsdecode(kept.absolute()),
                kept=self._database_now(),
                upstream_exact=self._upstream_exact,
                previous=self._previous,
                lacking=self._count_lacking(),
                lacking_records=self._lacking_records(),
            )
            self._journal = Journal.create(
                journal.journal_path(self._to_path), state, before, like=self._from_path
            )
        return self._journal

    def _count_lacking(self) -> int | None:
        """How many records lack their snapshot, where no labels tell undo which snapshots there were."""
        if self._containerd.has_root_labels:
            return None
        return self.plan.counts["snapshots_needed"] - self.plan.counts["snapshots_found"]

    def _lacking_records(self) -> tuple[str, ...]:
        """Those of them that were left out for that, as `State` has them."""
        if self._containerd.has_root_labels:
            return ()
        lacking = (problem for problem in self.problems if problem.reason is Reason.NO_SNAPSHOT)
        return tuple(problem.record.decode("latin-1") for problem in lacking)

    @contextlib.contextmanager
    def _digesting_old_database(self, state: State, goes_on: bool) -> Iterator[Callable[[], str]]:
        old = self._containerd.database
        if goes_on and old is not None:
            old = journal.kept_path(state, old)
        if old is None or not state.kept or state.kept_digest or fingerprint(old) != state.kept:
            yield lambda: state.kept_digest
        else:
            # Its pages are read for the new file anyway.
            with digesting(old) as digest:
                yield digest

    def _forget_what_was_not_begun(self, written: Journal) -> None:
        """Discards the journal if nothing was changed: a file is replaced as a whole or not at all."""
        if self._containerd.database is not None and self._database_now() == written.state.kept:
            written.close()
            self._journal = None
            journal.discard(written.path)

    def _database_now(self) -> str:
        database = self._containerd.database
        return "" if database is None else fingerprint(database)

    def close(self) -> None:
        """Releases the locks. A new store that was not put in use is deleted.

        Raises StorageError, but closes everything even then.
        """
        with contextlib.ExitStack() as held:
            held.callback(self._source.close)
            if self._store is not None:
                held.callback(self._store.close)
            held.callback(self._aside.close)
            if self._journal is not None:
                held.callback(self._journal.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def refuse_broken(migrations: Sequence[Migration], on_broken: OnBroken) -> None:
    """Raises BrokenRecordsError, listing all broken records, if any record can't be migrated as it is.

    With "drop", only if no record of a store would be left: that would be an empty cache, and nobody would
    ever collect what containerd holds for the old one.
    """
    empty = [one for one in migrations if one.plan.counts["records"] and not one.plan.counts["kept"]]
    broken = [one for one in migrations if one.problems] if on_broken == "fail" else empty
    if not broken:
        return
    counted = [f"{len(migration.problems)} in {migration.from_path}" for migration in broken]
    hint = None
    if empty:
        stores = ", ".join(str(migration.from_path) for migration in empty)
        hint = (
            f"no record of {stores} would be left: restore it from a backup, or move it away to begin "
            "with an empty cache"
        )
    raise BrokenRecordsError(
        f"records that can't be migrated: {', '.join(counted)}; nothing was changed",
        [problem for migration in broken for problem in migration.problems],
        hint=hint,
    )
