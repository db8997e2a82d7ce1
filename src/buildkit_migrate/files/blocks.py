"""Writing a file in blocks, large ones while the next is being built; copying whole files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
from collections import deque
from collections.abc import Iterator
from threading import Condition, Thread
from typing import Final

from buildkit_migrate.files.beside import beside

__all__ = ["Writer", "copy", "synced_meanwhile", "write_all"]

_LARGE: Final = 1 << 20
"""Size in bytes from which a block is written by a thread."""

_BLOCKS: Final = 2
"""How many of them are given to the thread at most."""

_WRITEBACK: Final = 8 << 20  # bytes

_BLOCK: Final = 1 << 20  # bytes

_FICLONE: Final = 0x40049409
"""ioctl request: clone the blocks of another file, shared until one of them is written to."""


def copy(source: int, target: int) -> None:
    """Copies the content of one open file to another, which is empty; as a clone where possible.

    Raises OSError; ENOSPC before anything is written if there is not enough room.
    """
    with contextlib.suppress(OSError):
        fcntl.ioctl(target, _FICLONE, source)
        return
    size = os.fstat(source).st_size
    place = os.fstatvfs(target)
    if size > place.f_bavail * place.f_frsize:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: a copy of {size} bytes is needed")
    at = 0
    # The kernel, or even the server, may copy without moving the data through here; not on all file systems.
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
            # Direct I/O may fail after all: sizes and addresses must be multiples of the disk's block size.
            if error.errno != errno.EINVAL or not _set_direct(fd, False):
                raise


class Writer:
    """Writes the blocks of a new file in order, large ones while the next is being built.

    One large block is being written and one waits, so that the disk always has something to do. Large blocks
    bypass the page cache where the file system allows it. For gigabytes, finding room in the cache and
    copying often takes the kernel longer than the disk needs, and evicts what others have cached.

    After an interrupt the caller may close and delete the file while the writer thread is still writing, so
    the thread owns its descriptor and keeps the block alive. It ends when no block waits.
    """

    def __init__(self, fd: int, *, direct: bool = True) -> None:
        """``direct``: bypass the page cache; not for a file that will be read at once."""
        self._fd = fd
        self._direct = direct
        self._changed = Condition()  # of what follows, up to the error
        self._blocks: deque[memoryview] = deque()  # the first is being written
        self._is_running = False  # a thread writes them
        self._is_over = False  # no more of them are to be written
        self._error: BaseException | None = None
        self._written = self._begun = 0

    def put(self, block: memoryview) -> None:
        """Starts writing a block, which must not change until the next call but one returns.

        Raises the error of this block or of one before.
        """
        if len(block) >= _LARGE:
            with self._changed:
                self._changed.wait_for(lambda: len(self._blocks) < _BLOCKS)
            self._raise_error()
            if self._direct and self._written == 0:
                self._direct = False  # once is enough
                _set_direct(self._fd, True)
            with contextlib.suppress(RuntimeError):  # no thread can be started: write it here
                self._write_beside(block)
                return
        self._wait()
        self._write(self._fd, block)
        self._raise_error()

    def finish(self) -> None:
        """Waits until everything is written. Raises the error if that failed."""
        self._wait()
        _set_direct(self._fd, False)

    def stop(self) -> None:
        """Waits until no write is in progress; blocks that wait are not written any more."""
        self._is_over = True
        with self._changed:
            self._changed.wait_for(lambda: not self._is_running)

    def _wait(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._is_running)
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _write_beside(self, block: memoryview) -> None:
        """Raises RuntimeError if there is no thread and none can be started."""
        with self._changed:
            if self._is_running:
                self._blocks.append(block)
                return
        # If an interrupt prevents the thread from starting, the descriptor is closed with its object.
        thread = Thread(target=self._write_blocks, args=(io.FileIO(os.dup(self._fd), "wb"),))
        self._blocks.append(block)
        self._is_running = True
        try:
            thread.start()
        except BaseException:
            self._blocks.clear()
            self._is_running = False
            raise

    def _write_blocks(self, own: io.FileIO) -> None:
        with own:
            while True:
                with self._changed:
                    if self._is_over or self._error is not None:
                        self._blocks.clear()
                    if not self._blocks:
                        self._is_running = False
                        self._changed.notify()
                        return
                    block = self._blocks[0]
                self._write(own.fileno(), block)
                with self._changed:
                    if self._blocks:  # none if starting this thread was interrupted
                        self._blocks.popleft()
                    self._changed.notify()

    def _write(self, fd: int, block: memoryview) -> None:
        try:
            write_all(fd, block)
            self._written += len(block)
            if self._written - self._begun >= _WRITEBACK:
                # The kernel alone would put off gigabytes of writing until fsync. This call makes it start
                # now; it drops only pages that are on the disk already.
                with contextlib.suppress(OSError):
                    os.posix_fadvise(fd, self._begun, self._written - self._begun, os.POSIX_FADV_DONTNEED)
                self._begun = self._written
        except BaseException as error:
            self._error = error


@contextlib.contextmanager
def synced_meanwhile(fd: int) -> Iterator[None]:
    """Syncs a file while the block, which does not change it, runs. Raises OSError when both are done."""
    with beside(lambda: os.fsync(fd)) as synced:
        yield
        synced()


def _set_direct(fd: int, direct: bool) -> bool:
    """Switches direct I/O (bypassing the page cache) on or off. Returns whether that changed anything."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    wanted = flags | os.O_DIRECT if direct else flags & ~os.O_DIRECT
    if wanted == flags:
        return False
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, wanted)
    except OSError:
        return False
    return True
