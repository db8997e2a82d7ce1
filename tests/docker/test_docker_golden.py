"""Migrations of real roots of Docker Engine, compared with what the engine's own migration makes of them."""

from __future__ import annotations

import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import fixtures
import ondisk
from buildkit_migrate.api import migrate_root, root_status
from buildkit_migrate.migration.status import Stage
from fixtures import bucket, buckets, leases_of
from ondisk import OnDisk
from plain_bbolt import BucketDict

Golden = tuple[OnDisk, BucketDict, BucketDict]
"""A root, and the records and leases after the engine's own migration."""


def sample(into: Path) -> Golden:
    root = ondisk.docker_sample(into)
    records, leases = (
        fixtures.tree_of_dump((into / "after" / f"{name}.json.gz").read_bytes())
        for name in ("metadata_v2", "containerdmeta")
    )
    return root, records, leases


def shared(name: str, into: Path) -> Golden:
    archive = fixtures.directory() / "docker" / name / "v1.tar.zst"
    if shutil.which("zstd") is None:
        pytest.skip("no zstd")
    subprocess.run(["tar", "-I", "zstd", "-xf", str(archive), "-C", str(into)], check=True)
    after = (
        fixtures.dump(f"docker/{name}", "after-migratev2", one) for one in ("metadata_v2", "containerdmeta")
    )
    return ondisk.docker(into / "root"), *after  # type: ignore[return-value]


@pytest.fixture(params=["sample", "docker-a", "docker-d"])
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Golden:
    return sample(tmp_path) if request.param == "sample" else shared(request.param, tmp_path)


def untimed(containerd: BucketDict) -> BucketDict:
    """Leases without their times."""
    for lease in buckets(bucket(containerd, b"v1", b"buildkit", b"leases")).values():
        assert set(lease) == {b"createdat", b"labels", b"snapshots"}
        assert set(bucket(lease, b"labels")) == {fixtures.FLAT_LABEL}
        lease[b"createdat"] = bucket(lease, b"labels")[fixtures.FLAT_LABEL] = b""
    return containerd


def contents(root: OnDisk) -> dict[str, tuple[object, ...]]:
    """Everything in the data root, but for the directories' times."""
    found = ondisk.listing(root.root.parent)
    return {
        name: entry[:4] if stat.S_ISDIR(entry[0]) else entry  # type: ignore[arg-type]
        for name, entry in found.items()
    }


def by_data_root(root: OnDisk) -> Path:
    return root.root.parent


def by_builder(root: OnDisk) -> Path:
    return root.root


@pytest.mark.parametrize("named", [by_data_root, by_builder])
def test_the_result_is_that_of_the_engine(golden: Golden, named: Callable[[OnDisk], Path]) -> None:
    root, records, leases = golden
    before = contents(root)
    (report,) = migrate_root(named(root), verify=True)
    assert report.counts["kept"] == report.counts["records"] == len(bucket(records, b"_main"))
    assert report.notes == report.problems == ()
    assert ondisk.tree(root.v2) == records
    made = ondisk.tree(root.containerd)
    assert untimed(made) == untimed(leases)
    assert set(leases_of(made)) == set(bucket(records, b"_main"))
    assert stat.S_IMODE(root.containerd.stat().st_mode) == 0o644
    after = contents(root)
    new = {"containerdmeta.db", "metadata_v2.db", "metadata_v2.db.journal"}
    assert {Path(name).parts[1] for name in after.keys() - before.keys()} == new
    assert {name: after[name] for name in before} == before


def test_a_migrated_root_verifies_and_goes_back_exactly(golden: Golden) -> None:
    root = golden[0]
    before = contents(root)
    assert root.migrate().returncode == 0
    verified = root.verify("--content")
    assert (verified.returncode, verified.stderr) == (0, "")
    again = root.migrate()
    assert "already migrated" in again.stdout
    undone = ondisk.run("undo", str(root.root.parent))
    assert (undone.returncode, undone.stderr) == (0, "")
    moved = root.v2.with_name("metadata_v2.db.undone")
    assert moved.exists()
    moved.unlink()
    assert contents(root) == before
    assert [status.stage for status in root_status(root.root)] == [Stage.NOT_MIGRATED]


def test_a_dry_run_writes_nothing(golden: Golden) -> None:
    root = golden[0]
    before = ondisk.listing(root.root.parent)
    result = root.migrate("--dry-run")
    assert result.returncode == 0
    assert "storage_driver: overlay2 (the only one)" in result.stdout
    assert ondisk.listing(root.root.parent) == before
