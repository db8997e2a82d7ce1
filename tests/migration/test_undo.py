"""Undo restores everything but times; interrupted at any call, it can be continued."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import fault_points
import fixtures
import ondisk
from buildkit_migrate.api import migrate_root, root_status, undo_root
from buildkit_migrate.errors import BusyError
from buildkit_migrate.migration.journal import Journal, State, read_state
from buildkit_migrate.migration.status import Stage
from buildkit_migrate.model import Before
from buildkit_migrate.store.bolt_store import BoltFileStore
from buildkit_migrate.values.gojson import Value
from fault_points import calls
from fixtures import ROOT_LABEL, bucket, buckets
from ondisk import OnDisk
from plain_bbolt import BucketDict

pytestmark = pytest.mark.slow


def undo(root: OnDisk, *arguments: str) -> subprocess.CompletedProcess[str]:
    return ondisk.run("undo", "--format", "json", *root.options, *arguments, str(root.root))


def stage(root: OnDisk, engine: str = "bolt") -> dict[str, Any]:
    result = ondisk.run("status", "--format", "json", "--to-engine", engine, str(root.root))
    assert result.returncode == 0, result.stderr
    (worker,) = json.loads(result.stdout)["workers"]
    return dict(worker)


def stage_here(root: OnDisk) -> Stage:
    (worker,) = root_status(root.root)
    return worker.stage


def databases(root: OnDisk) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (root.v1, root.containerd, root.snapshots)}


def check_back(root: OnDisk, before: dict[Path, bytes]) -> None:
    assert databases(root) == before
    assert not root.v2.exists()
    assert not root.kept.exists()
    assert stage_here(root) == Stage.NOT_MIGRATED


@pytest.mark.parametrize("name", sorted(fixtures.REAL_ROOTS))
def test_real_roots_come_back_byte_for_byte(name: str, tmp_path: Path) -> None:
    root = ondisk.real(name, tmp_path)
    before = databases(root)
    assert root.migrate().returncode == 0
    v2 = root.v2.read_bytes()
    assert databases(root) != before
    result = undo(root)
    assert (result.returncode, result.stderr) == (0, "")
    (worker,) = json.loads(result.stdout)["workers"]
    assert worker["outcome"] == "undone"
    check_back(root, before)
    assert Path(worker["moved"]).read_bytes() == v2


def test_migrating_and_undoing_repeatedly_restores_the_root(root: OnDisk) -> None:
    before = databases(root)
    for number in ("", ".2", ".3"):
        assert root.migrate().returncode == 0
        assert undo(root).returncode == 0
        check_back(root, before)
        assert root.v2.with_name(f"{root.v2.name}.undone{number}").exists()


def test_undo_and_status_print_text(root: OnDisk) -> None:
    assert ondisk.run("undo", str(root.root)).stdout.endswith("not migrated, nothing to undo\n")
    assert "next: migrate" in ondisk.run("status", str(root.root)).stdout
    assert root.migrate().returncode == 0
    assert "undo goes back" in ondisk.run("status", str(root.root)).stdout
    assert "back to v1" in ondisk.run("undo", str(root.root)).stdout


def test_status_of_an_empty_root_lists_no_workers(tmp_path: Path) -> None:
    result = ondisk.run("status", "--format", "json", str(tmp_path))
    assert json.loads(result.stdout)["workers"] == []


def test_store_without_journal_is_not_undone(root: OnDisk) -> None:
    root.v2.write_bytes(root.v1.read_bytes())
    result = undo(root)
    assert result.returncode == 13
    assert "no journal" in json.loads(result.stdout)["error"]["message"]
    assert root.v2.exists()


def test_undo_without_v1_is_refused(root: OnDisk) -> None:
    assert root.migrate().returncode == 0
    root.v1.unlink()
    result = undo(root)
    assert result.returncode == 13
    assert f"{root.v1} is gone" in json.loads(result.stdout)["error"]["message"]
    assert root.v2.exists()


@pytest.mark.parametrize("damage", ["cut", "garbage", "state"])
def test_damaged_journal_is_named_and_nothing_changes(root: OnDisk, damage: str) -> None:
    assert root.migrate().returncode == 0
    data = root.v2.with_name(root.v2.name + ".journal") / "data.mdb"
    content = data.read_bytes()
    match damage:
        case "cut":
            data.write_bytes(content[:5000])
        case "garbage":
            data.write_bytes(b"garbage" * 1000)
        case _:
            assert b'"format"' in content
            data.write_bytes(content.replace(b'"format"', b'"farmat"'))
    before = ondisk.listing(root.worker, without=("lock.mdb", "metadata_v2.db.journal"))
    for command in ("undo", "status"):
        result = ondisk.run(command, "--format", "json", str(root.root))
        assert "Traceback" not in result.stderr
        assert result.returncode == 13, result.stderr
        assert str(data.parent) in json.loads(result.stdout)["error"]["message"]
    assert ondisk.listing(root.worker, without=("lock.mdb", "metadata_v2.db.journal")) == before


def add_record(path: Path) -> None:
    with BoltFileStore.open(path) as store, store.update(b"new-record") as record:
        record.set(b"cache.description", Value(b'"new"'))


def test_undo_is_refused_after_v2_was_used_and_forced_with_force(root: OnDisk) -> None:
    before = databases(root)
    assert root.migrate().returncode == 0
    add_record(root.v2)
    after = databases(root)
    result = undo(root)
    assert result.returncode == 14
    error = json.loads(result.stdout)["error"]
    assert "1 record was added" in error["message"]
    assert len(error["reasons"]) == 1
    assert "--force" in error["hint"]
    assert databases(root) == after
    assert stage(root)["stage"] == "migrated"
    assert undo(root, "--force").returncode == 0
    check_back(root, before)


def test_records_added_to_v1_survive_undo(root: OnDisk) -> None:
    """The old daemon was used once more; undo loses nothing."""
    before = databases(root)
    assert root.migrate().returncode == 0
    add_record(root.v1)
    used = root.v1.read_bytes()
    result = undo(root)
    (worker,) = json.loads(result.stdout)["workers"]
    assert (result.returncode, worker["losses"]) == (0, [])
    assert worker["changes"] == [
        f"{root.v2} lacks 1 record of v1",
        f"{root.v1} was changed, and stays as it is",
    ]
    assert databases(root) == before | {root.v1: used}


def test_forced_undo_keeps_what_others_changed_in_containerd(root: OnDisk) -> None:
    """Changes of others in the database stay; ours are undone."""
    before = ondisk.tree(root.containerd)
    assert root.migrate().returncode == 0
    lease: BucketDict = {b"createdat": b"\x01" + bytes(12) + b"\xff\xff"}
    gone = min(buckets(bucket(before, b"v1", b"buildkit", b"content", b"blob")))
    ondisk.edit(
        root.containerd,
        {b"v1": {b"buildkit": {b"leases": {b"others": lease}, b"content": {b"blob": {gone: None}}}}},
    )
    result = undo(root)
    assert result.returncode == 14
    assert "1 blob of its records is gone" in json.loads(result.stdout)["error"]["message"]
    forced = undo(root, "--force")
    assert forced.returncode == 0
    assert json.loads(forced.stdout)["workers"][0]["changes"] == [
        f"{root.containerd}: blobs: 1 gone",
        f"{root.containerd}: leases: 1 added",
    ]
    after = ondisk.tree(root.containerd)
    assert bucket(after, b"v1", b"buildkit", b"leases").keys() == {b"others"}
    survey = fixtures.survey_of(before, ondisk.tree(root.snapshots), "overlayfs")
    now = fixtures.survey_of(after, ondisk.tree(root.snapshots), "overlayfs")
    assert now.snapshots == survey.snapshots
    assert survey.blobs.pop(gone) is not None
    assert now.blobs == survey.blobs
    for digest, blob in buckets(bucket(after, b"v1", b"buildkit", b"content", b"blob")).items():
        old = bucket(before, b"v1", b"buildkit", b"content", b"blob", digest, b"labels")
        assert bucket(blob, b"labels").get(ROOT_LABEL) == old.get(ROOT_LABEL)


def test_leases_from_before_the_migration_survive_undo(root: OnDisk) -> None:
    record = min(buckets(bucket(ondisk.tree(root.v1), b"_main")))
    lease: BucketDict = {
        b"createdat": b"\x01" + bytes(12) + b"\xff\xff",
        b"content": {b"sha256:" + b"0" * 64: b""},
    }
    ondisk.edit(root.containerd, {b"v1": {b"buildkit": {b"leases": {record: lease}}}})
    before = databases(root)
    assert root.migrate().returncode == 0
    ondisk.edit(root.containerd, {b"v1": {b"buildkit": {b"leases": {b"others": {}}}}})
    assert undo(root, "--force").returncode == 0
    leases = fixtures.leases_of(ondisk.tree(root.containerd))
    assert leases == {record: {("content", b"sha256:" + b"0" * 64)}, b"others": set()}
    assert root.v1.read_bytes() == before[root.v1]


# Interruptions.


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    fault_points.parametrize(metafunc, "undo")


def test_undo_continues_after_a_fault_at_any_call(call: int, fault: str, root: OnDisk) -> None:
    before = databases(root)
    root.migrate_here()
    result = fault_points.run(call, fault, "undo", root)
    fault_points.check_status(result, fault, calls("undo")[call])
    assert root.v1.read_bytes() == before[root.v1]
    if stage_here(root) == Stage.UNDO_INTERRUPTED and not root.v2.exists():
        refused = root.migrate("--format", "json")
        assert refused.returncode == 13
        assert "undo" in json.loads(refused.stdout)["error"]["hint"]
    root.undo_here()
    check_back(root, before)


def test_interrupted_migration_is_undone_although_v1_changed(root: OnDisk) -> None:
    """The run died between containerd and the switch, and v1 changed since."""
    before = databases(root)
    switch = max(index for index, name in enumerate(calls("migrate")) if name == "rename")
    assert fault_points.run(switch, "kill", "migrate", root).returncode == -9
    assert stage(root)["stage"] == "interrupted"
    add_record(root.v1)
    refused = root.migrate("--format", "json")
    assert refused.returncode == 13
    assert "the v1 store was changed since" in json.loads(refused.stdout)["error"]["message"]
    assert undo(root, "--force").returncode == 0
    assert root.containerd.read_bytes() == before[root.containerd]
    assert root.migrate("--on-broken", "drop").returncode == 0  # the new record has no snapshot


# Moved roots, and journals of other runs.


def test_undo_works_from_another_directory(root: OnDisk) -> None:
    before = databases(root)
    command = [sys.executable, "-m", "buildkit_migrate", "migrate", root.root.name]
    subprocess.run(command, cwd=root.root.parent, capture_output=True, check=True)
    root.undo_here()
    check_back(root, before)


def test_undoing_a_copied_root_leaves_the_original_alone(root: OnDisk, tmp_path: Path) -> None:
    before = databases(root)
    root.migrate_here()
    copy = ondisk.oci(tmp_path / "copy", root.snapshotter)
    subprocess.run(["cp", "-a", root.root, copy.root], check=True)
    assert undo(copy).returncode == 0
    assert not copy.kept.exists()
    assert copy.containerd.read_bytes() == before[root.containerd]
    root.undo_here()
    check_back(root, before)


def test_missing_kept_database_is_noticed_before_anything_changes(root: OnDisk) -> None:
    root.migrate_here()
    root.kept.unlink()
    assert undo(root).returncode == 13
    assert stage(root)["stage"] == "migrated"
    assert root.v2.exists()


def test_undo_in_another_namespace_is_refused(tmp_path: Path) -> None:
    root = ondisk.sample_of_containerd(tmp_path)
    before = databases(root)
    root.migrate_here()
    refused = undo(root, "--namespace", "default", "--force")
    assert refused.returncode == 13
    assert json.loads(refused.stdout)["error"]["hint"] == "give it with --namespace buildkit"
    root.undo_here()
    check_back(root, before)


@pytest.mark.parametrize("before_call", ["link", "rename"])
@pytest.mark.parametrize("command", ["migrate", "undo"])
@pytest.mark.parametrize("v1_too", [False, True])
def test_use_of_v1_after_an_early_kill_survives(
    before_call: str, command: str, v1_too: bool, root: OnDisk
) -> None:
    at = calls("migrate").index("link") + (before_call == "rename")
    assert calls("migrate")[at] == before_call
    assert fault_points.run(at, "kill", "migrate", root).returncode == -9
    # The old daemon is started once more.
    lease: BucketDict = {b"createdat": b"\x01" + bytes(12) + b"\xff\xff"}
    ondisk.edit(root.containerd, {b"v1": {b"buildkit": {b"leases": {b"others": lease}}}})
    if v1_too:
        add_record(root.v1)
    used = ondisk.tree(root.containerd)
    if command == "migrate":
        assert root.migrate("--on-broken", "drop").returncode == 0
        root.undo_here()
    else:
        assert undo(root, *["--force"] * v1_too).returncode == 0
    assert ondisk.tree(root.containerd) == used
    assert stage(root)["stage"] == "not-migrated"


def test_path_that_is_not_utf8_is_migrated_and_undone(tmp_path: Path) -> None:
    root = ondisk.sample(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")))
    before = databases(root)
    for engine in ("bolt", "lmdb"):
        assert root.migrate("--to-engine", engine).returncode == 0
        place = os.fsencode(root.containerd)
        assert base64.b64decode(stage(root, engine)["containerd"]["place_b64"]) == place
        # A later use is reported, too.
        ondisk.edit(root.containerd, {b"v1": {b"buildkit": {b"leases": {engine.encode(): {}}}}})
        result = undo(root)
        assert result.returncode == 0, result.stderr
        assert "leases: 1 added" in json.loads(result.stdout)["workers"][0]["changes"][0]
        assert root.v1.read_bytes() == before[root.v1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_journal_belongs_to_the_owner_of_the_root(root: OnDisk) -> None:
    subprocess.run(["chown", "-R", "1234:1235", root.root], check=True)
    root.migrate_here()
    journal = root.v2.with_name("metadata_v2.db.journal")
    for path in (journal, *journal.iterdir()):
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1235), path


def test_nothing_to_undo_needs_no_containerd(tmp_path: Path) -> None:
    root = ondisk.sample_of_containerd(tmp_path)
    nowhere = ("--address", str(tmp_path / "nowhere"), "--connect-timeout", "0.1")
    result = ondisk.run("undo", *nowhere, str(root.root))
    assert (result.returncode, result.stderr) == (0, "")
    assert "nothing to undo" in result.stdout


def test_use_between_two_runs_survives_undo(root: OnDisk) -> None:
    """The new store was removed by hand and containerd used; the next run continues from the journal."""
    root.migrate_here()
    root.v2.unlink()
    lease: BucketDict = {b"createdat": b"\x01" + bytes(12) + b"\xff\xff"}
    ondisk.edit(root.containerd, {b"v1": {b"buildkit": {b"leases": {b"others": lease}}}})
    root.migrate_here()
    root.undo_here()
    assert fixtures.leases_of(ondisk.tree(root.containerd)) == {b"others": set()}
    assert stage(root)["stage"] == "not-migrated"


def test_status_names_a_missing_v1_as_an_obstacle(root: OnDisk) -> None:
    root.migrate_here()
    root.v1.unlink()
    assert stage(root)["can_undo"] is False
    assert stage(root)["undo_obstacles"] == [f"{root.v1} is gone"]


# Address space, and concurrent readers.


def test_commands_work_with_little_address_space(root: OnDisk) -> None:
    """The journal of a small root asked for a gigabyte of it."""
    limit = 700 << 20
    command = [sys.executable, "-m", "buildkit_migrate"]
    for name in ("migrate", "status", "undo"):
        result = subprocess.run(
            [*command, name, str(root.root)],
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        )
        assert (result.returncode, result.stderr) == (0, ""), name


def test_journal_grows_as_needed(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    ids = [b"%0200d" % number for number in range(20_000)]
    state = State(v1="", plan="", containerd={})
    labels = {id + b"-label": b"" for id in ids}
    with Journal.create(path, state, Before()) as journal:
        journal.add(Before(snapshots=labels))
        for id in ids:
            journal.lease_finished(id)
    with open_journal(path) as journal:
        assert journal.finished_leases() == frozenset(ids)
        assert journal.before().snapshots == labels


def open_journal(path: Path) -> Journal:
    journal = Journal.open(path, read_only=True)
    assert journal is not None
    return journal


def test_status_and_migration_in_one_process_do_not_disturb_each_other(root: OnDisk) -> None:
    """Neither locks the other out of the journal, whichever comes first."""
    root.migrate_here()
    root.v2.unlink()
    path = root.v2.with_name(root.v2.name + ".journal")
    with open_journal(path) as looking:
        root.migrate_here()  # continues from it
        assert stage_here(root) == Stage.MIGRATED
        assert looking.state.phase == "applied"
    seen: list[Stage] = []
    root.v2.unlink()
    migrate_root(root.root, progress=lambda step: seen.append(stage_here(root)))
    assert Stage.INTERRUPTED in seen
    undo_root(root.root, progress=lambda step: seen.append(stage_here(root)))
    assert seen[-1] == Stage.UNDO_INTERRUPTED


def test_reading_a_journal_gives_a_consistent_state(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal.create(path, State(v1="0", plan="0", containerd={}), Before()) as journal:

        def write() -> None:
            for number in range(300):
                journal.update(v1=str(number), plan=str(number))

        with ThreadPoolExecutor(1) as thread:
            writing = thread.submit(write)
            while not writing.done():
                with contextlib.suppress(BusyError):
                    state = read_state(path)
                    assert state is not None
                    assert state.v1 == state.plan
            writing.result()
    state = read_state(path)
    assert state is not None
    assert state.v1 == state.plan == "299"
