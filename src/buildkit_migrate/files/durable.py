"""Durable changes of files: write a new file aside, sync it, keep the old one, rename.

The system calls for this are all made in this package, so that tests can make each one fail. Only LMDB makes
its own.
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, Generic, Protocol, Self, TypeVar

from buildkit_migrate.errors import BusyError, StorageError
from buildkit_migrate.files.blocks import copy, write_all
from buildkit_migrate.files.errors import exists, is_directory, is_file, look, storage_errors
from buildkit_migrate.files.holders import own_lock
from buildkit_migrate.files.locks import Lock, lock, readable, take_lock
from buildkit_migrate.files.openers import others_with, refuse_others
from buildkit_migrate.files.ownership import copy_access, model_for

__all__ = [
    "Aside",
    "aside_of",
    "discard_directory",
    "keep",
    "make_directory",
    "make_empty",
    "make_like",
    "new_file",
    "remove",
    "remove_aside",
    "rename",
    "reserve",
    "sync_directory",
    "write_content",
]

_TMP_SUFFIX: Final = ".tmp"
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NONBLOCK
"""How files are made. O_NONBLOCK says nothing to a file, but tells ours from a daemon's (see openers)."""
_AT_FDCWD: Final = -100
_RENAME_NOREPLACE: Final = 1
_NO_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


class Switchable(Protocol):
    """A new file that is complete on disk, and locked until `close`."""

    path: Path

    def close(self) -> None: ...


New = TypeVar("New", bound=Switchable)


class Aside(Generic[New]):
    """A new file for ``target``, written under another name, ``path``, until `switch` renames it::

        with Aside(target) as aside:
            new = aside.write(make)
            aside.switch(kept)

    At the end of the block a file that was not switched is deleted and closed. A switched one stays open.
    """

    def __init__(self, target: Path, *, exists: bool = True) -> None:
        """``exists``: the target exists, or a lock ensures that only one process can create it.

        Otherwise nothing is replaced, and another process may be writing under the same temporary name.
        """
        self.target = target
        self.path = aside_of(target)
        self._exists = exists
        self._is_begun = False  # set before `_new`: an interrupt may come when the file has just been made
        self._new: New | None = None

    def write(self, make: Callable[[Path], New]) -> New:
        """Calls ``make`` to create a synced file at ``path``. First deletes what a killed run left there.

        Raises StorageError and whatever ``make`` raises; BusyError if another process is writing there.
        """
        self.clear()
        self._is_begun = True
        self._new = make(self.path)
        return self._new

    def switch(self, kept: Path | None = None) -> None:
        """Renames the file to the target, durably. ``kept``: second name for the old file, see `keep`.

        Raises StorageError; FileExistsError if nothing may be replaced and the target exists; BusyError as
        `rename` does, and with ``kept`` the old file is in its place then.
        """
        assert self._new is not None
        if self._exists:
            refuse_others(self.target)
            if kept is not None:
                keep(self.target, kept)
            rename(self.path, self.target, kept)
        else:
            _rename_new(self.path, self.target)
        self._new.path = self.target
        self._is_begun = False

    def close(self) -> None:
        """Deletes and closes a file that was not switched. Raises StorageError, but closes it even then."""
        if not self._is_begun:
            return
        self._is_begun = False
        try:
            if self._new is None:
                with contextlib.suppress(BusyError):  # it belongs to another process
                    self.clear()
            else:
                remove(self.path)
        finally:
            if self._new is not None:
                self._new.close()

    def clear(self) -> None:
        """Deletes what a killed run left at ``path``; that may be a second name of the target.

        Raises StorageError, and BusyError if another process is writing there.
        """
        if self._exists:
            remove(self.path)
            return
        try:
            with lock(self.path, exclusive=True):
                remove(self.path)
        except StorageError as error:
            if not error.missing:
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@contextlib.contextmanager
def new_file(path: Path, *, mode: int, owner_of: Path | None = None) -> Iterator[Lock]:
    """Creates an empty, exclusively locked file for the block to fill. Deleted if the block fails.

    ``path`` must not exist. ``owner_of``: a file whose owner, group, ACL and attributes are copied as far as
    possible. The lock outlives the block. Raises StorageError, also if the owner of ``owner_of`` could not
    use the new file.
    """
    held = _create(path, mode=mode, owner_of=owner_of)
    with _removed_if_it_fails(held):
        yield held


@contextlib.contextmanager
def _removed_if_it_fails(held: Lock) -> Iterator[None]:
    try:
        yield
    except BaseException:
        try:
            remove(held.path)
        finally:
            held.close()
        raise


def _create(path: Path, *, mode: int, owner_of: Path | None = None) -> Lock:
    with storage_errors(path):
        fd = os.open(path, _NEW, 0o600)
        held = Lock(path, fd)
        with _removed_if_it_fails(held):
            take_lock(fd, path, exclusive=True)
            if owner_of is None:
                os.fchmod(fd, mode)
            else:
                copy_access(fd, path, owner_of, mode)
        return held


def rename(path: Path, target: Path, kept: Path | None = None) -> None:
    """Renames a file durably, replacing any file of that name. ``kept``: a second name of that one, if any.

    If this process has locked the replaced file, others may have opened it and wait for the lock. Raises
    BusyError for these before anything is changed. If one came just then, the file gets its name back from
    ``kept``; without that, the error says that the process must end. Raises StorageError.
    """
    refuse_others(target)
    replaced = own_lock(target)
    with storage_errors(target):
        old = kept if replaced is not None and kept is not None and own_lock(kept) == replaced else None
        path.rename(target)
        try:
            found = "" if replaced is None else others_with(replaced)
        except BaseException:  # an interrupt: nobody has looked
            if old is not None:
                old.rename(target)
            raise
        if found and old is not None:
            old.rename(target)
        _sync_directory(target.parent)
    if found and old is not None:
        raise BusyError(f"{target} was opened by {found} just when it was replaced; the old file is back")
    if found:
        raise BusyError(
            f"{target} was opened by {found} just when it was replaced, and what that writes now is lost",
            hint="end that process, and run the command again",
        )


