"""Synthetic v2 roots are healthy: what refers to something finds it, in all stores."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from buildkit_migrate.bench import synthetic_v2
from buildkit_migrate.bench.parts import SHAPES
from buildkit_migrate.bolt import Database, check
from buildkit_migrate.schema.columns import NOT_FOUND, between, equal, present, repeated, take
from buildkit_migrate.schema.containerd import Namespace
from buildkit_migrate.schema.history import History
from buildkit_migrate.schema.records import External, IndexEntries, Records, index_differences
from buildkit_migrate.schema.snapshots import Backend
from buildkit_migrate.schema.solver import SolverCache, workers_and_records
from judge import Judge

RECORDS = 1000


@pytest.fixture(scope="module", params=SHAPES)
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param)
    synthetic_v2.generate(path, RECORDS, request.param, files=True)
    return path


@pytest.mark.real
def test_bbolt_for_go_finds_no_fault(root: Path, judge: Judge) -> None:
    for name in synthetic_v2.DATABASES:
        assert judge.check(root / name) == []


def test_every_reference_leads_somewhere(root: Path) -> None:
    opened = [Database.open(root / name) for name in synthetic_v2.DATABASES]
    assert all(check(database.reader) == [] for database in opened)
    records, containerd, snapshots, cache, history = (database.root for database in opened)
    table, namespace, backend = Records(records), Namespace(containerd, b"buildkit"), Backend(snapshots)
    assert len(table) == RECORDS
    assert (table.undecodable, table.mistyped, table.unknown, table.nested, table.plain_keys) == ([],) * 5
    for key in (b"cache.parent", b"cache.equalMutable", b"cache.lowerDiffParent", b"cache.upperDiffParent"):
        assert not between(table.rows_of(table.text(key)), NOT_FOUND, NOT_FOUND)
    merged = table.lists(b"cache.mergeParents")
    assert len(merged.rows) > 0
    assert min(table.index.rows(merged.values)) >= 0
    assert index_differences(table, IndexEntries(records)) == ([], [])
    assert min(table.index.rows(External(records).ids)) >= 0

    # What is missing is the snapshots of immutable ones of pairs, merges and diffs.
    own = namespace.snapshots(b"overlayfs")
    missing = between(own.index.rows(table.text(b"cache.snapshot")), NOT_FOUND, NOT_FOUND)
    lazy = table.has(b"cache.mergeParents") | table.has(b"cache.upperDiffParent")
    assert not missing - lazy - table.has(b"cache.equalMutable")
    assert missing & lazy
    rows = backend.index.rows(own.name)
    assert min(rows) >= 0
    assert len(backend) == len(own)
    parents = take(own.name, own.index.rows(own.parent))
    assert equal(parents, take(backend.parent, rows)) == present(own.parent)
    assert not repeated(backend.id.values)
    assert max(backend.id.values) <= backend.sequence
    assert len(backend.links) == len(present(backend.parent))
    assert {int(path.name) for path in (root / synthetic_v2.WORKER / "snapshots/snapshots").iterdir()} == {
        *backend.id.values
    }

    leases = namespace.leases
    assert len(leases.index.rows(table.ids)) == RECORDS
    assert between(leases.index.rows(table.ids), NOT_FOUND, NOT_FOUND) == table.has(b"cache.equalMutable")
    held = leases.snapshots(b"overlayfs")
    assert equal(take(leases.keys, held.rows), held.keys) == present(held.keys)
    blobs = namespace.blobs
    assert min(blobs.index.rows(leases.content.keys)) >= 0
    assert len(present(table.text(b"cache.blob"))) == len(blobs)
    sizes = table.integer(b"cache.blobsize")
    for row in present(table.text(b"cache.blob")):
        digest = table.text(b"cache.blob")[row] or b""
        assert sizes.values[row] == blobs.size.values[blobs.index.row(digest)]
        file = root / synthetic_v2.WORKER / "content/blobs" / digest.decode().replace(":", "/")
        assert file.stat().st_size == sizes.values[row]

    solver = SolverCache(cache)
    assert solver.missing == []
    workers, ids = workers_and_records(solver.result_ids)
    assert {*workers} == {(root / synthetic_v2.WORKER / "workerid").read_bytes()}
    assert min(table.index.rows(ids)) >= 0
    results = {*zip(take(solver.keys, solver.results.rows), solver.results.keys, strict=True)}
    by_result = solver.by_result
    assert results == {*zip(by_result.keys, take(solver.result_ids, by_result.rows), strict=True)}
    assert list(solver.linked) == list(solver.keys)

    of_history = Namespace(containerd, b"buildkit_history")
    builds = History(history).builds
    assert len(builds) == len(of_history.leases) == len(of_history.blobs) > 0
    for build in builds:
        row = of_history.leases.index.row(b"ref_" + build.ref)
        assert build.digests == {
            of_history.leases.content.keys[at] for at in of_history.leases.content.of(row)
        }


def test_equal_arguments_give_equal_files(tmp_path: Path) -> None:
    sums = set()
    for name in ("a", "b"):
        synthetic_v2.generate(tmp_path / name, 300)
        contents = [(tmp_path / name / database).read_bytes() for database in synthetic_v2.DATABASES]
        sums.add(hashlib.sha256(b"".join(contents)).hexdigest())
    assert len(sums) == 1
