"""After a kill or a failing system call at any point v1 is unchanged and the next run finishes.

The faults are put into a real run of the command on a real root, at each call that changes something on disk,
locks or maps a file. ``pytest --collect-only -q tests/migration/test_faults.py`` lists them, with ``call-``
in their names.
"""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import fault_points
import fixtures
import ondisk
from buildkit_migrate.errors import StorageError
from buildkit_migrate.files.locks import lock
from fault_points import calls
from fixtures import FLAT_LABEL, bucket, buckets
from ondisk import OnDisk, timeless
from plain_bbolt import BucketDict

pytestmark = pytest.mark.slow


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    fault_points.parametrize(metafunc, "migrate")


class Outcome:
    """What an undisturbed run makes of the sample root."""

    def __init__(self, directory: Path) -> None:
        root = ondisk.sample(directory)
        self.v1 = root.v1.read_bytes()
        self.containerd_before = root.containerd.read_bytes()
        root.migrate_here()
        assert ondisk.tree(root.v2)
        self.v2 = root.v2.read_bytes()
        self.containerd = timeless(ondisk.tree(root.containerd))

    def check_intermediate(self, root: OnDisk) -> None:
        """Each file has its old or new content; the new store exists only if all else is done."""
        assert root.v1.read_bytes() == self.v1
        if root.containerd.read_bytes() != self.containerd_before:
            assert timeless(ondisk.tree(root.containerd)) == self.containerd
            if root.v2.exists():
                assert root.v2.read_bytes() == self.v2
        else:
            assert not root.v2.exists()

    def check_finished(self, root: OnDisk) -> None:
        assert root.v1.read_bytes() == self.v1
        assert root.v2.read_bytes() == self.v2
        assert timeless(ondisk.tree(root.containerd)) == self.containerd
        assert root.kept.read_bytes() == self.containerd_before
        assert root.left_behind == []


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return Outcome(tmp_path_factory.mktemp("undisturbed"))


def test_injection_covers_the_calls_that_matter() -> None:
    """So that a change which hides calls from the injection is noticed."""
    names = calls("migrate")
    assert {"open", "write", "fsync", "link", "rename", "unlink", "mkdir", "flock", "mmap"} <= set(names)
    assert names.count("rename") == 2
    assert names.count("fsync") == 6  # two files, the journal, and three times the directory


def test_fault_at_any_call_leaves_v1_and_the_next_run_finishes(
    call: int, fault: str, root: OnDisk, outcome: Outcome
) -> None:
    result = fault_points.run(call, fault, "migrate", root)
    fault_points.check_status(result, fault, calls("migrate")[call])
    outcome.check_intermediate(root)
    assert fault == "kill" or root.left_behind == []
    root.migrate_here()
    outcome.check_finished(root)


def test_short_writes_are_continued(root: OnDisk, outcome: Outcome) -> None:
    result = fault_points.run(-1, "short", "migrate", root)
    assert result.returncode == 0
    assert result.stderr.split().count("write") > calls("migrate").count("write")
    outcome.check_finished(root)


def test_second_run_may_be_killed_too(root: OnDisk, outcome: Outcome) -> None:
    """The first run dies before the switch; leases and labels are done when the second one dies."""
    switch = max(index for index, name in enumerate(calls("migrate")) if name == "rename")
    assert fault_points.run(switch, "kill", "migrate", root).returncode == -9
    containerd = root.containerd.read_bytes()
    assert containerd != outcome.containerd_before
    assert fault_points.run(calls("migrate").index("fsync"), "kill", "migrate", root).returncode == -9
    outcome.check_intermediate(root)
    root.migrate_here()
    outcome.check_finished(root)
    assert root.containerd.read_bytes() == containerd


def test_leftover_garbage_is_replaced(root: OnDisk, outcome: Outcome) -> None:
    for path in (root.v2, root.containerd):
        path.with_name(path.name + ".tmp").write_bytes(b"garbage" * 10_000)
    root.migrate_here()
    outcome.check_finished(root)


def test_lease_without_resources_is_completed(root: OnDisk, outcome: Outcome) -> None:
    """What upstream leaves when it is interrupted, and then loses data over."""
    record = min(buckets(bucket(ondisk.tree(root.v1), b"_main")))
    lease: BucketDict = {
        b"createdat": b"\x01" + bytes(12) + b"\xff\xff",
        b"labels": {FLAT_LABEL: b"2020-01-01T00:00:00Z"},
    }
    ondisk.edit(root.containerd, {b"v1": {b"buildkit": {b"leases": {record: lease}}}})
    root.migrate_here()
    assert root.v2.read_bytes() == outcome.v2
    after = ondisk.tree(root.containerd)
    assert bucket(after, b"v1", b"buildkit", b"leases", record, b"labels") == lease[b"labels"]
    assert fixtures.leases_of(after) == fixtures.leases_of(outcome.containerd)


def test_older_kept_databases_are_numbered(root: OnDisk, outcome: Outcome) -> None:
    """They no longer fit the snapshots if a daemon ran since, but nothing is deleted."""
    before = [b"older", b"old"]
    for number, content in enumerate(before):
        root.kept.unlink(missing_ok=True)
        root.kept.write_bytes(content)
        root.migrate_here()
        assert root.kept.read_bytes() == outcome.containerd_before
        moved = [root.kept.with_name(f"{root.kept.name}.~{n + 1}~").read_bytes() for n in range(number + 1)]
        assert moved == before[: number + 1]
        root.undo_here()
    root.migrate_here()
    assert ondisk.run("clean", str(root.root)).returncode == 0
    assert not list(root.worker.glob("*~"))


def test_failed_cleanup_unlocks_v1(root: OnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program may continue after the error."""
    unlink = Path.unlink

    def refuse(path: Path, **options: bool) -> None:
        if path.exists() and path.name == "metadata_v2.db.tmp":
            raise OSError(errno.EIO, "it stays")
        unlink(path, **options)

    def rename(path: Path, target: Path) -> Path:
        raise OSError(errno.EIO, "no rename")

    with monkeypatch.context() as faulty:
        faulty.setattr(Path, "unlink", refuse)
        faulty.setattr(Path, "rename", rename)
        with pytest.raises(StorageError, match="it stays"):
            root.migrate_here()
    for path in (root.v1, root.containerd):
        lock(path, exclusive=True).close()
    root.migrate_here()
    assert root.left_behind == []


@pytest.fixture
def small_volume(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB: room for the sample root, not for its second copy."""
    with ondisk.tmpfs(tmp_path / "volume", "6m") as volume:
        yield volume


def test_full_disk_is_an_error_and_the_next_run_finishes(small_volume: Path, outcome: Outcome) -> None:
    root = ondisk.sample(small_volume)
    result = root.migrate()
    assert result.returncode == 8
    assert "no space left" in result.stderr.lower()
    assert not root.v2.exists()
    assert root.left_behind == []
    outcome.check_intermediate(root)
    subprocess.run(["mount", "-o", "remount,size=30m", str(small_volume)], check=True)
    root.migrate_here()
    outcome.check_finished(root)
