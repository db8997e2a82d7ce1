"""Store engines: detecting the engine of a file, opening and writing stores."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from buildkit_migrate.bolt import Bucket, Database
from buildkit_migrate.choices import ENGINES, check_choice
from buildkit_migrate.errors import CorruptDatabaseError
from buildkit_migrate.files.errors import exists
from buildkit_migrate.files.locks import Lock, readable
from buildkit_migrate.lmdb import LMDB_MAGIC
from buildkit_migrate.store import bolt_store

if TYPE_CHECKING:
    from buildkit_migrate.store.interface import MetadataStore
    from buildkit_migrate.store.lmdb_store import LmdbStore

__all__ = ["Engine", "engine_of", "open_store", "write_store"]

Engine = Literal["bolt", "lmdb"]
"""``bolt``: what BuildKit uses. ``lmdb``: ours, for programs that embed a store."""

_MAGIC_AT: Final = 16
_BOLT_MAGIC: Final = b"\xed\xda\x0c\xed"
_BIG_ENDIAN_BOLT_MAGIC: Final = _BOLT_MAGIC[::-1]
_SECOND_META: Final = [1024 << i for i in range(15)]
"""Where bbolt looks for its second meta page if the first one is damaged."""


def engine_of(path: Path) -> Engine:
    """Detects a file's engine by its magic number. An empty file is a bolt store, as for bbolt.

    Raises CorruptDatabaseError if it is neither, StorageError.
    """
    with readable(path) as fd:
        if os.fstat(fd).st_size == 0:
            return "bolt"
        magics = [os.pread(fd, len(_BOLT_MAGIC), at + _MAGIC_AT) for at in [0, *_SECOND_META]]
    if magics[0] == LMDB_MAGIC:
        return "lmdb"
    # The bolt reader rejects files of the other byte order, with a message of its own.
    if _BOLT_MAGIC in magics or magics[0] == _BIG_ENDIAN_BOLT_MAGIC:
        return "bolt"
    raise CorruptDatabaseError(
        "neither a bbolt nor an LMDB file",
        path=str(path),
        hint="check the path; if it is right, restore the file from a backup",
    )


def open_store(
    path: str | os.PathLike[str], *, read_only: bool = False, create: Engine | None = None
) -> MetadataStore:
    """Opens a store of any engine. ``create``: if the file does not exist, create it with this engine.

    Symbolic links are followed, even if the target is still to be created. Raises ValueError for an unknown
    engine, or if both ``create`` and ``read_only`` are given; BusyError, CorruptDatabaseError, StorageError.
    """
    path = Path(path)
    if create is not None:
        check_choice("create", create, ENGINES)
        if read_only:
            raise ValueError("create needs a writable store, but read_only is set")
    if create is not None and not exists(path):
        return _store_class(create).create(path)
    return _store_class(engine_of(path)).open(path, read_only=read_only)


def _store_class(engine: Engine) -> type[bolt_store.BoltFileStore | LmdbStore]:
    if engine == "bolt":
        return bolt_store.BoltFileStore
    from buildkit_migrate.store.lmdb_store import LmdbStore

    return LmdbStore


def write_store(
    engine: Engine, path: Path, source: Bucket, edits: Iterable[bytes], *, like: Path
) -> Database | Lock:
    """Writes a new store: the tree below ``source`` with ``edits`` applied. See `bolt_store.write_store`.

    Raises ValueError for an unknown engine.
    """
    check_choice("engine", engine, ENGINES)
    if engine == "bolt":
        return bolt_store.write_store(path, source, edits, like=like)
    from buildkit_migrate.store import lmdb_bulk

    return lmdb_bulk.write_store(path, source, edits, like=like)
