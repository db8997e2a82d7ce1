"""SHA-256 kernels, ns per 64-byte block, compared with hashlib: ``pytest benches/bench_sha256.py``."""

import hashlib
import time
import timeit
from collections.abc import Callable
from functools import cache, partial

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from buildkit_migrate._native import sha256
from buildkit_migrate.bench.floors import kernel_seconds
from conftest import Report

MESSAGES = [b"%0143d" % i for i in range(4096)]  # length of nearly all messages of chain ids
BLOCKS = 3 * len(MESSAGES)


def with_hashlib() -> list[bytes]:
    return [hashlib.sha256(message).digest() for message in MESSAGES]


def seconds(work: Callable[[], object]) -> float:
    return min(timeit.repeat(work, number=1, repeat=10))


@cache
def hashlib_seconds() -> float:
    """Seconds for a block of a long message."""
    blocks = 100_000
    message = bytes(64 * blocks)
    work = partial(hashlib.sha256, message)
    return min(timeit.repeat(work, timer=time.thread_time, number=1, repeat=10)) / blocks


@pytest.mark.parametrize("kernel", sha256.kernels())
def test_messages(benchmark: BenchmarkFixture, report: Report, kernel: str) -> None:
    """Includes creating one Python object per digest, which takes about as long as two blocks."""
    work = partial(sha256.digest_many, MESSAGES, kernel=kernel)
    assert benchmark.pedantic(work, rounds=30, warmup_rounds=2) == with_hashlib()  # type: ignore[no-untyped-call]
    ours, plain = seconds(work), seconds(with_hashlib)
    report.add(
        "SHA-256 of 143-byte messages, as of chain ids",
        kernel=kernel,
        ns_per_block=f"{ours / BLOCKS * 1e9:.1f}",
        hashlib=f"{plain / BLOCKS * 1e9:.1f}",
        times_as_fast=f"{plain / ours:.1f}",
    )


@pytest.mark.parametrize("kernel", sha256.kernels())
@pytest.mark.parametrize("streams", [1, 2, 4, 8, 16, 64])
def test_long_messages(benchmark: BenchmarkFixture, report: Report, kernel: str, streams: int) -> None:
    """The kernel alone, with this many messages side by side."""
    best = benchmark.pedantic(kernel_seconds, args=(kernel, streams), rounds=1)  # type: ignore[no-untyped-call]
    report.add(
        "SHA-256 of long messages, the kernel alone",
        kernel=kernel,
        streams=f"{streams}",
        ns_per_block=f"{best * 1e9:.1f}",
    )
    plain = hashlib_seconds()
    report.add_point("kernels", kernel, streams, best * 1e9, best / plain)
    report.add_point("kernels", "hashlib", streams, plain * 1e9)