def _rename_new(path: Path, target: Path) -> None:
    """Like `rename`, but replaces nothing. Raises FileExistsError, StorageError."""
    try:
        with storage_errors(target):
            try:
                target.hardlink_to(path)
                path.unlink()
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                _rename_without_links(path, target)
            _sync_directory(target.parent)
    except StorageError as error:
        if isinstance(error.__cause__, FileExistsError):
            raise error.__cause__ from None
        raise


def _rename_without_links(path: Path, target: Path) -> None:
    """Uses renameat2; where that can't refuse to replace a file either, checks for one first."""
    import ctypes  # here, as daemons that import this module at start don't need it

    names = os.fsencode(path), os.fsencode(target)
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is not None:
        if call(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(number, os.strerror(number), str(target))
    if exists(target, follow_symlinks=False):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    path.rename(target)


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def keep(path: Path, name: Path) -> None:
    """Gives a file a second name, as a hard link; where links are impossible, as a durable copy.

    Another file of that name is renamed to the next free one of ``name.~1~``, ``name.~2~`` and so on.
    Raises StorageError.
    """
    with storage_errors(name):
        # A symbolic link to the file would end up pointing at its replacement.
        there = look(name, follow_symlinks=False)
        if there is not None and os.path.samestat(there, path.stat()):
            return
        _make_way(path, name)
        try:
            name.hardlink_to(path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _copy(path, name)


def _make_way(path: Path, name: Path) -> None:
    """Frees ``name``. An identical copy, which a killed run may have left, is simply deleted."""
    if is_file(name, follow_symlinks=False) and filecmp.cmp(path, name, shallow=False):
        name.unlink()
    elif exists(name, follow_symlinks=False):
        numbered = (name.with_name(f"{name.name}.~{number}~") for number in itertools.count(1))
        rename(name, next(other for other in numbered if not exists(other, follow_symlinks=False)))


def _copy(path: Path, name: Path) -> None:
    def make(aside: Path) -> Lock:
        mode = stat.S_IMODE(os.fstat(source).st_mode)
        with new_file(aside, mode=mode, owner_of=path) as new:
            copy(source, new.fd)
            info = os.fstat(source)
            os.utime(new.fd, ns=(info.st_atime_ns, info.st_mtime_ns))
            os.fsync(new.fd)
        return new

    with readable(path) as source, Aside[Lock](name) as aside, aside.write(make):
        aside.switch()


def write_content(path: Path, content: bytes, *, like: Path, mode: int, kept: Path | None = None) -> None:
    """Makes or replaces a small file, durably; at any moment it has its old or its new content.

    ``like``: a file or directory whose owner and group it gets. ``kept``: second name for the old file, see
    `keep`. Raises StorageError, also if the owner of ``like`` could not use it.
    """

    def make(aside: Path) -> Lock:
        with new_file(aside, mode=mode, owner_of=like) as new, storage_errors(aside):
            write_all(new.fd, memoryview(content))
            os.fsync(new.fd)
        return new

    with Aside[Lock](path) as aside, aside.write(make):
        aside.switch(kept)


def remove(path: Path) -> None:
    """Deletes a file if it exists. Raises StorageError."""
    with storage_errors(path):
        path.unlink(missing_ok=True)


def aside_of(path: Path) -> Path:
    """The name of a new file until it replaces the one at ``path``."""
    return path.with_name(path.name + _TMP_SUFFIX)


def remove_aside(path: Path) -> None:
    """Deletes what a killed run left that was writing `Aside` of this file. Raises StorageError."""
    remove(aside_of(path))


def make_like(path: Path, like: Path | None) -> None:
    """Makes a file or directory of ours usable by those who use the file ``like`` (see `model_for`).

    Raises StorageError, also if the owner of ``like`` could not use it.
    """
    with storage_errors(path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            copy_access(fd, path, *model_for(path, like))
        finally:
            os.close(fd)


def make_empty(path: Path, like: Path) -> None:
    """Creates an empty file for those who use the file ``like``, if it is missing and can be created.

    Raises StorageError, also if the owner of ``like`` could not use it.
    """
    with storage_errors(path):
        try:
            path.touch(0o600, exist_ok=False)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.EROFS, errno.EACCES, errno.EPERM):
                return
            raise
    try:
        make_like(path, like)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def make_directory(path: Path, like: Path | None) -> None:
    """Creates a directory for those who use the file ``like``, durably. Raises as `make_like` does."""
    with storage_errors(path):
        path.mkdir(0o700)
        try:
            make_like(path, like)
            _sync_directory(path.parent)
        except BaseException:
            path.rmdir()
            raise


def reserve(path: Path, size: int) -> None:
    """Creates a file of zeros with mode 0600 and allocates its disk space. Raises StorageError."""
    with storage_errors(path):
        fd = os.open(path, _NEW, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)
        finally:
            os.close(fd)


def sync_directory(path: Path) -> None:
    """Syncs a directory, which makes the names in it durable. Raises StorageError."""
    with storage_errors(path):
        _sync_directory(path)


def discard_directory(path: Path, names: Iterable[str]) -> None:
    """Deletes these files of a directory, in order, and then the directory. What does not exist is skipped.

    Raises StorageError.
    """
    with storage_errors(path):
        if is_directory(path, follow_symlinks=False):
            for name in names:
                (path / name).unlink(missing_ok=True)
            path.rmdir()
            _sync_directory(path.parent)
