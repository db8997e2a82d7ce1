"""Files that hold bbolt databases: mapped for reading, and written anew."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from buildkit_migrate._native.bolt import Bucket, Reader
from buildkit_migrate._native.building import Builder
from buildkit_migrate.files.blocks import Writer, write_all
from buildkit_migrate.files.durable import new_file, rename
from buildkit_migrate.files.errors import storage_errors
from buildkit_migrate.files.locks import Lock, check_in_place, lock

__all__ = ["Database", "write"]

DEFAULT_PAGE_SIZE: Final = 4096


class Database:
    """A bbolt file that is locked and mapped for reading. A file of 0 bytes is a valid empty database.

    What was read from it stays usable after `close`, which ends the lock.
    """

    def __init__(self, held: Lock, *, previous: bool = False) -> None:
        """Takes over the lock, and releases it if the file can't be read.

        ``previous``: it is read as it was before its newest transaction.
        """
        self._lock = held
        self.path = held.path
        try:
            with storage_errors(self.path):
                self.size = os.fstat(held.fd).st_size
                data = mmap.mmap(held.fd, self.size, access=mmap.ACCESS_READ) if self.size else _nothing()
            self.reader = Reader(data, str(self.path), previous)
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

    def rename(self, target: Path) -> None:
        """The switch: the file takes the name ``target``, durably, and stays locked. Raises StorageError."""
        rename(self.path, target)
        self.path = target

    def check_in_place(self) -> None:
        """Raises BusyError if another file has its name now, which is then not locked; StorageError."""
        with storage_errors(self.path):
            check_in_place(self._lock.fd, self.path)

    def close(self) -> None:
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


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
    after: Reader | None = None,
) -> Database:
    """Writes a new database: ``fill`` pushes its content. Returns it after fsync, locked exclusively.

    ``path`` and ``owner_of``: as for `new_file`. ``after``: of the database that it will replace; the
    number of its transaction follows on that one's. If anything fails the file is removed.
    Raises StorageError and whatever ``fill`` raises.
    """
    with storage_errors(path), new_file(path, mode=mode, owner_of=owner_of) as held:
        writer = Writer(held.fd)
        try:
            builder = Builder(writer.put, page_size)
            fill(builder)
            # The last blocks go out here, before the meta pages.
            metas = builder.finish(_transaction_after(after))
            writer.finish()
        finally:
            writer.stop()
        os.lseek(held.fd, 0, os.SEEK_SET)
        write_all(held.fd, memoryview(metas))
        os.fsync(held.fd)
        return Database(held)


def _transaction_after(before: Reader | None) -> int:
    """2, the first one, starts again after the last one that there could be."""
    return 2 if before is None or not 1 <= before.transaction < 2**64 - 2 else before.transaction + 1
