"""The LMDB engine: one file that many processes read while one writes (docs/format.md)."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

import lmdb

from buildkit_migrate._native.packing import LONG_KEY, push, push_all, unpack, unpack_items
from buildkit_migrate.bolt import Builder
from buildkit_migrate.bolt.edits import Edits
from buildkit_migrate.errors import BusyError, CorruptDatabaseError, EditConflictError
from buildkit_migrate.files.durable import make_empty
from buildkit_migrate.files.errors import exists
from buildkit_migrate.lmdb.file import check_file, lmdb_errors, translate
from buildkit_migrate.store.interface import MetadataStore, Stored
from buildkit_migrate.store.lmdb_bulk import write_empty
from buildkit_migrate.store.lmdb_format import HEAD, HEAD_KEY, OTHER, TAGS, open_environment
from buildkit_migrate.values.keys import EXTERNAL_BUCKET, INDEX_BUCKET, MAIN_BUCKET

__all__ = ["LmdbStore", "check_store"]

_EXTERNAL, _INDEX, _MAIN = TAGS[EXTERNAL_BUCKET], TAGS[INDEX_BUCKET], TAGS[MAIN_BUCKET]

_VALUE: Final = b"\x00"
_BUCKET: Final = b"\x01"
_NO_SEQUENCE: Final = bytes(8)


def check_store(path: Path) -> None:
    """Checks all pages in use and the head of a store. Creates no lock file.

    Raises CorruptDatabaseError if this is not a sound store of this format; BusyError if this process has it
    open already; StorageError.
    """
    check_file(path, thorough=True)
    with (
        contextlib.closing(open_environment(path, read_only=True, alone=True)) as environment,
        lmdb_errors(path),
        environment.begin() as transaction,
    ):
        _check_head(transaction.get(HEAD_KEY), path)


def _check_head(head: bytes | None, path: Path) -> None:
    if head != HEAD:
        raise CorruptDatabaseError("an LMDB file, but not a metadata store of this format", path=str(path))


class LmdbStore(MetadataStore):
    """A metadata store in one LMDB file, with a lock file ``<path>-lock`` beside it.

    Any number of processes may have it open. One writes at a time while other writers wait; readers never
    wait. A process may open a file only once (BusyError otherwise), and must not fork while it is open.

    ``all`` and ``search`` read one snapshot, unless a transaction of this object makes the store grow
    meanwhile: then they continue after the same key in the new state. A symbolic link is followed only when
    the store is opened: the lock file is beside the real file.
    """

    def __init__(self, path: Path, environment: lmdb.Environment, *, read_only: bool) -> None:
        self.path = path
        self._environment = environment
        self._read_only = read_only
        self._is_open = True
        self._write_txn: lmdb.Transaction[bytes] | None = None
        self._before: tuple[bytes, bytes | None, bytes | None] | None = None
        self._scans: weakref.WeakSet[_Scan] = weakref.WeakSet()

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> Self:
        """Opens an existing store. Raises BusyError, CorruptDatabaseError, StorageError."""
        path = Path(os.path.realpath(path))
        check_file(path)
        lock_file = path.with_name(f"{path.name}-lock")
        if not exists(lock_file):
            # A reader must not lock out the store's owner. It is done first: when any descriptor of the file
            # is closed, the process loses LMDB's locks on it.
            make_empty(lock_file, path)
        store = cls(path, open_environment(path, read_only=read_only), read_only=read_only)
        try:
            _check_head(store._get(HEAD_KEY), path)
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    @contextlib.contextmanager
    def open_once(cls, path: Path) -> Iterator[Self]:
        """Opens a store for reading, without creating a lock file.

        If there is no lock file, nobody has the store open. Raises BusyError at the end of the block if
        somebody opened it meanwhile, and otherwise the same as `open`.
        """
        path = Path(os.path.realpath(path))
        lock = path.with_name(path.name + "-lock")
        check_file(path)
        alone = not exists(lock)
        environment = open_environment(path, read_only=True, alone=alone)
        with contextlib.closing(cls(path, environment, read_only=True)) as store:
            _check_head(store._get(HEAD_KEY), path)
            yield store
        if alone and exists(lock):
            raise BusyError(f"{path} was opened by another process while it was being read", hint="try again")

    @classmethod
    def create(cls, path: Path) -> Self:
        """Creates an empty store with mode 0600. Raises StorageError, also if ``path`` exists."""
        path = Path(os.path.realpath(path))
        write_empty(path)
        return cls.open(path)

    def close(self) -> None:
        self._is_open = False
        self._abort()
        self._suspend_scans()
        self._environment.close()

    def _check_is_open(self) -> None:
        if not self._is_open:
            raise ValueError(f"{self.path} is closed")

    # --- Reading

    def _external(self, id: bytes, name: bytes) -> bytes | None:
        node = self._node(_EXTERNAL, id)
        for key, value in self._bucket_items(node, id) or ():
            if key == name:
                return value
        return None

    def _stored(self, id: bytes) -> Stored | None:
        return self._bucket_items(self._node(_MAIN, id), id)

    def _records(self) -> Iterator[tuple[bytes, Stored]]:
        for id, node in self.entries(_MAIN):
            stored = self._bucket_items(node, id)
            if stored is not None:
                yield id, stored

    def _has_records(self) -> bool:
        return self._get(_MAIN) is not None

    def _index_keys(self, prefix: bytes) -> Iterator[bytes]:
        for key, _ in self.entries(_INDEX, prefix):
            if not key.startswith(prefix):
                return
            yield key

    def _has_external(self, id: bytes) -> bool:
        return (self._node(_EXTERNAL, id) or _VALUE)[:1] == _BUCKET

    def _bucket_items(self, node: bytes | None, key: bytes) -> Stored | None:
        """Content of a bucket; None if there is no node, or if it is not a bucket."""
        content = None if node is None else unpack(node, key, str(self.path))
        return None if content is None or isinstance(content, bytes) else self._pairs(content[1], key)

    def _pairs(self, items: list[tuple[bytes, bytes]], key: bytes) -> Stored:
        for name, node in items:
            if node[:1] == _VALUE:
                yield name, node[1:]
            else:
                unpack(node, key, str(self.path))  # raises if malformed
                yield name, None

    def entries(self, tag: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Names and nodes of a bucket in order, starting at ``start``."""
        scan = _Scan(self, tag + start[: LONG_KEY - 1])
        try:
            for key, value in scan:
                if key[:1] != tag:
                    return
                if len(key) < LONG_KEY:
                    if len(key) > 1:
                        yield key[1:], value
                    continue
                for rest, node in unpack_items(value, key, str(self.path)):
                    if key[1:] + rest >= start:
                        yield key[1:] + rest, node
        finally:
            scan.suspend()

    def _node(self, tag: bytes, name: bytes) -> bytes | None:
        if len(name) < LONG_KEY - 1:
            return self._get(tag + name) if name else None
        return self._group(tag + name[: LONG_KEY - 1]).get(name[LONG_KEY - 1 :])

    def _group(self, key: bytes) -> dict[bytes, bytes]:
        items = self._get(key)
        return {} if items is None else dict(unpack_items(items, key, str(self.path)))

    def _get(self, key: bytes) -> bytes | None:
        self._check_is_open()
        try:
            if self._write_txn is not None:
                return self._write_txn.get(key)
            with self._begin() as txn:
                return txn.get(key)
        except lmdb.Error as error:
            raise translate(error, self.path) from error

    def _begin(self, *, write: bool = False) -> lmdb.Transaction[bytes]:
        self._check_is_open()
        while True:
            try:
                return self._environment.begin(write=write)
            except lmdb.MapResizedError:
                self._resize(0)  # adopt the size that another process set
            except lmdb.ReadersFullError:
                if not self._environment.reader_check():  # frees slots of killed processes
                    raise

    # --- Writing

    @contextlib.contextmanager
    def _transaction(self, id: bytes) -> Iterator[None]:
        self._check_is_open()
        if self._read_only:
            raise BusyError(f"{self.path} is open read-only", hint="")
        if self._write_txn is not None:
            raise BusyError(f"{self.path}: another transaction is open already", hint="")
        with lmdb_errors(self.path):
            self._write_txn = self._begin(write=True)
        try:
            self._before = self._state(id)
            yield
        finally:
            self._abort()

    def _state(self, id: bytes) -> tuple[bytes, bytes | None, bytes | None]:
        return id, self._node(_MAIN, id), self._node(_EXTERNAL, id)

    def _abort(self) -> None:
        txn, self._write_txn = self._write_txn, None
        if txn is not None:
            txn.abort()

    def _write(self, edits: Edits) -> None:
        self._check_is_open()
        with lmdb_errors(self.path):
            while not self._try_commit(edits):
                self._abort()
                self._resize(2 * self._environment.info()["map_size"])
                self._write_txn = self._begin(write=True)
                if self._before is not None and self._state(self._before[0]) != self._before:
                    raise BusyError(
                        f"{self.path}: another process changed the record while the store grew",
                        hint="try again",
                    )

    def _try_commit(self, edits: Edits) -> bool:
        """Returns False if the map is full."""
        txn = self._write_txn
        assert txn is not None
        try:
            for name, bucket in edits.items():
                assert not isinstance(bucket, bytes | None)
                self._edit_bucket(txn, name, bucket)
            txn.commit()
        except lmdb.MapFullError:
            return False
        self._write_txn = None
        return True

    def _edit_bucket(self, txn: lmdb.Transaction[bytes], name: bytes, edits: Edits) -> None:
        tag = TAGS[name]
        if txn.get(tag) is None:
            if self._node(OTHER, name) is not None:
                raise self._conflict(name)
            txn.put(tag, _NO_SEQUENCE)
        for key, edit in edits.items():
            before = self._node(tag, key)
            after = self._edited(before, key, edit)
            if after != before:
                self._put_node(txn, tag, key, after)

    def _put_node(self, txn: lmdb.Transaction[bytes], tag: bytes, name: bytes, node: bytes | None) -> None:
        """Puts a node, or deletes it if None."""
        key, rest = tag + name[: LONG_KEY - 1], name[LONG_KEY - 1 :]
        value = node
        if len(key) == LONG_KEY:
            group = self._group(key)
            if node is None:
                del group[rest]
            else:
                group[rest] = node
            value = _packed_items(group) if group else None
        if value is None:
            txn.delete(key)
        else:
            txn.put(key, value)

    def _edited(self, node: bytes | None, key: bytes, edit: bytes | Edits | None) -> bytes | None:
        """The node after an edit, None if it was deleted."""
        if edit is None:
            return None
        content = None if node is None else unpack(node, key, str(self.path))
        if isinstance(edit, bytes):
            if isinstance(content, tuple):
                raise self._conflict(key)
            return _VALUE + edit
        if isinstance(content, bytes):
            raise self._conflict(key)
        sequence, items = content or (0, [])
        nodes = dict(items)
        for inner_key, inner in edit.items():
            after = self._edited(nodes.get(inner_key), inner_key, inner)
            if after is None:
                nodes.pop(inner_key, None)
            else:
                nodes[inner_key] = after
        return _BUCKET + sequence.to_bytes(8, "little") + _packed_items(nodes)

    def _conflict(self, key: bytes) -> EditConflictError:
        name = key.decode(errors="backslashreplace")
        return EditConflictError(
            f"{self.path}: key {name!r} is a bucket where a value is needed, or vice versa"
        )

    def _resize(self, size: int) -> None:
        """Changes the map size; 0 adopts the size another process set. No transaction may be open."""
        self._suspend_scans()
        self._environment.set_mapsize(size)

    def _suspend_scans(self) -> None:
        for scan in list(self._scans):
            scan.suspend()

    # --- Converting

    def build(self, builder: Builder) -> None:
        """Pushes a snapshot of the whole tree into the builder of a bolt file."""
        path = str(self.path)
        with lmdb_errors(self.path), self._begin() as txn, txn.cursor() as cursor:
            buckets = [(name, tag) for name, tag in TAGS.items() if txn.get(tag) is not None]

            def push_buckets_before(name: bytes | None) -> None:
                while buckets and (name is None or buckets[0][0] < name):
                    self._push_bucket(builder, cursor, *buckets.pop(0))

            for name, node in self._others(txn):
                push_buckets_before(name)
                push(builder, name, node, path)
            push_buckets_before(None)

    def _push_bucket(self, builder: Builder, cursor: lmdb.Cursor[bytes], name: bytes, tag: bytes) -> None:
        cursor.set_key(tag)
        sequence = cursor.value()
        if len(sequence) != len(_NO_SEQUENCE):
            raise CorruptDatabaseError("malformed bucket", path=str(self.path), detail=repr(name))
        builder.open_bucket(name, int.from_bytes(sequence, "little"))
        if cursor.next():
            push_all(builder, cursor, tag, str(self.path))
        builder.close_bucket()

    def _others(self, txn: lmdb.Transaction[bytes]) -> Iterator[tuple[bytes, bytes]]:
        with txn.cursor() as cursor:
            if not cursor.set_range(OTHER):
                return
            for key, value in cursor:
                if key[:1] != OTHER:
                    return
                if len(key) < LONG_KEY:
                    yield key[1:], value
                    continue
                for rest, node in unpack_items(value, key, str(self.path)):
                    yield key[1:] + rest, node


