"""What is at the v2 path, and whether it is the requested store.

Used by `migrate`, `status` and `ensure_migrated`, so that all of them judge alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from buildkit_migrate.bolt import Database
from buildkit_migrate.errors import BusyError, CorruptDatabaseError, StorageError, UnusableTargetError
from buildkit_migrate.files.errors import exists
from buildkit_migrate.store.engines import Engine, engine_of
from buildkit_migrate.values import keys

__all__ = ["Target", "foreign_buckets", "target_at"]

_MOVE_AWAY: Final = "move it away, so that the v1 store can be migrated"
_STORE_BUCKETS: Final = {keys.MAIN_BUCKET, keys.INDEX_BUCKET, keys.EXTERNAL_BUCKET}


@dataclass(frozen=True)
class Target:
    """``engine``: of the store, None if it is not a store. ``fault``: why it can't be used, otherwise "".

    ``hint``: what to do about the fault.
    """

    path: Path
    engine: Engine | None
    fault: str = ""
    hint: str = ""

    def check(self) -> None:
        """Raises UnusableTargetError if there is a fault."""
        if self.fault:
            raise UnusableTargetError(f"{self.path} {self.fault}", hint=self.hint)


def target_at(path: Path, wanted: Engine | None) -> Target | None:
    """What is at ``path``, None if nothing. ``wanted``: the requested engine, None for any.

    Writes nothing. A bolt store locked by another process counts as a store. Raises StorageError.
    """
    if not exists(path):
        return None
    try:
        engine = engine_of(path)
        fault = _fault(path, engine)
    except CorruptDatabaseError as error:
        engine, fault = None, f"is not a readable metadata store: {error.rule}"
    except StorageError as error:
        if error.missing:
            return None  # Another process deleted it between the two checks.
        raise
    if fault:
        return Target(path, None, fault, _MOVE_AWAY)
    if wanted is None or engine == wanted:
        return Target(path, engine)
    readers = ", which BuildKit can't read" if engine == "lmdb" else ""
    return Target(
        path,
        engine,
        f"is a store of the engine {engine}{readers}; {wanted} is asked for",
        f"buildkit-migrate convert writes it as a {wanted} store under another name, to be put in its place; "
        "buildkit-migrate undo goes back to v1",
    )


def foreign_buckets(database: Database) -> list[bytes]:
    """Top-level names of a bolt file that show that it is not a store; [] if it may be one.

    A store that never had a record has none.
    """
    names = [name for name, _ in database.root.items()]
    return [] if keys.MAIN_BUCKET in names else [name for name in names if name not in _STORE_BUCKETS]


def _fault(path: Path, engine: Engine) -> str:
    try:
        if engine == "bolt":
            return _fault_of_bolt(path)
        from buildkit_migrate.store.lmdb_store import check_store

        check_store(path)
    except BusyError:
        pass  # A daemon has it open, so it is a store.
    return ""


def _fault_of_bolt(path: Path) -> str:
    with Database.open(path) as database:
        if not database.size:
            return "is empty (0 bytes)"
        if foreign := foreign_buckets(database):
            return f"is not a metadata store: it has {_listed(foreign)} and no _main"
    return ""


def _listed(names: list[bytes]) -> str:
    return ", ".join(name.decode(errors="backslashreplace") for name in names[:3])
