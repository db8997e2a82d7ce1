"""Files that hold bbolt databases: locks, mapped reading, writing aside and switching.

Every system call of the package that changes something on disk is made here, in `blocks` or in `ownership`,
so that tests can make each fail.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, Self

from buildkit_migrate._native.bolt import Bucket, Reader
from buildkit_migrate._native.building import Builder
from buildkit_migrate.errors import BusyError, CorruptDatabaseError, StorageError
from buildkit_migrate.files import holders
from buildkit_migrate.files.blocks import Writer, copy, write_all
from buildkit_migrate.files.errors import storage_errors
from buildkit_migrate.files.ownership import dress, model_for

__all__ = [
    "Database",
    "Lock",
    "create",
    "discard_directory",
    "keep",
    "lock",
    "make_directory",
    "make_like",
    "readable",
    "remove",
    "rename",
    "reserve",
    "sync_directory",
    "write",
]

DEFAULT_PAGE_SIZE: Final = 4096

_NOT_WRITABLE: Final = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ETXTBSY)
_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_NO_LOCKS: Final = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_NO_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


class Lock:
    """An open file with a flock on it, held until `release` or the end of the process."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd
        holders.note(fd)

    def release(self) -> None:
        """Unlocks and closes the file; a second call does nothing."""
        if self.fd >= 0:
            # Closing alone would not do: a mapping of the file holds a duplicate of the descriptor. If it
            # can't be unlocked all is done nevertheless, and the end of the process unlocks it.
            holders.forget(self.fd)
            with contextlib.suppress(OSError):
                fcntl.flock(self.fd, fcntl.LOCK_UN)
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def lock(path: Path, *, exclusive: bool, create: bool = False, like: Path | None = None) -> Lock:
    """Opens a regular file and takes a flock on it, without waiting.

    ``create``: made if missing, for those who work with the file ``like`` (see `model_for`); a symbolic link
    in its place is refused. Raises BusyError if another process holds it, CorruptDatabaseError if it is no
    regular file, StorageError.
    """
    with storage_errors(path):
        if create:
            _create(path, like)
        fd = _open_to_lock(path, exclusive, os.O_NOFOLLOW if create else 0)
        try:
            _flock(fd, path, exclusive=exclusive)
            # Between open and flock another process may have put a new file in the place of this one.
            _check_in_place(fd, path)
        except BaseException:
            os.close(fd)
            raise
    return Lock(path, fd)


@contextlib.contextmanager
def readable(path: Path) -> Iterator[int]:
    """Descriptor of a regular file, for reading. Raises CorruptDatabaseError if it is none, StorageError."""
    with storage_errors(path):
        fd = _open_regular(path)
        try:
            yield fd
        finally:
            os.close(fd)


def _open_to_lock(path: Path, exclusive: bool, flags: int) -> int:
    """NFS locks exclusively only what is open for writing. Nothing is ever written to it.

    What may only be read is opened for reading: most file systems lock it all the same.
    """
    if exclusive:
        try:
            return _open_regular(path, flags | os.O_RDWR)
        except OSError as error:
            if error.errno not in _NOT_WRITABLE:
                raise
    return _open_regular(path, flags)


def _open_regular(path: Path, flags: int = 0) -> int:
    # O_NONBLOCK: opening a FIFO must not wait for a writer.
    try:
        fd = os.open(path, os.O_CLOEXEC | os.O_NONBLOCK | flags)
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
    error = CorruptDatabaseError("not a regular file", path=str(path), detail=kind)
    error.hint = f"check the path; if it is right, put the database file in the place of {kind}"
    return error


def _create(path: Path, like: Path | None) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    try:
        dress(fd, path, *model_for(path, like))
    except BaseException:
        remove(path)
        raise
    finally:
        os.close(fd)


def _check_in_place(fd: int, path: Path) -> None:
    if not os.path.samestat(os.fstat(fd), path.stat()):
        raise BusyError(f"{path} was replaced by another process", hint="run the command again")


def _flock(fd: int, path: Path, *, exclusive: bool) -> None:
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno == errno.EWOULDBLOCK:
            holder = holders.holder_of(fd)
            own = "close what has it open, or wait for the thread that works with it"
            raise BusyError(
                f"{path} is in use by {holder}", hint=own if holder == "this process" else None
            ) from error
        if error.errno == errno.EBADF:
            raise StorageError(
                f"{path} may not be opened for writing, and its file system locks no other files",
                hint="run the command as the owner of the file, on a file system that is mounted for writing",
            ) from error
        if error.errno in _NO_LOCKS:
            raise StorageError(
                f"{path} can't be locked on this file system: {error.strerror}",
                hint="mount it with locks, or copy the root to a file system that has them",
            ) from error
        raise


