"""A real containerd works on with databases that `repair` put right; its collection keeps the data."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults import Healthy, check, link
from mending import mend

import containerd_daemon
import v2_roots
from containerd_daemon import Containerd
from planting import set_sequence

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(bool(containerd_daemon.why_missing()), reason=containerd_daemon.why_missing()),
]


@pytest.fixture
def healthy(tmp_path: Path) -> Healthy:
    return Healthy(v2_roots.v2_root("containerd", tmp_path))


def after_a_collection(it: Healthy) -> tuple[object, object, set[str]]:
    """Snapshots, blobs and leases that a containerd has once it has collected garbage."""
    with Containerd(Path(it.root.options[1])) as daemon:
        daemon.collect_garbage()
        return daemon.snapshots(it.snapshotter.decode()), daemon.content(), set(daemon.leases())


def test_leases_hold_the_data_again(healthy: Healthy, tmp_path: Path) -> None:
    """A collection after the repair keeps what one of the sound root keeps."""
    (tmp_path / "sound").mkdir()
    sound = after_a_collection(Healthy(v2_roots.v2_root("containerd", tmp_path / "sound")))
    gone, empty, passing = [it for it in healthy.last if it.digest and it.parent][:3]
    healthy.lease(gone.id, None)
    healthy.lease(healthy.mounts[0].id, None)
    healthy.lease(empty.id, {b"snapshots": None, b"content": None})
    healthy.lease(passing.id, {b"labels": {b"containerd.io/gc.expire": b"2024-11-26T16:16:07Z"}})
    mend(healthy.root)
    assert check(healthy.root) == ()
    assert after_a_collection(healthy) == sound


def test_without_a_repair_the_data_goes(healthy: Healthy) -> None:
    """What the test above would not notice otherwise."""
    layer = healthy.last[0]
    healthy.lease(layer.id, None)
    snapshots, _, _ = after_a_collection(healthy)
    assert isinstance(snapshots, dict)
    assert layer.text not in snapshots


def test_snapshots_are_made_and_removed_again(healthy: Healthy) -> None:
    """With a counter that was behind, and a parent that was gone."""
    highest = max(healthy.numbers.values())
    set_sequence(healthy.root.snapshots, (b"v1", b"snapshots"), 3)
    set_sequence(healthy.root.containerd, (b"v1", healthy.namespace, b"snapshots", healthy.snapshotter), 3)
    layer, other = healthy.last[0], healthy.last[1]
    healthy.in_snapshots(
        {
            b"snapshots": {layer.name: {b"parent": None}},
            b"parents": {link(healthy.numbers[other.parent or b""], other.number): None},
        }
    )
    mend(healthy.root)
    assert check(healthy.root) == ()
    before = {path.name for path in healthy.root.directories.iterdir()}
    with Containerd(Path(healthy.root.options[1])) as daemon:
        name = healthy.snapshotter.decode()
        for number, parent in enumerate(("", layer.text, other.text)):
            daemon.prepare(name, f"new{number}", parent)
        made = {path.name for path in healthy.root.directories.iterdir()} - before
        assert sorted(map(int, made)) == [highest + 1, highest + 2, highest + 3]
        for record in (layer, other):
            daemon.ctr("leases", "delete", record.text)
        daemon.ctr("snapshots", "--snapshotter", name, "rm", "new0", "new1", "new2")
        daemon.collect_garbage()
        assert not {layer.text, other.text} & daemon.snapshots(name).keys()
    assert not {str(layer.number), str(other.number), *made} & {
        path.name for path in healthy.root.directories.iterdir()
    }
