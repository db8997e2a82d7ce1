"""Finding roots, and several workers in one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fixtures
import ondisk
import other_user
from buildkit_migrate import api, ensure_migrated, errors, migrate_root, root_status, undo_root, verify_root
from buildkit_migrate.containerd.services import ConnectionOptions
from buildkit_migrate.migration.report import Outcome
from buildkit_migrate.workspace import finding, places
from fixtures import bucket, buckets
from ondisk import OnDisk


@pytest.fixture(autouse=True)
def no_other_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides roots of the machine that the tests run on."""
    monkeypatch.setattr(finding, "more_places", places.Places)


# --- Finding


@pytest.mark.parametrize(
    ("environ", "rootless"),
    [
        ({"HOME": "/h"}, "/h/.local/share/buildkit"),
        ({"HOME": "/h", "XDG_DATA_HOME": ""}, "/h/.local/share/buildkit"),
        ({"HOME": "/h", "XDG_DATA_HOME": "/x"}, "/x/buildkit"),
        ({"HOME": "/h", "XDG_DATA_HOME": "/x:/y"}, "/x/buildkit"),
        ({"HOME": "/h", "XDG_DATA_HOME": "x"}, "/h/.local/share/buildkit"),
        ({"HOME": "/h", "XDG_DATA_HOME": ":/y"}, "/h/.local/share/buildkit"),
        ({"XDG_DATA_HOME": "/x"}, "/x/buildkit"),
        ({}, None),
        ({"HOME": ""}, None),
        ({"HOME": "h", "XDG_DATA_HOME": "x"}, None),
        ({"HOME": "~"}, None),
    ],
)
def test_default_places_follow_the_environment(environ: dict[str, str], rootless: str | None) -> None:
    expected = [Path("/var/lib/buildkit"), *([] if rootless is None else [Path(rootless)])]
    assert api.default_places(environ) == expected


@pytest.mark.parametrize(
    ("home", "reason"), [(None, "HOME is not set"), ("", "HOME is not set"), ("h", "HOME is 'h'")]
)
def test_message_says_why_there_is_no_rootless_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str | None, reason: str
) -> None:
    monkeypatch.setattr(places, "SYSTEM_ROOT", tmp_path / "missing")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    if home is None:
        monkeypatch.delenv("HOME")
    else:
        monkeypatch.setenv("HOME", home)
    with pytest.raises(errors.RootNotFoundError, match=reason):
        api.find_root()


def test_unknown_user_without_home_gets_a_clear_error() -> None:
    """Such as in a container: no entry in the user database, no HOME."""
    environ = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_DATA_HOME")}
    result = other_user.run({"uid": 4_000_000, "gid": 4_000_000}, "status", environ=environ)
    assert "RuntimeError" not in result.stderr
    if not places.SYSTEM_ROOT.exists():
        assert result.returncode == 3
        assert "HOME is not set" in result.stderr


