"""C40 to C45, C48 to C50: what containerd and the snapshotter say of snapshots, and their directories."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from faults import TIME, Healthy, check, found, link

import v2_roots
from buildkit_migrate.maintenance.check import check_stores
from buildkit_migrate.schema.snapshots import ACTIVE, COMMITTED, VIEW
from planting import set_sequence

pytestmark = pytest.mark.slow


@pytest.fixture
def native(tmp_path: Path) -> Healthy:
    return Healthy(v2_roots.v2_root("native", tmp_path))


# --- C40, C41


def test_the_snapshotter_lost_a_layer(healthy: Healthy) -> None:
    layer = healthy.last[0]
    healthy.lose_in_snapshotter(layer)
    shutil.rmtree(healthy.directory(layer))
    assert found(healthy.root) == {("C40", "B", layer.text)}


def test_the_snapshotter_lost_a_layer_in_the_middle(healthy: Healthy) -> None:
    layer = healthy.middle[0]
    healthy.lose_in_snapshotter(layer)
    shutil.rmtree(healthy.directory(layer))
    assert found(healthy.root) == {("C40", "B", layer.text)}


def test_the_snapshotter_lost_a_layer_but_not_its_place_among_children(healthy: Healthy) -> None:
    layer = healthy.last[0]
    healthy.in_snapshots({b"snapshots": {layer.name: None}})
    shutil.rmtree(healthy.directory(layer))
    assert found(healthy.root) == {("C40", "B", layer.text)}


@pytest.mark.parametrize("rule", ["C40", "C23"])
def test_the_directory_of_a_lost_snapshot_is_no_second_fault(healthy: Healthy, rule: str) -> None:
    layer = healthy.last[0]
    if rule == "C40":
        healthy.lose_in_snapshotter(layer)
    else:
        healthy.lose_snapshot(layer, directory=False)
    assert found(healthy.root) == {(rule, "B", layer.text)}
    free = next(n for n in range(1, healthy.sequence) if n not in set(healthy.numbers.values()))
    (healthy.root.directories / str(free)).mkdir()
    strange = {("C45", "L", str(number)) for number in (free, layer.number)}
    assert found(healthy.root) == {(rule, "B", layer.text), *strange}


def test_a_name_that_the_snapshotter_does_not_have(healthy: Healthy) -> None:
    layer = healthy.last[0]
    healthy.known_snapshot(layer.key, {b"name": layer.name + b"-other"})
    assert found(healthy.root) == {("C40", "B", layer.text)}


def commit(healthy: Healthy, name: bytes, key: bytes) -> bytes:
    """What a commit leaves that was cut before containerd's own one: the snapshotter has the new name."""
    new = b"/".join((healthy.namespace, b"9999", key))
    number = healthy.numbers[name]
    parent = healthy.child_of[name]
    fields = {b"id": healthy.stored(number), b"kind": b"\x03", b"createdat": TIME, b"updatedat": TIME}
    fields |= {b"size": b"\x80\x40", b"inodes": b"\x02"}
    if parent is not None:
        fields[b"parent"] = parent
        healthy.in_snapshots({b"parents": {link(healthy.numbers[parent], number): new}})
    healthy.in_snapshots({b"snapshots": {name: None, new: fields}})
    return new


@pytest.mark.parametrize("parented", [True, False])
def test_a_commit_that_was_cut_between_the_databases(healthy: Healthy, parented: bool) -> None:
    mount = next(it for it in healthy.mounts if (it.parent is not None) == parented and it.name)
    commit(healthy, mount.name, mount.partner or b"0" * 25)
    assert found(healthy.root) == {("C40", "H", mount.text)}


def test_a_view_that_the_snapshotter_lost_is_a_fault_if_somebody_holds_it(healthy: Healthy) -> None:
    view = healthy.snapshot(next(name for name, kind in healthy.kinds.items() if kind == VIEW))
    healthy.lose_in_snapshotter(view)
    shutil.rmtree(healthy.directory(view))
    assert found(healthy.root) == set()
    healthy.known_snapshot(view.key, {b"labels": {b"containerd.io/gc.root.mine": b"1"}})
    assert found(healthy.root) == {("C40", "H", view.text), ("C38", "L", view.text)}


