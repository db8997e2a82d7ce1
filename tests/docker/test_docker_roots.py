"""Docker's builder in odd states: engines that run, storage drivers that changed, layers that are gone."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fault_points
import ondisk
from buildkit_migrate.api import find_root, migrate_root, undo_root, verify_root
from buildkit_migrate.bolt.edits import Edits
from buildkit_migrate.containerd.docker import DockerBuilder
from buildkit_migrate.containerd.driver_store import DriverStore
from buildkit_migrate.errors import (
    BrokenRecordsError,
    BusyError,
    ContainerdStateError,
    CorruptDatabaseError,
    JournalError,
    UndoRefusedError,
)
from buildkit_migrate.migration.migrate import migrate_v2
from buildkit_migrate.migration.verification import Verdict
from buildkit_migrate.model import Kind, Reason
from buildkit_migrate.settings import Setting
from buildkit_migrate.workspace.stores import find_state
from dicts import file_of
from fixtures import bucket, buckets, leases_of
from ondisk import OnDisk
from openers import opened_by_another
from plain_bbolt import BucketDict

pytestmark = pytest.mark.slow


@pytest.fixture
def docker(tmp_path: Path) -> OnDisk:
    return ondisk.docker_sample(tmp_path)


def layerdb(root: OnDisk, driver: str = "overlay2") -> Path:
    return root.root.parent / "image" / driver / "layerdb" / "sha256"


def records(path: Path) -> set[bytes]:
    return set(buckets(bucket(ondisk.tree(path), b"_main")))


def answer(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return dict(json.loads(result.stdout))


# --- Engines that run


@pytest.mark.parametrize(
    "name", ["metadata.db", "snapshots.db", "cache.db", "containerdmeta.db", "history.db", "history_c8d.db"]
)
@pytest.mark.parametrize("arguments", [["migrate"], ["migrate", "--dry-run"], ["check"]])
def test_a_running_engine_is_refused_and_named(docker: OnDisk, name: str, arguments: list[str]) -> None:
    """``containerdmeta.db`` and the histories are those of later versions."""
    path = docker.root / name
    if not path.exists():
        ondisk.empty_database(path)
    before = ondisk.listing(docker.root.parent)
    with path.open("rb+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        result = ondisk.run(*arguments, "--format", "json", str(docker.root.parent))
    error = answer(result)["error"]
    assert (result.returncode, error["type"]) == (BusyError.exit_code, "BusyError")
    assert str(path) in error["message"]
    assert "python" in error["message"] or "pytest" in error["message"]
    assert "systemctl stop docker.socket docker" in error["hint"]
    assert ondisk.listing(docker.root.parent) == before


def test_an_engine_that_starts_meanwhile_keeps_its_database(
    docker: OnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It creates ``containerdmeta.db`` before it waits for ``snapshots.db``."""
    apply = DockerBuilder.apply

    def after_start(self: DockerBuilder, *args: Any, **options: Any) -> None:
        ondisk.empty_database(docker.containerd)
        apply(self, *args, **options)

    monkeypatch.setattr(DockerBuilder, "apply", after_start)
    with pytest.raises(BusyError, match="was created by another process"):
        docker.migrate_here()
    monkeypatch.undo()
    assert ondisk.tree(docker.containerd) == {}
    assert not docker.v2.exists()
    docker.migrate_here()
    docker.verify_here()
    assert set(leases_of(ondisk.tree(docker.containerd))) == records(docker.v2)


def test_an_engine_that_opens_the_leases_meanwhile_is_noticed(docker: OnDisk) -> None:
    """It would go on with the replaced file, in which no record has a lease."""
    ondisk.empty_database(docker.containerd)
    before = docker.containerd.stat().st_ino
    with opened_by_another(docker.containerd, os.O_RDWR) as number:
        with pytest.raises(BusyError, match=rf"process {number}\)"):
            migrate_root(docker.root)
        assert docker.containerd.stat().st_ino == before
    assert not docker.v2.exists()
    docker.migrate_here()
    with opened_by_another(docker.containerd, os.O_RDWR), pytest.raises(BusyError):
        undo_root(docker.root)
    assert undo_root(docker.root)[0].outcome == "undone"


# --- Where it is found


def test_remapped_users_have_a_data_root_below(docker: OnDisk, tmp_path: Path) -> None:
    remapped = tmp_path / "docker" / "100000.100000"
    remapped.parent.mkdir()
    docker.root.parent.rename(remapped)
    migrate_root(remapped)
    assert (remapped / "buildkit" / "metadata_v2.db").exists()


