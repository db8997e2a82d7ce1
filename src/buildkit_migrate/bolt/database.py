"""bbolt files: opened and mapped for reading, or written in one go."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Self

from buildkit_migrate._native.bolt import Bucket, Reader
from buildkit_migrate._native.building import Builder, rewrite
from buildkit_migrate._native.salvaging import Damaged
from buildkit_migrate.files.blocks import Writer, synced_meanwhile, write_all
from buildkit_migrate.files.durable import new_file, rename
from buildkit_migrate.files.errors import storage_errors
from buildkit_migrate.files.locks import Lock, check_not_replaced, lock

__all__ = ["Database", "compacted_size", "nothing_at", "write"]

DEFAULT_PAGE_SIZE: Final = 4096

_SAMPLE: Final = 64  # pages
_BRANCH, _LEAF, _ELEMENT_BYTES, _MANY = 1, 2, 16, 0xFFFF
"""Types of pages, bytes of an element, and the count that means that a larger one follows."""


class Database:
    """A bbolt file that is locked and mapped for reading. A file of 0 bytes is a valid empty database.

    `close` releases the lock; data read before stays usable.
    """

    def __init__(self, held: Lock, *, previous: bool = False) -> None:
        """Takes over the lock, and releases it if the file can't be read.

        ``previous``: read the state before the newest transaction.
        """
        self._lock = held
        self.path = held.path
        try:
            with storage_errors(self.path):
                self.size = os.fstat(held.fd).st_size
                self._data = (
                    mmap.mmap(held.fd, self.size, access=mmap.ACCESS_READ) if self.size else _nothing()
                )
            self._previous = previous
            self.reader = self.another_reader()
        except BaseException:
            held.close()
            raise

    @classmethod
    def open(cls, path: Path, *, exclusive: bool = False, previous: bool = False) -> Self:
        """Raises BusyError, CorruptDatabaseError, StorageError."""
        return cls(lock(path, exclusive=exclusive), previous=previous)

    @property
    def root(self) -> Bucket:
        return self.reader.root

    def another_reader(self) -> Reader:
        """A reader for another thread."""
        return Reader(self._data, str(self.path), self._previous)

    def previous_reader(self) -> Reader:
        """A reader of the state before the newest transaction. Raises CorruptDatabaseError."""
        return Reader(self._data, str(self.path), True)

    def estimated_fill(self) -> float:
        """About which share of the file is content; some pages stand for all. Raises StorageError."""
        with storage_errors(self.path):
            pages = self.reader.high_water
            sample = range(2, pages, -(-pages // _SAMPLE))
            fill = sum(self._fill_of(page) for page in sample) / len(sample)
            return fill * (1 - self._named_free() / pages)

    def _fill_of(self, page: int) -> float:
        """Share of a page that is content; 1 if it is not one page of a tree. It may be free."""
        size = self.reader.page_size
        number, flags, count, overflow = self._read("<QHHI", page * size)
        element = _ELEMENT_BYTES * count  # the last one
        if number != page or flags not in (_BRANCH, _LEAF) or overflow or not _ELEMENT_BYTES < element < size:
            return 1.0
        first, second, third, fourth = self._read("<IIII", page * size + element)
        end = element + (first + second if flags == _BRANCH else second + third + fourth)
        return min(end / size, 1.0)

    def _named_free(self) -> int:
        """How many pages the free list names, going by its header."""
        if self.reader.freelist is None:
            return 0
        _, count, _, many = self._read("<QxxHIQ", self.reader.freelist * self.reader.page_size)
        return min(many if count == _MANY else count, self.reader.high_water)

    def _read(self, form: str, at: int) -> tuple[int, ...]:
        # Not through the mapping: there the disk's errors are signals.
        content = os.pread(self._lock.fd, struct.calcsize(form), at)
        return struct.unpack(form, content.ljust(struct.calcsize(form), b"\0"))

    def rename(self, target: Path) -> None:
        """Renames the file to ``target``, durably. It stays locked. Raises StorageError."""
        rename(self.path, target)
        self.path = target

    def check_not_replaced(self) -> None:
        """Raises BusyError if another file, which is not locked, has replaced this one; StorageError."""
        with storage_errors(self.path):
            check_not_replaced(self._lock.fd, self.path)

    def close(self) -> None:
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def nothing_at(path: Path) -> Reader:
    """What a database that does not exist yet contains: nothing."""
    return Reader(_nothing(), str(path))


def _nothing() -> bytes:
    """An empty database."""
    pages = bytearray()
    metas = Builder(pages.extend, DEFAULT_PAGE_SIZE).finish()
    pages[: len(metas)] = metas
    return bytes(pages)


def write(
    path: Path,
    *,
    mode: int,
    page_size: int,
    fill: Callable[[Builder], object],
    owner_of: Path | None = None,
    after: Reader | Damaged | None = None,
    free_list: bool = True,
    verify: Callable[[Database], object] | None = None,
) -> Database:
    """Writes a new database that ``fill`` builds. Returns it synced and exclusively locked.

    ``path`` and ``owner_of``: as for `new_file`. ``after``: the database that will be replaced, whose
    transaction number is continued, and the sequence of whose root bucket is kept. ``free_list``: store one.
    ``verify``: reads the file back, from the page cache, while the disk is still writing. If anything fails,
    the file is deleted. Raises StorageError and whatever ``fill`` or ``verify`` raises.
    """
    with storage_errors(path), new_file(path, mode=mode, owner_of=owner_of) as held:
        writer = Writer(held.fd, direct=verify is None)
        try:
            builder = Builder(writer.put, page_size)
            fill(builder)
            # The last blocks are written here, before the meta pages.
            metas = builder.finish(
                _transaction_after(after),
                sequence=_sequence_of(after),
                free_list=free_list,
            )
            writer.finish()
        finally:
            writer.stop()
        os.lseek(held.fd, 0, os.SEEK_SET)
        write_all(held.fd, memoryview(metas))
        if verify is None:
            os.fsync(held.fd)
            return Database(held)
        new = Database(held)
        with synced_meanwhile(held.fd):
            verify(new)
        return new


def _sequence_of(database: Reader | Damaged | None) -> int:
    """Sequence of the root bucket."""
    if isinstance(database, Damaged):
        return database.sequence
    return 0 if database is None else database.root.sequence


def _transaction_after(before: Reader | Damaged | None) -> int:
    """The next transaction number. Numbers start at 2, and start over after the largest possible one."""
    return 2 if before is None or not 1 <= before.transaction < 2**64 - 2 else before.transaction + 1


def compacted_size(source: Bucket, edits: Iterable[bytes] = (), *, free_list: bool = True) -> int:
    """Size in bytes of the file that `rewrite` makes of ``source``. Writes nothing.

    Raises CorruptDatabaseError, EditConflictError.
    """
    size = 0

    def count(block: memoryview) -> None:
        nonlocal size
        size += len(block)

    builder = Builder(count, source.reader.page_size)
    rewrite(source, builder, edits)
    builder.finish(free_list=free_list)
    return size