def test_first_place_with_a_root_is_used(
    root: OnDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other" / "stuff").mkdir(parents=True)
    at = [tmp_path / "missing", tmp_path / "other", root.root]
    monkeypatch.setattr(finding, "default_places", lambda: at)
    assert api.find_root().path == root.root
    at.pop()
    with pytest.raises(errors.RootNotFoundError) as caught:
        api.find_root()
    assert all(str(place) in str(caught.value) for place in at)


def test_empty_place_does_not_hide_a_root(
    root: OnDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = [tmp_path / "empty", root.root]
    at[0].mkdir()
    monkeypatch.setattr(finding, "default_places", lambda: at)
    assert api.find_root().path == root.root
    at.pop()
    assert api.find_root().workers == ()


def test_worker_directory_is_found_by_itself(root: OnDisk) -> None:
    found = api.find_root(root.worker)
    assert found.state == root.root
    assert [(worker.kind, worker.snapshotter) for worker in found.workers] == [("runc", "overlayfs")]


def test_worker_directory_is_found_through_a_link(root: OnDisk, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root.worker)
    assert api.find_root(tmp_path / "link").state == root.root


@pytest.mark.parametrize("name", ["runc", "runc-", "runcoverlayfs", "docker-overlayfs", "executor"])
def test_other_names_are_not_workers(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(errors.RootNotFoundError):
        api.find_root(tmp_path)


def test_docker_layout_is_not_an_empty_root(tmp_path: Path) -> None:
    for name in ("cache.db", "metadata.db", "snapshots.db"):
        (tmp_path / name).touch()
    assert [worker.kind for worker in api.find_root(tmp_path).workers] == ["docker"]


def test_snapshotter_may_contain_a_dash(tmp_path: Path) -> None:
    (tmp_path / "runc-fuse-overlayfs").mkdir()
    assert api.find_root(tmp_path).workers[0].snapshotter == "fuse-overlayfs"


@pytest.mark.parametrize("names", [[], ["lost+found"], ["buildkitd.lock"], ["cache.db", "tmp"]])
def test_state_directory_without_workers_has_nothing_to_migrate(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert migrate_root(tmp_path) == []


@pytest.mark.parametrize("function", [migrate_root, verify_root, undo_root, root_status, ensure_migrated])
def test_empty_path_is_rejected(
    root: OnDisk, monkeypatch: pytest.MonkeyPatch, function: Callable[[str], object]
) -> None:
    monkeypatch.chdir(root.root)
    before = ondisk.listing(root.root)
    with pytest.raises(ValueError, match="empty"):
        function("")
    assert ondisk.listing(root.root) == before


@pytest.mark.parametrize("name", ["containerd_root", "namespace", "snapshotter", "snapshotter_root"])
def test_empty_names_are_rejected(root: OnDisk, name: str) -> None:
    options: dict[str, Any] = {name: ""}
    for function in (migrate_root, verify_root, undo_root):
        with pytest.raises(ValueError, match=name):
            function(root.root, **options)
    with pytest.raises(ValueError, match="address"):
        ConnectionOptions(address="")


@pytest.mark.parametrize("function", [migrate_root, verify_root, root_status])
def test_missing_ok_accepts_a_missing_root(tmp_path: Path, function: Callable[..., object]) -> None:
    with pytest.raises(errors.RootNotFoundError):
        function(tmp_path / "missing")
    assert function(tmp_path / "missing", missing_ok=True) == []


def test_missing_ok_accepts_missing_default_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "default_places", lambda: [tmp_path / "a", tmp_path / "b"])
    assert migrate_root(missing_ok=True) == []
    (tmp_path / "b").touch()
    with pytest.raises(errors.RootNotFoundError):
        migrate_root(missing_ok=True)


# --- Several workers


def test_broken_second_worker_leaves_the_first_alone(root: OnDisk) -> None:
    other = root.root / "runc-zfs"
    shutil.copytree(root.worker, other)
    (other / "containerdmeta.db").write_bytes(bytes(4096))
    before = ondisk.listing(root.worker)
    with pytest.raises(errors.CorruptDatabaseError):
        migrate_root(root.root)
    assert ondisk.listing(root.worker) == before


def test_migrated_first_worker_is_left_alone(root: OnDisk) -> None:
    migrate_root(root.root)
    (root.root / "runc-overlayfs").rename(root.root / "runc-aaa")
    ondisk.sample(root.root.parent)
    reports = migrate_root(root.root)
    assert [report.outcome for report in reports] == [Outcome.ALREADY_MIGRATED, Outcome.MIGRATED]
    assert [report.worker.name for report in reports] == ["runc-aaa", "runc-overlayfs"]


@pytest.fixture
def containerd(root: OnDisk, tmp_path: Path) -> Path:
    """The sample root as one of a containerd worker; returns containerd's root."""
    containerd = tmp_path / "containerd"
    metadata = containerd / "io.containerd.metadata.v1.bolt"
    snapshotter = containerd / "io.containerd.snapshotter.v1.overlayfs"
    for directory in (containerd, metadata, snapshotter):
        directory.mkdir()
    root.containerd.rename(metadata / "meta.db")
    root.snapshots.rename(snapshotter / "metadata.db")
    root.worker.rename(root.root / "containerd-overlayfs")
    return containerd


def test_other_namespace_is_migrated_if_it_is_named(root: OnDisk, containerd: Path) -> None:
    meta = containerd / "io.containerd.metadata.v1.bolt" / "meta.db"
    content = ondisk.tree(meta)
    ondisk.edit(meta, {b"v1": {b"buildkit": None, b"mine": bucket(content, b"v1", b"buildkit")}})
    with pytest.raises(errors.ContainerdStateError, match="namespace buildkit"):
        migrate_root(root.root, containerd_root=containerd)
    (report,) = migrate_root(root.root, containerd_root=containerd, namespace="mine")
    assert report.outcome is Outcome.MIGRATED
    after = bucket(ondisk.tree(meta), b"v1")
    assert b"buildkit" not in after
    assert len(buckets(bucket(after, b"mine", b"leases"))) == report.counts["kept"]


def test_workers_that_share_a_containerd_get_all_resources(root: OnDisk, containerd: Path) -> None:
    """Their leases have the same names and need the resources of both snapshotters."""
    shutil.copytree(root.root / "containerd-overlayfs", root.root / "containerd-native")
    shutil.copytree(
        containerd / "io.containerd.snapshotter.v1.overlayfs",
        containerd / "io.containerd.snapshotter.v1.native",
    )
    meta = containerd / "io.containerd.metadata.v1.bolt" / "meta.db"
    snapshots = bucket(ondisk.tree(meta), b"v1", b"buildkit", b"snapshots", b"overlayfs")
    ondisk.edit(meta, {b"v1": {b"buildkit": {b"snapshots": {b"native": snapshots}}}})

    reports = migrate_root(root.root, containerd_root=containerd)

    assert [report.outcome for report in reports] == [Outcome.MIGRATED, Outcome.MIGRATED]
    leases = fixtures.leases_of(ondisk.tree(meta))
    assert len(leases) == reports[0].counts["kept"] == reports[1].counts["kept"]
    for id, resources in leases.items():
        assert {("snapshots/overlayfs", id), ("snapshots/native", id)} <= resources
    assert [path.name for path in meta.parent.iterdir() if path.suffix == ".tmp"] == []


def test_one_snapshotter_for_several_containerd_workers_is_refused(tmp_path: Path) -> None:
    """The records of one would be planned with the snapshots of the other."""
    root = ondisk.sample_of_containerd(tmp_path)
    shutil.copytree(root.worker, root.root / "containerd-native")
    for command in ("migrate", "verify"):
        result = ondisk.run(command, "--snapshotter", "overlayfs", *root.options, str(root.root))
        assert result.returncode == 7
        assert "2 containerd workers" in result.stderr
    result = ondisk.run("migrate", "--snapshotter", "overlayfs", *root.options, str(root.worker))
    assert (result.returncode, result.stderr) == (0, "")


# --- A containerd that is gone


@pytest.fixture
def mixed(tmp_path: Path) -> OnDisk:
    """An OCI worker, and one whose containerd is gone."""
    root = ondisk.sample(tmp_path)
    (root.root / "containerd-overlayfs").mkdir()
    shutil.copy(root.v1, root.root / "containerd-overlayfs")
    return root


@pytest.mark.parametrize("gone", ["running", "stopped"])
def test_unreachable_containerd_stops_all_unless_skipped(mixed: OnDisk, tmp_path: Path, gone: str) -> None:
    other = mixed.root / "containerd-overlayfs"
    nowhere = str(tmp_path / "nowhere")
    options = (
        ("--containerd-root", nowhere)
        if gone == "stopped"
        else ("--address", nowhere, "--connect-timeout", "0.1")
    )
    before = ondisk.listing(mixed.root)
    result = mixed.migrate(*options)
    assert result.returncode == (7 if gone == "stopped" else 11)
    assert f"error: {other}: " in result.stderr
    assert "--skip-unreachable" in result.stderr
    assert ondisk.listing(mixed.root, ["buildkitd.lock"]).keys() == before.keys()

    before = ondisk.listing(other)
    for command, said in (("migrate", "skipped: "), ("verify", "skipped: ")):
        result = ondisk.run(command, "--skip-unreachable", *options, str(mixed.root))
        assert (result.returncode, result.stderr) == (0, "")
        assert f"{other}: {said}" in result.stdout
        assert "nowhere" in result.stdout
    assert mixed.v2.exists()
    assert ondisk.listing(other) == before


def test_reachable_containerd_is_not_skipped(root: OnDisk, containerd: Path) -> None:
    """A containerd without the namespace is the wrong one."""
    with pytest.raises(errors.ContainerdStateError, match="namespace mine"):
        migrate_root(root.root, containerd_root=containerd, namespace="mine", skip_unreachable=True)


def test_oci_worker_is_not_skipped(root: OnDisk) -> None:
    """Its containerd databases are its own files: missing ones are damage."""
    root.containerd.unlink()
    with pytest.raises(errors.ContainerdStateError, match="missing"):
        migrate_root(root.root, skip_unreachable=True)


# --- Snapshotters elsewhere


@pytest.mark.parametrize("make", [ondisk.sample, ondisk.sample_of_containerd])
@pytest.mark.parametrize("place", ["elsewhere", "elsewhere/snapshotter"])
def test_snapshotter_root_option_is_followed(
    tmp_path: Path, make: Callable[[Path], OnDisk], place: str
) -> None:
    root = make(tmp_path)
    (tmp_path / place).mkdir(parents=True)
    root.snapshots.rename(tmp_path / place / "metadata.db")
    before = ondisk.listing(root.root)
    result = root.migrate()
    assert result.returncode == 7
    assert f"{root.snapshots} is missing" in result.stderr
    assert "--snapshotter-root" in result.stderr
    assert ondisk.listing(root.root, ["buildkitd.lock"]).keys() == before.keys()
    for command in ("migrate", "verify", "undo"):
        elsewhere = ("--snapshotter-root", str(tmp_path / "elsewhere"))
        result = ondisk.run(command, *root.options, *elsewhere, str(root.root))
        assert (result.returncode, result.stderr) == (0, "")


def test_one_snapshotter_root_for_several_workers_is_refused(mixed: OnDisk, tmp_path: Path) -> None:
    """The option can mean only one of them."""
    for options in ({"containerd_root": tmp_path}, {}):
        root = mixed.root if options else mixed.root / "containerd-overlayfs"
        with pytest.raises(errors.ContainerdStateError, match="one snapshotter only"):
            migrate_root(root, snapshotter_root=mixed.snapshots.parent, **options)
