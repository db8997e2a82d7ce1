"""File locks, and opening paths that must be regular files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Final, Self

from buildkit_migrate.errors import BusyError, CorruptDatabaseError, StorageError
from buildkit_migrate.files import holders
from buildkit_migrate.files.errors import storage_errors
from buildkit_migrate.files.ownership import copy_access, model_for

__all__ = ["Lock", "check_not_replaced", "lock", "readable", "take_lock", "using_own_locks"]

_NOT_WRITABLE: Final = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ETXTBSY)
_TRIES: Final = 20
_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_TAKEN_HERE: Final[ContextVar[list[Lock] | None]] = ContextVar("locks taken in this block", default=None)
_NO_LOCKS: Final = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class Lock:
    """An open file with a flock on it, held until `close` or until the process ends."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd
        holders.remember(fd)
        if (taken := _TAKEN_HERE.get()) is not None:
            taken.append(self)

    def close(self) -> None:
        """Unlocks and closes the file. A second call does nothing."""
        if self.fd >= 0:
            # Closing alone would not unlock: a mapping of the file holds a duplicate of the descriptor. If
            # unlocking fails, the lock lasts until the process ends.
            holders.forget(self.fd)
            with contextlib.suppress(OSError):
                fcntl.flock(self.fd, fcntl.LOCK_UN)
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def lock(path: Path, *, exclusive: bool, create: bool = False, like: Path | None = None) -> Lock:
    """Opens a regular file and takes a flock on it, without waiting.

    ``create``: create the file if it is missing, for those who use the file ``like`` (see `model_for`); a
    symbolic link in its place is rejected. Raises BusyError if another process holds the lock,
    CorruptDatabaseError if this is not a regular file, StorageError.
    """
    with storage_errors(path):
        if create:
            _create(path, like)
        fd = _open_to_lock(path, exclusive, os.O_NOFOLLOW if create else 0)
        try:
            take_lock(fd, path, exclusive=exclusive)
            # Another process may have replaced the file between open and flock.
            check_not_replaced(fd, path)
        except BaseException:
            os.close(fd)
            raise
    return Lock(path, fd)


@contextlib.contextmanager
def using_own_locks() -> Iterator[None]:
    """In this block `lock` is content with a lock on the file that was taken in this block, by this thread.

    So files that stay locked can be looked at again. The first lock must outlive those that use it.
    """
    token = _TAKEN_HERE.set([])
    try:
        yield
    finally:
        _TAKEN_HERE.reset(token)


@contextlib.contextmanager
def readable(path: Path) -> Iterator[int]:
    """Opens a regular file for reading. Raises CorruptDatabaseError if it is not one, StorageError."""
    with storage_errors(path):
        fd = _open_regular(path)
        try:
            yield fd
        finally:
            os.close(fd)


def _open_to_lock(path: Path, exclusive: bool, flags: int) -> int:
    """For an exclusive lock, NFS needs a file open for writing. Nothing is ever written to it.

    A read-only file is opened for reading: most file systems lock it all the same.
    """
    if exclusive:
        try:
            return _open_regular(path, flags | os.O_RDWR)
        except OSError as error:
            if error.errno not in _NOT_WRITABLE:
                raise
    return _open_regular(path, flags)


def _open(path: Path, flags: int) -> int:
    """Another run may have a lease on the file, for microseconds (see openers)."""
    for _ in range(_TRIES):
        with contextlib.suppress(BlockingIOError):
            return os.open(path, flags)
        time.sleep(0.001)
    return os.open(path, flags)


def _open_regular(path: Path, flags: int = 0) -> int:
    # O_NONBLOCK: opening a FIFO must not wait for a writer.
    try:
        fd = _open(path, os.O_CLOEXEC | os.O_NONBLOCK | flags)
    except OSError as error:
        if error.errno not in (errno.ENXIO, errno.EISDIR):  # a socket, a directory
            raise
        raise _not_regular(path, path.stat().st_mode) from error
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        raise _not_regular(path, mode)
    return fd


def _not_regular(path: Path, mode: int) -> CorruptDatabaseError:
    kind = _KINDS.get(stat.S_IFMT(mode), "something else")
    return CorruptDatabaseError(
        "not a regular file",
        path=str(path),
        detail=kind,
        hint=f"check the path; if it is right, replace {kind} with the database file",
    )


def _create(path: Path, like: Path | None) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    try:
        copy_access(fd, path, *model_for(path, like))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


def check_not_replaced(fd: int, path: Path) -> None:
    """Raises BusyError unless ``path`` still names the open file; OSError."""
    if not os.path.samestat(os.fstat(fd), path.stat()):
        raise BusyError(f"{path} was replaced by another process", hint="run the command again")


def _is_locked_here(file: os.stat_result) -> bool:
    """Whether a lock on this file was taken in a block of `using_own_locks`, and is still held."""
    taken = _TAKEN_HERE.get() or ()
    return any(one.fd >= 0 and os.path.samestat(os.fstat(one.fd), file) for one in taken)


def take_lock(fd: int, path: Path, *, exclusive: bool) -> None:
    """Takes a flock without waiting. Raises BusyError, StorageError, OSError."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno == errno.EWOULDBLOCK:
            holder = holders.holder_of(fd)
            if _is_locked_here(os.fstat(fd)):
                return
            own = "close the store that has it open, or wait for the thread that uses it"
            raise BusyError(
                f"{path} is in use by {holder}", hint=own if holder == "this process" else None
            ) from error
        if error.errno == errno.EBADF:
            raise StorageError(
                f"{path} can't be opened for writing, and its file system locks only writable files",
                hint="run the command as the owner of the file, on a file system that is mounted read-write",
            ) from error
        if error.errno in _NO_LOCKS:
            raise StorageError(
                f"{path} can't be locked on this file system: {error.strerror}",
                hint="mount it with lock support, or copy the root to a file system that has it",
            ) from error
        raise
