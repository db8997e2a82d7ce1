"""Converting a store from one engine to the other, with everything that is in it."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from buildkit_migrate.bolt import Database, write
from buildkit_migrate.choices import ENGINES, check_choice
from buildkit_migrate.errors import CorruptDatabaseError, UnusableTargetError
from buildkit_migrate.files.durable import Aside
from buildkit_migrate.files.locks import Lock
from buildkit_migrate.files.ownership import usable_mode
from buildkit_migrate.store.engines import Engine, engine_of

__all__ = ["Conversion", "convert"]

_PAGE_SIZE = 4096
_STORES = ("metadata_v2.db", "metadata.db")


@dataclass(frozen=True)
class Conversion:
    """What was done. ``size``: bytes of the new file; ``seconds``: wall-clock time."""

    source: Path
    target: Path
    from_engine: Engine
    to_engine: Engine
    size: int
    seconds: float


def convert(
    source: str | os.PathLike[str], target: str | os.PathLike[str], to_engine: Engine | None = None
) -> Conversion:
    """Writes the store at ``source`` to ``target`` with another engine: the other one by default.

    Nothing is lost: buckets and keys that are none of BuildKit's, nested buckets and their sequences are
    carried over. A bolt file is locked (shared) meanwhile; of an LMDB file one snapshot is read, whoever
    writes to it. The new file is for those who work with the source, and is complete on disk when
    it gets its name. Raises ValueError for an engine that there is not; UnusableTargetError if ``target``
    exists or ``source`` has that engine already; BusyError, CorruptDatabaseError, StorageError.
    """
    if to_engine is not None:
        check_choice("to_engine", to_engine, ENGINES)
    source, target = Path(source), Path(target)
    began = time.perf_counter()
    _check_is_a_file(source)
    from_engine = engine_of(source)
    if to_engine is None:
        to_engine = "lmdb" if from_engine == "bolt" else "bolt"
    if to_engine == from_engine:
        raise UnusableTargetError(f"{source} is a {from_engine} store already", hint="copy the file")
    if os.path.lexists(target):
        raise _target_exists(target)
    make = _to_lmdb if to_engine == "lmdb" else _to_bolt
    with contextlib.ExitStack() as held, Aside[Database | Lock](target, exists=False) as aside:
        new = aside.write(lambda path: make(source, path))
        held.callback(new.close)  # after the removal, lest it is that of another process's file
        try:
            aside.switch()
        except FileExistsError as error:  # somebody made it meanwhile
            raise _target_exists(target) from error
    size = target.stat().st_size
    return Conversion(source, target, from_engine, to_engine, size, time.perf_counter() - began)


def _check_is_a_file(source: Path) -> None:
    """Raises CorruptDatabaseError, which names the store that may be meant, if it is a directory."""
    if source.is_dir():
        found = (path for name in _STORES for path in (source / name, *sorted(source.glob(f"*/{name}"))))
        store = next(filter(Path.is_file, found), source / _STORES[0])
        error = CorruptDatabaseError("not a regular file", path=str(source), detail="a directory")
        error.hint = f"give the file of a store, such as {store}"
        raise error


def _target_exists(target: Path) -> UnusableTargetError:
    return UnusableTargetError(f"{target} exists", hint="move it away, or give another name")


def _to_lmdb(source: Path, new_path: Path) -> Lock:
    from buildkit_migrate.store import lmdb_bulk

    with contextlib.ExitStack() as held:
        with Database.open(source) as database:  # an interrupt may come at its end
            new = lmdb_bulk.load(new_path, database.root, owner_of=source)
            held.callback(new.close)
        held.pop_all()
        return new


def _to_bolt(source: Path, new_path: Path) -> Database:
    from buildkit_migrate.lmdb.file import check_file
    from buildkit_migrate.store.lmdb_store import LmdbStore

    check_file(source, thorough=True)
    with contextlib.ExitStack() as held:
        with LmdbStore.look(source) as store:  # which may be refused at its end
            mode = usable_mode(source)
            new = write(new_path, mode=mode, page_size=_PAGE_SIZE, fill=store.build, owner_of=source)
            held.callback(new.close)
        held.pop_all()
        return new
