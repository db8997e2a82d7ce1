"""Converting a store from one engine to the other, without loss."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from buildkit_migrate.bolt import Database, write
from buildkit_migrate.choices import ENGINES, check_choice
from buildkit_migrate.errors import CorruptDatabaseError, StorageError, UnusableTargetError
from buildkit_migrate.files.durable import Aside
from buildkit_migrate.files.errors import exists, is_directory, is_file, storage_errors
from buildkit_migrate.files.locks import Lock
from buildkit_migrate.files.ownership import usable_mode
from buildkit_migrate.store.engines import Engine, engine_of

__all__ = ["Conversion", "convert"]

_PAGE_SIZE = 4096
_STORES = ("metadata_v2.db", "metadata.db")


@dataclass(frozen=True)
class Conversion:
    """Result of a conversion. ``size``: of the new file, in bytes; ``seconds``: wall-clock time."""

    source: Path
    target: Path
    from_engine: Engine
    to_engine: Engine
    size: int
    seconds: float


def convert(
    source: str | os.PathLike[str], target: str | os.PathLike[str], to_engine: Engine | None = None
) -> Conversion:
    """Converts the store at ``source`` to another engine and writes it to ``target``.

    ``to_engine``: by default, the engine that ``source`` does not have. Nothing is lost: keys and buckets
    unknown to BuildKit, nested buckets and sequence numbers are preserved. A bolt file is locked (shared)
    meanwhile; of an LMDB file one snapshot is read, and others may write. The new file is made for those who
    use the source, and is complete on disk before it gets its name.

    Raises ValueError for an unknown engine; UnusableTargetError if ``target`` exists or ``source`` has the
    requested engine already; BusyError, CorruptDatabaseError, StorageError.
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
    if exists(target, follow_symlinks=False):
        raise _target_exists(target)
    make = _to_lmdb if to_engine == "lmdb" else _to_bolt
    with contextlib.ExitStack() as held, Aside[Database | Lock](target, exists=False) as aside:
        new = aside.write(lambda path: make(source, path))
        held.callback(
            new.close
        )  # only after aside's removal, which may hit another process's file once unlocked
        try:
            aside.switch()
        except FileExistsError as error:  # created by somebody else meanwhile
            raise _target_exists(target) from error
    with storage_errors(target):
        size = target.stat().st_size
    return Conversion(source, target, from_engine, to_engine, size, time.perf_counter() - began)


def _check_is_a_file(source: Path) -> None:
    """Raises CorruptDatabaseError, suggesting the store that may be meant, if this is a directory."""
    if is_directory(source):
        raise CorruptDatabaseError(
            "not a regular file",
            path=str(source),
            detail="a directory",
            hint=f"give the file of a store, such as {_store_in(source)}",
        )


def _store_in(directory: Path) -> Path:
    """The first store that is there, or right below, and can be seen; where one could be if there is none."""
    below: list[Path] = []
    with contextlib.suppress(OSError):
        below = sorted(directory.iterdir())
    for path in (place / name for name in _STORES for place in (directory, *below)):
        with contextlib.suppress(StorageError):
            if is_file(path):
                return path
    return directory / _STORES[0]


def _target_exists(target: Path) -> UnusableTargetError:
    return UnusableTargetError(f"{target} already exists", hint="move it away, or choose another name")


def _to_lmdb(source: Path, new_path: Path) -> Lock:
    from buildkit_migrate.store import lmdb_bulk

    with contextlib.ExitStack() as held:
        with Database.open(source) as database:  # an interrupt may hit its end, so `new` is guarded
            new = lmdb_bulk.load(new_path, database.root, owner_of=source)
            held.callback(new.close)
        held.pop_all()
        return new


def _to_bolt(source: Path, new_path: Path) -> Database:
    from buildkit_migrate.lmdb.file import check_file
    from buildkit_migrate.store.lmdb_store import LmdbStore

    check_file(source, thorough=True)
    with contextlib.ExitStack() as held:
        with LmdbStore.open_once(source) as store:  # may raise at its end, so `new` is guarded
            mode = usable_mode(source)
            new = write(new_path, mode=mode, page_size=_PAGE_SIZE, fill=store.build, owner_of=source)
            held.callback(new.close)
        held.pop_all()
        return new
