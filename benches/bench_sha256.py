"""SHA-256 kernels, ns per block and against hashlib: run with ``pytest benches/bench_sha256.py -s``."""

import hashlib
import timeit
from collections.abc import Callable, Sequence
from functools import partial

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from buildkit_migrate._native import sha256

MESSAGES = [b"%0143d" % i for i in range(4096)]  # the length of nearly all messages of chain ids
BLOCKS = 3 * len(MESSAGES)


def with_hashlib(messages: Sequence[bytes]) -> list[bytes]:
    return [hashlib.sha256(message).digest() for message in messages]


def measure(
    benchmark: BenchmarkFixture, messages: Sequence[bytes], hasher: Callable[[Sequence[bytes]], list[bytes]]
) -> list[bytes]:
    result: list[bytes] = benchmark.pedantic(  # type: ignore[no-untyped-call]
        hasher, args=(messages,), rounds=30, warmup_rounds=2
    )
    if benchmark.stats is not None:  # None when benchmarks are disabled
        best = benchmark.stats.stats.min
        plain = min(timeit.repeat(partial(with_hashlib, messages), number=1, repeat=10))
        benchmark.extra_info["ns per block"] = round(best / BLOCKS * 1e9, 1)
        benchmark.extra_info["times as fast as hashlib"] = round(plain / best, 1)
        print(f"\n{benchmark.name}: {benchmark.extra_info}")
    return result


@pytest.mark.parametrize("kernel", sha256.kernels())
def test_kernel(benchmark: BenchmarkFixture, kernel: str) -> None:
    """Includes one Python object per digest, about as much as two blocks."""
    assert (
        measure(benchmark, MESSAGES, partial(sha256.digest_many, kernel=kernel))[0]
        == hashlib.sha256(MESSAGES[0]).digest()
    )


@pytest.mark.parametrize("kernel", sha256.kernels())
@pytest.mark.parametrize("streams", [1, 2, 3, 4, 15])
def test_long_messages(benchmark: BenchmarkFixture, kernel: str, streams: int) -> None:
    """So many messages that make as many blocks: the kernel alone."""
    messages = [bytes(BLOCKS // streams * 64 - 9) for _ in range(streams)]
    measure(benchmark, messages, partial(sha256.digest_many, kernel=kernel))


def test_hashlib(benchmark: BenchmarkFixture) -> None:
    measure(benchmark, MESSAGES, with_hashlib)
