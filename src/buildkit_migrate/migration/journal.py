"""What an interrupted migration needs to go on, and a finished one to be undone: an LMDB environment.

It lies in a directory beside the new store; docs/format.md describes its entries.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
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
from buildkit_migrate.files.errors import is_directory, is_link, look, storage_errors
from buildkit_migrate.migration.fingerprint import fingerprint
from buildkit_migrate.model import Before, Resource

if TYPE_CHECKING:
    import lmdb

__all__ = [
    "APPLIED",
    "APPLYING",
    "EDIT",
    "NOTHING",
    "PUT_BACK",
    "UNDOING",
    "Journal",
    "State",
    "discard",
    "is_untouched",
    "journal_path",
    "kept_path",
    "leases_before",
    "read_state",
]

APPLYING: Final = "applying"
APPLIED: Final = "applied"
"""Leases and labels are as planned; the switch is next, or was made."""
UNDOING: Final = "undoing"

NOTHING: Final = "nothing"
"""A way back: containerd's database is as it was."""
PUT_BACK: Final = "put-back"
"""A way back: the kept database takes its place again."""
EDIT: Final = "edit"
"""A way back: labels are put into what is there, and leases taken out."""
_WITHOUT_KEPT: Final = (NOTHING, PUT_BACK)
"""Ways back after which the kept database may be missing."""

_FORMAT: Final = 2
_KNOWN_FORMATS: Final = (1, _FORMAT)
_STATE: Final = b"\0"
_LEASE: Final = b"L"
_EXPIRING: Final = b"X"
_SNAPSHOT: Final = b"S"
_BLOB: Final = b"B"
_FINISHED: Final = b"F"

_FINGERPRINTS: Final = ("v1", "kept", "containerd_after", "v2")
_BATCH: Final = 96
"""Leases that may be written and not yet noted; each of them costs the next run one question."""

_FIRST_MAP: Final = 1 << 20
"""Bytes of address space; it grows by doubling, the file only with what is written."""
_OVERHEAD: Final = 64
"""Bytes that an entry takes beside its fields, at most."""

_DATA: Final = "data.mdb"
_LOCK: Final = "lock.mdb"
_LOCK_SIZE: Final = 8192
"""Bytes that LMDB wants for its 126 readers."""
_SIZE: Final = struct.Struct("<I")

_UNREADABLE: Final = "restore the journal from a backup, or remove it: then there is no way back to v1"


@dataclass(frozen=True)
class State:
    """What the journal is about, and how far it is.

    ``v1``: fingerprint of the v1 store. ``plan``: digest of the edits that make the new store.
    ``containerd``: which one, see `Containerd.identity`. ``kept_path``: the name that its database gets
    before it is replaced; ``kept``: its fingerprint; ``kept_digest``: digest of all of it, "" if the run
    did not come that far. ``containerd_after``: fingerprint of the database that takes its place, noted
    right before that; "" until then. All of them are "" if containerd runs. ``v2``: fingerprint of the new
    store, "" until it is complete. ``used``: others may have used the database in its place before a run
    went on. ``upstream_exact``: the new store has no sizes of blobs; before format 2 none had them.
    ``previous``: it was made of v1 as that was before its newest transaction.
    ``way_back``: how an undo that was begun goes back, "" before that.
    """

    v1: str
    plan: str
    containerd: Mapping[str, str]
    phase: str = APPLYING
    kept_path: str = ""
    kept: str = ""
    kept_digest: str = ""
    containerd_after: str = ""
    v2: str = ""
    used: bool = False
    upstream_exact: bool = True
    previous: bool = False
    way_back: str = ""


def journal_path(v2: Path) -> Path:
    return v2.with_name(v2.name + ".journal")


def kept_path(state: State, database: Path | None) -> Path:
    """The old database lies beside the one in its place, which may have been moved with it since."""
    kept = Path(state.kept_path)
    return kept if database is None else database.with_name(kept.name)


def is_untouched(state: State, database: Path | None) -> bool:
    """Whether a database file is still that of before the migration, whoever has used it since.

    It gets its second name right before it is replaced, and until then both are of one file; or they are
    equal, if they were copied since.
    """
    if not state.kept_path:
        return False
    kept = kept_path(state, database)
    database = database or Path(state.containerd["place"])
    now = fingerprint(database)
    if now in ("", state.kept, state.containerd_after):
        return now == state.kept != ""
    with storage_errors(database), contextlib.suppress(FileNotFoundError):
        return os.path.samestat(kept.stat(), database.stat()) or fingerprint(kept) == now
    return state.phase == APPLYING or (state.phase == UNDOING and state.way_back in _WITHOUT_KEPT)


