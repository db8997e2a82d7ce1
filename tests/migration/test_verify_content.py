"""`verify --content` names whatever is in place of a blob or snapshot directory, and does not hang."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

import fixtures
import ondisk
from buildkit_migrate import errors, verify_root
from buildkit_migrate.migration import content
from buildkit_migrate.migration.findings import Difference, DifferenceKind
from buildkit_migrate.model import Blob, Kind
from buildkit_migrate.values.numbers import unsigned
from fixtures import bucket, buckets
from ondisk import OnDisk

DATA = b"a layer" * 1000
DIGEST = b"sha256:" + hashlib.sha256(DATA).hexdigest().encode()


def silent(step: str) -> None:
    pass


@pytest.fixture
def blob(tmp_path: Path) -> Path:
    """The file of a sound blob."""
    path = tmp_path / "content" / "blobs" / "sha256" / DIGEST.decode().partition(":")[2]
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    return path


def differences_of_blob(blob: Path, size: int | None = len(DATA)) -> list[Difference]:
    return list(content.blob_differences(blob.parents[2], {DIGEST: Blob(size=size)}, silent))


def test_sound_blob_has_no_differences(blob: Path) -> None:
    assert differences_of_blob(blob) == []
    assert differences_of_blob(blob, None) == []


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        here = Path.cwd()
        os.chdir(path.parent)  # the address of a socket is short
        try:
            bound.bind(path.name)
        finally:
            os.chdir(here)


def make_sparse_terabyte(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


PLANTS: dict[str, tuple[Callable[[Path], object], DifferenceKind, bytes | None]] = {
    "nothing": (lambda path: None, DifferenceKind.BLOB_FILE_MISSING, None),
    "FIFO": (os.mkfifo, DifferenceKind.BLOB_FILE_KIND, b"FIFO"),
    "link to a device": (
        lambda path: path.symlink_to("/dev/zero"),
        DifferenceKind.BLOB_FILE_KIND,
        b"character device",
    ),
    "directory": (Path.mkdir, DifferenceKind.BLOB_FILE_KIND, b"directory"),
    "link to a directory": (
        lambda path: path.symlink_to("."),
        DifferenceKind.BLOB_FILE_KIND,
        b"directory",
    ),
    "socket": (make_socket, DifferenceKind.BLOB_FILE_KIND, b"socket"),
    "circle": (
        lambda path: path.symlink_to(path.name),
        DifferenceKind.BLOB_FILE_KIND,
        b"symbolic link that leads in a circle",
    ),
    "link to nothing": (
        lambda path: path.symlink_to("gone"),
        DifferenceKind.BLOB_FILE_MISSING,
        b"symbolic link that leads nowhere",
    ),
    "terabyte": (make_sparse_terabyte, DifferenceKind.BLOB_FILE_SIZE, b"%d" % (1 << 40)),
    "empty": (Path.touch, DifferenceKind.BLOB_FILE_SIZE, b"0"),
    "cut": (lambda path: path.write_bytes(DATA[:-1]), DifferenceKind.BLOB_FILE_SIZE, b"%d" % (len(DATA) - 1)),
    "other bytes": (
        lambda path: path.write_bytes(bytes(len(DATA))),
        DifferenceKind.BLOB_FILE_DIFFERS,
        b"sha256:" + hashlib.sha256(bytes(len(DATA))).hexdigest().encode(),
    ),
}


@pytest.mark.parametrize("name", PLANTS)
def test_anything_else_in_place_of_a_blob_is_named(name: str, blob: Path) -> None:
    plant, kind, found = PLANTS[name]
    blob.unlink()
    plant(blob)
    (difference,) = differences_of_blob(blob)
    assert (difference.kind, difference.subject, difference.found) == (kind, DIGEST, found)


def test_device_in_place_of_a_blob_is_named(blob: Path) -> None:
    blob.unlink()
    try:
        os.mknod(blob, 0o600 | 0o020000, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("can't make a device here")
    (difference,) = differences_of_blob(blob)
    assert (difference.kind, difference.found) == (DifferenceKind.BLOB_FILE_KIND, b"character device")


def test_link_to_a_sound_blob_is_accepted(blob: Path) -> None:
    blob.rename(blob.with_name("elsewhere"))
    blob.symlink_to("elsewhere")
    assert differences_of_blob(blob) == []


def test_missing_blob_directory_means_missing_blobs(blob: Path) -> None:
    shutil.rmtree(blob.parents[1])
    assert differences_of_blob(blob) == [Difference(DifferenceKind.BLOB_FILE_MISSING, DIGEST)]
    blob.parents[1].touch()
    assert differences_of_blob(blob) == [Difference(DifferenceKind.BLOB_FILE_MISSING, DIGEST)]


@pytest.mark.parametrize("call", ["stat", "open", "read"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_unreadable_blob_is_a_difference(
    call: str, number: int, blob: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: object, **options: object) -> object:
        raise OSError(number, os.strerror(number))

    if call == "stat":
        monkeypatch.setattr(Path, "stat", refused)
    elif call == "open":
        monkeypatch.setattr(os, "open", refused)
    else:
        monkeypatch.setattr(content.hashlib, "new", refused)
    assert differences_of_blob(blob) == [
        Difference(DifferenceKind.BLOB_FILE_UNREADABLE, DIGEST, found=os.strerror(number).encode())
    ]


def test_lack_of_descriptors_is_an_error_and_not_a_difference(
    blob: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: object, **options: object) -> object:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(errors.StorageError, match="Too many open files"):
        differences_of_blob(blob)


# --- Directories of snapshots


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The directory of snapshot 7 of overlayfs."""
    path = tmp_path / "snapshots" / "7"
    (path / "fs").mkdir(parents=True)
    return path


