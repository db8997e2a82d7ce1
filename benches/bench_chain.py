"""The chainID engine alone: ``pytest benches/bench_chain.py [--records N]``.

Each result is compared with hashlib, doing the same in plain Python, and with a floor: the number of blocks
that the shape needs, hashed by the best kernel in long messages side by side, alternating with the engine; of
the active kernel and those after it (BUILDKIT_MIGRATE_SHA256 chooses). A record needs three blocks for
H(blob + " " + diffID); with a parent, two more for each of its two ids; and as the first block of an id lies
within the parent's id, two more for each parent, however many children it has.

A chain can't be hashed at that pace, because each record waits for the one before. Its floor takes the three
blocks of an id at the speed of a kernel with one stream (the two ids run side by side), and the other three
as above.

All times are processor time, to reduce the influence of other work on the machine, except for the gain by a
second thread.
"""

import hashlib
import random
import time
from collections.abc import Callable
from functools import partial

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from buildkit_migrate._native import chain
from buildkit_migrate.bench.floors import eligible_kernels, kernel_seconds
from buildkit_migrate.bench.parts import FOREST_ROOT_SHARE
from conftest import Report

RUNS = 15


def digest_id(text: bytes) -> bytes:
    return b"sha256:" + hashlib.sha256(text).hexdigest().encode()


def forest(count: int) -> list[int]:
    """Parents of records in random order, as in a store sorted by random ids; mean depth about 10."""
    source = random.Random(1)
    place = list(range(count))
    source.shuffle(place)
    parents = [-1] * count
    for i in range(1, count):
        if source.random() >= FOREST_ROOT_SHARE:
            parents[place[i]] = place[source.randrange(i) if source.random() < 0.3 else i - 1]
    return parents


SHAPES: dict[str, Callable[[int], list[int]]] = {
    "forest": forest,
    "one chain": lambda count: [-1, *range(count - 1)],
    "one parent": lambda count: [-1, *[0] * (count - 1)],
}


def blocks(parents: list[int]) -> int:
    above = [parent for parent in parents if parent >= 0]
    return 3 * len(parents) + 4 * len(above) + 2 * len(set(above))


def with_hashlib(parents: list[int], diff_ids: list[bytes], blobs: list[bytes]) -> list[tuple[bytes, bytes]]:
    """The same in plain Python: each record once, parents first."""
    children: list[list[int]] = [[] for _ in parents]
    order: list[int] = []
    for record, parent in enumerate(parents):
        (children[parent] if parent >= 0 else order).append(record)
    results: list[tuple[bytes, bytes]] = [(b"", b"")] * len(parents)
    for record in order:
        own, part = diff_ids[record], digest_id(blobs[record] + b" " + diff_ids[record])
        if parents[record] >= 0:
            above, above_part = results[parents[record]]
            own, part = digest_id(above + b" " + own), digest_id(above_part + b" " + part)
        results[record] = own, part
        order += children[record]
    return results


class Fastest:
    """The best of many runs of each kind, alternating, so that other work on the machine favours none."""

    def __init__(self, clock: Callable[[], float], **works: Callable[[], object]) -> None:
        self.clock = clock
        self.works = works
        self.best = dict.fromkeys(works, float("inf"))

    def turn(self) -> None:
        for name, work in self.works.items():
            began = self.clock()
            work()
            self.best[name] = min(self.best[name], self.clock() - began)


@pytest.mark.parametrize("shape", SHAPES)
def test_engine(benchmark: BenchmarkFixture, report: Report, records: int, shape: str) -> None:
    parents = SHAPES[shape](records)
    diff_ids = [digest_id(b"diff %d" % i) for i in range(records)]
    blobs = [digest_id(b"blob %d" % i) for i in range(records)]
    batch = chain.Batch(parents, diff_ids, blobs)
    plain = Fastest(time.thread_time, run=partial(with_hashlib, parents, diff_ids, blobs))
    one = Fastest(time.thread_time, engine=batch.run)
    threads = Fastest(time.perf_counter, one=batch.run, two=partial(batch.run, 2))
    needed = blocks(parents)
    kernel = min(eligible_kernels(), key=kernel_seconds)
    lone_kernel = min(eligible_kernels(), key=partial(kernel_seconds, streams=1))
    block = alone = float("inf")

    def turn() -> None:
        nonlocal block, alone
        block = min(block, kernel_seconds(kernel, blocks=needed, rounds=1))
        alone = min(alone, kernel_seconds(lone_kernel, streams=1, blocks=3 * records, rounds=1))
        one.turn()
        threads.turn()

    for _ in range(3):
        plain.turn()
    benchmark.pedantic(batch.run, setup=turn, rounds=RUNS)  # type: ignore[no-untyped-call]
    expected = with_hashlib(parents, diff_ids, blobs)
    assert [ids for _, *ids in batch.results()] == [list(ids) for ids in expected]

    best = one.best["engine"]
    floor = needed * block
    if shape == "one chain":
        floor = 3 * records * (block + alone)
    over_floor, over_hashlib = best / floor, plain.best["run"] / best
    report.add(
        "chainID engine, one thread; two threads on the clock",
        shape=shape,
        records=f"{records:,}",
        ns_per_record=f"{best / records * 1e9:.0f}",
        blocks_per_record=f"{needed / records:.2f}",
        ns_per_block=f"{block * 1e9:.1f}",
        with_one_stream=f"{alone * 1e9:.1f}",
        x_floor=f"{over_floor:.2f}",
        times_hashlib=f"{over_hashlib:.1f}",
        gain_by_second_thread=f"{threads.best['one'] / threads.best['two']:.2f}",
    )
    benchmark.extra_info.update(
        records=records,
        nanoseconds=best / records * 1e9,
        over_floor=over_floor,
        over_hashlib=over_hashlib,
        two_threads=threads.best["one"] / threads.best["two"],
    )
