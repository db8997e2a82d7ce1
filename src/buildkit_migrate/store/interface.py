"""The store interface: what BuildKit asks of its record metadata (spec buildkit-metadata, section 1).

All semantics are here; engines only return what is stored and carry out edits.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self, TypeVar

from buildkit_migrate.bolt.edits import Edits
from buildkit_migrate.errors import BrokenRecordsError, RecordNotFoundError
from buildkit_migrate.model import Problem, Reason
from buildkit_migrate.values import gojson
from buildkit_migrate.values.gojson import Value
from buildkit_migrate.values.keys import (
    EXTERNAL_BUCKET,
    INDEX_BUCKET,
    MAIN_BUCKET,
    MAX_KEY,
    index_key,
    record_of_index_key,
)

__all__ = ["Item", "MetadataStore", "ReadableStore", "RecordUpdate", "Stored"]

Stored = Iterable[tuple[bytes, bytes | None]]
"""Content of a record in key order: value bytes, or None for a nested bucket."""


@dataclass(frozen=True)
class Item:
    """A record with its decoded values by metadata key. Cleared values are left out."""

    id: bytes
    exists: bool = False
    values: Mapping[bytes, Value] = field(default_factory=dict)

    def indexes(self) -> list[bytes]:
        """The indexes that the values are in, in order of the metadata keys."""
        return [value.index for value in self.values.values() if value.index]


Row = TypeVar("Row")


class ReadableStore(ABC):
    """A readable store. ``all`` and ``search`` raise BrokenRecordsError at a value that can't be decoded.

    Ids, names, keys and indexes are bytes; anything else raises TypeError.
    """

    def get(self, id: bytes) -> Item:
        """Returns a record. If it is missing, the item has no values and ``exists`` is false.

        If a value can't be decoded, the item holds only the values before it.
        """
        _check_is_bytes(id, "an id")
        stored = self._stored(id)
        return Item(id) if stored is None else Item(id, True, _values_before_fault(stored))

    def view(self, id: bytes) -> dict[bytes, bytes]:
        """The record's raw values, including cleared (empty) ones. Raises RecordNotFoundError."""
        _check_is_bytes(id, "an id")
        stored = self._stored(id)
        if stored is None:
            raise RecordNotFoundError(f"no record {id!r}")
        return {key: value for key, value in stored if value is not None}

    def all(self) -> Iterator[Item]:
        """All records, in order of their ids."""
        return self._while_open(_item(id, stored) for id, stored in self._records())

    def ids(self) -> Iterator[bytes]:
        """The ids of all records, in order."""
        return self._while_open(id for id, _ in self._records())

    def search(self, index: bytes, *, prefix_only: bool = False) -> Iterator[Item]:
        """Records in this index, in order of the index keys. Entries of missing records are skipped.

        ``prefix_only``: search all indexes that begin with ``index``. A record is returned once for each
        index key that matches.
        """
        _check_is_bytes(index, "an index")
        return self._while_open(self._found(index, prefix_only))

    def _found(self, index: bytes, prefix_only: bool) -> Iterator[Item]:
        if not self._has_records():
            return
        for key in self._index_keys(index if prefix_only else index_key(index, b"")):
            # A key without an id can only match a bare prefix; BuildKit would loop forever there.
            id = record_of_index_key(key)
            stored = self._stored(id) if id else None
            if id is not None and stored is not None:
                yield _item(id, stored)

    def probe(self, index: bytes) -> bool:
        """Whether the index has any entry, even one of a missing record."""
        _check_is_bytes(index, "an index")
        return self._has_records() and any(True for _ in self._index_keys(index_key(index, b"")))

    def external(self, id: bytes, name: bytes) -> bytes | None:
        """External data of a record, None if there is none. Empty data is not None."""
        _check_is_bytes(id, "an id")
        _check_is_bytes(name, "a name")
        return self._external(id, name)

    def _while_open(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Wraps an iterator: raises ValueError, now and at each step, if the store is closed."""
        self._check_is_open()
        return self._checked(rows)

    def _checked(self, rows: Iterator[Row]) -> Iterator[Row]:
        self._check_is_open()
        for row in rows:
            yield row
            self._check_is_open()

    @abstractmethod
    def _check_is_open(self) -> None:
        """Raises ValueError if the store is closed."""

    @abstractmethod
    def _external(self, id: bytes, name: bytes) -> bytes | None:
        """Implements `external`."""

    @abstractmethod
    def _stored(self, id: bytes) -> Stored | None:
        """Content of a record, None if it does not exist."""

    @abstractmethod
    def _records(self) -> Iterator[tuple[bytes, Stored]]:
        """All records, in order of their ids."""

    @abstractmethod
    def _has_records(self) -> bool:
        """Whether the bucket for records exists, even if empty."""

    @abstractmethod
    def _index_keys(self, prefix: bytes) -> Iterator[bytes]:
        """The keys of ``_index`` that begin with ``prefix``, in order."""


class MetadataStore(ReadableStore):
    """A writable store. Each method that writes is one transaction: all or nothing, and durable.

    Not thread-safe. Raises ValueError for keys that are empty or too long for BuildKit's own engine (ids,
    metadata keys, names of external data, and ``<index>::<id>``, over 32768 bytes), and EditConflictError if
    a value is where a bucket should be, or vice versa. After `close`, everything that reads or writes raises
    ValueError: methods, running iterators, and the end of an open `update` block, whose changes are
    discarded.
    """

    @contextlib.contextmanager
    def update(self, id: bytes) -> Iterator[RecordUpdate]:
        """Changes one record. The changes are written at the end of the block, or discarded on an exception.

        Creates the record if it is missing, even if the block does nothing. No other transaction can begin
        inside the block; reads of the store return the state before it.
        """
        _check_key(id)
        with self._transaction(id):
            stored = self._stored(id)
            record = RecordUpdate(id, {} if stored is None else _values_before_fault(stored))
            yield record
            self._write(record.edits())

    def get_and_set(self, id: bytes, key: bytes, change: Callable[[Value | None], Value | None]) -> None:
        """Sets a value to ``change(current)``. None stands for an absent or cleared value, and clears it."""
        with self.update(id) as record:
            value = change(record.get(key))
            if value is None:
                record.clear(key)
            else:
                record.set(key, value)

    def clear(self, id: bytes) -> None:
        """Removes a record, its external data, and the index entries that its decoded values name.

        Stale index entries, which no value names any more, remain. A missing record is ignored.
        """
        _check_key(id)
        with self._transaction(id):
            edits: dict[bytes, Edits] = {}
            if self._has_external(id):
                edits[EXTERNAL_BUCKET] = {id: None}
            stored = self._stored(id)
            if stored is not None:
                indexes = Item(id, True, _values_before_fault(stored)).indexes()
                edits[INDEX_BUCKET] = {index_key(index, id): None for index in indexes}
                edits[MAIN_BUCKET] = {id: None}
            self._write({name: edit for name, edit in edits.items() if edit})

    def clear_index(self, id: bytes, index: bytes) -> None:
        """Removes the record from an index, whatever its values say. A missing entry is ignored."""
        _check_key(id)
        key = _checked_index_key(index, id)
        with self._transaction(id):
            self._write({INDEX_BUCKET: {key: None}})

    def set_external(self, id: bytes, name: bytes, data: bytes) -> None:
        """Stores external data, any bytes, for a record, which need not exist."""
        _check_key(id)
        _check_key(name)
        _check_is_bytes(data, "external data")
        with self._transaction(id):
            self._write({EXTERNAL_BUCKET: {id: {name: data}}})

    @abstractmethod
    def close(self) -> None:
        """Closes the file. A second call does nothing."""

    def __enter__(self) -> Self:
        self._check_is_open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @abstractmethod
    def _transaction(self, id: bytes) -> contextlib.AbstractContextManager[None]:
        """A write transaction: nobody else can write, and reads of the record ``id`` are current."""

    @abstractmethod
    def _write(self, edits: Edits) -> None:
        """Carries out edits of the three buckets, durably. Called at most once, last in a transaction."""

    @abstractmethod
    def _has_external(self, id: bytes) -> bool:
        """Whether the record has a bucket of external data."""


class RecordUpdate:
    """Collects the changes of one transaction to a record, in order; see `MetadataStore.update`."""

    def __init__(self, id: bytes, values: Mapping[bytes, Value]) -> None:
        self.id = id
        self._values = dict(values)
        self._record: dict[bytes, bytes | Edits | None] = {}
        self._index: dict[bytes, bytes | Edits | None] = {}
        self._external: dict[bytes, bytes | Edits | None] = {}

    def get(self, key: bytes) -> Value | None:
        """The value including changes so far; None if absent, cleared, or at or after an undecodable one."""
        return self._values.get(key)

    def set(self, key: bytes, value: Value) -> None:
        """Sets a value and adds the record to its index.

        The index entry of the previous value remains, as in BuildKit; see `clear_index`.
        """
        _check_key(key)
        if not isinstance(value, Value):
            raise TypeError(f"a value must be a Value (see Value.of), not {type(value).__name__}")
        encoded = gojson.encode(value)
        if value.index:
            self._index[_checked_index_key(value.index, self.id)] = b""
        self._record[key] = encoded
        self._values[key] = value

    def clear(self, key: bytes) -> None:
        """Clears a value: leaves an empty one, which reads as absent, and removes the value's index entry."""
        _check_key(key)
        value = self._values.pop(key, None)
        if value is not None and value.index:
            self.clear_index(value.index)
        self._record[key] = b""

    def clear_index(self, index: bytes) -> None:
        self._index[_checked_index_key(index, self.id)] = None

    def set_external(self, name: bytes, data: bytes) -> None:
        _check_key(name)
        _check_is_bytes(data, "external data")
        self._external[name] = data

    def edits(self) -> Edits:
        """All changes, as edits of the store's tree."""
        edits: dict[bytes, bytes | Edits | None] = {MAIN_BUCKET: {self.id: self._record}}
        if self._index:
            edits[INDEX_BUCKET] = self._index
        if self._external:
            edits[EXTERNAL_BUCKET] = {self.id: self._external}
        return edits


