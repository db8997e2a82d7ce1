"""The state of a v1 store before its newest transaction, for stores torn by a crash of the host.

bbolt does not overwrite what a transaction frees until the next one, so the previous state may be intact.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from buildkit_migrate.bolt import Builder, Reader, check, rewrite
from buildkit_migrate.errors import CorruptDatabaseError
from buildkit_migrate.files.errors import storage_errors
from buildkit_migrate.files.locks import readable

__all__ = ["check_going_back", "reporting_previous"]

_HINT: Final = "--previous-transaction migrates from there, and loses what the torn one has changed"
_NEEDLESS: Final = "leave --previous-transaction out, or give the worker directory whose store is torn"


def check_going_back(path: Path) -> None:
    """Raises CorruptDatabaseError unless the newest transaction is torn and the previous one is intact.

    It is not torn if all buckets and keys can be read, as a migration does: a torn free list costs no
    records. The caller holds a lock on the file. Raises StorageError.
    """
    if _is_readable(path):
        error = CorruptDatabaseError("its newest transaction is whole: nothing is torn", path=str(path))
        error.hint = _NEEDLESS
        raise error
    if _if_previous_is_whole(path) is None:
        raise CorruptDatabaseError(
            "neither its newest transaction nor the one before is whole", path=str(path)
        )


@contextlib.contextmanager
def reporting_previous(path: Path, *, previous: bool) -> Iterator[None]:
    """Adds to errors about the store at ``path`` whether the transaction before the newest one is intact.

    ``previous``: that one was requested; then errors say if the request is unnecessary.
    """
    try:
        yield
    except CorruptDatabaseError as error:
        if error.path == str(path):
            if previous and _is_readable(path):
                error.hint = _NEEDLESS
            elif not previous and (number := _if_previous_is_whole(path)) is not None:
                error.message += f"; the transaction before it ({number}) is whole"
                error.args = (error.message,)
                error.hint = _HINT
        raise


def _is_readable(path: Path) -> bool:
    """Whether the newest transaction can be read completely. Raises StorageError."""
    try:
        with _read(path, previous=False) as reader:
            if reader is not None:
                rewrite(reader.root, Builder(lambda data: None), ())
    except CorruptDatabaseError:
        return False
    return True


def _if_previous_is_whole(path: Path) -> int | None:
    """Number of the previous transaction if it breaks no rule of the format, else None.

    Raises StorageError.
    """
    with contextlib.suppress(CorruptDatabaseError), _read(path, previous=True) as reader:
        return None if reader is None or check(reader) else reader.transaction
    return None


@contextlib.contextmanager
def _read(path: Path, *, previous: bool) -> Iterator[Reader | None]:
    """Yields None if the file is empty. Raises CorruptDatabaseError, StorageError."""
    with readable(path) as fd, storage_errors(path):
        size = os.fstat(fd).st_size
        yield Reader(mmap.mmap(fd, size, access=mmap.ACCESS_READ), str(path), previous) if size else None
