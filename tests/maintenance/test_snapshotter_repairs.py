"""C42, C43, C44, C50: repairs of snapshots, edit for edit."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
from faults import Healthy, check, found, link
from mending import Place, changed, everything, mend, plan, store

import v2_roots
from buildkit_migrate.maintenance.mend import RepairClass
from planting import set_sequence

pytestmark = pytest.mark.slow


def mended(it: Healthy, *, left: Iterable[str] = ()) -> dict[Place, object]:
    before = everything(it.root)
    planned = mend(it.root)
    found_then = changed(before, everything(it.root))
    assert {finding.rule for finding in planned.left} == set(left)
    assert {finding.rule for finding in check(it.root)} == set(left)
    assert plan(it.root).mends == ()
    return found_then


# --- C42


def plants_of_parents(it: Healthy) -> dict[str, list[tuple[bytes, dict[bytes, object]]]]:
    """Edits of the snapshotter's database, each of which one of the three sources alone says."""
    layer, other, middle = it.last[0], it.last[1], it.middle[0]
    assert layer.parent is not None
    right = link(it.numbers[layer.parent], layer.number)
    wrong = link(other.number, layer.number)
    return {
        "no parent": [(b"snapshots", {layer.name: {b"parent": None}})],
        "no parent of a middle one": [(b"snapshots", {middle.name: {b"parent": None}})],
        "another parent": [(b"snapshots", {layer.name: {b"parent": other.name}})],
        "a parent that is gone": [(b"snapshots", {layer.name: {b"parent": b"buildkit/1/gone"}})],
        "itself": [(b"snapshots", {layer.name: {b"parent": layer.name}})],
        "no link": [(b"parents", {right: None})],
        "another link": [(b"parents", {right: None, wrong: layer.name})],
        "one link more": [(b"parents", {wrong: layer.name})],
        "a link with the name of another": [(b"parents", {right: other.name})],
        "two parents": [(b"snapshots", {name: {b"parent": None} for name in (layer.name, middle.name)})],
    }


@pytest.mark.parametrize("which", range(10))
def test_a_parent_is_put_back_where_two_agree(healthy: Healthy, which: int) -> None:
    before = everything(healthy.root)
    (edits,) = list(plants_of_parents(healthy).values())[which]
    healthy.in_snapshots(dict([edits]))  # type: ignore[arg-type]
    planted = changed(before, everything(healthy.root))
    assert planted
    assert {rule for rule, _, _ in found(healthy.root)} == {"C42"}
    assert mended(healthy) == {place: before.get(place) for place in planted}


def test_a_parent_stays_where_all_three_differ(healthy: Healthy) -> None:
    layer = healthy.last[0]
    assert layer.parent is not None
    healthy.in_snapshots(
        {
            b"snapshots": {layer.name: {b"parent": None}},
            b"parents": {link(healthy.numbers[layer.parent], layer.number): None},
        }
    )
    assert plan(healthy.root).changes == ()
    assert {finding.rule for finding in plan(healthy.root).left} == {"C42"}


@pytest.mark.parametrize("key", [b"\x05", link(3, 9999)])
def test_an_entry_of_a_child_that_nobody_knows_stays(healthy: Healthy, key: bytes) -> None:
    healthy.in_snapshots({b"parents": {key: b"buildkit/7/gone"}})
    assert plan(healthy.root).changes == ()


def test_no_parent_is_put_where_it_would_go_round(healthy: Healthy) -> None:
    layer = healthy.middle[0]
    child = healthy.snapshot(healthy.children[layer.name][0])
    healthy.in_snapshots(
        {
            b"snapshots": {layer.name: {b"parent": None}},
            b"parents": {
                link(healthy.numbers[layer.parent or b""], layer.number): None,
                link(child.number, layer.number): layer.name,
            },
        }
    )
    healthy.known_snapshot(layer.key, {b"parent": child.key})
    assert not any(mend.rule == "C42" for mend in plan(healthy.root).mends)


# --- C43


@pytest.mark.parametrize("to", [0, 1, 7])
def test_the_counter_of_the_snapshotter_is_raised(healthy: Healthy, to: int) -> None:
    place = (store(healthy.root, healthy.root.snapshots), b"v1", b"snapshots")
    set_sequence(healthy.root.snapshots, (b"v1", b"snapshots"), to)
    assert mended(healthy) == {place: max(healthy.numbers.values())}