def test_a_snapshot_that_only_the_snapshotter_knows(healthy: Healthy) -> None:
    name = healthy.namespace + b"/9999/extract-1 sha256:1"
    number = healthy.sequence
    healthy.in_snapshots(
        {
            b"snapshots": {
                name: {
                    b"id": healthy.stored(number + 1),
                    b"kind": b"\x02",
                    b"createdat": TIME,
                    b"updatedat": TIME,
                }
            }
        }
    )
    set_sequence(healthy.root.snapshots, (b"v1", b"snapshots"), number + 1)
    inside = healthy.root.directories / str(number + 1) / "fs"
    inside.mkdir(parents=True)
    (inside / "file").write_bytes(b"x" * 100_000)
    (finding,) = check(healthy.root)
    assert (finding.rule, finding.severity, finding.subject) == ("C41", "L", name.decode())
    assert finding.bytes
    assert finding.bytes >= 100_000


# --- C42


def test_a_layer_without_parent(healthy: Healthy) -> None:
    layer = healthy.middle[0]
    healthy.in_snapshots({b"snapshots": {layer.name: {b"parent": None}}})
    assert found(healthy.root) == {("C42", "B", layer.text)}


def test_a_layer_with_another_parent(healthy: Healthy) -> None:
    layer, other = healthy.last[0], healthy.last[1]
    healthy.in_snapshots({b"snapshots": {layer.name: {b"parent": other.name}}})
    assert found(healthy.root) == {("C42", "B", layer.text)}


def test_a_layer_with_a_parent_that_does_not_exist(healthy: Healthy) -> None:
    layer = healthy.last[0]
    healthy.in_snapshots({b"snapshots": {layer.name: {b"parent": b"buildkit/1/gone"}}})
    assert found(healthy.root) == {("C42", "B", layer.text)}


def test_a_layer_that_is_not_among_the_children_of_its_parent(healthy: Healthy) -> None:
    layer = healthy.last[0]
    assert layer.parent is not None
    healthy.in_snapshots({b"parents": {link(healthy.numbers[layer.parent], layer.number): None}})
    assert found(healthy.root) == {("C42", "B", layer.text)}


def test_a_layer_that_is_among_the_children_of_another(healthy: Healthy) -> None:
    layer, other = healthy.last[0], healthy.last[1]
    assert layer.parent is not None
    healthy.in_snapshots(
        {
            b"parents": {
                link(healthy.numbers[layer.parent], layer.number): None,
                link(other.number, layer.number): layer.name,
            }
        }
    )
    assert found(healthy.root) == {("C42", "B", layer.text)}


@pytest.mark.parametrize("key", [b"\x05", link(3, 9999), b"\x80" * 12, b"\x01\x01\x01"])
def test_a_child_that_does_not_exist(healthy: Healthy, key: bytes) -> None:
    healthy.in_snapshots({b"parents": {key: b"buildkit/7/gone"}})
    assert found(healthy.root) == {("C42", "L", "gone")}


def test_a_layer_that_was_put_on_a_lost_one_is_a_fault_of_its_own(healthy: Healthy) -> None:
    layer, lost = healthy.last[:2]
    assert layer.parent is not None
    healthy.in_snapshots(
        {
            b"snapshots": {layer.name: {b"parent": lost.name}},
            b"parents": {link(healthy.numbers[layer.parent], layer.number): None},
        }
    )
    healthy.lose_snapshot(lost)
    assert found(healthy.root) == {("C42", "B", layer.text), ("C23", "B", lost.text)}


# --- C43


@pytest.mark.parametrize("behind", [1, 5, 100])
def test_the_counter_of_the_snapshotter_is_behind(healthy: Healthy, behind: int) -> None:
    set_sequence(healthy.root.snapshots, (b"v1", b"snapshots"), healthy.sequence - behind)
    assert found(healthy.root) == {("C43", "W", "v1/snapshots")}


@pytest.mark.parametrize("counter", [2**63 - 1, 2**63, 2**64 - 1])
def test_the_counter_of_the_snapshotter_is_far_ahead(healthy: Healthy, counter: int) -> None:
    set_sequence(healthy.root.snapshots, (b"v1", b"snapshots"), counter)
    assert found(healthy.root) == set()


def test_the_counter_of_containerd_is_behind(healthy: Healthy) -> None:
    bucket = (b"v1", healthy.namespace, b"snapshots", healthy.snapshotter)
    set_sequence(healthy.root.containerd, bucket, 5)
    assert found(healthy.root) == {("C43", "H", b"/".join(bucket).decode())}


