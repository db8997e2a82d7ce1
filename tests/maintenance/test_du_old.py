"""`du` of roots that no daemon of today has seen: v1 stores, and the builder of Docker Engine."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

import fixtures
import ondisk
from buildkit_migrate import du_root, migrate_root
from ondisk import OnDisk, run

pytestmark = pytest.mark.slow


def listed(root: OnDisk) -> list[dict[str, Any]]:
    done = run("du", *root.options, "--format", "json", str(root.root))
    assert done.returncode == 0, done.stderr
    records = json.loads(done.stdout)["records"]
    assert isinstance(records, list)
    return records


def test_a_v1_store_is_listed_as_its_migrated_one(tmp_path: Path) -> None:
    root = ondisk.sample(tmp_path)
    before = listed(root)
    assert len(before) > 10
    assert any(one["parents"] for one in before)
    assert any(one["mutable"] for one in before)
    root.migrate_here()
    assert listed(root) == before


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_real_v1_stores_are_listed_as_their_migrated_ones(name: str, tmp_path: Path) -> None:
    root = ondisk.real(name, tmp_path)
    before = listed(root)
    assert root.migrate("--on-broken", "drop").returncode == 0
    assert listed(root) == before


def test_a_v1_store_is_said_to_be_one(tmp_path: Path) -> None:
    root = ondisk.sample(tmp_path)
    done = run("du", str(root.root))
    assert done.returncode == 0
    assert "a v1 store" in done.stderr


@pytest.mark.parametrize("name", ["docker-a", "docker-d"])
def test_the_builder_of_docker_has_the_sizes_that_were_measured(name: str, tmp_path: Path) -> None:
    archive = fixtures.directory() / "docker" / name / "v1.tar.zst"
    subprocess.run(["tar", "-I", "zstd", "-xf", archive, "-C", tmp_path], check=True)
    usage = du_root(tmp_path / "root" / "buildkit")
    records = [record for _, record in usage]
    assert len(records) > 20
    assert usage.totals.total > 0
    assert {one.exit_code for one in usage.incomplete} <= {7}
    assert all("only Docker itself" in one.reason for one in usage.incomplete)


def test_the_builder_of_docker_is_listed_as_if_it_were_migrated(tmp_path: Path) -> None:
    data = ondisk.docker_sample(tmp_path).root.parent
    before = list(du_root(data))
    assert any(record.mutable for _, record in before)
    assert any(record.parents for _, record in before)
    migrate_root(data)
    assert [record for _, record in du_root(data)] == [record for _, record in before]
