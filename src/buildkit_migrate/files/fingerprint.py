"""Whether a file is unchanged, judged by its content: copies and moved files count as the same."""

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

__all__ = ["digest", "digesting", "fingerprint", "fingerprint_of"]

_METAS: Final = 2 * 65536
"""Number of bytes at the start of a store that contain both meta pages, even with the largest pages."""


def fingerprint(path: Path) -> str:
    """Changes whenever a store is used: its size and a digest of its meta pages; "" if it is missing.

    Every transaction changes the meta pages, in bbolt as in LMDB, so the rest need not be read. Raises
    StorageError, and CorruptDatabaseError if it is not a regular file.
    """
    try:
        with readable(path) as fd:
            metas, size = os.pread(fd, _METAS, 0), os.fstat(fd).st_size
    except StorageError as error:
        if error.missing:
            return ""
        raise
    return _text(size, metas)


def fingerprint_of(content: bytes) -> str:
    """The fingerprint of a file with this content."""
    return _text(len(content), content[:_METAS])


def _text(size: int, metas: bytes) -> str:
    return f"{size}:{hashlib.sha256(metas).hexdigest()}"


def digest(path: Path) -> str:
    """Digest of the whole file. Takes seconds for gigabytes. Raises the same errors as `fingerprint`."""
    with readable(path) as fd:
        return _digest(fd)


def _digest(fd: int) -> str:
    with open(fd, "rb", closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def digesting(path: Path) -> Iterator[Callable[[], str]]:
    """Digests a file in the background while the block runs, which may replace it.

    Yields a function that waits for the digest; it returns "" if the system refuses to read. Raises the same
    errors as `fingerprint`.
    """
    with readable(path) as fd, ThreadPoolExecutor(1) as thread:
        found = thread.submit(_digest, fd)

        def result() -> str:
            try:
                return found.result()
            except OSError:
                return ""

        yield result
