"""What is Docker's builder, and what only looks like it; `ensure_migrated` and `find_root` say the same."""

from __future__ import annotations

from pathlib import Path

import pytest

import buildkit_migrate
import ondisk
from buildkit_migrate import embed
from buildkit_migrate.api import find_root
from buildkit_migrate.errors import ContainerdStateError
from ondisk import OnDisk


def make(place: Path, *names: str) -> Path:
    """Files, and directories with the names that end in a slash."""
    for name in names:
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir()
        else:
            path.touch()
    return place


STANDALONE = ("runc-overlayfs/", "cache.db", "history.db")
WITH_CONTAINERD = ("containerd-overlayfs/", "cache.db", "history.db")
BUILDER = ("metadata.db", "snapshots.db", "cache.db", "executor/")


@pytest.mark.parametrize(
    ("names", "is_dockers"),
    [
        (BUILDER, True),
        ((*BUILDER, "containerd-overlayfs/", "history_c8d.db"), True),
        (("metadata_v2.db", "cache.db"), True),
        (("snapshots.db",), True),
        (STANDALONE, False),
        ((*STANDALONE, "metadata.db"), False),
        ((*STANDALONE, "metadata_v2.db", "snapshots.db"), False),
        ((*WITH_CONTAINERD, "metadata.db"), False),
        ((*WITH_CONTAINERD, "snapshots.db"), False),
        ((*BUILDER, "buildkitd.lock"), False),
    ],
)
def test_stray_files_do_not_make_a_root_dockers(
    tmp_path: Path, names: tuple[str, ...], is_dockers: bool
) -> None:
    """The workers of a stand-alone daemon would be left out."""
    make(tmp_path / "state", *names)
    root = find_root(tmp_path / "state") if is_dockers or "-" in names[0] else None
    assert (root is not None and [it.kind for it in root.workers] == ["docker"]) is is_dockers
    there = {name.rstrip("/") for name in names}
    assert embed._is_docker_builder(str(tmp_path / "state"), there) is is_dockers


@pytest.mark.parametrize("stray", ["snapshots.db", "metadata.db", "cache.db"])
def test_stray_files_do_not_hide_the_builder_in_a_data_root(tmp_path: Path, stray: str) -> None:
    make(tmp_path, "image/", stray)
    make(tmp_path / "buildkit", *BUILDER)
    assert [it.path for it in find_root(tmp_path).workers] == [tmp_path / "buildkit"]


def test_beside_layers_records_are_enough(tmp_path: Path) -> None:
    make(tmp_path, "image/")
    make(tmp_path / "buildkit", "metadata.db", "containerd-overlayfs/")
    assert [it.kind for it in find_root(tmp_path / "buildkit").workers] == ["docker"]


@pytest.fixture
def docker(tmp_path: Path) -> OnDisk:
    return ondisk.docker_sample(tmp_path)


def test_a_data_root_and_its_builder_are_migrated_once(docker: OnDisk) -> None:
    worker = docker.root / "containerd-overlayfs"
    worker.mkdir()
    ondisk.empty_database(worker / "metadata_v2.db")
    data = docker.root.parent
    reports = buildkit_migrate.ensure_migrated(data)
    assert [report.outcome for report in reports] == ["migrated", "skipped"]
    assert buildkit_migrate.ensure_migrated(data) == []
    assert buildkit_migrate.ensure_migrated(docker.root) == []


def test_a_builder_with_workers_of_the_image_store_is_not_taken_for_them(docker: OnDisk) -> None:
    make(docker.root, "containerd-overlayfs/")
    (docker.root.parent / "image").rename(docker.root.parent / "lost")
    for place in (docker.root, docker.root.parent):
        with pytest.raises(ContainerdStateError, match="no storage driver"):
            buildkit_migrate.ensure_migrated(place)
