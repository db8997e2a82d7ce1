"""What a failing disk still reads of a file."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from typing import Final

from buildkit_migrate.files.errors import storage_errors
from buildkit_migrate.files.locks import Lock

__all__ = ["readable"]

_BLOCK: Final = 1 << 20  # bytes
_SECTOR: Final = 4096
"""Bytes that are given up together: disks and page caches fail in no smaller piece."""

_UNREADABLE: Final = frozenset(
    {errno.EIO, errno.EREMOTEIO, errno.ENODATA, errno.EBADMSG, errno.EUCLEAN, errno.EILSEQ}
)
"""What file systems and disks say of data that is lost, checksums that are wrong included."""


def readable(source: Lock) -> tuple[mmap.mmap | bytes, tuple[tuple[int, int], ...]]:
    """The content of a locked file, and the ranges of bytes (start, end) that can't be read: zeros there.

    All of it is read here, as a mapped page that can't be read would end the process. Only a file with such
    ranges is copied into memory. Raises StorageError.
    """
    with storage_errors(source.path):
        size = os.fstat(source.fd).st_size
        if not size:
            return b"", ()
        gaps = tuple(_gaps(source.fd, size))
        if not gaps:
            return mmap.mmap(source.fd, size, access=mmap.ACCESS_READ), ()
        copy = mmap.mmap(-1, size)
        at = 0
        with memoryview(copy) as content:
            for start, end in (*gaps, (size, size)):
                while at < start:
                    count = os.preadv(source.fd, [content[at : min(at + _BLOCK, start)]], at)
                    if not count:
                        break  # it was cut meanwhile
                    at += count
                at = end
        return copy, gaps


def _gaps(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """The unreadable ranges, those that touch as one."""
    start = end = -1
    for first, last in _failing(fd, size):
        if first != end:
            if start >= 0:
                yield start, end
            start = first
        end = last
    if start >= 0:
        yield start, end


def _failing(fd: int, size: int) -> Iterator[tuple[int, int]]:
    scratch = memoryview(bytearray(_BLOCK))
    at, fine_until = 0, 0
    while at < size:
        step = _SECTOR if at < fine_until else _BLOCK
        end = min(at - at % step + step, size)
        try:
            count = os.preadv(fd, [scratch[: end - at]], at)
        except OSError as error:
            if error.errno not in _UNREADABLE:
                raise
            if step == _SECTOR:
                yield at, end
                at = end
            else:
                fine_until = end
        else:
            if not count:
                return  # it was cut meanwhile
            at += count