def test_the_counter_of_containerd_is_raised(healthy: Healthy) -> None:
    path = (b"v1", healthy.namespace, b"snapshots", healthy.snapshotter)
    set_sequence(healthy.root.containerd, path, 5)
    numbers = [int(name.split(b"/", 2)[1]) for name in healthy.numbers]
    assert mended(healthy) == {(store(healthy.root, healthy.root.containerd), *path): max(numbers)}


def test_both_counters_are_raised_before_anything_else(healthy: Healthy) -> None:
    set_sequence(healthy.root.snapshots, (b"v1", b"snapshots"), 5)
    set_sequence(healthy.root.containerd, (b"v1", healthy.namespace, b"snapshots", healthy.snapshotter), 5)
    healthy.lease(healthy.last[0].id, None)
    changes = plan(healthy.root).changes
    assert [it.store.path for it in changes] == [healthy.root.snapshots, healthy.root.containerd]


def test_directories_in_the_way_are_skipped(healthy: Healthy) -> None:
    """Also those that are only in the way of later ones. They stay, for the next collection."""
    first, second = healthy.sequence + 900, healthy.sequence + 1800
    for number in (first, second):
        (healthy.root.directories / str(number) / "fs").mkdir(parents=True)
    place = (store(healthy.root, healthy.root.snapshots), b"v1", b"snapshots")
    before = everything(healthy.root)
    mend(healthy.root)
    assert changed(before, everything(healthy.root)) == {place: second}
    assert {(it.rule, it.subject) for it in check(healthy.root)} == {
        ("C45", str(first)),
        ("C45", str(second)),
    }


def test_two_snapshots_with_one_number_stay(healthy: Healthy) -> None:
    layer, other = healthy.last[0], healthy.last[1]
    healthy.in_snapshots({b"snapshots": {layer.name: {b"id": healthy.stored(other.number)}}})
    assert plan(healthy.root).changes == ()


# --- C44


def test_work_is_made(healthy: Healthy) -> None:
    mount = next(it for it in healthy.mounts if it.parent)
    before = everything(healthy.root)
    shutil.rmtree(healthy.directory(mount) / "work")
    work = str((healthy.directory(mount) / "work").relative_to(healthy.root.root.parent))
    changes = mended(healthy)
    assert set(changes) - {(str(Path(work).parent),)} == {(work,)}
    assert changes[(work,)] == before[(work,)]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_work_is_not_made_where_something_is(healthy: Healthy, kind: str) -> None:
    mount = next(it for it in healthy.mounts if it.parent)
    work = healthy.directory(mount) / "work"
    shutil.rmtree(work)
    if kind == "file":
        work.write_bytes(b"")
    else:
        work.symlink_to("/nowhere")
    assert plan(healthy.root).changes == ()


def test_the_files_of_a_snapshot_are_not_made(healthy: Healthy) -> None:
    for mount in healthy.mounts:
        shutil.rmtree(healthy.directory(mount))
    shutil.rmtree(healthy.directory(healthy.last[0]) / "fs")
    assert plan(healthy.root).changes == ()


# --- C50


SIZE, INODES = b"buildkit.mergeUsageSize", b"buildkit.mergeUsageInodes"


@pytest.mark.parametrize(
    ("labels", "gone"),
    [
        ({SIZE: b"x"}, {SIZE, INODES}),
        ({SIZE: b"x", INODES: b"y"}, {SIZE, INODES}),
        ({INODES: b"many"}, {INODES}),
        ({SIZE: b""}, {SIZE, INODES}),
    ],
)
def test_labels_of_a_merge(healthy: Healthy, labels: dict[bytes, bytes], gone: set[bytes]) -> None:
    merge = next(it for it in healthy.merges if it.name)
    healthy.known_snapshot(merge.key, {b"labels": labels})
    place = (
        store(healthy.root, healthy.root.containerd),
        *(b"v1", healthy.namespace, b"snapshots", healthy.snapshotter, merge.key, b"labels"),
    )
    assert mended(healthy) == {(*place, label): None for label in gone}


# --- Healthy


@pytest.mark.parametrize("name", v2_roots.NAMES)
def test_a_healthy_root_needs_nothing(tmp_path: Path, name: str) -> None:
    planned = plan(v2_roots.v2_root(name, tmp_path), *RepairClass)
    assert (planned.changes, planned.mends, planned.offered, planned.dropped) == ((), (), (), ())
