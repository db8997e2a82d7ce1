"""The v1 store as it was before its newest transaction, where that is torn: the host died while it wrote.

bbolt leaves what a transaction frees as it is until the next one, so the one before may be whole.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from buildkit_migrate.bolt import Reader, check, readable
from buildkit_migrate.errors import CorruptDatabaseError
from buildkit_migrate.files.errors import storage_errors

__all__ = ["check_going_back", "previous_is_told"]

_HINT: Final = "--previous-transaction migrates from there, and loses what the torn one has changed"


def check_going_back(path: Path) -> None:
    """Raises CorruptDatabaseError unless the newest transaction is torn and the one before it is whole.

    The caller holds a lock on the file. All pages are looked at. Raises StorageError.
    """
    if _if_whole(path, previous=False) is not None:
        error = CorruptDatabaseError("its newest transaction is whole: nothing is torn", path=str(path))
        error.hint = "leave --previous-transaction out, or give the worker directory whose store is torn"
        raise error
    if _if_whole(path, previous=True) is None:
        raise CorruptDatabaseError(
            "neither its newest transaction nor the one before is whole", path=str(path)
        )


@contextlib.contextmanager
def previous_is_told(path: Path, *, previous: bool) -> Iterator[None]:
    """An error about the store at ``path`` also says whether the transaction before the newest one is whole.

    ``previous``: it is that one which is read, so there is nothing to tell.
    """
    try:
        yield
    except CorruptDatabaseError as error:
        if (
            not previous
            and error.path == str(path)
            and (number := _if_whole(path, previous=True)) is not None
        ):
            error.message += f"; the transaction before it ({number}) is whole"
            error.args = (error.message,)
            error.hint = _HINT
        raise


def _if_whole(path: Path, *, previous: bool) -> int | None:
    """Number of the transaction if no rule of the format is broken in it, else None. Raises StorageError."""
    with contextlib.suppress(CorruptDatabaseError), readable(path) as fd, storage_errors(path):
        size = os.fstat(fd).st_size
        if size == 0:
            return None if previous else 0
        reader = Reader(mmap.mmap(fd, size, access=mmap.ACCESS_READ), str(path), previous)
        return None if check(reader) else reader.transaction
    return None
