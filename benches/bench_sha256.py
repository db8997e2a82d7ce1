"""SHA-256 kernels, ns per block: run with ``pytest benches/bench_sha256.py``."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from buildkit_migrate._native import sha256

MESSAGES = [b"%0143d" % i for i in range(4096)]  # the length of nearly all messages of chain ids
BLOCKS = 3 * len(MESSAGES)


def measure(
    benchmark: BenchmarkFixture, messages: Sequence[bytes], hasher: Callable[[Sequence[bytes]], list[bytes]]
) -> list[bytes]:
    result: list[bytes] = benchmark.pedantic(  # type: ignore[no-untyped-call]
        hasher, args=(messages,), rounds=30, warmup_rounds=2
    )
    if benchmark.stats is not None:  # None when benchmarks are disabled
        benchmark.extra_info["ns per block"] = round(benchmark.stats.stats.min / BLOCKS * 1e9, 1)
        print(f"\n{benchmark.name}: {benchmark.extra_info['ns per block']} ns per block")
    return result


@pytest.mark.parametrize("kernel", sha256.kernels())
def test_kernel(benchmark: BenchmarkFixture, kernel: str) -> None:
    """Includes one Python object per digest, about as much as two blocks."""
    assert (
        measure(benchmark, MESSAGES, partial(sha256.digest_many, kernel=kernel))[0]
        == hashlib.sha256(MESSAGES[0]).digest()
    )


@pytest.mark.parametrize("kernel", sha256.kernels())
def test_long_messages(benchmark: BenchmarkFixture, kernel: str) -> None:
    """Sixteen messages that make as many blocks: the kernel alone."""
    messages = [bytes(BLOCKS // 16 * 64 - 9) for _ in range(16)]
    measure(benchmark, messages, partial(sha256.digest_many, kernel=kernel))


def test_hashlib(benchmark: BenchmarkFixture) -> None:
    measure(benchmark, MESSAGES, lambda messages: [hashlib.sha256(message).digest() for message in messages])
