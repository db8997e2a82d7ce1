"""Running daemons and other migrations are noticed at once; a dry run changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import ondisk
from holding import HELD, held
from ondisk import OnDisk


@pytest.mark.parametrize("name", HELD)
@pytest.mark.parametrize("options", [(), ("--dry-run",)], ids=["migrate", "dry-run"])
def test_exclusively_locked_file_stops_migration_and_dry_run(
    root: OnDisk, name: str, options: tuple[str, ...]
) -> None:
    file = root.root / name
    with held(file):
        before = ondisk.listing(root.worker)
        result = root.migrate("--format", "json", *options)
        assert result.returncode == 4
        error = json.loads(result.stdout)["error"]
        assert error["type"] == "BusyError"
        assert str(file) in error["message"]
        assert ondisk.listing(root.worker) == before
    root.migrate_here()


@pytest.mark.parametrize("name", HELD)
def test_shared_lock_stops_migration_but_not_dry_run(root: OnDisk, name: str) -> None:
    with held(root.root / name, "shared"):
        assert root.migrate().returncode == 4
        assert root.migrate("--dry-run").returncode == 0


@pytest.mark.parametrize("options", [(), ("-v",), ("--format", "json")])
def test_dry_run_changes_nothing(root: OnDisk, options: tuple[str, ...]) -> None:
    before = ondisk.listing(root.root)
    result = root.migrate("--dry-run", *options)
    assert result.returncode == 0
    assert ondisk.listing(root.root) == before


def test_refusal_changes_nothing(root: OnDisk) -> None:
    ondisk.edit(root.v1, {b"_main": {b"without-snapshot": {}}})
    before = ondisk.listing(root.worker)
    assert root.migrate().returncode == 6
    assert ondisk.listing(root.worker) == before


def test_new_lock_file_belongs_to_the_owner_of_its_directory(root: OnDisk) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(root.root, 65534, 65534)
    root.migrate_here()
    info = (root.root / "buildkitd.lock").stat()
    assert (info.st_uid, info.st_gid) == (65534, 65534)


def test_lone_worker_creates_no_lock_file(root: OnDisk) -> None:
    assert ondisk.run("migrate", str(root.worker)).returncode == 0
    assert [path.name for path in root.root.iterdir()] == [root.worker.name]


def test_lone_worker_respects_the_lock_of_its_state_directory(root: OnDisk) -> None:
    with held(root.root / "buildkitd.lock"):
        assert ondisk.run("migrate", str(root.worker)).returncode == 4


def test_concurrent_migrations_finish_or_are_refused(root: OnDisk) -> None:
    before = root.v1.read_bytes()
    command = [sys.executable, "-m", "buildkit_migrate", "migrate", str(root.root)]
    running = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(3)
    ]
    statuses = [process.wait(timeout=120) for process in running]
    assert 0 in statuses
    assert set(statuses) <= {0, 4}
    assert ondisk.tree(root.v2)
    assert ondisk.tree(root.containerd)
    assert root.v1.read_bytes() == before
    assert root.left_behind == []


def test_migrating_again_succeeds_while_a_daemon_uses_the_root(root: OnDisk) -> None:
    """A daemon runs on the migrated root, and a unit file runs the command again."""
    root.migrate_here()
    with held(root.v2), held(root.containerd), held(root.root / "buildkitd.lock"):
        result = root.migrate()
        assert (result.returncode, "already migrated" in result.stdout) == (0, True)
