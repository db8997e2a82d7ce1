"""The store engine that BuildKit itself uses: a bbolt file (spec buildkit-metadata, section 1)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Self

from buildkit_migrate.bolt import Bucket, Database, Reader, rewrite, write
from buildkit_migrate.bolt.edits import Edits, encode
from buildkit_migrate.errors import BusyError
from buildkit_migrate.files.durable import Aside
from buildkit_migrate.files.ownership import usable_mode
from buildkit_migrate.store.interface import MetadataStore, ReadableStore, Stored
from buildkit_migrate.values.keys import EXTERNAL_BUCKET, INDEX_BUCKET, MAIN_BUCKET

__all__ = ["STORE_MODE", "BoltFileStore", "BoltStore", "write_store"]

STORE_MODE: Final = 0o600

_PAGE_SIZE: Final = 4096


class BoltStore(ReadableStore):
    """A metadata store read from the root bucket of a database."""

    def __init__(self, root: Bucket) -> None:
        self._tree = root

    def _check_is_open(self) -> None:
        pass  # only the database is ever closed

    @property
    def _root(self) -> Bucket:
        # After closing, the mapped memory could still be read, but anyone may change the file.
        self._check_is_open()
        return self._tree

    def _external(self, id: bytes, name: bytes) -> bytes | None:
        record = self._root.bucket(EXTERNAL_BUCKET, id)
        return None if record is None else record.get(name)

    def _stored(self, id: bytes) -> Stored | None:
        record = self._root.bucket(MAIN_BUCKET, id)
        return None if record is None else _stored(record)

    def _records(self) -> Iterator[tuple[bytes, Stored]]:
        main = self._root.bucket(MAIN_BUCKET)
        if main is not None:
            for id, record in main.items():
                if isinstance(record, Bucket):
                    yield id, _stored(record)

    def _has_records(self) -> bool:
        return self._root.bucket(MAIN_BUCKET) is not None

    def _index_keys(self, prefix: bytes) -> Iterator[bytes]:
        index = self._root.bucket(INDEX_BUCKET)
        if index is not None:
            for key, _ in index.items(prefix):
                if not key.startswith(prefix):
                    return
                yield key


def _stored(record: Bucket) -> Stored:
    return ((key, value if isinstance(value, bytes) else None) for key, value in record.items())


class BoltFileStore(BoltStore, MetadataStore):
    """A bbolt file as a writable store.

    **Each transaction rewrites the whole file** beside the old one and renames it into place. That suits
    tools and small stores; for others use BuildKit, or the LMDB engine. The file is locked exclusively until
    `close` (shared with ``read_only``), as BuildKit locks it: one process at a time. A symbolic link is
    followed only when the store is opened.
    """

    def __init__(self, database: Database, *, read_only: bool = False) -> None:
        """Takes over the database, which must be locked exclusively unless ``read_only``."""
        super().__init__(database.root)
        self._database = database
        self._is_open = True
        self._read_only = read_only
        self._writing = False

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> Self:
        """Opens an existing store. Raises BusyError, CorruptDatabaseError, StorageError."""
        return cls(Database.open(Path(os.path.realpath(path)), exclusive=not read_only), read_only=read_only)

    @classmethod
    def create(cls, path: Path) -> Self:
        """Creates an empty store with mode 0600. Raises StorageError, also if ``path`` exists."""
        real = Path(os.path.realpath(path))
        return cls(write(real, mode=STORE_MODE, page_size=_PAGE_SIZE, fill=lambda builder: None))

    def close(self) -> None:
        self._is_open = False
        self._database.close()

    def _check_is_open(self) -> None:
        if not self._is_open:
            raise ValueError(f"{self._database.path} is closed")

    @contextlib.contextmanager
    def _transaction(self, id: bytes) -> Iterator[None]:
        self._check_is_open()
        path = self._database.path
        if self._read_only:
            raise BusyError(f"{path} is open read-only", hint="")
        if self._writing:
            raise BusyError(f"{path}: another transaction is open already", hint="")
        self._writing = True
        try:
            yield
        finally:
            self._writing = False

    def _write(self, edits: Edits) -> None:
        self._check_is_open()
        path = self._database.path
        with Aside[Database](path) as aside:
            new = aside.write(
                lambda to: write_store(to, self._root, encode(edits), like=path, after=self._root.reader)
            )
            self._database.check_not_replaced()
            aside.switch()
        self._database.close()
        self._database = new
        self._tree = new.root

    def _has_external(self, id: bytes) -> bool:
        return self._root.bucket(EXTERNAL_BUCKET, id) is not None


def write_store(
    path: Path, source: Bucket, edits: Iterable[bytes], *, like: Path, after: Reader | None = None
) -> Database:
    """Writes a new store: the tree below ``source`` with ``edits`` applied, in one pass. Returns it locked.

    The new file is made for those who use the file ``like``. ``after``: the store that it will replace, if
    any. Raises StorageError (also if ``path`` exists) and CorruptDatabaseError.
    """
    return write(
        path,
        mode=usable_mode(like),
        page_size=source.reader.page_size,
        fill=lambda builder: rewrite(source, builder, edits),
        owner_of=like,
        after=after,
    )
