"""The chainID engine alone, on 100,000 records: run with ``pytest benches/bench_chain.py``."""

import hashlib
import random
import time

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from buildkit_migrate._native import chain

COUNT = 100_000


def digest_id(text: bytes) -> bytes:
    return b"sha256:" + hashlib.sha256(text).hexdigest().encode()


def forest() -> list[int]:
    """Parents of records in random order, as in a store sorted by random ids; about 100 levels."""
    source = random.Random(1)
    parents = [-1 if i < 100 else source.randrange(max(0, i - 2000), i) for i in range(COUNT)]
    place = list(range(COUNT))
    source.shuffle(place)
    shuffled = [-1] * COUNT
    for i, parent in enumerate(parents):
        shuffled[place[i]] = place[parent] if parent >= 0 else -1
    return shuffled


SHAPES = {
    "forest": forest(),
    "one chain": [-1, *range(COUNT - 1)],
    "one parent": [-1, *[0] * (COUNT - 1)],
}
DIFF_IDS = [digest_id(b"diff %d" % i) for i in range(COUNT)]
BLOBS = [digest_id(b"blob %d" % i) for i in range(COUNT)]


def with_hashlib(parents: list[int]) -> list[tuple[bytes, bytes]]:
    """The same in plain Python: each record once, parents first."""
    children: list[list[int]] = [[] for _ in parents]
    order: list[int] = []
    for record, parent in enumerate(parents):
        (children[parent] if parent >= 0 else order).append(record)
    results: list[tuple[bytes, bytes]] = [(b"", b"")] * len(parents)
    for record in order:
        own, part = DIFF_IDS[record], digest_id(BLOBS[record] + b" " + DIFF_IDS[record])
        if parents[record] >= 0:
            above, above_part = results[parents[record]]
            own, part = digest_id(above + b" " + own), digest_id(above_part + b" " + part)
        results[record] = own, part
        order += children[record]
    return results


@pytest.mark.parametrize("shape", SHAPES)
def test_engine(benchmark: BenchmarkFixture, shape: str) -> None:
    parents = SHAPES[shape]
    baseline = float("inf")
    for _ in range(3):  # the best, as for the engine: other work on the machine must not flatter it
        began = time.perf_counter()
        expected = with_hashlib(parents)
        baseline = min(baseline, time.perf_counter() - began)

    batch = chain.Batch(parents, DIFF_IDS, BLOBS)
    benchmark.pedantic(batch.run, rounds=30, warmup_rounds=1)  # type: ignore[no-untyped-call]
    assert [ids for _, *ids in batch.results()] == [list(ids) for ids in expected]
    if benchmark.stats is not None:  # None when benchmarks are disabled
        best = benchmark.stats.stats.min
        benchmark.extra_info["ns per record"] = round(best / COUNT * 1e9)
        benchmark.extra_info["times as fast as hashlib"] = round(baseline / best, 1)
        print(f"\n{shape}: {benchmark.extra_info}")
