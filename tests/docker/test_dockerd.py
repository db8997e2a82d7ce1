"""A real Docker Engine 20.10: its own migration and ours, and what it does with a root that we migrated."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dockerd
import fixtures
import ondisk
from buildkit_migrate.api import du_root
from buildkit_migrate.errors import BusyError
from dockerd import Dockerd
from fixtures import bucket, buckets
from ondisk import OnDisk
from plain_bbolt import BucketDict

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(bool(dockerd.why_missing()), reason=dockerd.why_missing()),
    pytest.mark.slow,
]

NO_PARENT = b'{"value":""}'


def sample(into: Path) -> Path:
    return ondisk.docker_sample(into).root.parent


def full(into: Path) -> Path:
    """A whole data root, with the content of the layers."""
    archive = fixtures.directory() / "docker" / "docker-d" / "full.tar.zst"
    if shutil.which("zstd") is None:
        pytest.skip("no zstd")
    subprocess.run(["tar", "--xattrs", "-I", "zstd", "-xf", str(archive), "-C", str(into)], check=True)
    return into / "root"


@pytest.fixture(scope="module", params=[sample, full], ids=lambda source: str(source.__name__))
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found: Path = request.param(tmp_path_factory.mktemp("source"))
    return found


class Own:
    """What the engine makes of a root by itself."""

    def __init__(self, data: Path) -> None:
        with Dockerd(data) as engine:
            self.migrated = engine.migrated
            engine.stop()
        root = ondisk.docker(data)
        self.v2 = ondisk.tree(root.v2)
        self.leases = ondisk.timeless(ondisk.tree(root.containerd))
        with Dockerd(data) as engine:
            self.records = engine.records()


@pytest.fixture(scope="module")
def own(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Own:
    return Own(copied(source, tmp_path_factory.mktemp("own")))


@pytest.fixture
def docker(source: Path, tmp_path: Path) -> OnDisk:
    return ondisk.docker(copied(source, tmp_path))


def copied(data: Path, into: Path) -> Path:
    into.mkdir(exist_ok=True)
    subprocess.run(["cp", "-a", str(data), str(into / "root")], check=True)
    return into / "root"


def without_empty_parents(v2: BucketDict) -> BucketDict:
    for record in buckets(bucket(v2, b"_main")).values():
        if record.get(b"cache.parent") == NO_PARENT:
            del record[b"cache.parent"]
    return v2


def test_both_migrations_give_the_same_store_and_leases(docker: OnDisk, own: Own) -> None:
    """20.10 leaves an empty ``cache.parent`` out; 23.0 and later write it, as we do."""
    docker.migrate_here()
    made = ondisk.tree(docker.v2)
    assert own.migrated == len(bucket(made, b"_main"))
    assert without_empty_parents(made) == own.v2
    assert ondisk.timeless(ondisk.tree(docker.containerd)) == own.leases


def test_the_engine_lists_our_records_and_frees_everything(docker: OnDisk, own: Own) -> None:
    docker.migrate_here()
    data = docker.root.parent
    assert dockerd.layers_left(data)
    with Dockerd(data) as engine:
        assert engine.migrated == 0
        assert untimed(engine.records()) == untimed(own.records)
        engine.prune_all()
        assert engine.records() == {}
    assert dockerd.layers_left(data) == []


def untimed(records: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {id: {**record, "LastUsedAt": None} for id, record in records.items()}


def test_the_engine_migrates_by_itself_after_an_undo(docker: OnDisk, own: Own) -> None:
    docker.migrate_here()
    docker.undo_here()
    with Dockerd(docker.root.parent) as engine:
        assert engine.migrated == own.migrated
        engine.stop()
    assert ondisk.tree(docker.v2) == own.v2
    assert ondisk.timeless(ondisk.tree(docker.containerd)) == own.leases


def test_a_root_that_the_engine_has_used_goes_back(docker: OnDisk, own: Own) -> None:
    """A start loses nothing. That it has measured records since is reported first."""
    docker.migrate_here()
    data = docker.root.parent
    with Dockerd(data):
        pass
    docker.undo_here()
    assert not docker.containerd.exists()
    docker.migrate_here()
    with Dockerd(data) as engine:
        engine.records()
    refused = ondisk.run("undo", str(data))
    assert refused.returncode == 14
    assert "records were changed" in refused.stderr
    assert ondisk.run("undo", "--force", str(data)).returncode == 0
    with Dockerd(data) as engine:
        assert engine.migrated == own.migrated
        assert untimed(engine.records()) == untimed(own.records)


def test_going_back_after_pruning_is_refused(docker: OnDisk) -> None:
    docker.migrate_here()
    with Dockerd(docker.root.parent) as engine:
        engine.prune_all()
    result = ondisk.run("undo", str(docker.root))
    assert result.returncode == 14
    assert "gone" in result.stderr


def test_records_of_lost_layers_keep_only_the_engine_from_starting(docker: OnDisk) -> None:
    """A layer that records stand on is gone. Without them the engine starts, and lists the others."""
    data = docker.root.parent
    lost = next(id for id in buckets(bucket(ondisk.tree(docker.v1), b"_main")) if id.startswith(b"sha256:"))
    shutil.rmtree(data / "image" / "overlay2" / "layerdb" / "sha256" / lost.decode().partition(":")[2])
    alone = copied(data, data.parent / "alone")
    with pytest.raises(RuntimeError, match="layer does not exist"), Dockerd(alone):
        pass
    assert docker.migrate("--on-broken", "drop").returncode == 0
    with Dockerd(data) as engine:
        assert 0 < len(engine.records()) < len(buckets(bucket(ondisk.tree(docker.v1), b"_main")))


def test_du_says_what_the_engine_says(docker: OnDisk) -> None:
    docker.migrate_here()
    with Dockerd(docker.root.parent) as engine:
        told = engine.records()
        engine.stop()
    usage = du_root(docker.root)
    assert {record.id.decode(): record.size for _, record in usage} == {
        id: record["Size"] for id, record in told.items()
    }
    assert usage.incomplete == ()


@pytest.fixture
def running(docker: OnDisk) -> Iterator[Dockerd]:
    docker.migrate_here()
    with Dockerd(docker.root.parent) as engine:
        yield engine


def test_a_running_engine_is_named(running: Dockerd) -> None:
    for command in ("verify", "undo", "clean", "check", "du"):
        result = ondisk.run(command, str(running.data))
        assert result.returncode == BusyError.exit_code, command
        assert f"dockerd (process {running.pid})" in result.stderr
        assert "systemctl stop docker.socket docker" in result.stderr
