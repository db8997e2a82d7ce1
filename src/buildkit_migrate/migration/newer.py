"""Records added to v1 after it was migrated, by a daemon that was rolled back for a while.

The migration is done once, so the later daemon never sees them; `status` and `migrate` report their number.
"""

from __future__ import annotations

from pathlib import Path

from buildkit_migrate.bolt import Bucket, Database, scan
from buildkit_migrate.errors import BusyError, CorruptDatabaseError, JournalError, StorageError
from buildkit_migrate.files.errors import exists
from buildkit_migrate.files.fingerprint import fingerprint
from buildkit_migrate.migration import journal
from buildkit_migrate.store.engines import Engine
from buildkit_migrate.values import gojson, keys

__all__ = ["newer_records", "what_newer_means"]


def newer_records(v1: Path, v2: Path, engine: Engine | None) -> int | None:
    """How many records of v1 were created after the migration and are not in v2; None if unknown.

    Unknown while a daemon has one of the stores locked, for a damaged store, and for LMDB, which can't be
    read without a file beside it. ``engine``: of v2. If the journal shows that v1 is unchanged, no store is
    read; otherwise a shared lock is held meanwhile.
    """
    try:
        state = journal.read_state(journal.journal_path(v2))
        if not exists(v1) or (state is not None and fingerprint(v1) == state.v1):
            return 0
        if engine != "bolt":
            return None
        with Database.open(v1) as old, Database.open(v2) as new:
            return _count(old.root, new.root)
    except (BusyError, CorruptDatabaseError, JournalError, StorageError):
        return None


def _count(v1: Bucket, v2: Bucket) -> int:
    """Counts records missing in v2 that are newer than all common ones, or have no time.

    A missing record may also have been pruned in v2. Such a record was in v1 when that was migrated, so it
    can't be newer than all records that both have.
    """
    before, after = v1.bucket(keys.MAIN_BUCKET), v2.bucket(keys.MAIN_BUCKET)
    if before is None:
        return 0
    ids, (created,) = scan(before, [(keys.CREATED_AT,)])
    kept = set(scan(after, [])[0]) if after is not None else set()
    missing = [index for index, id in enumerate(ids) if id not in kept]
    if not missing:
        return 0
    times = [gojson.integer(stored) for stored in created]
    gone = set(missing)
    newest = max(
        (time for index, time in enumerate(times) if index not in gone and time is not None), default=-1
    )
    return sum((time := times[index]) is None or time > newest for index in missing)


def what_newer_means(newer: int) -> str:
    """An explanation for people."""
    return (
        f"v1 has {newer} records that v2 does not have, made after the migration: they are not used. undo "
        "--force and then migrate would bring them over; what was cached in v2 since is lost with that"
    )
