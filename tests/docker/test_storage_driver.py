"""Which storage driver the records of Docker's builder are of, in small made-up data roots."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from buildkit_migrate.containerd.docker import Needed
from buildkit_migrate.containerd.driver_store import DriverStore
from buildkit_migrate.errors import ContainerdStateError
from buildkit_migrate.settings import Setting
from buildkit_migrate.workspace.docker import storage_driver

DATA_OF = {"overlay2": ".", "aufs": "diff", "vfs": "dir", "btrfs": "subvolumes"}


def chain(number: int) -> bytes:
    return b"sha256:" + hashlib.sha256(b"%d" % number).hexdigest().encode()


def add(root: Path, driver: str, layers: Iterable[int] = (), ids: Iterable[bytes] = ()) -> None:
    """Layers and data that a driver has."""
    layerdb = root / "image" / driver / "layerdb" / "sha256"
    layerdb.mkdir(parents=True)
    for number in layers:
        (layerdb / chain(number).decode().partition(":")[2]).mkdir()
    for id in ids:
        (root / driver / DATA_OF[driver] / id.decode()).mkdir(parents=True)


def needed(layers: Iterable[int] = (), data: Iterable[bytes] = ()) -> Needed:
    return Needed(frozenset(map(chain, layers)), frozenset(data))


def chosen(root: Path, what: Needed, given: str | None = None, **environ: str) -> Setting | None:
    return storage_driver(root, None if given is None else Setting(given), what, environ)


def daemon_json(home: Path, content: object) -> dict[str, str]:
    """The environment of a user with these settings of a rootless engine."""
    settings = home / ".config" / "docker" / "daemon.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps(content))
    return {"HOME": str(home)}


def test_layers_that_no_record_needs_do_not_count(tmp_path: Path) -> None:
    add(tmp_path, "aufs", range(10, 40))
    add(tmp_path, "overlay2", range(3))
    found = chosen(tmp_path, needed(range(3)))
    assert found == Setting("overlay2", "has 3 of the 3 layers that records need; aufs has 0")


def test_data_of_cache_mounts_tells_where_no_layer_does(tmp_path: Path) -> None:
    add(tmp_path, "aufs", [1], [b"other"])
    add(tmp_path, "vfs", [1], [b"mount", b"another"])
    add(tmp_path, "btrfs", [1])
    found = chosen(tmp_path, needed(data=[b"mount", b"lost"]), "vfs")
    assert found == Setting("vfs")
    with pytest.raises(ContainerdStateError, match=r"of the storage driver vfs \(has 1 of the 2 snapshots"):
        chosen(tmp_path, needed(data=[b"mount", b"lost"]))  # the engine will use aufs, it does not find vfs


@pytest.mark.parametrize("known", [True, False], ids=["with layers of its own", "never started with it"])
def test_another_driver_in_the_settings_is_refused(tmp_path: Path, known: bool) -> None:
    data = tmp_path / "data"
    add(data, "overlay2", range(3), [b"mount"])
    if known:
        add(data, "btrfs")
    environ = daemon_json(tmp_path, {"data-root": str(data), "storage-driver": "btrfs"})
    with pytest.raises(ContainerdStateError, match="Docker Engine will use btrfs") as caught:
        chosen(data, needed(range(3)), **environ)
    assert caught.value.exit_code == 7
    assert "--storage-driver btrfs" in caught.value.hint
    assert '"storage-driver" in daemon.json' in caught.value.hint
    for given in ("btrfs", "overlay2"):
        assert chosen(data, needed(range(3)), given, **environ) == Setting(given)


def test_another_driver_with_data_is_refused(tmp_path: Path) -> None:
    """The engine takes the only one that has data."""
    add(tmp_path, "aufs", range(3))
    add(tmp_path, "overlay2", ids=[b"x"])
    with pytest.raises(ContainerdStateError, match=r"use overlay2 \(the only one with data\)"):
        chosen(tmp_path, needed(range(3)))


def test_the_same_driver_in_the_settings_is_fine(tmp_path: Path) -> None:
    data = tmp_path / "data"
    add(data, "vfs", range(3))
    environ = daemon_json(tmp_path, {"data-root": str(data), "storage-driver": "vfs"})
    assert chosen(data, needed(range(3)), **environ) == Setting("vfs", "the only one")
    add(data, "overlay2", range(3), [b"x"])
    found = chosen(data, needed(range(3)), **environ)
    assert found == Setting("vfs", str(tmp_path / ".config/docker/daemon.json"))


@pytest.mark.parametrize(
    ("content", "at"),
    [
        ({}, ".local/share/docker"),
        ({"data-root": "/elsewhere"}, None),
        ({"data-root": ["/elsewhere"]}, None),
        ({"data-root": "relative"}, None),
    ],
)
def test_the_settings_of_a_rootless_engine_are_for_its_own_data_root(
    tmp_path: Path, content: dict[str, object], at: str | None
) -> None:
    environ = daemon_json(tmp_path, {**content, "storage-driver": "vfs"})
    for place in (".local/share/docker", "another"):
        add(tmp_path / place, "btrfs")
        found = chosen(tmp_path / place, needed(), **environ)
        assert found is not None
        assert found.value == ("vfs" if place == at else "btrfs")


@pytest.mark.parametrize("driver", ["../../etc", "", 7, None])
def test_impossible_names_in_the_settings_are_not_used(tmp_path: Path, driver: object) -> None:
    add(tmp_path, "overlay2", [1])
    environ = daemon_json(tmp_path, {"data-root": str(tmp_path), "storage-driver": driver})
    assert chosen(tmp_path, needed([1]), **environ) == Setting("overlay2", "the only one")


def test_where_nothing_is_needed_nothing_is_asked_for(tmp_path: Path) -> None:
    assert chosen(tmp_path, needed()) is None
    add(tmp_path, "aufs")
    assert chosen(tmp_path, needed()) == Setting("aufs", "the only one")
    add(tmp_path, "overlay2")
    assert chosen(tmp_path, needed()) is None
    with pytest.raises(ContainerdStateError, match="several storage drivers"):
        chosen(tmp_path, needed([1]))


@pytest.mark.parametrize("driver", DATA_OF)
def test_data_is_where_the_driver_has_it(tmp_path: Path, driver: str) -> None:
    store = DriverStore(tmp_path, Setting(driver))
    assert not store.lacks(b"x")
    add(tmp_path, driver, ids=[b"x"])
    store = DriverStore(tmp_path, Setting(driver))
    assert (store.lacks(b"x"), store.lacks(b"y")) == (False, True)


@pytest.mark.parametrize("name", ["zfs", "devicemapper", "of a plugin"])
def test_of_other_drivers_files_do_not_tell(tmp_path: Path, name: str) -> None:
    (tmp_path / name / "x").mkdir(parents=True)
    assert not DriverStore(tmp_path, Setting(name)).lacks(b"y")


def test_a_copy_of_the_databases_does_not_tell(tmp_path: Path) -> None:
    (tmp_path / "overlay2" / "l").mkdir(parents=True)
    assert not DriverStore(tmp_path, Setting("overlay2")).lacks(b"y")
    assert not DriverStore(tmp_path, None).lacks(b"y")
