"""What the hardware takes: for hashing blocks, and for copying bytes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Final

from buildkit_migrate._native import sha256

__all__ = ["block_seconds", "copy_seconds", "kernel_seconds"]

STREAMS: Final = 15
"""Right for a kernel that takes three at once, and for one that takes eight."""

_BLOCKS: Final = 1000
_ROUNDS: Final = 30
_PIECE: Final = 1 << 20


def kernel_seconds(kernel: str | None = None, streams: int = STREAMS) -> float:
    """Seconds of a processor for one SHA-256 block in long messages side by side; the best of many rounds.

    ``kernel``: one of `sha256.kernels`, by default the one in use.
    """
    work = partial(sha256.digest_many, [bytes(64 * _BLOCKS - 9)] * streams, kernel=kernel)
    best = float("inf")
    for _ in range(_ROUNDS):
        began = time.thread_time()
        work()
        best = min(best, time.thread_time() - began)
    return best / (streams * _BLOCKS)


def block_seconds() -> float:
    """Of the fastest kernel."""
    return min(map(kernel_seconds, sha256.kernels()))


def copy_seconds(sources: Iterable[Path], size: int, directory: Path) -> float:
    """Seconds for reading files, from front to back, and writing ``size`` bytes with one fsync, if any."""
    buffer = bytearray(os.urandom(_PIECE))
    path = directory / "floor"
    began = time.perf_counter()
    for source in sources:
        with source.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    try:
        if size:
            with path.open("xb", buffering=0) as file:
                for at in range(0, size, _PIECE):
                    file.write(memoryview(buffer)[: size - at])
                os.fsync(file.fileno())
        return time.perf_counter() - began
    finally:
        path.unlink(missing_ok=True)
