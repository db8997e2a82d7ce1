"""Copies of worker directories left in the root do not disturb the workers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import ondisk
from buildkit_migrate import ensure_migrated, errors, migrate_root, root_status, undo_root, verify_root
from buildkit_migrate.api import find_root
from buildkit_migrate.choices import KNOWN_SNAPSHOTTERS
from buildkit_migrate.migration.report import Outcome
from buildkit_migrate.workspace.names import copied_from, is_identifier
from fixtures import bucket
from ondisk import OnDisk

pytestmark = pytest.mark.slow

ENDINGS = (
    ".bak",
    ".old",
    "~",
    "-backup",
    ".orig",
    "_save",
    " (copy)",
    ".bak.1",
    "-20240131",
    ".2024-01-31T12:00",
)


@pytest.fixture(params=[ondisk.sample, ondisk.sample_of_containerd])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> OnDisk:
    make: Callable[[Path], OnDisk] = request.param
    return make(tmp_path)


def copy_worker(root: OnDisk, name: str) -> Path:
    copy = root.worker.with_name(name)
    shutil.copytree(root.worker, copy)
    return copy


# --- Names


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("snapshotter", ["overlayfs", "fuse-overlayfs", "mine"])
def test_backup_endings_mark_a_copy(snapshotter: str, ending: str) -> None:
    assert copied_from(snapshotter + ending, {"mine", *KNOWN_SNAPSHOTTERS}) == snapshotter


@pytest.mark.parametrize(
    "name", [*sorted(KNOWN_SNAPSHOTTERS), "mine", "overlayfs-mine", "stargz2", "zfs-10", "oldest"]
)
def test_other_names_are_not_taken_for_copies(name: str) -> None:
    assert copied_from(name, KNOWN_SNAPSHOTTERS - {name}) is None


def test_backup_alone_is_a_copy_of_something() -> None:
    assert copied_from("backup", KNOWN_SNAPSHOTTERS) == ""


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("overlayfs", True),
        ("fuse-overlayfs.v2_3", True),
        *((bad, False) for bad in ("a--b", "a b", "ü", "a.", "")),
    ],
)
def test_containerd_identifiers_are_recognised(name: str, is_one: bool) -> None:
    assert is_identifier(name) is is_one


# --- Roots


@pytest.mark.parametrize("ending", ENDINGS)
def test_copy_beside_its_worker_is_skipped(root: OnDisk, ending: str) -> None:
    copy = copy_worker(root, root.worker.name + ending)
    before = ondisk.listing(copy)
    for arguments, names in (
        (("migrate", "--dry-run"), ["planned", "skipped"]),
        (("migrate",), ["migrated", "skipped"]),
        (("verify",), ["ok", "skipped"]),
        (("status",), ["migrated", "skipped"]),
        (("undo",), ["undone", "skipped"]),
    ):
        options = () if arguments == ("status",) else root.options
        result = ondisk.run(*arguments, *options, "--format", "json", str(root.root))
        assert (result.returncode, result.stderr) == (0, "")
        workers = json.loads(result.stdout)["workers"]
        assert [worker["worker"] for worker in workers] == [str(root.worker), str(copy)]
        said = [worker.get("outcome", worker.get("verdict", worker.get("stage"))) for worker in workers]
        assert said == names
        assert f"a copy of {root.worker.name}" in workers[1]["reason"]
    assert ondisk.listing(copy) == before


def test_skipped_copy_is_named(root: OnDisk) -> None:
    copy = copy_worker(root, f"{root.worker.name}.bak")
    for command in ("status", "migrate", "verify", "undo"):
        options = () if command == "status" else root.options
        told = ondisk.run(command, *options, str(root.root)).stdout
        assert f"{copy}: skipped: looks like a copy of {root.worker.name}; move it out of the root" in told


def test_ensure_migrated_skips_a_copy(root: OnDisk) -> None:
    copy_worker(root, f"{root.worker.name}.bak")
    options = {"containerd_root": root.options[1]} if root.options else {}
    first = ensure_migrated(root.root, **options)
    assert [report.outcome for report in first] == [Outcome.MIGRATED, Outcome.SKIPPED]
    assert ensure_migrated(root.root, **options) == []


def test_only_a_copy_is_skipped(root: OnDisk) -> None:
    root.worker.rename(root.worker.with_name(f"{root.worker.name}.bak"))
    (report,) = migrate_root(root.root)
    assert report.outcome is Outcome.SKIPPED
    assert ensure_migrated(root.root) == []


def test_copy_given_as_root_is_migrated(root: OnDisk) -> None:
    """It is treated as the original."""
    copy = root.worker.rename(root.worker.with_name(f"{root.worker.name}.bak"))
    (worker,) = find_root(copy).workers
    assert worker.snapshotter == "overlayfs"
    result = ondisk.run("migrate", *root.options, str(copy))
    assert (result.returncode, result.stderr) == (0, "")
    assert "migrated 287 of 287" in result.stdout


def test_copy_with_any_name_is_recognised_by_its_worker_id(root: OnDisk) -> None:
    """A worker's id is random, so equal ids mean a copy."""
    (root.worker / "workerid").write_text("oi4ycs1sbsyjxzvmh1vxsxwwz")
    kind = root.worker.name.partition("-")[0]
    copy_worker(root, f"{kind}-saturday")
    skipped = find_root(root.root).skipped
    assert [one.path.name for one in skipped] == [f"{kind}-saturday"]


