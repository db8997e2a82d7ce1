"""`clean` removes only what undo needs, and only from sound and finished roots."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

import fault_points
import ondisk
from buildkit_migrate import clean_root, errors
from ondisk import OnDisk


@pytest.fixture(params=["oci", "containerd"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> OnDisk:
    return ondisk.sample(tmp_path) if request.param == "oci" else ondisk.sample_of_containerd(tmp_path)


def clean(root: OnDisk, *arguments: str) -> tuple[int, dict[str, Any]]:
    result = ondisk.run("clean", "--format", "json", *root.options, *arguments, str(root.root))
    assert "Traceback" not in result.stderr
    return result.returncode, json.loads(result.stdout)


def names(root: OnDisk) -> set[str]:
    return {str(path.relative_to(root.root.parent)) for path in root.root.parent.rglob("*")}


def test_clean_removes_leftovers_and_keeps_the_rest(root: OnDisk) -> None:
    before = names(root)
    root.migrate_here()
    root.undo_here()
    root.migrate_here()
    for stale in ("metadata_v2.db.tmp", "containerdmeta.db.tmp", "metadata_v2.db-lock"):
        root.worker.joinpath(stale).write_bytes(b"stale")
    other = root.worker / "metadata_v2.db.mine"
    other.write_bytes(b"not ours")
    code, document = clean(root, "--dry-run")
    assert code == 0
    (worker,) = document["workers"]
    assert worker["outcome"] == "planned"
    assert worker["bytes"] == sum(file["bytes"] for file in worker["files"]) > root.kept.stat().st_size
    assert root.kept.exists()
    planned = {file["path"] for file in worker["files"]}
    listed = {path for path in root.root.parent.rglob("*") if path.is_file()}
    code, document = clean(root)
    assert (code, document["workers"][0]["outcome"]) == (0, "cleaned")
    assert {str(path) for path in listed if not path.exists()} == planned
    lock = str((root.root / "buildkitd.lock").relative_to(root.root.parent))
    assert names(root) == before | {
        lock,
        str(root.v2.relative_to(root.root.parent)),
        str(other.relative_to(root.root.parent)),
    }
    root.verify_here()
    assert ondisk.run("undo", *root.options, str(root.root)).returncode == 13
    assert clean(root)[1]["workers"][0]["outcome"] == "nothing-to-clean"


def test_clean_prints_text(tmp_path: Path) -> None:
    root = ondisk.sample(tmp_path)
    root.migrate_here()
    dry = ondisk.run("clean", "--dry-run", str(root.root))
    assert "would be removed; after that, nothing is left to undo" in dry.stdout
    assert str(root.kept) in dry.stdout
    assert "metadata.db stays" in ondisk.run("clean", str(root.root)).stdout
    assert "nothing to clean" in ondisk.run("clean", str(root.root)).stdout


def test_dry_run_of_clean_writes_nothing(root: OnDisk) -> None:
    root.migrate_here()
    before = ondisk.listing(root.root.parent)
    assert clean(root, "--dry-run")[0] == 0
    assert ondisk.listing(root.root.parent) == before


def test_interrupted_root_is_not_cleaned(tmp_path: Path) -> None:
    root = ondisk.sample(tmp_path)
    last = max(index for index, name in enumerate(fault_points.calls("migrate")) if name == "rename")
    fault_points.run(last, "kill", "migrate", root)
    assert clean(root)[0] == 13
    assert clean(root, "--dry-run")[0] == 13
    root.migrate_here()
    fault_points.run(fault_points.calls("undo").index("rename"), "kill", "undo", root)
    assert clean(root)[0] == 13
    assert root.kept.exists()


def test_undone_root_is_cleaned(root: OnDisk) -> None:
    """The store moved aside and leftovers of killed runs are removed; kept databases are not."""
    before = names(root)
    root.migrate_here()
    root.undo_here()
    for stale in ("metadata_v2.db.tmp", "metadata_v2.db-lock"):
        root.worker.joinpath(stale).write_bytes(b"stale")
    root.kept.write_bytes(b"kept")
    lock, kept = (
        str(path.relative_to(root.root.parent)) for path in (root.root / "buildkitd.lock", root.kept)
    )
    assert clean(root)[0] == 0
    assert names(root) == before | {lock, kept}
    root.migrate_here()


@pytest.mark.parametrize("damaged", [False, True])
def test_root_without_a_sound_v1_is_not_cleaned(root: OnDisk, damaged: bool) -> None:
    """Only the store that was moved aside is left."""
    root.migrate_here()
    root.undo_here()
    if damaged:
        root.v1.write_bytes(b"v1" * 4096)
    else:
        root.v1.unlink()
    code, _ = clean(root)
    assert code == 10
    assert root.v2.with_name("metadata_v2.db.undone").exists()


@pytest.mark.parametrize("which", ["v2", "containerd", "snapshots"])
def test_damaged_root_is_not_cleaned(root: OnDisk, which: str) -> None:
    root.migrate_here()
    path: Path = getattr(root, which)
    content = path.read_bytes()
    path.write_bytes(content[: 2 * 4096] + bytes(len(content) - 2 * 4096))
    code, document = clean(root, "--dry-run")
    assert code in (5, 10), document
    assert clean(root)[0] == code
    assert root.kept.exists()


def test_files_of_a_running_containerd_are_kept(tmp_path: Path) -> None:
    root = ondisk.sample_of_containerd(tmp_path)
    root.kept.write_bytes(b"older")
    root.migrate_here()
    root.verify_here()
    clean_root(root.root)
    assert root.kept.exists()
    clean_root(root.root, containerd_root=root.options[1])
    assert not list(root.kept.parent.glob("*before-v2*"))


def test_lock_file_of_an_lmdb_store_is_kept(tmp_path: Path) -> None:
    root = ondisk.sample(tmp_path)
    assert root.migrate("--to-engine", "lmdb").returncode == 0
    lock = root.v2.with_name(root.v2.name + "-lock")
    lock.write_bytes(b"")
    clean_root(root.root)
    assert lock.exists()
    assert not root.kept.exists()


def test_interrupted_clean_is_finished_by_the_next_one(tmp_path: Path) -> None:
    root = ondisk.sample(tmp_path)
    root.migrate_here()
    done = fault_points.run(-1, "none", "clean", root)
    assert done.returncode == 0
    for at in range(len(done.stderr.split())):
        copy = ondisk.sample(tmp_path / str(at))
        copy.migrate_here()
        assert fault_points.run(at, "kill", "clean", copy).returncode == -9
        clean_root(copy.root)
        assert not copy.kept.exists()
        copy.verify_here()


def test_clean_is_refused_while_a_daemon_runs(tmp_path: Path) -> None:
    root = ondisk.sample(tmp_path)
    root.migrate_here()
    holder = subprocess.Popen(
        ["flock", str(root.v2), "sh", "-c", "echo held; cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(errors.BusyError):
            clean_root(root.root)
        assert root.kept.exists()
        assert holder.stdin is not None
        holder.stdin.close()
