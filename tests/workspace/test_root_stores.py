"""All stores of a root are opened, whatever state they are in."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

import pytest

import planting
import v2_roots
from buildkit_migrate.errors import BusyError
from buildkit_migrate.workspace.stores import DOCKER_BUILDER, Fault, find_state, open_stores
from dicts import file_of


@pytest.mark.parametrize("name", v2_roots.NAMES)
def test_each_store_of_a_real_root_is_opened(name: str, tmp_path: Path) -> None:
    found = v2_roots.v2_root(name, tmp_path)
    with found.open() as stores:
        (worker,) = stores.workers
        assert [store.path for store in worker.stores] == [found.records, found.containerd, found.snapshots]
        assert worker.worker_id == (found.worker / "workerid").read_bytes()
        assert len(worker.worker_id or b"") == 25
        assert worker.namespace == b"buildkit"
        assert worker.snapshotter == found.snapshotter.encode()
        assert worker.directories is not None
        assert worker.directories.is_dir()
        assert worker.content is not None
        assert (worker.content / "blobs").is_dir()
        assert {store.fault for store in stores.all if store is not stores.cache_debug} == {None}
        assert stores.cache_debug.fault == Fault.MISSING


def test_fault_of_a_store_is_reported(tmp_path: Path) -> None:
    root = v2_roots.healed(tmp_path)
    root.records.unlink()
    root.containerd.write_bytes(b"")
    planting.damage(root.cache, 0, bytes(2 * planting.page_size(root.cache)))
    root.history.unlink()
    root.history.mkdir()
    with root.open() as stores:
        (worker,) = stores.workers
        faults = [
            worker.records.fault,
            worker.containerd.fault,
            stores.cache.fault,
            stores.histories[0].fault,
        ]
        assert faults == [Fault.MISSING, Fault.EMPTY, Fault.CORRUPT, Fault.CORRUPT]
        assert worker.records.root is None
        assert worker.containerd.root is not None
        assert list(worker.containerd.root.items()) == []
        assert str(root.cache) in str(stores.cache.error)


def test_stores_of_an_unnamed_containerd_are_elsewhere(tmp_path: Path) -> None:
    found = v2_roots.v2_root("containerd", tmp_path)
    alone = v2_roots.V2Root(found.root, "", found.worker, found.containerd, found.snapshots, "overlayfs")
    with alone.open() as stores:
        (worker,) = stores.workers
        assert worker.records.fault is None
        assert [worker.containerd.fault, worker.snapshots.fault] == [Fault.ELSEWHERE] * 2


@pytest.mark.parametrize("name", ["buildkitd.lock", "cache.db", "runc-overlayfs/metadata_v2.db"])
def test_running_daemon_is_named(name: str, tmp_path: Path) -> None:
    root = v2_roots.healed(tmp_path)
    (root.root / "buildkitd.lock").touch()
    fd = os.open(root.root / name, os.O_RDWR)
    with contextlib.closing(os.fdopen(fd)):
        fcntl.flock(fd, fcntl.LOCK_EX)
        with (
            pytest.raises(BusyError, match=rf"{name} is in use by \S+ \(process {os.getpid()}\)"),
            root.open(),
        ):
            pass


def test_nothing_is_written(tmp_path: Path) -> None:
    root = v2_roots.healed(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with root.open():
        assert sorted(tmp_path.rglob("*")) == before


def test_dockers_own_builder_is_one_worker_and_may_have_others(tmp_path: Path) -> None:
    (tmp_path / "healed").mkdir()
    healthy = v2_roots.healed(tmp_path / "healed")
    directory = tmp_path / "docker" / "buildkit"
    worker = directory / "containerd-overlayfs"
    worker.mkdir(parents=True)
    for name in ("metadata_v2.db", "snapshots.db", "containerdmeta.db", "cache.db", "history_c8d.db"):
        (directory / name).write_bytes(file_of({}))
    (worker / "metadata_v2.db").write_bytes(file_of({}))
    (tmp_path / "docker" / "engine-id").write_bytes(b"11111111-2222\n")
    with open_stores(find_state(directory), healthy.place) as stores:
        builder, other = stores.workers
        assert (builder.kind, builder.worker_id, builder.namespace) == (
            DOCKER_BUILDER,
            b"11111111-2222",
            b"buildkit",
        )
        assert builder.snapshots.path == directory / "snapshots.db"
        assert (other.kind, other.namespace) == ("containerd", b"moby")
        assert [store.fault for store in stores.histories] == [Fault.MISSING, None]