def test_two_snapshots_with_one_number(healthy: Healthy) -> None:
    layer, other = healthy.last[0], healthy.last[1]
    healthy.in_snapshots({b"snapshots": {layer.name: {b"id": healthy.stored(other.number)}}})
    assert found(healthy.root) == {("C43", "W", layer.text)}
    (finding,) = check(healthy.root)
    assert finding.repair is not None
    assert "only raises the counter" in finding.repair


def test_two_snapshots_with_one_number_of_which_others_stand_on_one(healthy: Healthy) -> None:
    base = next(it for it in healthy.pulled if it.parent is None)
    healthy.in_snapshots({b"snapshots": {base.name: {b"id": healthy.stored(healthy.mounts[0].number)}}})
    (finding,) = check(healthy.root)
    assert (finding.rule, finding.severity, finding.subject) == ("C43", "W", base.key.decode())
    assert healthy.mounts[0].text in finding.message


@pytest.mark.parametrize("ahead", [1, 3])
def test_a_directory_in_the_way_of_the_next_snapshots(healthy: Healthy, ahead: int) -> None:
    (healthy.root.directories / str(healthy.sequence + ahead) / "fs").mkdir(parents=True)
    assert found(healthy.root) == {("C43", "B", "v1/snapshots")}


# --- C44, C45


def test_the_directory_of_a_mount_is_gone(healthy: Healthy) -> None:
    mount = next(it for it in healthy.mounts if not it.parent)
    shutil.rmtree(healthy.directory(mount))
    assert found(healthy.root) == {("C44", "P", mount.text)}


@pytest.mark.parametrize("inner", ["", "fs"])
def test_the_directory_of_a_layer_is_gone(healthy: Healthy, inner: str) -> None:
    layer = healthy.last[0]
    shutil.rmtree(healthy.directory(layer) / inner)
    assert found(healthy.root) == {("C44", "B", layer.text)}


def test_a_file_in_the_place_of_a_directory(healthy: Healthy) -> None:
    layer = healthy.last[0]
    shutil.rmtree(healthy.directory(layer))
    healthy.directory(layer).write_bytes(b"")
    assert found(healthy.root) == {("C44", "B", layer.text)}


@pytest.mark.parametrize("fixture", ["healthy", "native"])
@pytest.mark.parametrize("what", ["file", "nowhere", "circle"])
def test_what_is_no_directory_in_its_place(request: pytest.FixtureRequest, fixture: str, what: str) -> None:
    it: Healthy = request.getfixturevalue(fixture)
    layer = it.last[0]
    place = it.directory(layer) if fixture == "native" else it.directory(layer) / "fs"
    shutil.rmtree(place)
    if what == "file":
        place.write_bytes(b"x")
    else:
        place.symlink_to(place if what == "circle" else "/nowhere/at/all")
    assert found(it.root) == {("C44", "B", layer.text)}


def test_work_of_a_mount_with_a_parent_is_gone(healthy: Healthy) -> None:
    with_parent = next(it for it in healthy.mounts if it.parent)
    without = next(it for it in healthy.mounts if not it.parent)
    for mount in (with_parent, without):
        shutil.rmtree(healthy.directory(mount) / "work")
    assert found(healthy.root) == {("C44", "B", with_parent.text)}


def test_the_directory_of_a_mount_of_native_is_gone(native: Healthy) -> None:
    shutil.rmtree(native.directory(native.mounts[0]))
    assert found(native.root) == {("C44", "P", native.mounts[0].text)}


def test_all_directories_are_gone(healthy: Healthy) -> None:
    shutil.rmtree(healthy.root.directories)
    assert found(healthy.root) == {("C44", "P", "snapshots")}


def test_databases_without_anything_else(healthy: Healthy) -> None:
    shutil.rmtree(healthy.root.directories)
    shutil.rmtree(healthy.root.worker / "content")
    with healthy.root.open() as stores:
        checked = check_stores(stores)
    assert checked.findings == ()
    assert {rule for it in checked.not_tested for rule in it.rules} == {
        "C25",
        "C44",
        "C45",
        "C46",
        "C47",
        "C49",
    }


