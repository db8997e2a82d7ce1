"""Limits of the hardware: time for hashing blocks, and for copying bytes."""

from __future__ import annotations

import errno
import mmap
import os
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from buildkit_migrate._native import sha256

__all__ = ["block_seconds", "copy_seconds", "eligible_kernels", "kernel_seconds", "one_copy_seconds"]

STREAMS: Final = 16
"""Fills the lanes of every kernel; one that takes three streams at once does the last four together."""

_BLOCKS: Final = 1000  # per message
_PIECE: Final = 4 << 20
_SECTOR: Final = 4096


def kernel_seconds(
    kernel: str | None = None, streams: int = STREAMS, *, blocks: int = STREAMS * _BLOCKS, rounds: int = 30
) -> float:
    """Processor time in seconds for one SHA-256 block in long messages side by side; the best of many rounds.

    ``kernel``: one of `sha256.kernels`, by default the active one. ``blocks``: per round, at least. When
    comparing with something that takes longer, make rounds as long: short rounds are less often disturbed by
    other work on the machine.
    """
    messages = [bytes(64 * _BLOCKS - 9)] * streams
    turns = max(1, -(-blocks // (streams * _BLOCKS)))
    best = float("inf")
    for _ in range(rounds):
        began = time.thread_time()
        for _ in range(turns):
            sha256.digest_many(messages, kernel=kernel)
        best = min(best, time.thread_time() - began)
    return best / (turns * streams * _BLOCKS)


def eligible_kernels() -> tuple[str, ...]:
    """The active kernel and those after it.

    So with ``BUILDKIT_MIGRATE_SHA256`` set, floors are those of a processor that prefers that kernel.
    """
    kernels = sha256.kernels()
    return kernels[kernels.index(sha256.active()) :]


def block_seconds() -> float:
    """`kernel_seconds` of the fastest of these kernels."""
    return min(map(kernel_seconds, eligible_kernels()))


def copy_seconds(sources: Collection[Path], size: int, directory: Path) -> float:
    """Seconds for reading files from front to back and writing ``size`` bytes (if any) with one fsync.

    The best of four runs, two of them bypassing the page cache.
    """
    return min(one_copy_seconds(sources, size, directory, direct=direct) for direct in (True, False) * 2)


def one_copy_seconds(sources: Iterable[Path], size: int, directory: Path, *, direct: bool) -> float:
    """The same, measured once.

    ``direct``: bypass the page cache, writing whole sectors; infinite where the file system does not allow
    it.
    """
    path = directory / "floor"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    if direct:
        flags |= os.O_DIRECT
        size = -(-size // _SECTOR) * _SECTOR
    with mmap.mmap(-1, _PIECE) as piece:  # direct writes must start at a page boundary
        piece.write(os.urandom(_PIECE))
        began = time.perf_counter()
        for source in sources:
            with source.open("rb", buffering=0) as file:
                while file.readinto(piece):
                    pass
        try:
            if size:
                fd = os.open(path, flags, 0o600)
                try:
                    _write(fd, piece, size)
                finally:
                    os.close(fd)
            return time.perf_counter() - began
        except OSError as error:
            if direct and error.errno == errno.EINVAL:
                return float("inf")
            raise
        finally:
            path.unlink(missing_ok=True)


def _write(fd: int, piece: mmap.mmap, size: int) -> None:
    with memoryview(piece) as view:
        for at in range(0, size, _PIECE):
            with view[: min(_PIECE, size - at)] as part:
                if os.write(fd, part) != len(part):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(fd)
