"""OSError as StorageError. Not in `buildkit_migrate.errors`, which daemons load at each start."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from buildkit_migrate.errors import StorageError

__all__ = ["exists", "is_directory", "is_file", "is_link", "look", "storage_errors"]


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Translates OSError into StorageError, naming the file."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error


def look(path: Path, *, follow_symlinks: bool = True) -> os.stat_result | None:
    """What is at ``path``, None if there is nothing. Raises StorageError if that can't be determined.

    For users' paths this and the functions below stand in for the methods of `pathlib.Path`. Those let a bare
    PermissionError out or, worse, say that there is nothing: no store, for example, where none can be seen.
    """
    with storage_errors(path):
        try:
            return path.stat(follow_symlinks=follow_symlinks)
        except FileNotFoundError:
            return None


def exists(path: Path, *, follow_symlinks: bool = True) -> bool:
    """Whether there is anything at ``path``. Raises StorageError if that can't be determined."""
    return look(path, follow_symlinks=follow_symlinks) is not None


def is_directory(path: Path, *, follow_symlinks: bool = True) -> bool:
    """Whether there is a directory at ``path``. Raises StorageError if that can't be determined."""
    info = look(path, follow_symlinks=follow_symlinks)
    return info is not None and stat.S_ISDIR(info.st_mode)


def is_file(path: Path, *, follow_symlinks: bool = True) -> bool:
    """Whether there is a regular file at ``path``. Raises StorageError if that can't be determined."""
    info = look(path, follow_symlinks=follow_symlinks)
    return info is not None and stat.S_ISREG(info.st_mode)


def is_link(path: Path) -> bool:
    """Whether there is a symbolic link at ``path``. Raises StorageError if that can't be determined."""
    info = look(path, follow_symlinks=False)
    return info is not None and stat.S_ISLNK(info.st_mode)
