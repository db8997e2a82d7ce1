"""LMDB files: checks before LMDB maps them, and translation of LMDB's errors.

LMDB trusts its file: if pages are missing, reading them kills the process with SIGBUS.
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

__all__ = ["LEAST_MAP", "check_file", "lmdb_errors", "snapshot", "translate"]

# Fields of a meta page: magic number; page size; last page in use and transaction number.
_MAGIC: Final = struct.Struct("<16x4s")
_PAGE_SIZE: Final = struct.Struct("<40xI")
_NEWEST: Final = struct.Struct("<136xQQ")
_META_SIZE: Final = 152

_TRIES: Final = 10

LEAST_MAP: Final = 1
"""Map size in bytes to request when the map need only cover the file; LMDB rounds it up."""


def check_file(path: Path, *, thorough: bool = False) -> None:
    """Raises CorruptDatabaseError unless the meta pages are valid and all pages in use are in the file.

    ``thorough``: also check every page in use. Other processes may write to the file meanwhile.
    """
    with readable(path) as fd:
        if os.fstat(fd).st_size and (thorough or not _is_whole(fd)):
            _walk(fd, path)


def snapshot(path: Path) -> lmdb.Environment:
    """A private copy of a small LMDB file, checked and open for reading.

    This takes no lock, creates no file, and works while others have the file open and write to it, even in
    this process, where LMDB does not allow opening a file twice. Raises BusyError if no consistent copy can
    be read because of constant writes, CorruptDatabaseError, StorageError.
    """
    with readable(path) as fd:
        content = _read_consistent(fd, path)
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


def _read_consistent(fd: int, path: Path) -> bytes:
    """Reads the file between two transactions: a transaction never overwrites pages of the one before."""
    for _ in range(_TRIES):
        before = _metas(fd)
        with open(fd, "rb", closefd=False) as file:
            file.seek(0)
            content = file.read()
        if _metas(fd) == before:
            check_lmdb(content, str(path))
            return content
    raise BusyError(f"{path} is being written to constantly", hint="try again")


def _metas(fd: int) -> tuple[int, list[bytes]]:
    """Page size and the two meta pages, truncated if the file is."""
    first = os.pread(fd, _META_SIZE, 0)
    if len(first) < _META_SIZE:
        return 0, [first]
    (page_size,) = _PAGE_SIZE.unpack_from(first)
    return page_size, [first, os.pread(fd, _META_SIZE, page_size)]


def _is_whole(fd: int) -> bool:
    """Whether this is an LMDB file that is as long as its meta pages say.

    A shorter one may still be sound: trailing pages that were freed before being written don't exist.
    """
    page_size, metas = _metas(fd)
    if len(metas) < 2 or any(len(m) < _META_SIZE or _MAGIC.unpack_from(m)[0] != LMDB_MAGIC for m in metas):
        return False
    # The size is read last: the file may grow, but never shrinks.
    last_page = max(_NEWEST.unpack_from(meta)[0] for meta in metas)
    return page_size > 0 and os.fstat(fd).st_size // page_size > last_page


def _walk(fd: int, path: Path) -> None:
    for tries_left in reversed(range(_TRIES)):
        before = _metas(fd)
        try:
            with mmap.mmap(fd, os.fstat(fd).st_size, access=mmap.ACCESS_READ) as data:
                check_lmdb(data, str(path))
        except CorruptDatabaseError:
            # Pages may be reused once another process has committed twice.
            if tries_left and _metas(fd) != before:
                continue
            raise
        return


@contextlib.contextmanager
def lmdb_errors(path: Path) -> Iterator[None]:
    """Translates an LMDB error into one of ours that names the file."""
    try:
        yield
    except lmdb.Error as error:
        raise translate(error, path) from error


_CORRUPT: Final = (
    lmdb.InvalidError,
    lmdb.CorruptedError,
    lmdb.VersionMismatchError,
    lmdb.PageNotFoundError,
    lmdb.IncompatibleError,
)
_BUSY: Final = (lmdb.ReadersFullError, lmdb.LockError)


def translate(error: lmdb.Error, path: Path) -> Error:
    """Translates an LMDB error into one of ours."""
    text = str(error).removeprefix(f"{path}: ")
    if isinstance(error, _CORRUPT):
        return CorruptDatabaseError(f"LMDB rejects it: {text}", path=str(path))
    if isinstance(error, _BUSY) or "already open in this process" in text:
        return BusyError(f"{path}: {text}", hint="close what uses the store, and try again")
    return StorageError(f"{path}: {text}")
