"""Events during a run: daemons that start, other runs, full or read-only volumes, clock changes.

A run is paused (SIGSTOP) at a call, so that the timing is certain.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fault_points
import ondisk
from ondisk import OnDisk

pytestmark = pytest.mark.slow


def databases(root: OnDisk) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (root.v1, root.containerd)}


def call_numbers(names: tuple[str, ...]) -> dict[str, int]:
    """Calls around which the state on disk changes."""
    renames = [index for index, name in enumerate(names) if name == "rename"]
    return {
        "first-write": names.index("write") if "write" in names else renames[0],
        "first-rename": renames[0],
        "renamed": renames[0] + 1,
        "last-rename": renames[-1],
        "last-sync": len(names) - 1 - names[::-1].index("fsync"),
    }


POSITIONS = ["first-write", "first-rename", "renamed", "last-rename", "last-sync"]


@contextlib.contextmanager
def paused_at(command: str, position: str, root: OnDisk) -> Iterator[None]:
    """The command is paused at a call; after the block it continues and succeeds."""
    call = call_numbers(fault_points.calls(command))[position]
    with subprocess.Popen(
        fault_points.arguments(call, "stop", command, root),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)
        assert process.wait(timeout=120) == 0


def is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.mark.parametrize("position", POSITIONS)
def test_all_databases_are_locked_during_a_migration(root: OnDisk, position: str) -> None:
    with paused_at("migrate", position, root):
        for path in (root.root / "buildkitd.lock", root.v1, root.containerd, root.snapshots):
            assert is_locked(path), path
        assert not root.v2.exists() or is_locked(root.v2)
    for path in (root.v2, root.containerd, root.v1):
        assert not is_locked(path)
        assert ondisk.tree(path)
    root.verify_here()


@pytest.mark.parametrize("position", POSITIONS)
def test_undo_during_a_migration_is_refused(root: OnDisk, position: str) -> None:
    before = databases(root)
    with paused_at("migrate", position, root):
        assert ondisk.run("undo", str(root.root)).returncode == 4
    root.verify_here()
    root.undo_here()
    assert databases(root) == before


@pytest.mark.parametrize("position", POSITIONS)
def test_migration_during_an_undo_is_refused_or_finds_nothing_to_do(root: OnDisk, position: str) -> None:
    before = databases(root)
    root.migrate_here()
    with paused_at("undo", position, root):
        result = root.migrate()
        # Until the new store is moved aside, there is nothing to do.
        assert result.returncode == 4 or "already migrated" in result.stdout
    assert databases(root) == before
    root.migrate_here()
    root.verify_here()


@pytest.mark.parametrize("position", POSITIONS)
def test_second_migration_is_refused_or_finds_nothing_to_do(root: OnDisk, position: str) -> None:
    with paused_at("migrate", position, root):
        result = root.migrate()
        assert result.returncode == 4 or "already migrated" in result.stdout
    root.verify_here()
    assert root.left_behind == []


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MiB. Nothing of it may stay mapped in this process, or it can't be unmounted."""
    with ondisk.tmpfs(tmp_path / "volume", "32m") as volume:
        yield volume


def check_storage_error(result: subprocess.CompletedProcess[str]) -> None:
    assert "Traceback" not in result.stderr
    assert result.returncode == 8, (result.returncode, result.stdout)
    assert json.loads(result.stdout)["error"]["type"] == "StorageError"


@pytest.mark.parametrize("command", ["migrate", "undo"])
def test_read_only_volume_is_an_error(volume: Path, command: str) -> None:
    root = ondisk.sample(volume)
    if command == "undo":
        assert root.migrate().returncode == 0
    before = ondisk.listing(root.root)
    subprocess.run(["mount", "-o", "remount,ro", str(volume)], check=True)
    assert root.migrate("--dry-run").returncode == 0
    check_storage_error(ondisk.run(command, "--format", "json", str(root.root)))
    assert ondisk.listing(root.root) == before
    subprocess.run(["mount", "-o", "remount,rw", str(volume)], check=True)
    assert ondisk.run(command, str(root.root)).returncode == 0


def fill(volume: Path, kib_left: int) -> Path:
    filler = volume / "filler"
    info = os.statvfs(volume)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, info.f_bavail * info.f_frsize - kib_left * 1024)
    return filler


# The new store takes 744 KiB; then follow the journal, page by page, and containerd's database.
@pytest.mark.parametrize("kib_left", [0, 4, 8, 16, 256, 744, 748, 752, 756, 760, 1024])
@pytest.mark.parametrize("command", ["migrate", "undo"])
def test_full_volume_is_an_error_and_the_next_run_finishes(volume: Path, command: str, kib_left: int) -> None:
    root = ondisk.sample(volume)
    before = databases(root)
    if command == "undo":
        assert root.migrate().returncode == 0
    filler = fill(volume, kib_left)
    result = ondisk.run(command, "--format", "json", str(root.root))
    assert root.v1.read_bytes() == before[root.v1]
    assert result.returncode != 0 or command == "undo" or kib_left > 0
    if result.returncode != 0:
        check_storage_error(result)
        assert root.left_behind == []
        assert root.v2.exists() == (command == "undo")
    filler.unlink()
    assert ondisk.run(command, str(root.root)).returncode == 0
    if command == "migrate":
        assert root.verify().returncode == 0
        assert ondisk.run("undo", str(root.root)).returncode == 0
    assert databases(root) == before


BACKWARDS = """
import sys, time
now = [2_000_000_000 * 10**9]
def earlier():
    now[0] -= 3600 * 10**9
    return now[0]
time.time_ns = earlier
time.time = lambda: earlier() / 1e9
from buildkit_migrate.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_clock_that_goes_backwards_does_no_harm(root: OnDisk) -> None:
    before = databases(root)
    for command in ("migrate", "verify", "undo"):
        arguments = [sys.executable, "-c", BACKWARDS, command, str(root.root)]
        assert subprocess.run(arguments, capture_output=True, check=False).returncode == 0
    assert databases(root) == before
