"""Undo of roots that were moved or used, perhaps after an interruption: it works, or says why not."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import containerd_daemon
import fault_points
import fixtures
import ondisk
from buildkit_migrate import discard_kept_repairs, repair_root
from buildkit_migrate.api import root_status, undo_root
from buildkit_migrate.bolt.edits import Edits
from buildkit_migrate.errors import BusyError
from buildkit_migrate.migration.journal import Journal
from buildkit_migrate.store.bolt_store import BoltFileStore
from fault_points import calls
from fixtures import bucket, buckets
from ondisk import OnDisk
from undoing import databases, next_step, record_of, set_value, undo

pytestmark = pytest.mark.slow

MOVES: dict[str, Callable[[Path, Path], None]] = {
    "tar": lambda source, target: tar(source, target),
    "cp -r": lambda source, target: run("cp", "-r", str(source), str(target)),
    "python": lambda source, target: shutil.copytree(source, target, copy_function=shutil.copy) and None,
}


def run(*command: str) -> None:
    subprocess.run(command, check=True)


def tar(source: Path, target: Path) -> None:
    """Through an archive without times, in which hard links become separate files."""
    target.mkdir()
    pack = ["tar", "--hard-dereference", "--mtime=2001-01-01", "-cC", str(source), "."]
    archive = subprocess.run(pack, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-xmC", str(target)], input=archive, check=True)


def move_root(root: OnDisk, how: str, into: Path) -> OnDisk:
    MOVES[how](root.root, into)
    shutil.rmtree(root.root)
    return ondisk.oci(into, root.snapshotter)


@pytest.mark.parametrize("how", MOVES)
def test_moved_root_is_undone(root: OnDisk, how: str, tmp_path: Path) -> None:
    before = databases(root)
    root.migrate_here()
    there = move_root(root, how, tmp_path / "there")
    assert "undo goes back to v1" in next_step(there)
    assert undo(there)[0] == 0
    assert databases(there) == before


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "call" in metafunc.fixturenames:
        metafunc.parametrize("call", range(len(calls("migrate"))))


def test_root_moved_after_an_interruption_is_undone_or_finished(
    call: int, root: OnDisk, tmp_path: Path
) -> None:
    """Byte for byte, wherever it was killed."""
    before = databases(root)
    assert fault_points.run(call, "kill", "migrate", root).returncode == -9
    there = move_root(root, "cp -r", tmp_path / "there")
    goes_on = ondisk.oci(tmp_path / "goes-on", root.snapshotter)
    run("cp", "-r", str(there.root), str(goes_on.root))
    undo_root(there.root)
    assert databases(there) == before
    goes_on.migrate_here()
    goes_on.verify_here()
    undo_root(goes_on.root)
    assert databases(goes_on) == before


def test_root_moved_after_an_interrupted_undo_is_undone(root: OnDisk, tmp_path: Path) -> None:
    before = databases(root)
    root.migrate_here()
    assert {"rename", "unlink", "rmdir"} <= set(calls("undo"))
    for at, name in enumerate(calls("undo")):
        if name not in ("rename", "unlink", "rmdir"):
            continue
        copy = ondisk.oci(tmp_path / f"copy{at}", root.snapshotter)
        run("cp", "-r", str(root.root), str(copy.root))
        assert fault_points.run(at, "kill", "undo", copy).returncode == -9
        there = move_root(copy, "cp -r", tmp_path / f"there{at}")
        # The old daemon may run as soon as the new store is out of the way.
        if not there.v2.exists() and not there.kept.exists():
            ondisk.edit(there.containerd, {b"v1": {b"buildkit": {b"leases": {b"others": {b"a": b""}}}}})
            used = databases(there)
            undo_root(there.root)
            assert databases(there) == used
        else:
            undo_root(there.root)
            assert databases(there) == before


def test_journal_of_an_older_version_is_undone(root: OnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    before = databases(root)
    root.migrate_here()
    with Journal.open(root.v2.with_name(root.v2.name + ".journal")) as journal:  # type: ignore[union-attr]
        from buildkit_migrate.migration import journal as module

        def with_time(fingerprint: str) -> str:
            return fingerprint.replace(":", ":1700000000000000000:")

        old = {
            name: with_time(getattr(journal.state, name)) for name in ("v1", "v2", "kept", "containerd_after")
        }
        fields = json.loads(module.encode(journal.state)) | old | {"format": 1}
        for new in ("kept_digest", "way_back", "upstream_exact"):
            del fields[new]
        monkeypatch.setattr(module, "encode", lambda state: json.dumps(fields).encode())
        journal.update()
    assert "undo goes back to v1" in next_step(root)
    assert undo(root)[0] == 0
    assert databases(root) == before


# Changes since the migration.

VERSION: Edits = {b"v1": {b"version": b"\x08"}}


def test_start_of_a_newer_daemon_does_not_prevent_undo(root: OnDisk) -> None:
    """It raises the schema version and makes transactions without changes."""
    before = databases(root)
    root.migrate_here()
    ondisk.edit(root.containerd, VERSION)
    ondisk.edit(root.v2, {b"_main": {}})
    code, document = undo(root)
    assert code == 0
    assert document["workers"][0]["changes"] == [f"{root.containerd}: schema version 3 -> 4"]
    assert databases(root) == before


def test_undo_keeps_changes_of_others_in_containerd(root: OnDisk) -> None:
    root.migrate_here()
    others: Edits = {b"v1": {b"version": b"\x08", b"k8s.io": {b"leases": {b"x": {b"createdat": b""}}}}}
    ondisk.edit(root.containerd, others)
    code, document = undo(root)
    assert code == 0
    assert document["workers"][0]["database"] == "edit"
    tree = ondisk.tree(root.containerd)
    assert b"x" in bucket(tree, b"v1", b"k8s.io", b"leases")
    assert not bucket(tree, b"v1", b"buildkit", b"leases")


def test_changed_record_prevents_undo(root: OnDisk) -> None:
    root.migrate_here()
    set_value(root, b"cache.onlyInLaterVersions")
    assert undo(root, "--dry-run")[0] == 0
    set_value(root, b"cache.lastUsedAt")
    code, document = undo(root)
    assert code == 14
    assert document["error"]["reasons"] == [f"{root.v2} was used since: 1 record was changed"]


def test_pruned_record_prevents_undo_once_its_snapshot_is_gone(root: OnDisk) -> None:
    """Without the snapshot v1 would have a broken record."""
    root.migrate_here()
    id = record_of(root)
    with BoltFileStore.open(root.v2) as store:
        store.clear(id)
    code, document = undo(root, "--dry-run")
    assert code == 0
    assert document["workers"][0]["changes"] == [f"{root.v2} lacks 1 record of v1"]
    ondisk.edit(
        root.containerd,
        {b"v1": {b"buildkit": {b"snapshots": {b"overlayfs": {id: None}}, b"leases": {id: None}}}},
    )
    code, document = undo(root)
    assert code == 14
    assert "1 snapshot of its records is gone" in document["error"]["message"]
    assert undo(root, "--force")[0] == 0


# The kept database.


def test_changed_kept_database_needs_force(root: OnDisk) -> None:
    root.migrate_here()
    ondisk.edit(root.kept, {b"v1": {b"others": {b"a": b""}}})
    assert "old database" not in next_step(root)
    assert "undo --dry-run shows" in next_step(root)
    code, document = undo(root)
    assert code == 14
    assert "has changed" in document["error"]["message"]
    assert undo(root, "--force")[0] == 0
    assert not bucket(ondisk.tree(root.containerd), b"v1", b"buildkit", b"leases")


def flip_byte(path: Path, at: int) -> None:
    """Changes one byte, as a disk may do."""
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.unlink()
    path.write_bytes(content)


def test_one_changed_byte_in_the_kept_database_prevents_undo(root: OnDisk) -> None:
    root.migrate_here()
    label = b"containerd.io/gc.root20"  # and the rest of its time
    flip_byte(root.kept, root.kept.read_bytes().rindex(label) + len(label))
    code, _ = undo(root)
    assert code == 14


def test_kept_database_of_another_root_is_refused(root: OnDisk, tmp_path: Path) -> None:
    """With or without force: it has nothing of this root."""
    root.migrate_here()
    root.kept.unlink()
    ondisk.empty_database(root.kept)
    for arguments in ((), ("--force",)):
        code, document = undo(root, *arguments)
        assert code == 13
        assert "lacks" in document["error"]["message"]
        assert "--force" not in document["error"]["hint"]
    assert root.v2.exists()


def test_damaged_kept_database_is_refused(root: OnDisk) -> None:
    root.migrate_here()
    root.kept.unlink()
    root.kept.write_bytes(os.urandom(100_000))
    for arguments in ((), ("--force",), ("--dry-run",)):
        assert undo(root, *arguments)[0] == 13


@pytest.mark.parametrize("what", ["kept", "v1"])
def test_status_names_what_prevents_undo(root: OnDisk, what: str) -> None:
    root.migrate_here()
    getattr(root, what).unlink()
    (status,) = root_status(root.root)
    assert not status.can_undo
    assert "undo goes back" not in status.next_step
    assert str(getattr(root, what)) in status.next_step
    assert undo(root, "--force")[0] == 13


def test_status_says_that_v2_was_used(root: OnDisk) -> None:
    root.migrate_here()
    set_value(root, b"cache.lastUsedAt")
    assert "undo goes back" not in next_step(root)
    assert f"{root.v2} was used since" in next_step(root)


def test_dry_run_of_undo_writes_nothing(root: OnDisk) -> None:
    root.migrate_here()
    before = ondisk.listing(root.root)
    code, document = undo(root, "--dry-run")
    assert code == 0
    (worker,) = document["workers"]
    assert worker["outcome"] == "planned"
    assert worker["database"] == "put-back"
    assert worker["counts"] == {"leases": 287, "snapshots": 367, "blobs": 130}
    text = ondisk.run("undo", "--dry-run", str(root.root))
    assert "would go back to v1" in text.stdout
    assert "leases deleted: 287; gc.root labels restored: 367 snapshots, 130 blobs" in text.stdout
    assert ondisk.listing(root.root) == before


# status and dry runs agree with what undo does.


def empty_file(path: Path) -> None:
    path.write_bytes(b"")


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, Callable[[OnDisk], object]] = {
    "old database, beyond its meta pages": lambda root: flip_byte(root.kept, -1),
    "old database, a directory": lambda root: replace_by_directory(root.kept),
    "v1, garbage": lambda root: root.v1.write_bytes(os.urandom(8192)),
    "v1, empty": lambda root: empty_file(root.v1),
    "containerd's, empty": lambda root: empty_file(root.containerd),
    "snapshotter's, gone": lambda root: root.snapshots.unlink(),
    "snapshotter's, a directory": lambda root: replace_by_directory(root.snapshots),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_status_and_dry_run_agree_with_undo(root: OnDisk, what: str) -> None:
    root.migrate_here()
    DAMAGE[what](root)
    assert "undo goes back" not in next_step(root)
    code, document = undo(root)
    assert code != 0
    assert "remove the cache" not in document["error"]["hint"]
    assert undo(root, "--dry-run")[0] == code
    foreseen = undo(root, "--dry-run", "--force")[0]
    assert undo(root, "--force")[0] == foreseen


def test_v1_that_lost_its_records_prevents_undo(root: OnDisk) -> None:
    """Undo would give an empty cache."""
    root.migrate_here()
    empty_file(root.v1)
    code, document = undo(root)
    assert code == 14
    assert f"{root.v1} was changed since, and lacks 287 records of {root.v2}" in document["error"]["message"]
    assert root.v2.exists()


def test_status_works_while_others_migrate_and_undo(root: OnDisk) -> None:
    def when_free(change: Callable[[], object]) -> None:
        while True:  # `status` holds a shared lock while it reads a store
            with contextlib.suppress(BusyError):
                change()
                return

    def work() -> None:
        for _ in range(10):
            when_free(root.migrate_here)
            when_free(lambda: undo_root(root.root))

    with ThreadPoolExecutor(1) as thread:
        working = thread.submit(work)
        while not working.done():
            root_status(root.root)
        working.result()


@pytest.mark.skipif(bool(containerd_daemon.why_missing()), reason=containerd_daemon.why_missing())
def test_start_of_a_real_containerd_does_not_prevent_undo(tmp_path: Path) -> None:
    """It raises the version and collects leaked views; nothing that v1 needs is lost."""
    root = ondisk.sample_of_containerd(tmp_path)
    before = labels_of(root)
    root.migrate_here()
    with containerd_daemon.Containerd(tmp_path / "ctd" / "root"):
        pass
    assert "undo --dry-run shows" in next_step(root)
    code, document = undo(root)
    assert code == 0, document
    assert fixtures.leases_of(ondisk.tree(root.containerd)) == {}
    after = labels_of(root)
    assert after.items() <= before.items()
    assert {id for id in buckets(bucket(ondisk.tree(root.v1), b"_main")) if id in before} <= after.keys()


def labels_of(root: OnDisk) -> dict[bytes, bool]:
    survey = fixtures.survey_of(ondisk.tree(root.containerd), ondisk.tree(root.snapshots), root.snapshotter)
    return {name: snapshot.root_label for name, snapshot in survey.snapshots.items()}


# LMDB's lock files.


def test_undo_leaves_no_lmdb_lock_file(root: OnDisk) -> None:
    assert root.migrate("--to-engine", "lmdb").returncode == 0
    lock = root.v2.with_name(root.v2.name + "-lock")
    lock.write_bytes(b"")
    assert undo(root)[0] == 0
    assert not lock.exists()
    lock = root.v2.with_name(root.v2.name + ".undone-lock")
    lock.unlink()  # it went with the store
    assert ondisk.run("convert", str(root.v2) + ".undone", str(root.root / "converted")).returncode == 0
    assert not lock.exists()


def test_unreachable_containerd_is_named_with_its_worker(tmp_path: Path) -> None:
    root = ondisk.sample_of_containerd(tmp_path)
    root.migrate_here()
    shutil.copytree(ondisk.sample(tmp_path / "other").worker, root.root / "runc-overlayfs")
    result = ondisk.run(
        *("undo", "--format", "json", "--address", "/nowhere", "--connect-timeout", "0.1", str(root.root))
    )
    assert result.returncode == 11
    error = json.loads(result.stdout)["error"]
    assert str(root.worker) in error["message"]
    assert "the directory of another worker as ROOT" in error["hint"]
    assert undo(ondisk.oci(root.root / "runc-overlayfs", "overlayfs"))[0] == 0


def test_status_looks_at_the_given_containerd(tmp_path: Path) -> None:
    """At the place where an undo with the same option would look."""
    root = ondisk.sample_of_containerd(tmp_path)
    root.migrate_here()
    before = Path(root.options[1])
    now = before.rename(before.with_name("moved"))
    (status,) = root_status(root.root)
    assert status.outlook.doubts == (f"{root.containerd} is not there",)
    (status,) = root_status(root.root, containerd_root=now)
    assert status.outlook.doubts == status.outlook.obstacles == ()
    kept = next(now.rglob("meta.db.before-v2*"))
    kept.rename(tmp_path / "kept")
    result = ondisk.run("status", "--containerd-root", str(now), "--format", "json", str(root.root))
    assert json.loads(result.stdout)["workers"][0]["undo_obstacles"] == [f"{kept} is missing"]


def test_status_of_a_worker_of_its_own_ignores_containerd_root(root: OnDisk, tmp_path: Path) -> None:
    root.migrate_here()
    assert root_status(root.root, containerd_root=tmp_path / "nowhere") == root_status(root.root)


def test_undo_after_an_undo_of_the_migration_does_not_bring_the_new_store_back(root: OnDisk) -> None:
    """The migration was undone by force, as the repaired store had been used; its leases are gone."""
    root.migrate_here()
    ondisk.edit(root.v2, {b"_index": {b"stray:x::nothing": b""}})
    assert repair_root(root.root).changes
    ondisk.edit(root.v2, {b"_index": {b"other:x::nothing": b""}})
    assert undo(root, "--force")[0] == 0
    assert not root.v2.exists()
    code, document = undo(root)
    assert code != 0, document
    assert not root.v2.exists()
    assert discard_kept_repairs(root.root).discarded
    assert undo(root)[0] == 0, "nothing is left to be undone"
    assert not root.v2.exists()
