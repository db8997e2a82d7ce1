"""LMDB files: what can be told of one before LMDB maps it, and LMDB's errors as ours.

LMDB trusts its file: where pages are missing, reading ends the process with a bus error.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import lmdb

from buildkit_migrate._native.packing import check_lmdb
from buildkit_migrate.errors import BusyError, CorruptDatabaseError, Error, StorageError
from buildkit_migrate.files.errors import storage_errors
from buildkit_migrate.files.locks import readable
from buildkit_migrate.lmdb import LMDB_MAGIC

__all__ = ["LEAST_MAP", "check_file", "lmdb_errors", "snapshot", "translated"]

# Of a meta page: magic number; page size; last page in use and number of the transaction.
_MAGIC: Final = struct.Struct("<16x4s")
_PAGE_SIZE: Final = struct.Struct("<40xI")
_NEWEST: Final = struct.Struct("<136xQQ")
_META_SIZE: Final = 152

_TRIES: Final = 10

LEAST_MAP: Final = 1
"""Bytes of address space to ask for if it must only be what the file needs; LMDB rounds it up to that."""


def check_file(path: Path, *, thorough: bool = False) -> None:
    """Raises CorruptDatabaseError unless meta pages make sense and all pages in use are in the file.

    ``thorough``: all pages in use are looked at, too. Other processes may write to the file meanwhile.
    """
    with readable(path) as fd:
        if os.fstat(fd).st_size and (thorough or not _is_whole(fd)):
            _walk(fd, path)


def snapshot(path: Path) -> lmdb.Environment:
    """A private copy of a small LMDB file, checked and open for reading; it stays as it is at this moment.

    It takes no lock and makes no file, and others may have the file open and write to it, also in this
    process, where LMDB lets nobody open a file twice. Raises BusyError if it never stands still,
    CorruptDatabaseError, StorageError.
    """
    with readable(path) as fd:
        content = _standing_still(fd, path)
    with storage_errors(path):
        copy = os.memfd_create("lmdb", os.MFD_CLOEXEC)
        with open(copy, "wb") as file:  # noqa: PTH123 - it has no path
            file.write(content)
            file.flush()
            with lmdb_errors(path):
                return lmdb.open(
                    f"/proc/self/fd/{copy}",
                    subdir=False,
                    map_size=LEAST_MAP,
                    readonly=True,
                    create=False,
                    lock=False,
                )


def _standing_still(fd: int, path: Path) -> bytes:
    """What is in the file between two transactions: what one writes lies beside what the last one left."""
    for _ in range(_TRIES):
        before = _metas(fd)
        with open(fd, "rb", closefd=False) as file:
            file.seek(0)
            content = file.read()
        if _metas(fd) == before:
            check_lmdb(content, str(path))
            return content
    raise BusyError(f"{path} is being written all the time", hint="try again")


def _metas(fd: int) -> tuple[int, list[bytes]]:
    """Page size and the two meta pages, or what there is of them."""
    first = os.pread(fd, _META_SIZE, 0)
    if len(first) < _META_SIZE:
        return 0, [first]
    (page_size,) = _PAGE_SIZE.unpack_from(first)
    return page_size, [first, os.pread(fd, _META_SIZE, page_size)]


def _is_whole(fd: int) -> bool:
    """Whether the file is an LMDB file as long as it says.

    One that is shorter may be sound nevertheless: pages that were freed before they were written are not
    there if they are the last ones.
    """
    page_size, metas = _metas(fd)
    if len(metas) < 2 or any(len(m) < _META_SIZE or _MAGIC.unpack_from(m)[0] != LMDB_MAGIC for m in metas):
        return False
    # The size comes last: the file may grow, but it never shrinks.
    last_page = max(_NEWEST.unpack_from(meta)[0] for meta in metas)
    return page_size > 0 and os.fstat(fd).st_size // page_size > last_page


def _walk(fd: int, path: Path) -> None:
    for tries_left in reversed(range(_TRIES)):
        before = _metas(fd)
        try:
            with mmap.mmap(fd, os.fstat(fd).st_size, access=mmap.ACCESS_READ) as data:
                check_lmdb(data, str(path))
        except CorruptDatabaseError:
            # Pages are used again once another process has committed twice.
            if tries_left and _metas(fd) != before:
                continue
            raise
        return


@contextlib.contextmanager
def lmdb_errors(path: Path) -> Iterator[None]:
    """Turns an error of LMDB into one of ours that names the file."""
    try:
        yield
    except lmdb.Error as error:
        raise translated(error, path) from error


_CORRUPT: Final = (
    lmdb.InvalidError,
    lmdb.CorruptedError,
    lmdb.VersionMismatchError,
    lmdb.PageNotFoundError,
    lmdb.IncompatibleError,
)
_BUSY: Final = (lmdb.ReadersFullError, lmdb.LockError)


def translated(error: lmdb.Error, path: Path) -> Error:
    """An error of LMDB as one of ours."""
    text = str(error).removeprefix(f"{path}: ")
    if isinstance(error, _CORRUPT):
        return CorruptDatabaseError(f"LMDB refuses it: {text}", path=str(path))
    if isinstance(error, _BUSY) or "already open in this process" in text:
        return BusyError(f"{path}: {text}", hint="close what uses the store, and try again")
    return StorageError(f"{path}: {text}")
