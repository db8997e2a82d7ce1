"""Writing the blocks of a file, a large one while the next is being built; and copying a whole file."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
from threading import Event, Thread
from typing import Final

__all__ = ["Writer", "copy", "write_all"]

_LARGE: Final = 1 << 20
"""Bytes of a block that is worth a thread; a file of fewer has none."""

_WRITEBACK: Final = 8 << 20  # bytes

_BLOCK: Final = 1 << 20  # bytes

_FICLONE: Final = 0x40049409
"""Request of an ioctl: the file gets the blocks of another, shared until one of them is written to."""


def copy(source: int, target: int) -> None:
    """Copies the content of one open file to another, which is empty; as a clone where there are some.

    Raises OSError, with ENOSPC before anything is written if there is no room for it.
    """
    with contextlib.suppress(OSError):
        fcntl.ioctl(target, _FICLONE, source)
        return
    size = os.fstat(source).st_size
    place = os.fstatvfs(target)
    if size > place.f_bavail * place.f_frsize:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: a copy of {size} bytes is needed")
    at = 0
    # The system may copy by itself, a server even without sending it here; not all file systems can.
    with contextlib.suppress(OSError):
        while at < size and (count := os.copy_file_range(source, target, size - at, at, at)):
            at += count
    os.lseek(target, at, os.SEEK_SET)
    while block := os.pread(source, _BLOCK, at):
        write_all(target, memoryview(block))
        at += len(block)


def write_all(fd: int, block: memoryview) -> None:
    while block:
        try:
            block = block[os.write(fd, block) :]
        except OSError as error:
            # Direct writes may not suit the disk after all: sizes and addresses must be multiples of its own.
            if error.errno != errno.EINVAL or not _set_direct(fd, False):
                raise


class Writer:
    """Writes the blocks of a new file one after the other, a large one while the next is being built.

    Large blocks go past the page cache where the file system lets them: it would often take the kernel
    longer to find room for gigabytes, and to copy them there, than the disk takes; and what others have
    cached stays.

    Who is interrupted may close and remove the file, and go on, while a thread still writes a block. So the
    thread has a descriptor of its own, keeps the block alive, and ends with it.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._done: Event | None = None  # of a thread
        self._error: BaseException | None = None
        self._written = self._begun = 0

    def put(self, block: memoryview) -> None:
        """Begins with a block, which stays as it is until the next call returns.

        Raises what went wrong with it or with the one before.
        """
        self._wait()
        if len(block) >= _LARGE:
            if self._written == 0:
                _set_direct(self._fd, True)
            with contextlib.suppress(RuntimeError):  # there may be no thread to be had
                self._write_beside(block)
                return
        self._write(self._fd, block)
        self._wait()

    def finish(self) -> None:
        """Waits until all is written. Raises what went wrong."""
        self._wait()
        _set_direct(self._fd, False)

    def stop(self) -> None:
        """Waits until nothing more is being written."""
        if self._done is not None:
            self._done.wait()

    def _wait(self) -> None:
        self.stop()
        self._done = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _write_beside(self, block: memoryview) -> None:
        done = Event()

        def work(own: io.FileIO) -> None:
            try:
                with own:
                    self._write(own.fileno(), block)
            finally:
                done.set()

        # If an interrupt keeps the thread from its start, the descriptor ends with its object.
        Thread(target=work, args=(io.FileIO(os.dup(self._fd), "wb"),)).start()
        self._done = done

    def _write(self, fd: int, block: memoryview) -> None:
        try:
            write_all(fd, block)
            self._written += len(block)
            if self._written - self._begun >= _WRITEBACK:
                # Left to itself the kernel would keep gigabytes for the fsync. This call is how Python can
                # ask it to write; of the pages in question it drops only those that are on the disk.
                with contextlib.suppress(OSError):
                    os.posix_fadvise(fd, self._begun, self._written - self._begun, os.POSIX_FADV_DONTNEED)
                self._begun = self._written
        except BaseException as error:
            self._error = error


def _set_direct(fd: int, direct: bool) -> bool:
    """Sets whether what is written goes past the page cache. Returns whether that changed anything."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    wanted = flags | os.O_DIRECT if direct else flags & ~os.O_DIRECT
    if wanted == flags:
        return False
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, wanted)
    except OSError:
        return False
    return True
