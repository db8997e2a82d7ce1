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
WIDTHS = (1, 2, 4, 8, 16, 64)


def with_hashlib() -> list[bytes]:
    return [hashlib.sha256(message).digest() for message in MESSAGES]


def seconds(work: Callable[[], object]) -> float:
    return min(timeit.repeat(work, number=1, repeat=10))


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


@cache
def hashlib_seconds(blocks: int = 15_000) -> float:
    """Processor time for one block of a long message."""
    message = bytes(64 * blocks - 9)
    work = partial(hashlib.sha256, message)
    return min(timeit.repeat(work, timer=time.thread_time, number=1, repeat=30)) / blocks


@pytest.mark.parametrize("kernel", [*sha256.kernels(), "hashlib"])
def test_long_messages(benchmark: BenchmarkFixture, report: Report, kernel: str) -> None:
    """The kernel alone, with so many messages side by side.

    OpenSSL, behind hashlib, takes one after the other. With OPENSSL_ia32cap=:~0x20000000 it does without the
    SHA extensions of x86.
    """

    def cost(streams: int) -> float:
        return hashlib_seconds() if kernel == "hashlib" else kernel_seconds(kernel, streams)

    def costs() -> dict[int, float]:
        return {streams: cost(streams) * 1e9 for streams in WIDTHS}

    found = benchmark.pedantic(costs, rounds=1)  # type: ignore[no-untyped-call]
    report.add(
        "SHA-256 of long messages: ns per block, by the number of messages side by side",
        kernel=kernel,
        **{f"{streams}": f"{best:.1f}" for streams, best in found.items()},
    )
    for streams, best in found.items():
        ratio = None if kernel == "hashlib" else best / (hashlib_seconds() * 1e9)
        report.add_point("kernels", kernel, streams, best, ratio)
