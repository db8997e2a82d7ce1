"""The synthetic roots for benches are such as Docker Engine 19.03 leaves."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from test_dockerd import without_empty_parents

import dockerd
import ondisk
from buildkit_migrate.api import migrate_root, verify_root
from buildkit_migrate.bench.parts import SHAPES
from buildkit_migrate.bench.synthetic_docker import generate
from buildkit_migrate.migration.verification import Verdict
from dockerd import Dockerd
from fixtures import bucket, buckets


@pytest.mark.parametrize("shape", SHAPES)
def test_synthetic_roots_migrate_as_a_whole(shape: str, tmp_path: Path) -> None:
    stats = generate(tmp_path, shape, 500)
    (report,) = migrate_root(tmp_path, verify=True)
    assert (report.counts["records"], report.counts["dropped"], report.cautions) == (500, 0, ())
    assert report.counts["committed"] == stats.committed + stats.equal_mutable
    assert [one.verdict for one in verify_root(tmp_path)] == [Verdict.OK]


def test_layers_have_their_chain_ids(tmp_path: Path) -> None:
    stats = generate(tmp_path, "forest", 500)
    layers = list((tmp_path / "image" / "overlay2" / "layerdb" / "sha256").iterdir())
    assert len(layers) == stats.layers > stats.images > 0
    for layer in layers:
        diff = (layer / "diff").read_text()
        parent = layer / "parent"
        text = f"{parent.read_text()} {diff}" if parent.exists() else ""
        made = hashlib.sha256(text.encode()).hexdigest() if text else diff.partition(":")[2]
        assert layer.name == made
    rows = buckets(ondisk.tree(tmp_path / "buildkit" / "snapshots.db"))
    assert sum(b"chainid" in row for row in rows.values()) == stats.layers - stats.images
    ids = buckets(bucket(ondisk.tree(tmp_path / "buildkit" / "metadata.db"), b"_main"))
    assert sum(id.startswith(b"sha256:") for id in ids) == stats.images


def test_equal_arguments_give_equal_roots(tmp_path: Path) -> None:
    for name in ("a", "b"):
        generate(tmp_path / name, "forest", 300, seed=7)
    content = [
        {path.relative_to(top): path.read_bytes() for path in top.rglob("*") if path.is_file()}
        for top in (tmp_path / "a", tmp_path / "b")
    ]
    assert content[0] == content[1]
    without = generate(tmp_path / "c", "forest", 300, layers=0)
    assert (without.layers, without.images) == (0, 0)


@pytest.mark.real
@pytest.mark.skipif(bool(dockerd.why_missing()), reason=dockerd.why_missing())
@pytest.mark.parametrize("shape", ["forest", "deep"])
def test_the_engine_makes_the_same_of_a_synthetic_root(shape: str, tmp_path: Path) -> None:
    for name in ("ours", "theirs"):
        generate(tmp_path / name, shape, 150)
    migrate_root(tmp_path / "ours")
    with Dockerd(tmp_path / "theirs") as engine:
        assert engine.migrated == 150
        engine.stop()
    made, own = (ondisk.tree(tmp_path / name / "buildkit" / "metadata_v2.db") for name in ("ours", "theirs"))
    assert without_empty_parents(made) == own
    leases = [
        ondisk.timeless(ondisk.tree(tmp_path / name / "buildkit" / "containerdmeta.db"))
        for name in ("ours", "theirs")
    ]
    assert leases[0] == leases[1]
