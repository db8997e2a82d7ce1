"""Errors of the operating system as ours; apart from `errors`, which a daemon loads at each start."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from buildkit_migrate.errors import StorageError

__all__ = ["exists", "storage_errors"]


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns an OSError into a StorageError that names the file."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error


def exists(path: Path) -> bool:
    """Whether there is something at ``path``, links followed. Raises StorageError if that can't be told."""
    with storage_errors(path):
        try:
            path.stat()
        except FileNotFoundError:
            return False
    return True