class _Scan:
    """Iterates over a store's entries from a key on, in one snapshot until `suspend`."""

    def __init__(self, store: LmdbStore, start: bytes) -> None:
        self._store = store
        self._key = start
        self._key_is_done = False
        self._txn: lmdb.Transaction[bytes] | None = None
        self._cursor: lmdb.Cursor[bytes] | None = None
        store._scans.add(self)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[bytes, bytes]:
        try:
            cursor = self._cursor
            found = cursor.next() if cursor is not None else self._resume()
            cursor = self._cursor
            if not found or cursor is None:
                raise StopIteration
            key, value = cursor.item()
        except lmdb.Error as error:
            raise translate(error, self._store.path) from error
        self._key, self._key_is_done = key, True
        return key, value

    def _resume(self) -> bool:
        self._txn = self._store._begin()
        self._cursor = self._txn.cursor()
        found = self._cursor.set_range(self._key)
        if found and self._key_is_done and self._cursor.key() == self._key:
            return self._cursor.next()
        return found

    def suspend(self) -> None:
        """Releases the snapshot. The iterator continues in a new one."""
        if self._txn is not None:
            self._txn.abort()
            self._txn = self._cursor = None


def _packed_items(nodes: dict[bytes, bytes]) -> bytes:
    return b"".join(
        len(key).to_bytes(4, "little") + len(node).to_bytes(4, "little") + key + node
        for key, node in sorted(nodes.items())
    )
