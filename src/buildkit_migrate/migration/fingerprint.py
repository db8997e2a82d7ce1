"""Whether a file is still the one that it was, by what is in it: copies and moved files are the same."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from buildkit_migrate.errors import StorageError
from buildkit_migrate.files.locks import readable

__all__ = ["digest", "digesting", "fingerprint"]

_METAS: Final = 2 * 65536
"""Bytes at the start of a store that have both meta pages, as large as pages can be."""


def fingerprint(path: Path) -> str:
    """Tells whether a store was used since: its size, and a digest of its meta pages; "" if it is missing.

    Every transaction changes the meta pages, of bbolt as of LMDB; so the rest need not be read. Raises
    StorageError, and CorruptDatabaseError if it is no regular file.
    """
    try:
        with readable(path) as fd:
            metas, size = os.pread(fd, _METAS, 0), os.fstat(fd).st_size
    except StorageError as error:
        if error.missing:
            return ""
        raise
    return f"{size}:{hashlib.sha256(metas).hexdigest()}"


def digest(path: Path) -> str:
    """Of all that is in the file. Takes seconds for gigabytes. Raises as `fingerprint` does."""
    with readable(path) as fd:
        return _digest(fd)


def _digest(fd: int) -> str:
    with open(fd, "rb", closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def digesting(path: Path) -> Iterator[Callable[[], str]]:
    """Digests a file beside what is done in the block, which may put another one in its place.

    Gives a function that waits for the digest; "" if the system refuses to read. Raises as `fingerprint`
    does.
    """
    with readable(path) as fd, ThreadPoolExecutor(1) as thread:
        found = thread.submit(_digest, fd)

        def result() -> str:
            try:
                return found.result()
            except OSError:
                return ""

        yield result
