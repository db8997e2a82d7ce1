"""What an interrupted migration needs to continue, and undo needs to go back: an LMDB environment.

It is in a directory beside the new store; docs/format.md describes its entries.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from buildkit_migrate.errors import CorruptDatabaseError, JournalError, StorageError
from buildkit_migrate.files.durable import (
    discard_directory,
    make_directory,
    make_like,
    reserve,
    sync_directory,
)
from buildkit_migrate.files.errors import is_directory, is_link, look
from buildkit_migrate.migration.journal_state import (
    APPLIED,
    APPLYING,
    EDIT,
    NOTHING,
    PUT_BACK,
    REMOVE,
    UNDOING,
    UNREADABLE,
    State,
    decode,
    encode,
    had_no_database,
    is_untouched,
    kept_path,
)
from buildkit_migrate.model import Before, Resource

if TYPE_CHECKING:
    import lmdb

__all__ = [
    "APPLIED",
    "APPLYING",
    "EDIT",
    "NOTHING",
    "PUT_BACK",
    "REMOVE",
    "UNDOING",
    "Journal",
    "State",
    "discard",
    "had_no_database",
    "is_untouched",
    "journal_path",
    "kept_path",
    "leases_before",
    "read_state",
]

_STATE: Final = b"\0"
_LEASE: Final = b"L"
_EXPIRING: Final = b"X"
_SNAPSHOT: Final = b"S"
_BLOB: Final = b"B"
_FINISHED: Final = b"F"

_BATCH: Final = 96
"""How many leases may be written before they are noted; each costs the next run one question."""

_FIRST_MAP: Final = 1 << 20
"""Initial map size in bytes. The map doubles when full; the file grows only as needed."""
_OVERHEAD: Final = 64
"""Maximum overhead of an entry in bytes."""

FILES = _DATA, _LOCK = "data.mdb", "lock.mdb"
_LOCK_SIZE: Final = 8192  # bytes that LMDB needs for its 126 readers
_SIZE: Final = struct.Struct("<I")


def journal_path(v2: Path) -> Path:
    return v2.with_name(v2.name + ".journal")


class Journal:
    """The journal of one store; a context manager.

    Only the holder of the lock on the v1 store writes to it. Others may read it meanwhile.
    """

    def __init__(self, path: Path, environment: lmdb.Environment, state: State) -> None:
        """Use `create` or `open` instead."""
        self.path = path
        self.state = state
        self._environment = environment
        self._unwritten: list[bytes] = []
        self._batches = self._count(_FINISHED)  # the entries are numbered from 0, in order

    @classmethod
    def create(cls, path: Path, state: State, before: Before, *, like: Path | None = None) -> Self:
        """Creates a journal of everything that will be replaced. It is durable when this returns.

        Raises StorageError. ``like``: make it usable by those who use this store; by default only by the
        owner of its directory.
        """
        discard(path)  # a journal that was never completed
        entries = [
            *((_BLOB, [digest, value]) for digest, value in before.blobs.items()),
            *((_LEASE, _lease_fields(id, resources)) for id, resources in before.leases.items()),
            *((_SNAPSHOT, [name, value]) for name, value in before.snapshots.items()),
            *((_EXPIRING, [id, *itertools.chain(*labels.items())]) for id, labels in before.expiring.items()),
        ]
        size = sum(sum(map(len, fields)) + _OVERHEAD for _, fields in entries)
        with contextlib.ExitStack() as failed:
            # A full disk may leave half-written meta pages, which nobody could read.
            failed.callback(discard, path)
            make_directory(path, like)
            # LMDB maps the file with holes, and on a full disk writing to a hole kills the process with
            # SIGBUS.
            reserve(path / _LOCK, _LOCK_SIZE)
            # Before it is opened: closing any descriptor of it drops LMDB's locks on it.
            make_like(path / _LOCK, like)
            environment = _open(path, map_size=max(_FIRST_MAP, 2 * size), create=True)
            failed.callback(environment.close)

            def fill(transaction: lmdb.Transaction[bytes]) -> None:
                transaction.put(_STATE, encode(state))
                numbers: dict[bytes, int] = {}
                for kind, fields in entries:
                    number = numbers.get(kind, 0)
                    transaction.put(_key(kind, number), _pack(fields), append=True)
                    numbers[kind] = number + 1

            _write(environment, path, fill)
            make_like(path / _DATA, like)
            sync_directory(path)
            failed.pop_all()
        return cls(path, environment, state)

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> Self | None:
        """Opens an existing journal; None if there is none. Raises JournalError, StorageError.

        ``read_only``: read a snapshot, even while another process writes.
        """
        if not _is_there(path):
            return None
        environment = _snapshot(path) if read_only else _open(path, map_size=_FIRST_MAP)
        if environment is None:
            return None
        with contextlib.ExitStack() as failed:
            failed.callback(environment.close)
            state = _state_in(environment, path)
            if state is None:
                return None
            journal = cls(path, environment, state)
            failed.pop_all()
        return journal

    def close(self) -> None:
        """Writes pending notes, and closes it."""
        try:
            if self._unwritten:
                self._note()
        finally:
            self._environment.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def update(self, **changes: Any) -> None:
        """Changes fields of the state, durably, and writes pending notes."""
        self.state = replace(self.state, **changes)
        self._note()

    def lease_finished(self, id: bytes) -> None:
        """Notes that a lease has all its resources. Written in batches."""
        self._unwritten.append(id)
        if len(self._unwritten) >= _BATCH:
            self._note()

    def add(self, before: Before) -> None:
        """Adds labels that a continued run will remove as well, unless they are known already."""
        for kind, known, labels in (
            (_SNAPSHOT, self._labels(_SNAPSHOT), before.snapshots),
            (_BLOB, self._labels(_BLOB), before.blobs),
        ):
            new = [(name, labels[name]) for name in labels if name not in known]
            entries = {_key(kind, number): _pack(fields) for number, fields in enumerate(new, len(known))}
            self._put(entries)

    def finished_leases(self) -> frozenset[bytes]:
        return frozenset(id for ids in self._entries(_FINISHED) for id in ids)

    def before(self) -> Before:
        return Before(
            {fields[0]: _resources(fields[1:]) for fields in self._entries(_LEASE)},
            self._labels(_SNAPSHOT),
            self._labels(_BLOB),
            {
                fields[0]: dict(zip(fields[1::2], fields[2::2], strict=True))
                for fields in self._entries(_EXPIRING)
            },
        )

    def _labels(self, kind: bytes) -> dict[bytes, bytes]:
        return {fields[0]: fields[1] for fields in self._entries(kind)}

    def _note(self) -> None:
        entries = {_STATE: encode(self.state)}
        if self._unwritten:
            entries[_key(_FINISHED, self._batches)] = _pack(self._unwritten)
        self._put(entries)
        if self._unwritten:
            self._batches += 1
            self._unwritten.clear()

    def _put(self, entries: Mapping[bytes, bytes]) -> None:
        def fill(transaction: lmdb.Transaction[bytes]) -> None:
            for key, value in entries.items():
                transaction.put(key, value)

        _write(self._environment, self.path, fill)

    def _entries(self, kind: bytes) -> Iterator[list[bytes]]:
        with _errors(self.path), self._environment.begin() as transaction:
            cursor = transaction.cursor()
            found = cursor.set_range(kind)
            while found and cursor.key()[:1] == kind:
                yield _unpack(cursor.value(), self.path)
                found = cursor.next()

    def _count(self, kind: bytes) -> int:
        with _errors(self.path), self._environment.begin() as transaction:
            cursor = transaction.cursor()
            beyond = cursor.set_range(_key(kind, 1 << 63))
            last = cursor.prev() if beyond else cursor.last()
            return int.from_bytes(cursor.key()[1:], "big") + 1 if last and cursor.key()[:1] == kind else 0


def read_state(path: Path) -> State | None:
    """Reads the state from the journal at ``path``; None if there is no journal, or an incomplete one.

    Others may have it open. Raises JournalError, StorageError.
    """
    if not _is_there(path):
        return None
    environment = _snapshot(path)
    if environment is None:
        return None
    with contextlib.closing(environment):
        return _state_in(environment, path)


def leases_before(path: Path) -> frozenset[bytes]:
    """The leases that a migration of a running containerd found, if the journal at ``path`` knows them.

    Others may have it open. Raises JournalError, StorageError.
    """
    found = Journal.open(path, read_only=True)
    if found is None:
        return frozenset()
    with found:
        return frozenset(found.before().leases)


def _is_there(path: Path) -> bool:
    data = path / _DATA
    _refuse_link(path)
    if not is_directory(path):
        return False
    for place in (data, path / _LOCK):
        _refuse_link(place)
    found = look(data)
    return found is not None and found.st_size > 0


def _refuse_link(place: Path) -> None:
    """LMDB writes to the file it opens, and would follow a link out of the root."""
    if is_link(place):
        raise JournalError(f"{place} is a symbolic link", hint="remove the link")


def _state_in(environment: lmdb.Environment, path: Path) -> State | None:
    with _errors(path), environment.begin() as transaction:
        stored = transaction.get(_STATE)
    return None if stored is None else decode(stored, path)


def discard(path: Path) -> None:
    """Deletes a journal, if there is one. Raises StorageError."""
    discard_directory(path, FILES)


def _open(path: Path, *, map_size: int, create: bool = False) -> lmdb.Environment:
    import lmdb

    from buildkit_migrate.lmdb.file import check_file

    with _errors(path):
        if not create:
            check_file(path / _DATA)
        # LMDB maps all of an existing file, even if the map size is smaller.
        return lmdb.open(os.fsencode(path), map_size=map_size, create=create, mode=0o600, readahead=False)


def _snapshot(path: Path) -> lmdb.Environment | None:
    """None if another process has just deleted the journal."""
    from buildkit_migrate.lmdb.file import snapshot

    try:
        with _errors(path):
            return snapshot(path / _DATA)
    except StorageError as error:
        if error.missing:
            return None
        raise


def _write(
    environment: lmdb.Environment, path: Path, fill: Callable[[lmdb.Transaction[bytes]], None]
) -> None:
    """Runs one transaction, durable when this returns. Grows the map until everything fits."""
    import lmdb

    with _errors(path):
        while True:
            try:
                with environment.begin(write=True) as transaction:
                    fill(transaction)
            except lmdb.MapFullError:
                environment.set_mapsize(2 * environment.info()["map_size"])
            else:
                return


@contextlib.contextmanager
def _errors(path: Path) -> Iterator[None]:
    import lmdb

    from buildkit_migrate.lmdb.file import translate

    try:
        yield
    except CorruptDatabaseError as error:
        raise JournalError(f"{error}", hint=UNREADABLE) from error
    except lmdb.Error as error:
        known = translate(error, path)
        if isinstance(known, CorruptDatabaseError):
            raise JournalError(f"{known}", hint=UNREADABLE) from error
        raise known from error


def _key(kind: bytes, number: int) -> bytes:
    return kind + number.to_bytes(8, "big")


def _pack(fields: Iterable[bytes]) -> bytes:
    return b"".join(part for field in fields for part in (_SIZE.pack(len(field)), field))


def _unpack(stored: bytes, path: Path) -> list[bytes]:
    fields = []
    at = 0
    try:
        while at < len(stored):
            (size,) = _SIZE.unpack_from(stored, at)
            at += _SIZE.size + size
            fields.append(stored[at - size : at])
        if at != len(stored):
            raise ValueError(at)
    except (struct.error, ValueError) as error:
        raise JournalError(f"{path}: an entry of the journal is damaged", hint=UNREADABLE) from error
    return fields


def _lease_fields(id: bytes, resources: Iterable[Resource]) -> list[bytes]:
    return [id, *(part for kind, name in sorted(resources) for part in (kind.encode(), name))]


def _resources(fields: list[bytes]) -> frozenset[Resource]:
    return frozenset((kind.decode(), name) for kind, name in zip(fields[::2], fields[1::2], strict=True))
