"""Docker's builder after a kill or a failing call at any point: v1 is unchanged, the next run finishes.

``containerdmeta.db`` does not exist before, and is gone again after an undo.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import fault_points
import ondisk
from buildkit_migrate.api import root_status
from buildkit_migrate.migration.status import Stage
from fault_points import calls
from ondisk import OnDisk

pytestmark = pytest.mark.slow

OURS = ("metadata_v2.db", "containerdmeta.db", "lock.mdb", "data.mdb")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "fault" in metafunc.fixturenames:
        command = "undo" if metafunc.function.__name__.startswith("test_undo") else "migrate"
        fault_points.parametrize(metafunc, command, ondisk.docker_sample, fault_points.decisive_points)
    elif "call" in metafunc.fixturenames:
        metafunc.parametrize("call", range(len(calls("migrate", ondisk.docker_sample))))


class Outcome:
    """What undisturbed runs make of the root."""

    def __init__(self, directory: Path) -> None:
        root = ondisk.docker_sample(directory)
        self.before = untouched(root)
        root.migrate_here()
        self.v2 = root.v2.read_bytes()
        self.leases = ondisk.timeless(ondisk.tree(root.containerd))

    def check_intermediate(self, root: OnDisk) -> None:
        assert untouched(root) == self.before
        if root.containerd.exists():
            assert ondisk.timeless(ondisk.tree(root.containerd)) == self.leases
        else:
            assert not root.v2.exists()

    def check_finished(self, root: OnDisk) -> None:
        assert untouched(root) == self.before
        assert root.v2.read_bytes() == self.v2
        assert ondisk.timeless(ondisk.tree(root.containerd)) == self.leases
        assert not root.kept.exists()
        assert root.left_behind == []

    def check_back(self, root: OnDisk) -> None:
        assert untouched(root) == self.before
        # A run that is killed while it deletes the journal leaves the directory.
        left = {"metadata_v2.db.undone", "metadata_v2.db.journal"}
        names = {path.name for path in root.worker.iterdir()} - left
        assert names == {"cache.db", "content", "executor", "metadata.db", "snapshots.db"}


def untouched(root: OnDisk) -> dict[Path, bytes]:
    """What no run may change."""
    data = root.root.parent
    return {
        path.relative_to(data): path.read_bytes()
        for path in data.rglob("*")
        if path.is_file() and not path.name.startswith(OURS)
    }


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return Outcome(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def docker(tmp_path: Path) -> OnDisk:
    return ondisk.docker_sample(tmp_path)


def test_migrate_with_a_fault_leaves_v1_and_the_next_run_finishes(
    call: int, fault: str, docker: OnDisk, outcome: Outcome
) -> None:
    result = fault_points.run(call, fault, "migrate", docker)
    fault_points.check_status(result, fault, calls("migrate", ondisk.docker_sample)[call])
    outcome.check_intermediate(docker)
    assert fault == "kill" or docker.left_behind == []
    docker.migrate_here()
    outcome.check_finished(docker)
    docker.verify_here()


def test_killed_migrations_can_be_taken_back(call: int, docker: OnDisk, outcome: Outcome) -> None:
    assert fault_points.run(call, "kill", "migrate", docker).returncode == -9
    docker.undo_here()
    assert [status.stage for status in root_status(docker.root)] == [Stage.NOT_MIGRATED]
    assert untouched(docker) == outcome.before
    assert not docker.containerd.exists()
    assert not docker.v2.exists()
    docker.migrate_here()
    outcome.check_finished(docker)


def test_undo_with_a_fault_can_be_continued(call: int, fault: str, docker: OnDisk, outcome: Outcome) -> None:
    docker.migrate_here()
    result = fault_points.run(call, fault, "undo", docker)
    fault_points.check_status(result, fault, calls("undo", ondisk.docker_sample)[call])
    assert untouched(docker) == outcome.before
    docker.undo_here()
    outcome.check_back(docker)


def test_injection_covers_the_calls_that_matter() -> None:
    """So that a change which hides calls from the injection is noticed."""
    names = calls("migrate", ondisk.docker_sample)
    assert {"open", "write", "fsync", "link", "rename", "unlink", "mkdir", "flock", "mmap"} <= set(names)
    assert {"rename", "unlink", "fsync"} <= set(calls("undo", ondisk.docker_sample))


@pytest.fixture
def small_volume(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB: room for the sample root, not for what is written."""
    with ondisk.tmpfs(tmp_path / "volume", "3m") as volume:
        yield volume


def test_full_disk_is_an_error_and_the_next_run_finishes(small_volume: Path, outcome: Outcome) -> None:
    docker = ondisk.docker_sample(small_volume)
    free = shutil.disk_usage(small_volume).free
    (small_volume / "filler").write_bytes(bytes(max(0, free - 100_000)))
    result = docker.migrate()
    assert (result.returncode, docker.v2.exists(), docker.containerd.exists()) == (8, False, False)
    assert "No space left on device" in result.stderr
    outcome.check_intermediate(docker)
    subprocess.run(["mount", "-o", "remount,size=30m", str(small_volume)], check=True)
    docker.migrate_here()
    outcome.check_finished(docker)