def _check_is_bytes(value: object, what: str) -> None:
    if not isinstance(value, bytes):
        raise TypeError(f"{what} must be bytes, not {type(value).__name__}")


def _check_key(key: bytes) -> None:
    _check_is_bytes(key, "a key")
    if not 0 < len(key) <= MAX_KEY:
        raise ValueError(f"a key must have 1 to {MAX_KEY} bytes, not {len(key)}")


def _checked_index_key(index: bytes, id: bytes) -> bytes:
    _check_is_bytes(index, "an index")
    key = index_key(index, id)
    _check_key(key)
    return key


class _UndecodableAtError(Exception):
    def __init__(self, key: bytes) -> None:
        self.key = key


def _values(stored: Stored) -> Iterator[tuple[bytes, Value]]:
    for key, value in stored:
        # BuildKit treats nested buckets like cleared values.
        if value:
            try:
                yield key, gojson.decode(value)
            except gojson.UndecodableValueError as error:
                raise _UndecodableAtError(key) from error


def _values_before_fault(stored: Stored) -> dict[bytes, Value]:
    values = {}
    with contextlib.suppress(_UndecodableAtError):
        for key, value in _values(stored):
            values[key] = value
    return values


def _item(id: bytes, stored: Stored) -> Item:
    try:
        return Item(id, True, dict(_values(stored)))
    except _UndecodableAtError as error:
        raise BrokenRecordsError(
            f"record {id!r}: the value of {error.key!r} can't be decoded: {error.__cause__}",
            [Problem(id, Reason.UNDECODABLE, error.key)],
            hint="",
        ) from error.__cause__