def test_the_builder_of_remapped_users_is_mentioned(docker: OnDisk) -> None:
    data = docker.root.parent
    other = data / "100000.100000" / "buildkit"
    other.mkdir(parents=True)
    ondisk.empty_database(other / "snapshots.db")
    for place in (data, docker.root):
        root = find_root(place)
        assert [(it.path, it.reason.partition(":")[0]) for it in root.skipped] == [
            (other, "another builder of Docker Engine, for remapped users")
        ]
        assert root.is_whole
    assert find_state(data).skipped == find_root(data).skipped
    assert str(other) in docker.migrate("--dry-run").stdout


def test_the_builder_may_be_named_by_a_link_or_a_dot(
    docker: OnDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as there:
        there.chdir(docker.root)
        migrate_root(".", dry_run=True)
    moved = tmp_path / "other disk"
    docker.root.rename(moved)
    docker.root.symlink_to(moved)
    (report,) = migrate_root(docker.root)
    assert report.counts["dropped"] == 0


def test_a_root_that_has_lost_its_other_databases_is_still_docker(docker: OnDisk) -> None:
    """So that the error names what is missing."""
    for name in ("cache.db", "snapshots.db"):
        (docker.root / name).unlink()
    assert [worker.kind for worker in find_root(docker.root.parent).workers] == ["docker"]
    with pytest.raises(ContainerdStateError, match=r"snapshots\.db is missing") as caught:
        docker.migrate_here()
    assert "restore all of" in caught.value.hint


def test_workers_of_the_image_store_are_left_alone(docker: OnDisk) -> None:
    worker = docker.root / "containerd-overlayfs"
    worker.mkdir()
    ondisk.empty_database(worker / "metadata_v2.db")
    reports = migrate_root(docker.root)
    assert [report.outcome for report in reports] == ["migrated", "skipped"]
    assert "image store" in reports[1].reason
    assert undo_root(docker.root)[0].outcome == "undone"


def test_an_empty_database_of_an_engine_that_did_not_start_is_used_and_comes_back(docker: OnDisk) -> None:
    """29.3 and later leave one behind when they refuse to start."""
    ondisk.empty_database(docker.containerd)
    docker.containerd.chmod(0o640)
    before = docker.containerd.read_bytes()
    docker.migrate_here()
    docker.verify_here()
    assert docker.containerd.stat().st_mode & 0o777 == 0o640
    assert docker.kept.read_bytes() == before
    docker.undo_here()
    assert docker.containerd.read_bytes() == before
    assert not docker.kept.exists()


# --- Storage drivers


def placed(report: Any) -> tuple[str, str]:
    driver = report.place.storage_driver
    return driver.value, driver.origin


def test_the_driver_with_the_layers_is_used(docker: OnDisk) -> None:
    other = layerdb(docker, "vfs")
    other.mkdir(parents=True)
    some = sorted(layerdb(docker).iterdir())[:5]
    for place in some:
        shutil.copytree(place, other / place.name)
    (report,) = migrate_root(docker.root)
    driver, origin = placed(report)
    assert driver == "overlay2"
    assert origin == "has 48 of the 48 layers that records need; vfs has 5"
    assert report.counts["dropped"] == 0


@pytest.fixture
def two_drivers(docker: OnDisk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> OnDisk:
    """The layers of two drivers are alike."""
    image = docker.root.parent / "image"
    shutil.copytree(image / "overlay2", image / "aufs")
    shutil.rmtree(image.parent / "overlay2")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config" / "docker").mkdir(parents=True)
    return docker


def test_a_driver_that_nothing_tells_must_be_given(two_drivers: OnDisk) -> None:
    before = ondisk.listing(two_drivers.root.parent)
    result = two_drivers.migrate()
    assert result.returncode == ContainerdStateError.exit_code
    assert "aufs, overlay2" in result.stderr
    assert "--storage-driver" in result.stderr
    assert ondisk.listing(two_drivers.root.parent) == before
    assert two_drivers.migrate("--storage-driver", "overlay2").returncode == 0
    assert two_drivers.verify("--storage-driver", "overlay2").returncode == 0
    wrong = ondisk.run("undo", "--storage-driver", "aufs", str(two_drivers.root))
    assert wrong.returncode == JournalError.exit_code
    assert "omit --storage-driver" in wrong.stderr
    # The journal knows it.
    assert two_drivers.verify().returncode == 0
    assert ondisk.run("undo", str(two_drivers.root)).returncode == 0


def test_the_only_driver_with_data_is_used(two_drivers: OnDisk) -> None:
    data = two_drivers.root.parent
    (data / "aufs").mkdir()
    (data / "overlay2" / "l").mkdir(parents=True)
    assert placed(migrate_root(data)[0]) == ("overlay2", "the only one with data")


@pytest.mark.parametrize("key", ["data-root", "graph"])
def test_the_configured_driver_is_used(two_drivers: OnDisk, tmp_path: Path, key: str) -> None:
    data = two_drivers.root.parent
    settings = tmp_path / "config" / "docker" / "daemon.json"
    settings.write_text(json.dumps({key: str(data), "storage-driver": "aufs"}))
    assert placed(migrate_root(data)[0]) == ("aufs", str(settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"storage-driver": "aufs"},
        {"data-root": "/elsewhere", "storage-driver": "aufs"},
        {"data-root": 7, "storage-driver": ["aufs"]},
        [],
    ],
)
def test_settings_of_another_engine_are_not_used(
    two_drivers: OnDisk, tmp_path: Path, settings: object
) -> None:
    (tmp_path / "config" / "docker" / "daemon.json").write_text(json.dumps(settings))
    with pytest.raises(ContainerdStateError, match="several storage drivers"):
        migrate_root(two_drivers.root)


@pytest.mark.parametrize("driver", ["vfs", "..", "overlay2/layerdb", ""])
def test_a_driver_must_exist(docker: OnDisk, driver: str) -> None:
    error: type[Exception] = ContainerdStateError if driver else ValueError
    with pytest.raises(error):
        migrate_root(docker.root, storage_driver=driver)


def test_a_copy_without_the_layers_is_refused(docker: OnDisk) -> None:
    shutil.rmtree(docker.root.parent / "image")
    with pytest.raises(ContainerdStateError, match="no storage driver") as caught:
        migrate_root(docker.root, on_broken="drop")
    assert "copies need image/" in caught.value.hint


def test_without_layers_in_the_records_no_driver_is_needed(docker: OnDisk) -> None:
    """Only what is left of the real root when all images and their layers are left out."""
    shutil.rmtree(docker.root.parent / "image")
    shutil.rmtree(docker.root.parent / "overlay2")
    rows = buckets(ondisk.tree(docker.snapshots))
    of_layers = {
        name
        for name, row in rows.items()
        if name.startswith(b"sha256:") or b"chainid" in row or row.get(b"parent", b"").startswith(b"sha256:")
    }
    of_layers |= {name for name, row in rows.items() if row.get(b"committed") in of_layers}
    gone: Edits = dict.fromkeys(of_layers)
    ondisk.edit(docker.snapshots, gone)
    ondisk.edit(docker.v1, {b"_main": dict.fromkeys(of_layers & records(docker.v1))})
    (report,) = migrate_root(docker.root, on_broken="drop")
    assert report.place is not None
    assert report.place.storage_driver is None
    assert 0 < report.counts["kept"] == report.counts["records"]


# --- Layers and snapshots that are gone


def test_records_of_lost_layers_are_named_and_dropped(docker: OnDisk) -> None:
    """With all that stands on them; the storage driver was changed, for example."""
    lost = next(id for id in sorted(records(docker.v1)) if id.startswith(b"sha256:"))
    shutil.rmtree(layerdb(docker) / lost.decode().partition(":")[2])
    before = ondisk.listing(docker.root.parent)
    with pytest.raises(BrokenRecordsError) as caught:
        migrate_root(docker.root)
    assert lost in {problem.record for problem in caught.value.problems}
    assert ondisk.listing(docker.root.parent) == before
    (report,) = migrate_root(docker.root, on_broken="drop", verify=True)
    reasons = {problem.record: problem.reason for problem in report.problems}
    assert reasons[lost] is Reason.NO_SNAPSHOT
    assert 1 < len(reasons) < report.counts["records"]
    assert records(docker.v2) == records(docker.v1) - reasons.keys()
    assert set(leases_of(ondisk.tree(docker.containerd))) == records(docker.v2)
    (verification,) = verify_root(docker.root)
    assert verification.verdict is Verdict.OK
    # What was broken before is no loss.
    assert undo_root(docker.root)[0].outcome == "undone"
    assert not docker.containerd.exists()


def test_another_storage_driver_has_other_layers(docker: OnDisk) -> None:
    """As with ``docker-d``: most of its records depend on layers of the old driver.

    In a copy of the databases, nobody knows what data it has.
    """
    layerdb(docker, "vfs").mkdir(parents=True)
    (report,) = migrate_root(docker.root, storage_driver="vfs", on_broken="drop")
    assert 0 < report.counts["kept"] < report.counts["records"]
    assert {id for id in records(docker.v2) if id.startswith(b"sha256:")} == set()


def test_cache_mounts_without_data_are_left_out(docker: OnDisk) -> None:
    """After a change of the driver, for example: builds would fail at their mounts."""
    data = docker.root.parent / "overlay2"
    rows = buckets(ondisk.tree(docker.snapshots))
    mounts = (id for id, row in rows.items() if id in records(docker.v1) and set(row) == {b"parent"})
    lost, other = sorted(mounts)[:2]
    shutil.rmtree(data / lost.decode())
    with pytest.raises(BrokenRecordsError) as caught:
        migrate_root(docker.root)
    reasons = {problem.record: problem.reason for problem in caught.value.problems}
    assert reasons[lost] is Reason.NO_SNAPSHOT
    migrate_root(docker.root, on_broken="drop", verify=True)
    assert lost not in records(docker.v2)
    assert verify_root(docker.root)[0].verdict is Verdict.OK
    # It is the same record that has no data now; another one's is a loss.
    (data / other.decode()).rename(data / lost.decode())
    with pytest.raises(UndoRefusedError, match="1 snapshot of its records is gone"):
        undo_root(docker.root)


def test_an_engine_that_has_none_of_the_data_is_refused(docker: OnDisk) -> None:
    """Nothing is left to migrate."""
    data = docker.root.parent
    (data / "vfs" / "dir" / "of an image").mkdir(parents=True)
    layerdb(docker, "vfs").mkdir(parents=True)
    with pytest.raises(ContainerdStateError, match="0 of the 56 records"):
        migrate_root(data, storage_driver="vfs", on_broken="drop")


def test_nothing_of_a_root_is_needed_to_clean_it_or_to_go_back_by_force(docker: OnDisk) -> None:
    docker.migrate_here()
    shutil.rmtree(docker.root.parent / "image")
    with pytest.raises(UndoRefusedError, match="are gone"):
        undo_root(docker.root)
    assert undo_root(docker.root, force=True, dry_run=True)[0].exit_code == 0
    assert ondisk.run("clean", "--dry-run", str(docker.root)).returncode == 0
    assert undo_root(docker.root, force=True)[0].outcome == "undone"


def test_what_is_left_out_leaves_its_data_behind(docker: OnDisk) -> None:
    """And that is told, as nothing will ever free it."""
    lost = next(id for id in sorted(records(docker.v1)) if id.startswith(b"sha256:"))
    shutil.rmtree(layerdb(docker) / lost.decode().partition(":")[2])
    (report,) = migrate_root(docker.root, on_broken="drop")
    (note,) = report.notes
    assert "stay on disk" in note
    assert str(docker.root.parent / "overlay2") in note


def test_going_back_to_snapshots_that_are_gone_is_refused(docker: OnDisk) -> None:
    """The engines that migrate by themselves would not start."""
    docker.migrate_here()
    lost = next(id for id in sorted(records(docker.v1)) if id.startswith(b"sha256:"))
    shutil.rmtree(layerdb(docker) / lost.decode().partition(":")[2])
    with pytest.raises(UndoRefusedError, match="are gone"):
        undo_root(docker.root)
    assert docker.v2.exists()
    assert undo_root(docker.root, force=True)[0].outcome == "undone"


def test_a_used_root_goes_back_without_what_others_did(docker: OnDisk) -> None:
    """The engine removed a record with its lease, and has another lease of its own."""
    docker.migrate_here()
    pruned = min(records(docker.v2))
    own: Edits = {b"createdat": b"\x01" + bytes(12) + b"\xff\xff", b"labels": {b"a": b"b"}}
    ondisk.edit(docker.v2, {b"_main": {pruned: None}})
    ondisk.edit(docker.containerd, {b"v1": {b"buildkit": {b"leases": {pruned: None, b"of a build": own}}}})
    (undone,) = undo_root(docker.root)
    assert undone.database == "edit"
    assert set(leases_of(ondisk.tree(docker.containerd))) == {b"of a build"}
    assert not docker.v2.exists()
    docker.migrate_here()
    docker.verify_here()


# --- Hostile snapshots.db


def nothing(rows: set[bytes]) -> BucketDict:
    return {}


def values_only(rows: set[bytes]) -> BucketDict:
    return dict.fromkeys(rows, b"v")


def values_are_buckets(rows: set[bytes]) -> BucketDict:
    inside: BucketDict = {b"x": b"y"}
    return {row: {b"parent": inside, b"committed": inside, b"chainid": inside} for row in rows}


def everything_is_its_own_parent(rows: set[bytes]) -> BucketDict:
    return {row: {b"parent": row, b"committed": row} for row in rows}


def long_values(rows: set[bytes]) -> BucketDict:
    return {row: {b"parent": b"p" * 30_000} for row in rows}


def parents_that_are_not_text(rows: set[bytes]) -> BucketDict:
    return {row: {b"parent": b"\xff\0\x1b[31m"} for row in rows}


def chains_of_anything(rows: set[bytes]) -> BucketDict:
    return {row: {b"chainid": b"sha256:../../../../etc/passwd"} for row in rows}


@pytest.mark.parametrize(
    "content",
    [
        nothing,
        values_only,
        values_are_buckets,
        everything_is_its_own_parent,
        long_values,
        parents_that_are_not_text,
        chains_of_anything,
    ],
)
def test_hostile_snapshots_end_in_a_clear_answer(
    docker: OnDisk, content: Callable[[set[bytes]], BucketDict]
) -> None:
    docker.snapshots.write_bytes(file_of(content(set(buckets(ondisk.tree(docker.snapshots))))))
    for arguments in (["--dry-run"], [], ["--on-broken", "drop", "--verify"]):
        result = docker.migrate(*arguments)
        assert result.returncode in (0, 6, 7)
        assert result.returncode == 0 or "hint: " in result.stderr
        assert "Traceback" not in result.stderr
        assert "\x1b" not in result.stdout + result.stderr
    if docker.v2.exists():
        assert docker.verify().returncode in (0, 10)  # 10: parents that nobody has
        docker.undo_here()
    assert not docker.containerd.exists()


def test_damaged_snapshots_are_named(docker: OnDisk) -> None:
    content = bytearray(docker.snapshots.read_bytes())
    content[3 * 4096 : 5 * 4096] = b"\xff" * 8192
    content[0:8192] = docker.snapshots.read_bytes()[0:8192]
    docker.snapshots.write_bytes(content)
    with pytest.raises(CorruptDatabaseError, match=r"snapshots\.db"):
        docker.migrate_here()


# --- As a library


@pytest.fixture
def services(docker: OnDisk) -> Iterator[DockerBuilder]:
    driver = DriverStore(docker.root.parent, Setting("overlay2"))
    with DockerBuilder.at(docker.root, driver) as found:
        yield found


def test_services_can_be_given_to_migrate_v2(docker: OnDisk, services: DockerBuilder) -> None:
    report = migrate_v2(
        docker.v1, docker.v2, services.content_store, services.snapshotter, services.lease_manager
    )
    assert report.counts["dropped"] == 0
    assert docker.containerd.exists()


def test_the_survey_and_the_plain_state_agree_on_kinds(docker: OnDisk, services: DockerBuilder) -> None:
    """`verify` reads the snapshots by other means."""
    ids = records(docker.v1)
    state = services.state(ids)
    kinds = [state.snapshots[id].kind for id in ids if id in state.snapshots]
    assert set(kinds) == {Kind.ACTIVE, Kind.COMMITTED}
    assert all(parent in state.snapshots for parent in (s.parent for s in state.snapshots.values()) if parent)


def test_a_builder_that_has_almost_nothing_of_the_records_is_refused(docker: OnDisk) -> None:
    rows = buckets(ondisk.tree(docker.snapshots))
    docker.snapshots.write_bytes(file_of({name: rows[name] for name in sorted(rows)[:1]}))
    with pytest.raises(ContainerdStateError, match="storage driver or builder") as caught:
        migrate_root(docker.root, on_broken="drop")
    assert "restore all of Docker's data root" in caught.value.hint
    assert "containerd" not in caught.value.message + caught.value.hint


def test_forgetting_a_run_that_did_nothing_loses_nothing(docker: OnDisk) -> None:
    """Whatever became of the snapshots since."""
    switch = fault_points.calls("migrate", ondisk.docker_sample).index("link")
    assert fault_points.run(switch, "kill", "migrate", docker).returncode == -9
    assert not docker.containerd.exists()
    lost = next(id for id in sorted(records(docker.v1)) if id.startswith(b"sha256:"))
    shutil.rmtree(layerdb(docker) / lost.decode().partition(":")[2])
    (undone,) = undo_root(docker.root)
    assert (undone.outcome, undone.database) == ("undone", "nothing")
