"""Finding roots by themselves, and from paths a level too high or too low."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from buildkit_migrate import errors
from buildkit_migrate.workspace import finding, places
from buildkit_migrate.workspace.finding import find_root, find_roots
from buildkit_migrate.workspace.places import more_places
from ondisk import OnDisk

VOLUME = "buildx_buildkit_builder0_state"


def directory(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


# --- Places


@pytest.mark.parametrize(
    "data",
    [
        "var/lib/docker",
        "var/lib/docker/100000.100000",
        "var/snap/docker/common/var-lib-docker",
        "h/.local/share/docker",
        "home/somebody/.local/share/docker",
        "mnt/configured",
        "mnt/of user",
    ],
)
def test_docker_volumes_are_searched(tmp_path: Path, data: str) -> None:
    for settings, key, value in (
        ("etc/docker", "data-root", "/mnt/configured"),
        ("h/.config/docker", "graph", "/mnt/of user"),
    ):
        (directory(tmp_path / settings) / "daemon.json").write_text(json.dumps({key: value}))
    volume = directory(tmp_path / data / "volumes" / VOLUME / "_data")
    directory(tmp_path / data / "volumes" / "other" / "_data")
    named = directory(tmp_path / data / "volumes" / "mine" / "_data" / "runc-overlayfs").parent
    found = more_places({"HOME": "/h"}, tmp_path, all_users=True)
    assert [path for path in found.roots if path.name == "_data"] == [volume, named]
    assert found.unreadable == []


@pytest.mark.parametrize("storage", ["var/lib/containers/storage", "h/.local/share/containers/storage"])
def test_podman_volumes_are_searched(tmp_path: Path, storage: str) -> None:
    volume = directory(tmp_path / storage / "volumes" / VOLUME / "_data")
    assert volume in more_places({"HOME": "/h"}, tmp_path, all_users=False).roots


def test_homes_of_other_users_are_searched_only_if_asked(tmp_path: Path) -> None:
    directory(tmp_path / "home/somebody")
    place = tmp_path / "home/somebody/.local/share/buildkit"
    assert place in more_places({}, tmp_path, all_users=True).roots
    assert place not in more_places({}, tmp_path, all_users=False).roots


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"data-root": 3}', '{"data-root": "relative"}', "[" * 100_000]
)
def test_invalid_docker_settings_are_ignored(tmp_path: Path, content: str) -> None:
    (directory(tmp_path / "etc/docker") / "daemon.json").write_text(content)
    assert more_places({}, tmp_path, all_users=False) == places.Places()


def test_docker_settings_that_are_not_a_file_are_ignored(tmp_path: Path) -> None:
    os.mkfifo(directory(tmp_path / "etc/docker") / "daemon.json")
    assert more_places({}, tmp_path, all_users=False) == places.Places()


def test_dockers_own_builder_is_found(tmp_path: Path) -> None:
    builder = directory(tmp_path / "var/lib/docker/buildkit")
    for name in ("cache.db", "metadata.db", "snapshots.db"):
        (builder / name).touch()
    assert more_places({}, tmp_path, all_users=False).docker == [builder]
    for path in (builder, builder.parent):
        root = find_root(path)
        assert (root.path, root.state) == (builder, builder)
        assert [(worker.path, worker.kind) for worker in root.workers] == [(builder, "docker")]


# --- Roots


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host without roots, below this directory."""
    top = directory(tmp_path / "host")
    monkeypatch.setattr(finding, "more_places", lambda: more_places({"HOME": "/h"}, top, all_users=True))
    monkeypatch.setattr(finding, "default_places", lambda: [top / "var/lib/buildkit"])
    return top


def put(root: OnDisk, place: Path) -> Path:
    shutil.copytree(root.root, place)
    return place


def test_only_root_of_a_host_is_found(root: OnDisk, host: Path) -> None:
    with pytest.raises(errors.RootNotFoundError):
        find_root()
    volume = put(root, host / "var/lib/docker/volumes" / VOLUME / "_data")
    assert find_root().path == volume
    directory(host / "var/lib/buildkit")  # an empty one hides nothing
    assert find_root().path == volume


def test_usual_place_comes_first(root: OnDisk, host: Path) -> None:
    put(root, host / "var/lib/docker/volumes" / VOLUME / "_data")
    usual = put(root, host / "var/lib/buildkit")
    assert find_root().path == usual


def test_several_roots_are_candidates(root: OnDisk, host: Path) -> None:
    roots = [
        put(root, host / "h/.local/share/docker/volumes" / VOLUME / "_data"),
        put(root, host / "var/lib/docker/volumes" / VOLUME / "_data"),
    ]
    with pytest.raises(errors.RootNotFoundError) as caught:
        find_root()
    assert sorted(caught.value.candidates) == [str(path) for path in roots]
    assert sorted(found.path for found in find_roots().roots) == roots


def test_root_with_two_names_is_found_once(root: OnDisk, host: Path) -> None:
    put(root, host / "mnt/docker/volumes" / VOLUME / "_data")
    directory(host / "var/lib")
    (host / "var/lib/docker").symlink_to(host / "mnt/docker")
    (directory(host / "etc/docker") / "daemon.json").write_text('{"data-root": "/mnt/docker"}')
    assert len(find_roots().roots) == 1


def test_unreadable_places_are_named(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = places.Places(unreadable=["/var/lib/docker/volumes: Permission denied"])
    monkeypatch.setattr(finding, "more_places", lambda: found)
    with pytest.raises(errors.RootNotFoundError, match="docker/volumes: Permission denied"):
        find_root()
    assert find_root(missing_ok=True).workers == ()


# --- A level too high or too low


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("v/volume", "v/volume/_data"),
        ("v", "v/volume/_data"),
        ("v/volume/_data/runc-overlayfs/snapshots", "v/volume/_data/runc-overlayfs"),
        ("v/volume/_data/runc-overlayfs/metadata.db", "v/volume/_data/runc-overlayfs"),
        ("v/volume/_data/runc-overlayfs/snapshots/metadata.db", "v/volume/_data/runc-overlayfs"),
        ("v/volume/_data/executor", "v/volume/_data"),
        ("v/volume/_data/cache.db", "v/volume/_data"),
        ("lib", "lib/buildkit"),
        ("new", "new/_data"),
    ],
)
def test_nearby_root_is_suggested(root: OnDisk, tmp_path: Path, given: str, meant: str) -> None:
    volume = put(root, tmp_path / "v/volume/_data")
    directory(volume / "executor" / "run")
    (volume / "cache.db").touch()
    put(root, tmp_path / "lib/buildkit")
    directory(tmp_path / "lib/other")
    directory(tmp_path / "new/_data")
    with pytest.raises(errors.RootNotFoundError) as caught:
        find_root(tmp_path / given)
    assert [os.path.realpath(path) for path in caught.value.candidates] == [str(tmp_path / meant)]
    assert str(tmp_path / meant) in caught.value.hint


def test_several_nearby_roots_are_suggested(root: OnDisk, tmp_path: Path) -> None:
    for name in ("one", "two"):
        put(root, tmp_path / "roots" / name)
    with pytest.raises(errors.RootNotFoundError) as caught:
        find_root(tmp_path / "roots")
    assert caught.value.candidates == (str(tmp_path / "roots/one"), str(tmp_path / "roots/two"))


def test_missing_path_gets_no_suggestion(root: OnDisk) -> None:
    """A typing error must not select the directory above."""
    with pytest.raises(errors.RootNotFoundError) as caught:
        find_root(root.root / "runc-overlay")
    assert caught.value.candidates == ()
