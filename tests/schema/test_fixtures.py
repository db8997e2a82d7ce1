"""The views of real roots say what their dumps and their MANIFEST say."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

import fixtures
import v2_roots
from buildkit_migrate.bolt import Bucket
from buildkit_migrate.schema.columns import NOT_FOUND, between, equal_to, present
from buildkit_migrate.schema.containerd import Namespace, namespaces, version
from buildkit_migrate.schema.history import History
from buildkit_migrate.schema.records import External, IndexEntries, Records, index_differences
from buildkit_migrate.schema.snapshots import ACTIVE, COMMITTED, VIEW, Backend
from buildkit_migrate.schema.solver import SolverCache
from buildkit_migrate.values import gojson
from plain_bbolt import BucketDict

pytestmark = pytest.mark.slow

DUMPED = ("rich", "native", "v012", "containerd", "healed")

# Records; snapshots active, committed, view; blobs; leases; builds: of the MANIFEST.
COUNTS = {
    "rich": (253, (52, 132, 49), 77, 201 + 61 + 49 + 2, 59),
    "native": (202, (42, 101, 1), 77, 160 + 61 + 1 + 2, 106),
    "v012": (213, (40, 116, 62), 92, 173 + 76 + 62 + 2, 53),
    "containerd": (202, (42, 101, 48), 95, 160 + 63 + 48 + 2, 53),
    "healed": (251, (52, 132, 49), 77, 199 + 61, 59),
    "growth": (253, (52, 132, 49), 77, 201 + 61 + 49 + 2, 59),
}


def root_of(store: object) -> Bucket:
    root = store.root  # type: ignore[attr-defined]
    assert isinstance(root, Bucket)
    return root


def dump(root: str, database: str) -> BucketDict:
    path = fixtures.directory() / "v2" / root / "dump" / f"{database}.json.gz"
    return fixtures._tree(json.loads(gzip.decompress(path.read_bytes())))


@pytest.mark.parametrize("name", COUNTS)
def test_counts_equal_the_manifest(name: str, tmp_path: Path) -> None:
    with v2_roots.v2_root(name, tmp_path).open() as stores:
        (worker,) = stores.workers
        namespace = Namespace(root_of(worker.containerd), worker.namespace)
        kinds = Backend(root_of(worker.snapshots)).kind
        assert (
            len(Records(root_of(worker.records))),
            tuple(kinds.tolist().count(kind) for kind in (ACTIVE, COMMITTED, VIEW)),
            len(namespace.blobs),
            len(namespace.leases),
            len(History(root_of(stores.histories[0])).builds),
        ) == COUNTS[name]


@pytest.mark.parametrize("name", DUMPED)
def test_records_equal_the_dump(name: str, tmp_path: Path) -> None:
    main = fixtures.buckets(fixtures.bucket(dump(name, "metadata_v2"), b"_main"))
    with v2_roots.v2_root(name, tmp_path).open() as stores:
        root = root_of(stores.workers[0].records)
        records = Records(root)
        assert list(records.ids) == list(main)
        for key in {key for record in main.values() for key in record}:
            stored = [record.get(key) or None for record in main.values()]
            assert list(records.has(key)) == [row for row, value in enumerate(stored) if value]
            assert [records.cell(row, key) or None for row in range(len(records))] == stored
        sizes = records.integer(b"snapshot.size")
        assert [sizes.values[row] if row in sizes.known else None for row in range(len(records))] == [
            gojson.integer(record.get(b"snapshot.size"))
            for record in main.values()  # type: ignore[arg-type]
        ]
        parents = records.text(b"cache.parent")
        assert [parent or b"" for parent in parents] == [
            gojson.string(record.get(b"cache.parent"))  # type: ignore[arg-type]
            for record in main.values()
        ]
        assert not between(records.rows_of(parents), NOT_FOUND, NOT_FOUND)
        assert (records.undecodable, records.nested, records.unknown, records.mistyped) == ([],) * 4
        entries = IndexEntries(root)
        assert list(entries.keys) == list(fixtures.bucket(dump(name, "metadata_v2"), b"_index"))
        assert index_differences(records, entries) == ([], [])
        external = External(root)
        assert list(external.ids) == list(fixtures.bucket(dump(name, "metadata_v2"), b"_external"))


@pytest.mark.parametrize("name", DUMPED)
def test_containerd_objects_equal_the_dump(name: str, tmp_path: Path) -> None:
    expected = dump(name, "containerdmeta")
    top = fixtures.bucket(expected, b"v1", b"buildkit")
    with v2_roots.v2_root(name, tmp_path).open() as stores:
        worker = stores.workers[0]
        root = root_of(worker.containerd)
        assert set(namespaces(root)) == set(fixtures.buckets(fixtures.bucket(expected, b"v1")))
        assert version(root) == (4 if name in ("rich", "native", "healed") else 3)
        namespace = Namespace(root, b"buildkit")
        snapshots = namespace.snapshots(worker.snapshotter)
        rows = fixtures.bucket(top, b"snapshots", worker.snapshotter)
        assert list(snapshots.keys) == list(rows)
        for row, snapshot in enumerate(fixtures.buckets(rows).values()):
            assert snapshots.name[row] == snapshot[b"name"]
            assert snapshots.parent[row] == snapshot.get(b"parent")
        leases = fixtures.leases_of(expected)
        assert list(namespace.leases.keys) == list(leases)
        for row, resources in enumerate(leases.values()):
            content, held = namespace.leases.content, namespace.leases.snapshots(worker.snapshotter)
            kind = f"snapshots/{worker.snapshotter.decode()}"
            assert {("content", content.keys[at]) for at in content.of(row)} | {
                (kind, held.keys[at]) for at in held.of(row)
            } == resources
        backend = Backend(root_of(worker.snapshots))
        assert not between(backend.index.rows(snapshots.name), -2, -1)
        assert len(backend.links) == len(present(backend.parent))
        assert not backend.links.broken
        assert backend.sequence >= max(backend.id.values)
        assert not snapshots.times(b"createdat").broken
        assert len(equal_to(namespace.leases.keys, b"no such lease")) == 0


def test_results_and_links_of_a_healthy_cache_mirror_each_other(tmp_path: Path) -> None:
    with v2_roots.healed(tmp_path).open() as stores:
        cache = SolverCache(root_of(stores.cache))
        assert cache.missing == []
        results = {
            (cache.keys[row], id) for row, id in zip(cache.results.rows, cache.results.keys, strict=True)
        }
        mirrored = {
            (id, cache.result_ids[row])
            for row, id in zip(cache.by_result.rows, cache.by_result.keys, strict=True)
        }
        assert results == mirrored
        links = {
            (cache.linked[row], link.rpartition(b"@")[2])
            for row, link in zip(cache.links.rows, cache.links.keys, strict=True)
            if link is not None
        }
        assert links == {
            (id, cache.targets[row])
            for row, id in zip(cache.backlinks.rows, cache.backlinks.keys, strict=True)
        }


def test_builds_have_their_leases(tmp_path: Path) -> None:
    with v2_roots.healed(tmp_path).open() as stores:
        history = History(root_of(stores.histories[0]))
        leases = Namespace(root_of(stores.workers[0].containerd), b"buildkit_history").leases
        assert history.version == b"2"
        assert len(history.builds) == len(leases) > 0
        for build in history.builds:
            row = leases.index.row(b"ref_" + build.ref)
            assert build.completed
            assert build.key == build.ref
            assert build.digests == {leases.content.keys[at] for at in leases.content.of(row)}
