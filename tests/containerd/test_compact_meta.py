"""A real containerd works on with the databases that `compact` has made smaller."""

from __future__ import annotations

from pathlib import Path

import pytest

import containerd_daemon
from buildkit_migrate import compact_root, undo_compaction
from buildkit_migrate.bolt import Database, check
from buildkit_migrate.errors import UndoRefusedError
from buildkit_migrate.maintenance.compact import CompactionOutcome
from containerd_daemon import Containerd

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(bool(containerd_daemon.why_missing()), reason=containerd_daemon.why_missing()),
]

SNAPSHOTTER = "overlayfs"


def fill(daemon: Containerd) -> None:
    """Snapshots, blobs and leases, most of which are collected again, so that pages become free."""
    parent = ""
    for i in range(8):
        daemon.prepare(SNAPSHOTTER, f"active{i}", parent)
        daemon.commit(SNAPSHOTTER, f"layer{i}", f"active{i}")
        parent = f"layer{i}"
        daemon.create_lease(f"lease{i}", "some=" + "label" * 200)
        daemon.ingest(b"blob %d" % i, f"{containerd_daemon.GC_ROOT}=now")
    daemon.prepare(SNAPSHOTTER, "kept", parent)


def state(daemon: Containerd) -> tuple[object, ...]:
    return daemon.snapshots(SNAPSHOTTER), daemon.content(), daemon.leases()


def test_containerd_works_on_with_compacted_databases(tmp_path: Path) -> None:
    (tmp_path / "root" / f"containerd-{SNAPSHOTTER}").mkdir(parents=True)
    with Containerd(tmp_path / "ctd") as daemon:
        fill(daemon)
        before = state(daemon)
        daemon.stop()
        found = compact_root(tmp_path / "root", containerd_root=daemon.root, namespace="buildkit")
        done = {
            file.path.name: file.path
            for file in found.files
            if file.path is not None and file.outcome == CompactionOutcome.COMPACTED
        }
        assert done.keys() == {"meta.db", "metadata.db"}
        daemon.start()
        assert state(daemon) == before
        daemon.prepare(SNAPSHOTTER, "new", "layer7")
        daemon.commit(SNAPSHOTTER, "layer8", "new")
        daemon.create_lease("new")
        daemon.collect_garbage()
        assert daemon.snapshots(SNAPSHOTTER).keys() >= {"layer8", "kept"}
        daemon.stop()
        for path in done.values():
            with Database.open(path) as database:
                assert check(database.reader) == []
        with pytest.raises(UndoRefusedError, match="was used since"):
            undo_compaction(tmp_path / "root", containerd_root=daemon.root)


def test_containerd_finds_its_own_databases_after_an_undo(tmp_path: Path) -> None:
    (tmp_path / "root" / f"containerd-{SNAPSHOTTER}").mkdir(parents=True)
    with Containerd(tmp_path / "ctd") as daemon:
        fill(daemon)
        before = state(daemon)
        daemon.stop()
        compact_root(tmp_path / "root", containerd_root=daemon.root)
        undo_compaction(tmp_path / "root", containerd_root=daemon.root)
        daemon.start()
        assert state(daemon) == before
