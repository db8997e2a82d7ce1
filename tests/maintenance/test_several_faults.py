"""Several faults at once: each gives the finding that it gives alone, and none hides or makes another."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from faults import FLAT, TIME, Healthy, Record, found

import v2_roots
from planting import set_sequence

pytestmark = pytest.mark.slow

Told = tuple[str, str, str]


def lost(it: Healthy, layer: Record) -> Told:
    it.lose_snapshot(layer)
    return "C23", "B", layer.text


def lost_in_snapshotter(it: Healthy, layer: Record) -> Told:
    it.lose_in_snapshotter(layer)
    shutil.rmtree(it.directory(layer))
    return "C40", "B", layer.text


def bare(it: Healthy, layer: Record) -> Told:
    it.lease(layer.id, None)
    return "C26", "B", layer.text


def not_listed(it: Healthy, layer: Record) -> Told:
    it.lease(layer.id, {b"snapshots": None})
    return "C27", "B", layer.text


def misplaced(it: Healthy, layer: Record) -> Told:
    it.known_snapshot(layer.key, {b"parent": None})
    return "C29", "H", layer.text


def not_committed(it: Healthy, layer: Record) -> Told:
    it.in_snapshots({b"snapshots": {layer.name: {b"kind": b"\x02"}}})
    return "C30", "B", layer.text


def orphaned(it: Healthy, layer: Record) -> Told:
    it.drop_record(layer)
    return "C32", "L", layer.text


def without_parent(it: Healthy, layer: Record) -> Told:
    it.in_snapshots({b"snapshots": {layer.name: {b"parent": None}}})
    return "C42", "B", layer.text


def without_directory(it: Healthy, layer: Record) -> Told:
    shutil.rmtree(it.directory(layer))
    return "C44", "B", layer.text


def with_other_files(it: Healthy, layer: Record) -> Told:
    (it.directory(layer) / "fs" / "more").mkdir()
    return "C49", "W", layer.text


OF_LAYERS: list[Callable[[Healthy, Record], Told]] = [
    lost,
    lost_in_snapshotter,
    bare,
    not_listed,
    misplaced,
    not_committed,
    orphaned,
    without_parent,
    without_directory,
    with_other_files,
]


def no_lease_for_a_mount(it: Healthy, mount: Record) -> Told:
    it.lease(mount.id, None)
    return "C26", "B", mount.text


def no_directory_for_a_mount(it: Healthy, mount: Record) -> Told:
    shutil.rmtree(it.directory(mount))
    return "C44", "P", mount.text


def no_snapshot_for_a_mount(it: Healthy, mount: Record) -> Told:
    it.lose_snapshot(mount)
    return "C14", "H", mount.text


def no_snapshot_for_a_mount_in_the_snapshotter(it: Healthy, mount: Record) -> Told:
    it.lose_in_snapshotter(mount)
    shutil.rmtree(it.directory(mount))
    return "C40", "H", mount.text


OF_MOUNTS: list[Callable[[Healthy, Record], Told]] = [
    no_lease_for_a_mount,
    no_directory_for_a_mount,
    no_snapshot_for_a_mount,
    no_snapshot_for_a_mount_in_the_snapshotter,
]


def counter(it: Healthy) -> Told:
    set_sequence(it.root.snapshots, (b"v1", b"snapshots"), 7)
    return "C43", "W", "v1/snapshots"


def other_counter(it: Healthy) -> Told:
    set_sequence(it.root.containerd, (b"v1", b"buildkit", b"snapshots", b"overlayfs"), 7)
    return "C43", "H", "v1/buildkit/snapshots/overlayfs"


def strange_directory(it: Healthy) -> Told:
    (it.root.directories / "new-7").mkdir()
    return "C45", "L", "new-7"


def strange_lease(it: Healthy) -> Told:
    it.lease(b"theirs", {b"createdat": TIME, b"labels": {FLAT: b"1"}})
    return "C36", "L", "theirs"


def strange_file(it: Healthy) -> Told:
    it.blob_file(b"sha256:" + b"1" * 64).write_bytes(b"")
    return "C46", "L", "sha256:" + "1" * 64


OF_THE_ROOT: list[Callable[[Healthy], Told]] = [
    counter,
    other_counter,
    strange_directory,
    strange_lease,
    strange_file,
]


@pytest.mark.parametrize("seed", range(40))
def test_each_fault_is_told_once(tmp_path: Path, seed: int) -> None:
    healthy = Healthy(v2_roots.healed(tmp_path))
    chosen = random.Random(seed)
    expected = set()
    layers = chosen.sample([it for it in healthy.last if it.parent is not None], 4)
    for layer, plant in zip(layers, chosen.sample(OF_LAYERS, 4), strict=True):
        expected.add(plant(healthy, layer))
    mounts = chosen.sample([it for it in healthy.mounts if it.parent is None], 2)
    for mount, plant in zip(mounts, chosen.sample(OF_MOUNTS, 2), strict=True):
        expected.add(plant(healthy, mount))
    for root_fault in chosen.sample(OF_THE_ROOT, 2):
        expected.add(root_fault(healthy))
    assert found(healthy.root) == expected
