"""OSError as StorageError. Not in `buildkit_migrate.errors`, which daemons load at each start."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from buildkit_migrate.errors import StorageError

__all__ = ["exists", "storage_errors"]


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Translates OSError into StorageError, naming the file."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error


def exists(path: Path) -> bool:
    """Whether ``path`` exists; follows symbolic links. Raises StorageError if that can't be determined."""
    with storage_errors(path):
        try:
            path.stat()
        except FileNotFoundError:
            return False
    return True