@pytest.mark.parametrize("name", ["7777", "new-12345", "007", "rm-3"])
@pytest.mark.parametrize("snapshotter", ["overlayfs", "native"])
def test_a_directory_of_no_snapshot(request: pytest.FixtureRequest, name: str, snapshotter: str) -> None:
    it: Healthy = request.getfixturevalue("healthy" if snapshotter == "overlayfs" else "native")
    (it.root.directories / name / "fs").mkdir(parents=True)
    (it.root.directories / name / "fs" / "file").write_bytes(b"x" * 10_000)
    (finding,) = check(it.root)
    assert (finding.rule, finding.severity, finding.subject) == ("C45", "L", name)
    assert finding.bytes
    assert finding.bytes >= 10_000
    assert ("never removes" in finding.message) == (snapshotter == "native")


def test_a_file_among_the_directories(healthy: Healthy) -> None:
    (healthy.root.directories / "left").write_bytes(b"x" * 10_000)
    (finding,) = check(healthy.root)
    assert (finding.rule, finding.subject) == ("C45", "left")
    assert finding.message.startswith("this file ")


def test_a_directory_of_no_snapshot_that_has_a_low_number(healthy: Healthy) -> None:
    free = next(n for n in range(1, healthy.sequence) if n not in set(healthy.numbers.values()))
    (healthy.root.directories / str(free)).mkdir()
    assert found(healthy.root) == {("C45", "L", str(free))}


# --- C48 to C50


def test_children_may_be_gone(healthy: Healthy) -> None:
    healthy.known_snapshot(healthy.middle[0].key, {b"children": {b"gone": b""}})
    assert found(healthy.root) == set()


def test_files_of_a_layer_are_gone(healthy: Healthy) -> None:
    layer = next(it for it in healthy.last if any((healthy.directory(it) / "fs").iterdir()))
    for path in (healthy.directory(layer) / "fs").iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    assert found(healthy.root) == {("C49", "W", layer.text)}


def test_one_file_more_in_a_layer(healthy: Healthy) -> None:
    layer = healthy.last[0]
    (healthy.directory(layer) / "fs" / "more").write_bytes(b"")
    assert found(healthy.root) == {("C49", "W", layer.text)}


def test_a_second_name_of_a_file_is_no_second_file(healthy: Healthy) -> None:
    layer = next(it for it in healthy.last if any(_files(healthy.directory(it) / "fs")))
    file = next(_files(healthy.directory(layer) / "fs"))
    os.link(file, healthy.directory(layer) / "fs" / "again")
    assert found(healthy.root) == set()


def _files(path: Path):  # type: ignore[no-untyped-def]
    return (it for it in path.rglob("*") if it.is_file() and not it.is_symlink())


@pytest.mark.parametrize("value", [b"12 kB", b"0x10", b"1_000", b"9223372036854775808", b" 7", b"1.5"])
def test_a_merge_usage_that_is_no_number(healthy: Healthy, value: bytes) -> None:
    merge = next(it for it in healthy.merges if it.name)
    healthy.known_snapshot(merge.key, {b"labels": {b"buildkit.mergeUsageSize": value}})
    severity = "H" if merge.size_known else "P"
    assert found(healthy.root) == {("C50", severity, merge.text)}


def test_two_labels_of_one_merge_are_one_finding(healthy: Healthy) -> None:
    merge = next(it for it in healthy.merges if it.name)
    labels = {b"buildkit.mergeUsageSize": b"x", b"buildkit.mergeUsageInodes": b""}
    healthy.known_snapshot(merge.key, {b"labels": labels})
    assert {(rule, subject) for rule, _, subject in found(healthy.root)} == {("C50", merge.text)}


def test_a_merge_usage_that_somebody_reads(healthy: Healthy) -> None:
    merge = next(it for it in healthy.merges if it.name)
    healthy.in_record(merge.id, {b"snapshot.size": None})
    healthy.known_snapshot(merge.key, {b"labels": {b"buildkit.mergeUsageInodes": b"many"}})
    assert found(healthy.root) == {("C50", "P", merge.text)}


@pytest.mark.parametrize("value", [b"0", b"-5", b"+12", b"007"])
def test_numbers_as_go_reads_them(healthy: Healthy, value: bytes) -> None:
    merge = next(it for it in healthy.merges if it.name)
    healthy.known_snapshot(merge.key, {b"labels": {b"buildkit.mergeUsageSize": value}})
    assert found(healthy.root) == set()


def test_what_is_counted_is_there(healthy: Healthy) -> None:
    kinds = set(healthy.kinds.values())
    assert kinds == {VIEW, ACTIVE, COMMITTED}