def test_copy_is_recognised_by_the_snapshotter_in_its_database(tmp_path: Path) -> None:
    """The ending means nothing, but containerd's database names another snapshotter."""
    root = ondisk.sample(tmp_path)
    copy_worker(root, "runc-overlayfs.saturday")
    assert [one.path.name for one in find_root(root.root).skipped] == ["runc-overlayfs.saturday"]
    assert [report.outcome for report in migrate_root(root.root)] == [Outcome.MIGRATED, Outcome.SKIPPED]


@pytest.mark.parametrize("name", ["overlayfs.bak", "overlayfs-mine", "old"])
def test_worker_of_a_snapshotter_with_an_odd_name_is_migrated(tmp_path: Path, name: str) -> None:
    root = ondisk.sample(tmp_path)
    other = copy_worker(root, f"runc-{name}")
    snapshots = bucket(ondisk.tree(root.containerd), b"v1", b"buildkit", b"snapshots", b"overlayfs")
    ondisk.edit(
        other / "containerdmeta.db",
        {b"v1": {b"buildkit": {b"snapshots": {b"overlayfs": None, name.encode(): snapshots}}}},
    )
    assert [report.outcome for report in migrate_root(root.root)] == [Outcome.MIGRATED, Outcome.MIGRATED]


def test_worker_directory_with_an_impossible_name_is_skipped(tmp_path: Path) -> None:
    root = ondisk.sample(tmp_path)
    copy_worker(root, "runc-über")
    assert [report.outcome for report in migrate_root(root.root)] == [Outcome.MIGRATED, Outcome.SKIPPED]
    with pytest.raises(errors.RootNotFoundError, match="snapshotter"):
        find_root(root.root / "runc-über")


def test_damaged_copy_is_skipped(tmp_path: Path) -> None:
    root = ondisk.sample(tmp_path)
    copy = copy_worker(root, "runc-overlayfs.bak")
    (copy / "containerdmeta.db").write_bytes(bytes(100))
    (copy / "workerid").mkdir()
    for function in (root_status, migrate_root, verify_root, undo_root):
        assert len(function(root.root)) == 2


def test_error_names_a_worker_that_may_be_unused(tmp_path: Path) -> None:
    root = ondisk.sample(tmp_path)
    other = copy_worker(root, "runc-native")
    result = root.migrate()
    assert result.returncode == 7
    assert f"{other}/containerdmeta.db" in result.stderr
    assert f"if {other} is a copy, or not in use, move it out of the root" in result.stderr
