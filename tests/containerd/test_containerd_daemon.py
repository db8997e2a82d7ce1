"""The containerd that other tests start keeps its state and collects garbage."""

from __future__ import annotations

import pytest

from containerd_daemon import GC_ROOT, Containerd, Snapshot

pytestmark = pytest.mark.real


def test_state_outlives_the_daemon(containerd: Containerd) -> None:
    containerd.prepare("native", "base-active")
    containerd.commit("native", "base", "base-active")
    containerd.prepare("native", "work", "base")
    containerd.view("native", "peek", "base")
    containerd.create_lease("lease", "a=b", "c=d=e")
    digest = containerd.ingest(b"blob", f"{GC_ROOT}=2019-11-01T08:00:05Z")
    for _ in range(2):
        assert containerd.snapshots("native") == {
            "base": Snapshot("Committed", ""),
            "work": Snapshot("Active", "base"),
            "peek": Snapshot("View", "base"),
        }
        assert GC_ROOT in containerd.snapshot_labels("native", "base")
        assert containerd.leases() == {"lease": {"a": "b", "c": "d=e"}}
        assert containerd.content() == {digest: {GC_ROOT: "2019-11-01T08:00:05Z"}}
        containerd.stop()
        with pytest.raises(RuntimeError):
            containerd.ctr("--connect-timeout", "200ms", "version")
        containerd.start()


def test_garbage_is_collected(containerd: Containerd) -> None:
    kept = containerd.ingest(b"kept", f"{GC_ROOT}=2019-11-01T08:00:05Z")
    containerd.ingest(b"garbage")
    containerd.prepare("native", "kept")
    containerd.prepare("native", "garbage")
    containerd.ctr("snapshots", "--snapshotter", "native", "label", "garbage", f"{GC_ROOT}=")
    containerd.collect_garbage()
    assert set(containerd.content()) == {kept}
    assert set(containerd.snapshots("native")) == {"kept"}
    assert containerd.leases() == {}


def test_failure_shows_the_log(containerd: Containerd) -> None:
    with pytest.raises(RuntimeError, match="containerd successfully booted"):
        containerd.ctr("snapshots", "--snapshotter", "native", "info", "missing")


def test_overlayfs_snapshots_work(containerd: Containerd) -> None:
    containerd.prepare("overlayfs", "work")
    assert containerd.snapshots("overlayfs") == {"work": Snapshot("Active", "")}
