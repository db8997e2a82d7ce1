"""The store engines: ``pytest benches/bench_store.py [--records N] [--directory DIR]``.

One run on one store: converting it to LMDB and back, and the same queries to both engines.
"""

from __future__ import annotations

import itertools
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from buildkit_migrate.bench.floors import copy_seconds
from buildkit_migrate.bolt import Builder, write
from buildkit_migrate.store.convert import convert
from buildkit_migrate.store.engines import open_store
from buildkit_migrate.store.interface import MetadataStore
from buildkit_migrate.values.gojson import Value, encode_value
from buildkit_migrate.values.keys import MEDIA_TYPE_DOCKER_GZIP
from conftest import Report

ENGINES = ("bolt", "lmdb")
SAMPLES = 2000


def digest(kind: str, n: int) -> bytes:
    return b"sha256:" + sha256(b"%b %d" % (kind.encode(), n)).hexdigest().encode()


def record_id(n: int) -> bytes:
    return b"%025d" % n


def values(n: int) -> dict[bytes, bytes]:
    """A migrated record; every other one is a layer with a blob (spec buildkit-metadata, section 2)."""
    record = {
        b"cache.createdAt": encode_value(1_572_595_200_000_000_000 + n),
        b"cache.description": encode_value(b"mount / from exec /bin/sh -c make -j4 > /tmp/%d" % n),
        b"cache.lastUsedAt": encode_value(1_572_595_300_000_000_000 + n),
        b"cache.parent": encode_value(record_id(n // 2)),
        b"cache.snapshot": encode_value(record_id(n)),
        b"cache.usageCount": encode_value(n % 7),
        b"snapshot.committed": encode_value(True),
        b"snapshot.size": encode_value(4096 * n),
    }
    if n % 2 == 0:
        blob, diff, chain, blob_chain = (digest(kind, n) for kind in ("blob", "diff", "chain", "blobchain"))
        record |= {
            b"blobmapping.blob": b'{"value":{"Blobsum":"%b","DiffID":"%b"},"index":"blobmap::%b"}'
            % (blob, diff, blob),
            b"cache.blob": encode_value(blob),
            b"cache.blobChainID": encode_value(blob_chain, b"blobchainid:" + blob_chain),
            b"cache.chainID": encode_value(chain, b"chainid:" + chain),
            b"cache.diffID": encode_value(diff),
            b"cache.mediatype": encode_value(MEDIA_TYPE_DOCKER_GZIP),
        }
    return dict(sorted(record.items()))


def index_keys(records: int) -> list[bytes]:
    kinds = (("blob", b"blobmap::"), ("chain", b"chainid:"), ("blobchain", b"blobchainid:"))
    return sorted(
        prefix + digest(kind, n) + b"::" + record_id(n)
        for n in range(0, records, 2)
        for kind, prefix in kinds
    )


def fill(builder: Builder, records: int) -> None:
    builder.open_bucket(b"_index")
    for key in index_keys(records):
        builder.put(key, b"")
    builder.close_bucket()
    builder.open_bucket(b"_main")
    for n in range(records):
        builder.open_bucket(record_id(n))
        for key, value in values(n).items():
            builder.put(key, value)
        builder.close_bucket()
    builder.close_bucket()


@pytest.fixture(scope="module")
def paths(records: int, directory: str | None) -> Iterator[dict[str, Path]]:
    """Paths of a migrated store, of the LMDB store made from it, and of the bolt store made from that."""
    with tempfile.TemporaryDirectory(dir=directory) as place:
        paths = {name: Path(place) / name for name in ("bolt", "lmdb", "back")}
        write(paths["bolt"], mode=0o600, page_size=4096, fill=lambda builder: fill(builder, records)).close()
        yield paths


def microseconds(ask: Callable[[], object], times: int) -> float:
    """Mean time of one call; the best of three rounds."""
    rounds = []
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(times):
            ask()
        rounds.append((time.perf_counter() - began) / times * 1e6)
    return min(rounds)


def questions(store: MetadataStore, ids: list[bytes], chains: list[bytes]) -> dict[str, float]:
    next_id, next_chain = itertools.cycle(ids).__next__, itertools.cycle(chains).__next__
    return {
        "get": microseconds(lambda: store.get(next_id()), SAMPLES),
        "view (without decoding)": microseconds(lambda: store.view(next_id()), SAMPLES),
        "search by chain id": microseconds(lambda: list(store.search(next_chain())), SAMPLES),
    }


def update(store: MetadataStore, id: bytes) -> None:
    with store.update(id) as record:
        record.set(b"cache.usageCount", Value.of(7))


def test_stores(benchmark: BenchmarkFixture, report: Report, records: int, paths: dict[str, Path]) -> None:
    loads: list[float] = []

    def prepare() -> None:
        paths["lmdb"].unlink(missing_ok=True)
        os.sync()

    benchmark.pedantic(
        lambda: loads.append(convert(paths["bolt"], paths["lmdb"]).seconds), setup=prepare, rounds=3
    )
    os.sync()
    back = convert(paths["lmdb"], paths["back"]).seconds
    for way, source, target, seconds in (
        ("bolt to LMDB", "bolt", "lmdb", min(loads)),
        ("LMDB to bolt", "lmdb", "back", back),
    ):
        size = paths[target].stat().st_size
        floor = copy_seconds([paths[source]], size, paths[target].parent)
        report.add(
            "Conversion of a migrated store",
            way=way,
            records=f"{records:,}",
            seconds=f"{seconds:.2f}",
            records_per_second=f"{records / seconds:,.0f}",
            written_MB=f"{size / 1e6:,.1f}",
            floor_s=f"{floor:.2f}",
            x_floor=f"{seconds / floor:.2f}",
        )

    numbers = random.Random(1).sample(range(0, records, 2), min(SAMPLES, records // 2))
    ids = [record_id(n) for n in numbers]
    chains = [b"chainid:" + digest("chain", n) for n in numbers]
    times: dict[str, dict[str, float]] = {}
    for engine in ENGINES:
        path = paths[engine]
        times[engine] = {"open": microseconds(lambda path=path: open_store(path, read_only=True).close(), 20)}  # type: ignore[misc]
        with open_store(path) as store:
            times[engine] |= questions(store, ids, chains)
            began = time.perf_counter()
            update(store, ids[0])
            times[engine]["one transaction"] = (time.perf_counter() - began) * 1e6
    for question, bolt in times["bolt"].items():
        other = times["lmdb"][question]
        report.add(
            "Engines of the store, microseconds",
            what=question,
            records=f"{records:,}",
            bolt=f"{bolt:,.1f}",
            LMDB=f"{other:,.1f}",
            ratio=f"{bolt / other:.2f}",
        )
    benchmark.extra_info.update(records=records, loads_per_second=records / min(loads), times=times)