class Journal:
    """The journal of one store; a context manager.

    Only who holds the lock on the v1 store writes it. Others may read it meanwhile.
    """

    def __init__(self, path: Path, environment: lmdb.Environment, state: State) -> None:
        """`create` and `open` make one."""
        self.path = path
        self.state = state
        self._environment = environment
        self._unwritten: list[bytes] = []
        self._batches = self._count(_FINISHED)  # its entries are numbered from 0, in their order

    @classmethod
    def create(cls, path: Path, state: State, before: Before, *, like: Path | None = None) -> Self:
        """A new one, with all that will be replaced; durable when this returns. Raises StorageError.

        ``like``: the store whose users may work with it; by default it is for the owner of its directory.
        """
        discard(path)  # one that was never completed
        entries = [
            *((_BLOB, [digest, value]) for digest, value in before.blobs.items()),
            *((_LEASE, _lease_fields(id, resources)) for id, resources in before.leases.items()),
            *((_SNAPSHOT, [name, value]) for name, value in before.snapshots.items()),
            *((_EXPIRING, [id, *itertools.chain(*labels.items())]) for id, labels in before.expiring.items()),
        ]
        size = sum(sum(map(len, fields)) + _OVERHEAD for _, fields in entries)
        with contextlib.ExitStack() as failed:
            # A disk that fills up may leave half of the meta pages, which nobody could read.
            failed.callback(discard, path)
            make_directory(path, like)
            # LMDB maps it with holes, and on a full disk writing to one ends the process with a bus error.
            reserve(path / _LOCK, _LOCK_SIZE)
            environment = _open(path, map_size=max(_FIRST_MAP, 2 * size), create=True)
            failed.callback(environment.close)

            def fill(transaction: lmdb.Transaction[bytes]) -> None:
                transaction.put(_STATE, _encode(state))
                numbers: dict[bytes, int] = {}
                for kind, fields in entries:
                    number = numbers.get(kind, 0)
                    transaction.put(_key(kind, number), _pack(fields), append=True)
                    numbers[kind] = number + 1

            _write(environment, path, fill)
            for name in (_DATA, _LOCK):
                make_like(path / name, like)
            sync_directory(path)
            failed.pop_all()
        return cls(path, environment, state)

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> Self | None:
        """The one that is there, None if there is none. Raises JournalError, StorageError.

        ``read_only``: as it is at this moment, whoever writes it.
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
        """Notes what is still to be noted."""
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
        """Changes fields of the state, durably, and notes the leases that wait for it."""
        self.state = replace(self.state, **changes)
        self._note()

    def lease_finished(self, id: bytes) -> None:
        """The lease has all its resources. Written with others, sooner or later."""
        self._unwritten.append(id)
        if len(self._unwritten) >= _BATCH:
            self._note()

    def add(self, before: Before) -> None:
        """Adds labels that a run which goes on will remove, too, if they are not known yet."""
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
        entries = {_STATE: _encode(self.state)}
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
    """The state in the journal at ``path``; None if there is no journal, or one that was never completed.

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
    """The leases that a migration of a running containerd found, as far as the journal at ``path`` knows.

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
    """LMDB writes to what it opens, and would follow a link out of the root."""
    if is_link(place):
        raise JournalError(f"{place} is a symbolic link", hint="remove the link")


def _state_in(environment: lmdb.Environment, path: Path) -> State | None:
    with _errors(path), environment.begin() as transaction:
        stored = transaction.get(_STATE)
    return None if stored is None else _decode(stored, path)


def discard(path: Path) -> None:
    """Removes a journal, if there is one. Raises StorageError."""
    discard_directory(path, (_DATA, _LOCK))


def _open(path: Path, *, map_size: int, create: bool = False) -> lmdb.Environment:
    import lmdb

    from buildkit_migrate.lmdb.file import check_file

    with _errors(path):
        if not create:
            check_file(path / _DATA)
        # Of an existing file LMDB maps all, however small the map is to be.
        return lmdb.open(os.fsencode(path), map_size=map_size, create=create, mode=0o600, readahead=False)


def _snapshot(path: Path) -> lmdb.Environment | None:
    """None if another process has just removed the journal."""
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
    """One transaction, durable when this returns. The map grows until all that ``fill`` puts fits into it."""
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
        raise JournalError(f"{error}", hint=_UNREADABLE) from error
    except lmdb.Error as error:
        known = translate(error, path)
        if isinstance(known, CorruptDatabaseError):
            raise JournalError(f"{known}", hint=_UNREADABLE) from error
        raise known from error


def _encode(state: State) -> bytes:
    return json.dumps({"format": _FORMAT, **asdict(state)}, sort_keys=True).encode()


def _decode(stored: bytes, path: Path) -> State:
    try:
        fields = json.loads(stored)
        if fields.pop("format") not in _KNOWN_FORMATS:
            raise JournalError(
                f"{path}: a journal of a newer version",
                hint="use the version of buildkit-migrate that made it",
            )
        for name in _FINGERPRINTS:
            fields[name] = _without_time(fields[name])
        if fields["phase"] == UNDOING:
            # Before there was this field: only a database that was put back, or not yet kept, is missing.
            fields.setdefault("way_back", PUT_BACK)
        return State(**fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise JournalError(f"{path}: the journal's state can't be read", hint=_UNREADABLE) from error


def _without_time(old: str) -> str:
    """Fingerprints had a time of change between size and digest, which a copy does not keep."""
    parts = old.split(":")
    return ":".join((parts[0], parts[-1])) if len(parts) == 3 else old


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
        raise JournalError(f"{path}: an entry of the journal is damaged", hint=_UNREADABLE) from error
    return fields


def _lease_fields(id: bytes, resources: Iterable[Resource]) -> list[bytes]:
    return [id, *(part for kind, name in sorted(resources) for part in (kind.encode(), name))]


def _resources(fields: list[bytes]) -> frozenset[Resource]:
    return frozenset((kind.decode(), name) for kind, name in zip(fields[::2], fields[1::2], strict=True))