def differences_of_directory(directory: Path, snapshotter: str = "overlayfs") -> list[Difference]:
    return list(content.directory_differences(directory.parents[1], snapshotter, {b"name": 7}, (), silent))


def test_sound_directory_has_no_differences(directory: Path) -> None:
    assert differences_of_directory(directory) == []
    (directory / "fs").rmdir()
    assert differences_of_directory(directory, "native") == []


DIRECTORY_PLANTS: dict[str, tuple[Callable[[Path], object], str, DifferenceKind, bytes | None]] = {
    "nothing": (lambda path: None, "7", DifferenceKind.SNAPSHOT_FILES_MISSING, None),
    "file": (Path.touch, "7", DifferenceKind.SNAPSHOT_FILES_KIND, b"regular file"),
    "FIFO": (os.mkfifo, "7", DifferenceKind.SNAPSHOT_FILES_KIND, b"FIFO"),
    "link": (
        lambda path: path.symlink_to(path.parent),
        "7",
        DifferenceKind.SNAPSHOT_FILES_KIND,
        b"symbolic link",
    ),
    "without fs": (Path.mkdir, "7/fs", DifferenceKind.SNAPSHOT_FILES_MISSING, None),
}


@pytest.mark.parametrize("name", DIRECTORY_PLANTS)
def test_anything_else_in_place_of_a_directory_is_named(name: str, directory: Path) -> None:
    plant, at, kind, found = DIRECTORY_PLANTS[name]
    shutil.rmtree(directory)
    plant(directory)
    key = f"snapshots/{at}".encode()
    assert differences_of_directory(directory) == [Difference(kind, b"name", key, found=found)]


# --- The command


def make_directories(root: OnDisk) -> dict[bytes, Path]:
    """Makes the directories of all snapshots of an overlayfs root; returns them by snapshot."""
    rows = buckets(bucket(ondisk.tree(root.snapshots), b"v1", b"snapshots"))
    made = {}
    for name, row in rows.items():
        id = row[b"id"]
        assert isinstance(id, bytes)
        path = root.snapshots.parent / "snapshots" / str(unsigned(id))
        (path / "fs").mkdir(parents=True)
        if row[b"kind"] == bytes([Kind.ACTIVE]):
            (path / "work").mkdir()
        made[name.split(b"/", 2)[2]] = path
    return made


@pytest.fixture
def root(tmp_path: Path) -> OnDisk:
    """A migrated root without any blob file."""
    root = ondisk.sample(tmp_path)
    root.migrate_here()
    return root


