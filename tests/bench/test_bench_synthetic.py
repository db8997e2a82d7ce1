"""The synthetic roots for benches look as BuildKit v0.6.4 leaves roots."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from buildkit_migrate._native.bolt import Bucket, check
from buildkit_migrate.bench import synthetic
from buildkit_migrate.bench.parts import SHAPES
from buildkit_migrate.bench.stages import STAGES
from buildkit_migrate.migration import oracle
from judge import Judge
from trees import read

RECORDS = 1000
Row = dict[bytes, bytes]


@dataclass
class Root:
    worker: Path
    stats: synthetic.Stats
    records: dict[bytes, Row]
    index: list[bytes]
    blobs: dict[bytes, Row]
    snapshots: dict[bytes, Row]
    backend: dict[bytes, Row]


@pytest.fixture(scope="module", params=SHAPES)
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Root:
    path = tmp_path_factory.mktemp(request.param)
    stats = synthetic.generate(path, request.param, RECORDS, seed=1)
    worker = path / synthetic.WORKER
    metadata, containerd, backend = (read(worker / name).root for name in synthetic.DATABASES)
    index = metadata.bucket(b"_index")
    assert index is not None
    return Root(
        worker=worker,
        stats=stats,
        records=table(metadata, b"_main"),
        index=[key for key, _ in index.items()],
        blobs=table(containerd, b"v1", b"buildkit", b"content", b"blob"),
        snapshots=table(containerd, b"v1", b"buildkit", b"snapshots", b"overlayfs"),
        backend=table(backend, b"v1", b"snapshots"),
    )


def table(root: Bucket, *path: bytes) -> dict[bytes, Row]:
    """Rows of a bucket with their plain values, and the keys below `labels/`."""
    bucket = root.bucket(*path)
    assert bucket is not None
    found = {}
    for name, row in bucket.items():
        assert isinstance(row, Bucket)
        found[name] = {key: value for key, value in row.items() if isinstance(value, bytes)}
        labels = row.bucket(b"labels")
        for key, value in labels.items() if labels else ():
            assert isinstance(value, bytes)
            found[name][b"labels/" + key] = value
    return found


def values(record: Row, key: bytes) -> str | dict[str, str]:
    found: str | dict[str, str] = json.loads(record[key])["value"]
    return found


@pytest.mark.real
def test_bbolt_for_go_finds_no_fault(root: Root, judge: Judge) -> None:
    for name in synthetic.DATABASES:
        assert judge.check(root.worker / name) == []


def test_files_are_sound(root: Root) -> None:
    for name in synthetic.DATABASES:
        assert check(read(root.worker / name)) == []


def test_ordinary_records_have_their_snapshot(root: Root) -> None:
    equal = {name for name, record in root.records.items() if record.get(b"cache.equalMutable")}
    assert len(root.records) == RECORDS
    assert len(equal) == root.stats.equal_mutable == RECORDS // 20
    for name, record in root.records.items():
        if name in equal:
            target = str(values(record, b"cache.equalMutable")).encode()
            assert name not in root.snapshots
            assert root.backend[root.snapshots[target][b"name"]][b"kind"] == synthetic.ACTIVE
            assert b"cache.equalMutable" not in root.records[target]
        else:
            assert root.snapshots[name][b"name"] in root.backend


def test_snapshots_agree_in_both_databases(root: Root) -> None:
    assert len(root.snapshots) == len(root.backend)
    assert len({row[b"id"] for row in root.backend.values()}) == len(root.backend)
    kinds = []
    for row in root.snapshots.values():
        backend = root.backend[row[b"name"]]
        kinds.append(backend[b"kind"])
        assert row[b"labels/containerd.io/gc.root"]
        if b"parent" in row:
            parent = root.snapshots[row[b"parent"]][b"name"]
            assert backend[b"parent"] == parent
            assert root.backend[parent][b"kind"] == synthetic.COMMITTED
        else:
            assert b"parent" not in backend
    expected = (root.stats.committed, root.stats.mutable, root.stats.views)
    assert tuple(map(kinds.count, (synthetic.COMMITTED, synthetic.ACTIVE, synthetic.VIEW))) == expected


def test_children_are_listed_by_their_parents(root: Root) -> None:
    table = read(root.worker / "containerdmeta.db").root.bucket(
        b"v1", b"buildkit", b"snapshots", b"overlayfs"
    )
    assert table is not None
    assert table.sequence >= len(root.snapshots)
    links = set()
    for name, row in table.items():
        children = row.bucket(b"children") if isinstance(row, Bucket) else None
        links |= {(name, child) for child, _ in children.items()} if children else set()
    assert links == {(row[b"parent"], name) for name, row in root.snapshots.items() if b"parent" in row}


def test_mapped_blobs_exist_with_their_labels(root: Root) -> None:
    mapped = {name: record for name, record in root.records.items() if b"blobmapping.blob" in record}
    assert len(mapped) == root.stats.with_blob
    assert 0.4 * RECORDS < len(mapped) < 0.7 * RECORDS
    absent = 0
    for name, record in mapped.items():
        pair = values(record, b"blobmapping.blob")
        assert isinstance(pair, dict)
        assert b"blobmap::%b::%b" % (pair["Blobsum"].encode(), name) in root.index
        if blob := root.blobs.get(pair["Blobsum"].encode()):
            assert blob[b"labels/containerd.io/uncompressed"].decode() == pair["DiffID"]
            assert blob[b"labels/containerd.io/gc.root"]
        else:
            absent += 1
    assert absent == root.stats.blobs_missing
    assert len(root.blobs) == len(mapped) - absent


def test_every_indexed_value_has_its_entry(root: Root) -> None:
    entries = set()
    for name, record in root.records.items():
        for value in record.values():
            if value and (index := json.loads(value).get("index")):
                entries.add(index.encode() + b"::" + name)
    assert entries == set(root.index)


def test_depths_fit_the_shape(root: Root) -> None:
    def depth(name: bytes) -> int:
        steps = 0
        while name := root.snapshots[name].get(b"parent", b""):
            steps += 1
        return steps

    committed = [
        depth(name)
        for name, row in root.snapshots.items()
        if root.backend[row[b"name"]][b"kind"] == synthetic.COMMITTED
    ]
    mean, deepest = {
        "forest": ((5, 15), (20, 100)),
        "deep": ((409, 410), (819, 819)),
        "flat": ((0, 0), (0, 0)),
        "wide": ((0.9, 1), (1, 1)),
    }[root.worker.parent.name.rstrip("0123456789")]
    assert root.stats.mean_depth == sum(committed) / len(committed)
    assert root.stats.max_depth == max(committed)
    assert mean[0] <= root.stats.mean_depth <= mean[1]
    assert deepest[0] <= root.stats.max_depth <= deepest[1]


def test_equal_arguments_give_equal_files(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        synthetic.generate(tmp_path / name, "forest", 200, seed)
    first, same, other = (tmp_path / name / synthetic.WORKER for name in "abc")
    for database in synthetic.DATABASES:
        assert (first / database).read_bytes() == (same / database).read_bytes()
        assert (first / database).read_bytes() != (other / database).read_bytes()


@pytest.mark.parametrize("records", [0, 1, 10])
@pytest.mark.parametrize("shape", SHAPES)
def test_small_roots_are_generated(tmp_path: Path, shape: str, records: int) -> None:
    assert synthetic.generate(tmp_path, shape, records).records == records


def test_hash_blocks_are_those_of_the_oracle(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted from what it hashes, less the first blocks that messages share."""
    messages = []

    def sha256(message: bytes) -> Any:
        if message:  # the length of an id is found by hashing nothing
            messages.append(message)
        return hashlib.sha256(message)

    monkeypatch.setattr(oracle, "hashlib", SimpleNamespace(sha256=sha256))
    with STAGES["oracle"].ready(root.worker.parent) as work:
        work()
    assert len(messages) > RECORDS // 2
    blocks = sum((len(message) + 9 + 63) // 64 for message in messages)
    first = [message[:64] for message in messages if len(message) == 143]
    assert root.stats.hash_blocks == blocks - len(first) + len(set(first))