class Database:
    """A bbolt file that is locked and mapped for reading. A file of 0 bytes is a valid empty database.

    What was read from it stays usable after `close`, which ends the lock.
    """

    def __init__(self, held: Lock, *, previous: bool = False) -> None:
        """Takes over the lock, and releases it if the file can't be read.

        ``previous``: it is read as it was before its newest transaction.
        """
        self._lock = held
        self.path = held.path
        try:
            with storage_errors(self.path):
                self.size = os.fstat(held.fd).st_size
                data = mmap.mmap(held.fd, self.size, access=mmap.ACCESS_READ) if self.size else _nothing()
            self.reader = Reader(data, str(self.path), previous)
        except BaseException:
            held.release()
            raise

    @classmethod
    def open(cls, path: Path, *, exclusive: bool = False, previous: bool = False) -> Self:
        """Raises BusyError, CorruptDatabaseError, StorageError."""
        return cls(lock(path, exclusive=exclusive), previous=previous)

    @property
    def root(self) -> Bucket:
        return self.reader.root

    def rename(self, target: Path) -> None:
        """The switch: the file takes the name ``target``, durably, and stays locked. Raises StorageError."""
        rename(self.path, target)
        self.path = target

    def check_in_place(self) -> None:
        """Raises BusyError if another file has its name now, which is then not locked; StorageError."""
        with storage_errors(self.path):
            _check_in_place(self._lock.fd, self.path)

    def close(self) -> None:
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _nothing() -> bytes:
    """An empty database."""
    pages = bytearray()
    metas = Builder(pages.extend, DEFAULT_PAGE_SIZE).finish()
    pages[: len(metas)] = metas
    return bytes(pages)


def write(
    path: Path,
    *,
    mode: int,
    page_size: int,
    fill: Callable[[Builder], object],
    owner_of: Path | None = None,
    after: Reader | None = None,
) -> Database:
    """Writes a new database: ``fill`` pushes its content. Returns it after fsync, locked exclusively.

    ``path`` and ``owner_of``: as for `create`. ``after``: of the database that it will replace; the number of
    its transaction follows on that one's. If anything fails the file is removed.
    Raises StorageError and whatever ``fill`` raises.
    """
    with storage_errors(path):
        held = create(path, mode=mode, owner_of=owner_of)
        try:
            writer = Writer(held.fd)
            try:
                builder = Builder(writer.put, page_size)
                fill(builder)
                # The last blocks go out here, before the meta pages.
                metas = builder.finish(_transaction_after(after))
                writer.finish()
            finally:
                writer.stop()
            os.lseek(held.fd, 0, os.SEEK_SET)
            write_all(held.fd, memoryview(metas))
            os.fsync(held.fd)
            return Database(held)
        except BaseException:
            try:
                remove(path)
            finally:
                held.release()
            raise


def _transaction_after(before: Reader | None) -> int:
    """2, the first one, starts again after the last one that there could be."""
    return 2 if before is None or not 1 <= before.transaction < 2**64 - 2 else before.transaction + 1


def create(path: Path, *, mode: int, owner_of: Path | None = None) -> Lock:
    """A new file, empty and locked exclusively.

    ``path`` must not exist. ``owner_of``: the new file gets owner, group, ACL and attributes of this one, as
    far as they can be had. Raises StorageError, also if that one's owner could not work with it.
    """
    with storage_errors(path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        held = Lock(path, fd)
        try:
            _flock(fd, path, exclusive=True)
            if owner_of is None:
                os.fchmod(fd, mode)
            else:
                dress(fd, path, owner_of, mode)
        except BaseException:
            try:
                remove(path)
            finally:
                held.release()
            raise
        return held


def rename(path: Path, target: Path) -> None:
    """Gives a file another name, durably; a file of that name makes way. Raises StorageError."""
    with storage_errors(target):
        path.rename(target)
        _sync_directory(target.parent)


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def keep(path: Path, name: Path) -> None:
    """Gives a file a second name; another file of that name loses it. Raises StorageError.

    Where the file system can't do that, a copy gets the name, durably.
    """
    with storage_errors(name):
        # A link to the file would lead to its successor.
        if not name.is_symlink() and name.exists() and name.samefile(path):
            return
        try:
            name.unlink(missing_ok=True)
            name.hardlink_to(path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _copy(path, name)


def _copy(path: Path, name: Path) -> None:
    aside = name.with_name(name.name + ".tmp")
    remove(aside)  # left by a run that was killed
    try:
        with (
            readable(path) as source,
            create(aside, mode=stat.S_IMODE(os.fstat(source).st_mode), owner_of=path) as new,
        ):
            copy(source, new.fd)
            info = os.fstat(source)
            os.utime(new.fd, ns=(info.st_atime_ns, info.st_mtime_ns))
            os.fsync(new.fd)
        rename(aside, name)
    except BaseException:
        remove(aside)
        raise


def remove(path: Path) -> None:
    """Removes a file if it is there. Raises StorageError."""
    with storage_errors(path):
        path.unlink(missing_ok=True)


def make_like(path: Path, like: Path | None) -> None:
    """Gives a file or directory of ours to those who work with the file ``like`` (see `model_for`).

    Raises StorageError, also if that one's owner could not work with it.
    """
    with storage_errors(path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            dress(fd, path, *model_for(path, like))
        finally:
            os.close(fd)


def make_directory(path: Path, like: Path | None) -> None:
    """Makes a directory for those who work with a file, durably. Raises as `make_like` does."""
    with storage_errors(path):
        path.mkdir(0o700)
        try:
            make_like(path, like)
            _sync_directory(path.parent)
        except BaseException:
            path.rmdir()
            raise


def reserve(path: Path, size: int) -> None:
    """Makes a new file of zeros, with mode 0600, whose place on the disk is taken. Raises StorageError."""
    with storage_errors(path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)
        finally:
            os.close(fd)


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable. Raises StorageError."""
    with storage_errors(path):
        _sync_directory(path)


def discard_directory(path: Path, names: Iterable[str]) -> None:
    """Removes files from a directory, in this order, and then the directory, if they are there.

    Raises StorageError.
    """
    with storage_errors(path):
        if path.is_dir() and not path.is_symlink():
            for name in names:
                (path / name).unlink(missing_ok=True)
            path.rmdir()
            _sync_directory(path.parent)