def content_differences(root: OnDisk) -> set[tuple[DifferenceKind, bytes]]:
    (worker,) = verify_root(root.root, content=True)
    return {
        (difference.kind, difference.subject)
        for difference in worker.findings.differences
        if difference.kind is not DifferenceKind.BLOB_FILE_MISSING
    }


def test_missing_snapshot_directories_are_named(root: OnDisk) -> None:
    records = set(bucket(ondisk.tree(root.v2), b"_main"))
    survey = fixtures.survey_of(ondisk.tree(root.containerd), ondisk.tree(root.snapshots), "overlayfs")
    expected = {
        (DifferenceKind.SNAPSHOT_FILES_MISSING, id)
        for id, snapshot in survey.snapshots.items()
        if id in records and snapshot.kind is not Kind.VIEW
    }
    assert len(expected) > 100
    assert content_differences(root) == expected
    root.verify_here()  # without the option it does not look


def test_directories_of_views_may_be_missing(root: OnDisk) -> None:
    directories = make_directories(root)
    assert content_differences(root) == set()
    records = bucket(ondisk.tree(root.v2), b"_main")
    view = next(name for name in directories if name not in records)
    shutil.rmtree(directories[view])
    assert content_differences(root) == set()
    layer = next(name for name in directories if name in records)
    shutil.rmtree(directories[layer])
    assert content_differences(root) == {(DifferenceKind.SNAPSHOT_FILES_MISSING, layer)}


def test_active_snapshot_needs_its_work_directory(root: OnDisk) -> None:
    """overlayfs can't mount an active snapshot without it; a committed one does not need it."""
    directories = make_directories(root)
    records = bucket(ondisk.tree(root.v2), b"_main")
    name = next(name for name, path in directories.items() if name in records and (path / "work").exists())
    (directories[name] / "work").rmdir()
    assert content_differences(root) == {(DifferenceKind.SNAPSHOT_FILES_MISSING, name)}
    (directories[name] / "work").write_bytes(b"")
    assert content_differences(root) == {(DifferenceKind.SNAPSHOT_FILES_KIND, name)}


def test_directories_of_an_unknown_snapshotter_are_not_checked(tmp_path: Path) -> None:
    root = ondisk.sample(tmp_path)
    worker = root.worker.rename(root.worker.with_name("runc-btrfs"))
    containerd = ondisk.tree(worker / "containerdmeta.db")
    snapshots = bucket(containerd, b"v1", b"buildkit", b"snapshots")
    ondisk.edit(
        worker / "containerdmeta.db",
        {b"v1": {b"buildkit": {b"snapshots": {b"btrfs": snapshots[b"overlayfs"], b"overlayfs": None}}}},
    )
    ondisk.set_sequence(worker / "containerdmeta.db", (b"v1", b"buildkit", b"snapshots", b"btrfs"), 1000)
    root = ondisk.oci(root.root, "btrfs")
    root.migrate_here()
    root.verify_here()
    (found,) = json.loads(root.verify("--content", "--format", "json").stdout)["workers"]
    assert found["unchecked"] == ["directories of snapshots: nothing is known of those of btrfs"]
    assert {difference["kind"] for difference in found["differences"]} == {"blob-file-missing"}


def test_damaged_blob_files_of_a_real_root_are_named(tmp_path: Path) -> None:
    root = ondisk.real("a", tmp_path)
    root.migrate_here()
    blobs = sorted((root.worker / "content" / "blobs" / "sha256").iterdir())
    if not blobs:
        pytest.skip("unpacked without content")
    data = bytearray(blobs[0].read_bytes())
    data[len(data) // 2] ^= 1
    blobs[0].write_bytes(data)
    blobs[1].unlink()
    blobs[2].unlink()
    os.mkfifo(blobs[2])
    root.verify_here()
    result = root.verify("--content")
    assert result.returncode == 10
    _, *lines = result.stdout.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"  blob-file-differs: sha256:{blobs[0].name} (expected sha256:")
    assert lines[1] == f"  blob-file-missing: sha256:{blobs[1].name}"
    assert lines[2] == f"  blob-file-kind: sha256:{blobs[2].name} (found FIFO)"
