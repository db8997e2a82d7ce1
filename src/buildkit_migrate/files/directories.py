"""Durable changes of directories: make one like another, move a tree to another place, delete."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path
from typing import Final

from buildkit_migrate.errors import BusyError
from buildkit_migrate.files.durable import aside_of, remove, sync_directory
from buildkit_migrate.files.errors import exists, is_directory, storage_errors
from buildkit_migrate.files.holders import own_lock
from buildkit_migrate.files.openers import others_with, refuse_others
from buildkit_migrate.files.ownership import access_of, copy_access

__all__ = ["make_directory_like", "move", "remove_if_empty", "remove_tree"]

_NOT_EMPTY: Final = (errno.ENOTEMPTY, errno.EEXIST)


def make_directory_like(path: Path, like: Path) -> None:
    """Creates a directory with the owner, group and mode of another one, durably, if it is missing.

    It has them from the start: it is made under another name. Raises StorageError, also if the owner of
    ``like`` could not use it.
    """
    if is_directory(path):
        return
    aside = aside_of(path)
    remove_if_empty(aside)
    with storage_errors(path):
        aside.mkdir(0o700)
        try:
            fd = os.open(aside, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                copy_access(fd, path, like, access_of(like).mode)
            finally:
                os.close(fd)
            aside.rename(path)
        except BaseException:
            aside.rmdir()
            raise
    sync_directory(path.parent)


def move(path: Path, target: Path) -> None:
    """Renames a file or directory, which may change the directory that it is in, durably.

    Nothing may be at ``target``. If this process has locked the file, others may have opened it and wait for
    the lock: raises BusyError for these, and the file keeps its name. Raises StorageError, also if they are
    in different file systems.
    """
    refuse_others(path)
    held = own_lock(path)
    with storage_errors(path):
        path.rename(target)
        if held is not None and (found := others_with(held)):
            if not exists(path, follow_symlinks=False):
                target.rename(path)
            raise BusyError(f"{path} was opened by {found} just when it was moved to {target.name}")
    for directory in dict.fromkeys((target.parent, path.parent)):
        sync_directory(directory)


def remove_if_empty(path: Path) -> None:
    """Deletes a directory, durably, if it exists and has nothing in it. Raises StorageError."""
    with storage_errors(path):
        try:
            path.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno in _NOT_EMPTY:
                return
            raise
    sync_directory(path.parent)


def remove_tree(path: Path) -> None:
    """Deletes a file, or a directory with all that is in it, if it exists. Raises StorageError."""
    with storage_errors(path):
        if is_directory(path, follow_symlinks=False):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(path)
        else:
            remove(path)
