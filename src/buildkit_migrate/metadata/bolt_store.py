"""The store engine that BuildKit itself uses: a bbolt file (spec buildkit-metadata, section 1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from buildkit_migrate.bolt import Bucket, Database, rewrite, write
from buildkit_migrate.errors import BrokenRecordsError
from buildkit_migrate.metadata import gojson
from buildkit_migrate.metadata.keys import (
    EXTERNAL_BUCKET,
    INDEX_BUCKET,
    MAIN_BUCKET,
    index_key,
    record_of_index_key,
)
from buildkit_migrate.metadata.store import Item

__all__ = ["BoltStore", "write_store"]

STORE_MODE: Final = 0o600


class BoltStore:
    """A metadata store that is read from the root bucket of a database. See `MetadataStore`."""

    def __init__(self, root: Bucket) -> None:
        self._root = root

    def get(self, id: bytes) -> Item:
        record = self._root.bucket(MAIN_BUCKET, id)
        if record is None:
            return Item(id)
        values = {}
        try:
            for key, value in _values(record):
                values[key] = value
        except _UndecodableAtError:
            pass
        return Item(id, True, values)

    def all(self) -> Iterator[Item]:
        main = self._root.bucket(MAIN_BUCKET)
        if main is not None:
            for id, record in main.items():
                if isinstance(record, Bucket):
                    yield _item(id, record)

    def search(self, index: bytes, *, prefix_only: bool = False) -> Iterator[Item]:
        main = self._root.bucket(MAIN_BUCKET)
        if main is None:
            return
        for key in self._index_keys(index if prefix_only else index_key(index, b"")):
            # A key without id can only match a bare prefix; BuildKit would loop there for ever.
            id = record_of_index_key(key)
            record = main.bucket(id) if id is not None else None
            if id is not None and record is not None:
                yield _item(id, record)

    def probe(self, index: bytes) -> bool:
        has_records = self._root.bucket(MAIN_BUCKET) is not None
        return has_records and any(True for _ in self._index_keys(index_key(index, b"")))

    def external(self, id: bytes, name: bytes) -> bytes | None:
        record = self._root.bucket(EXTERNAL_BUCKET, id)
        return None if record is None else record.get(name)

    def _index_keys(self, prefix: bytes) -> Iterator[bytes]:
        index = self._root.bucket(INDEX_BUCKET)
        if index is not None:
            for key, _ in index.items(prefix):
                if not key.startswith(prefix):
                    return
                yield key


class _UndecodableAtError(Exception):
    def __init__(self, key: bytes) -> None:
        self.key = key


def _values(record: Bucket) -> Iterator[tuple[bytes, gojson.Value]]:
    for key, stored in record.items():
        # Nested buckets and cleared values look the same to BuildKit.
        if isinstance(stored, bytes) and stored:
            try:
                yield key, gojson.decode(stored)
            except gojson.UndecodableValueError as error:
                raise _UndecodableAtError(key) from error


def _item(id: bytes, record: Bucket) -> Item:
    try:
        return Item(id, True, dict(_values(record)))
    except _UndecodableAtError as error:
        raise BrokenRecordsError(
            f"record {id!r}: the value of {error.key!r} does not decode: {error.__cause__}", [(id, error.key)]
        ) from error.__cause__


def write_store(path: Path, source: Bucket, edits: Iterable[bytes], *, like: Path) -> Database:
    """Writes a new store: the one below ``source`` with ``edits`` applied, in one pass.

    Mode 0600, owner and group of the file ``like``. Returns it, locked.
    Raises StorageError (also if ``path`` exists) and CorruptDatabaseError.
    """
    return write(
        path,
        mode=STORE_MODE,
        page_size=source.reader.page_size,
        fill=lambda builder: rewrite(source, builder, edits),
        owner_of=like,
    )
