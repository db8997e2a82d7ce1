"""Repairs that drop records: those go, with all that stands on them, and nothing else changes."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from faults import TIME, Healthy, check, link
from mending import Place, changed, everything, mend, plan, store
from record_faults import Planter, value
from test_record_rules import lose_pulled_image
from test_snapshotter_rules import commit

import v2_roots
from buildkit_migrate.maintenance.mend import RepairClass
from buildkit_migrate.maintenance.repair import RepairPlan, plan_repair
from buildkit_migrate.workspace.stores import find_state, open_stores
from planting import edit
from v2_roots import V2Root

pytestmark = pytest.mark.slow

DROP = RepairClass.DROP
NOBODY = "0" * 25


class World:
    """A healthy root, and what there is to choose from."""

    def __init__(self, tmp_path: Path) -> None:
        self.plant = Planter(tmp_path)
        self.root = self.plant.root
        self.it = Healthy(self.root)

    @property
    def top(self) -> bytes:
        return self.plant.tops[0]

    @property
    def parent(self) -> bytes:
        """A layer with descendants."""
        return max(self.plant.layers, key=lambda id: len(self.plant.children(id)))

    def below(self, id: bytes) -> set[bytes]:
        """It, and all that is built on it."""
        kinds = (b"cache.parent", b"cache.mergeParents", b"cache.lowerDiffParent", b"cache.upperDiffParent")
        found = {id}
        waiting = [id]
        while waiting:
            name = value(waiting.pop().decode())[9:-1]
            for other, values in self.plant.records.items():
                if other not in found and any(name in values.get(key, b"") for key in kinds):
                    found.add(other)
                    waiting.append(other)
        return found

    def with_copy(self, id: bytes) -> set[bytes]:
        """It, and the immutable record that shares its data, with all that is built on that."""
        copies = [one for one, its in self.plant.pairs if its == id]
        return {id}.union(*(self.below(copy) for copy in copies))


Plant = Callable[[World], set[bytes]]
"""Plants a fault, and says what is to go."""


def undecodable(it: World) -> set[bytes]:
    it.plant.put(it.parent, b"cache.diffID", b'{"value":')
    return it.below(it.parent)


def undecodable_and_unknown(it: World) -> set[bytes]:
    it.plant.put(it.top, b"who.knows", b"{")
    return {it.top}


def several_wrong_values(it: World) -> set[bytes]:
    for key in (b"cache.diffID", b"cache.mediatype"):
        it.plant.put(it.top, key, b"{")
    return {it.top}


def mistyped(it: World) -> set[bytes]:
    it.plant.put(it.parent, b"snapshot.committed", value("yes"))
    return it.below(it.parent)


def no_parent(it: World) -> set[bytes]:
    it.plant.put(it.parent, b"cache.parent", value(NOBODY))
    return it.below(it.parent)


def no_parent_of_a_merge(it: World) -> set[bytes]:
    id = it.plant.with_key(b"cache.mergeParents")[0]
    it.plant.put(id, b"cache.mergeParents", value([*it.plant.get(id, b"cache.mergeParents"), NOBODY]))
    return it.below(id)


def circle(it: World) -> set[bytes]:
    child = next(id for id in it.plant.layers if it.plant.parent(it.plant.parent(id) or b"") is not None)
    parent = it.plant.parent(child) or b""
    it.plant.put(parent, b"cache.parent", value(child.decode()))
    return it.below(parent)


def its_own_parent(it: World) -> set[bytes]:
    it.plant.put(it.top, b"cache.parent", value(it.top.decode()))
    return {it.top}


def no_mutable_half(it: World) -> set[bytes]:
    one, _ = next(it.plant.pairs)
    it.plant.put(one, b"cache.equalMutable", value(NOBODY))
    return it.below(one)


def no_mutable_half_but_its_lease(it: World) -> set[bytes]:
    one, its = next(pair for pair in it.plant.pairs if not it.plant.entries(pair[1]))
    edit(it.root.records, {b"_main": {its: None}, b"_external": {its: None}})
    return it.below(one) | {its}


def half_that_is_not_mutable(it: World) -> set[bytes]:
    one, _ = next(it.plant.pairs)
    it.plant.put(one, b"cache.equalMutable", value(it.top.decode()))
    return it.below(one)


def surplus(it: World) -> set[bytes]:
    one, _ = next(pair for pair in it.plant.pairs if not it.plant.entries(pair[0]))
    copy = b"z" * 25
    values = dict(it.plant.records[one])
    values[b"cache.snapshot"] = value(copy.decode())
    values[b"cache.createdAt"] = value(it.plant.get(one, b"cache.createdAt") + 1)
    edit(it.root.records, {b"_main": {copy: values}})
    return {copy}


def mount_without_snapshot(it: World) -> set[bytes]:
    mount = next(mount for mount in it.it.mounts if mount.id in it.plant.mounts)
    it.it.lose_snapshot(mount)
    return it.with_copy(mount.id)


def mount_that_is_not_active(it: World) -> set[bytes]:
    mount = next(mount for mount in it.it.mounts if not it.it.children[mount.name])
    it.it.in_snapshots({b"snapshots": {mount.name: {b"kind": b"\x03"}}})
    return it.with_copy(mount.id)


def deleted(it: World) -> set[bytes]:
    it.plant.put(it.parent, b"cache.deleted", value(True))
    return it.below(it.parent)


def lazy(it: World) -> set[bytes]:
    lower, upper = lose_pulled_image(it.plant, it.it)
    return it.below(lower) | it.below(upper)


def odd_id(it: World) -> set[bytes]:
    edit(it.root.records, {b"_main": {b"a::b": dict(it.plant.records[it.top])}})
    return {b"a::b"}


def no_blob(it: World) -> set[bytes]:
    layer = next(layer for layer in it.it.last if layer.digest)
    it.it.blob(layer.digest or b"", None)
    it.it.blob_file(layer.digest or b"").unlink()
    return it.below(layer.id)


def no_blob_file(it: World) -> set[bytes]:
    layer = next(layer for layer in it.it.last if layer.digest)
    it.it.blob_file(layer.digest or b"").unlink()
    return using(it, layer.digest or b"")


def other_blob_file(it: World) -> set[bytes]:
    layer = next(layer for layer in it.it.middle if layer.digest)
    file = it.it.blob_file(layer.digest or b"")
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    return using(it, layer.digest or b"")


def using(it: World, digest: bytes) -> set[bytes]:
    users = [id for id in it.plant.records if it.plant.get(id, b"cache.blob") == digest.decode()]
    return set().union(*(it.below(user) for user in users))


def lost_below_others(it: World) -> set[bytes]:
    layer = it.it.middle[0]
    it.it.lose_snapshot(layer)
    return it.below(layer.id)


def lost_without_blob(it: World) -> set[bytes]:
    layer = next(layer for layer in it.it.last if layer.digest)
    it.it.lose_snapshot(layer)
    it.it.blob(layer.digest or b"", None)
    it.it.blob_file(layer.digest or b"").unlink()
    return it.below(layer.id)


def not_committed(it: World) -> set[bytes]:
    layer = it.it.last[0]
    it.it.in_snapshots({b"snapshots": {layer.name: {b"kind": b"\x02"}}})
    return it.below(layer.id)


def unreadable_time(it: World) -> set[bytes]:
    layer = it.it.last[0]
    it.it.known_snapshot(layer.key, {b"updatedat": TIME[:-1]})
    return it.below(layer.id)


def cut_commit(it: World) -> set[bytes]:
    mount = next(mount for mount in it.it.mounts if mount.parent is None and mount.name)
    commit(it.it, mount.name, mount.partner or b"0" * 25)
    return it.with_copy(mount.id)


def lost_in_snapshotter(it: World) -> set[bytes]:
    layer = it.it.last[0]
    it.it.lose_in_snapshotter(layer)
    shutil.rmtree(it.it.directory(layer))
    return it.below(layer.id)


def another_parent(it: World) -> set[bytes]:
    layer, other = it.it.last[0], it.it.last[1]
    it.it.in_snapshots(
        {
            b"snapshots": {layer.name: {b"parent": other.name}},
            b"parents": {link(it.it.numbers[layer.parent or b""], layer.number): None},
        }
    )
    return it.below(layer.id)


def mount_without_directory(it: World) -> set[bytes]:
    mount = next(mount for mount in it.it.mounts if not mount.parent)
    shutil.rmtree(it.it.directory(mount))
    return it.with_copy(mount.id)


def layer_without_directory(it: World) -> set[bytes]:
    layer = it.it.last[0]
    shutil.rmtree(it.it.directory(layer) / "fs")
    return it.below(layer.id)


def size_that_nobody_knows(it: World) -> set[bytes]:
    layer = next(layer for layer in it.it.last if layer.digest)
    it.plant.put(layer.id, b"cache.blobsize", None)
    it.it.blob(layer.digest or b"", {b"size": b"\xff" * 11})
    return it.below(layer.id)


FAULTS: list[tuple[str, Plant]] = [
    ("C8", undecodable),
    ("C8", undecodable_and_unknown),
    ("C8", several_wrong_values),
    ("C9", mistyped),
    ("C10", no_parent),
    ("C10", no_parent_of_a_merge),
    ("C11", circle),
    ("C11", its_own_parent),
    ("C12", no_mutable_half),
    ("C12", no_mutable_half_but_its_lease),
    ("C12", half_that_is_not_mutable),
    ("C13", surplus),
    ("C14", mount_without_snapshot),
    ("C14", mount_that_is_not_active),
    ("C15", deleted),
    ("C16", lazy),
    ("C20", odd_id),
    ("C23", lost_below_others),
    ("C23", lost_without_blob),
    ("C24", no_blob),
    ("C25", no_blob_file),
    ("C25", other_blob_file),
    ("C30", not_committed),
    ("C30", unreadable_time),
    ("C40", cut_commit),
    ("C40", lost_in_snapshotter),
    ("C42", another_parent),
    ("C44", mount_without_directory),
    ("C44", layer_without_directory),
    ("C63", size_that_nobody_knows),
]


def traces(root: V2Root, before: dict[Place, object], gone: set[bytes]) -> set[Place]:
    """All places in the databases that belong to these records."""
    records = store(root, root.records)
    leases = (store(root, root.containerd), b"v1", b"buildkit", b"leases")
    names = gone | {id + b"-variants" for id in gone}
    return {
        place
        for place in before
        if (place[:2] in ((records, b"_main"), (records, b"_external")) and place[2:3] and place[2] in gone)
        or (place[:2] == (records, b"_index") and place[2:] and bytes(place[2]).rpartition(b"::")[2] in gone)  # type: ignore[arg-type]
        or (place[:4] == leases and place[4:5] and place[4] in names)
    }


@pytest.mark.parametrize(("rule", "planted"), FAULTS, ids=[it[1].__name__ for it in FAULTS])
def test_what_is_dropped(tmp_path: Path, rule: str, planted: Plant) -> None:
    it = World(tmp_path)
    gone = planted(it)
    offered = plan(it.root).offered
    assert {one.kind for one in offered if one.rule == rule} == {DROP}
    before = everything(it.root)
    planned = mend(it.root, DROP)
    assert rule in {one.rule for one in planned.mends}
    assert set(planned.dropped) == gone & {
        place[2] for place in before if place[1:2] == (b"_main",) and place[2:]
    }
    changes = changed(before, everything(it.root))
    assert changes == dict.fromkeys(traces(it.root, before, gone))
    assert changes
    assert_costs_are_told(planned, rule)
    left = {one.rule for one in check(it.root)}
    leaks = {"C42"} if planted in (lost_below_others, another_parent) else set()
    assert left <= {"C53", "C41", "C45", *leaks}, check(it.root)
    assert leaks <= left
    assert all(("stay on disk" in one.loses) == bool(leaks) for one in planned.mends if one.rule == rule)
    assert plan(it.root, *RepairClass).changes == ()


def assert_costs_are_told(planned: RepairPlan, rule: str) -> None:
    for one in planned.mends:
        assert one.does.startswith("drops ")
        assert bool(one.loses) == (one.rule != "C13")
        assert one.freed is None


def copied(it: World, **changes: bytes | None) -> bytes:
    """A second immutable half beside the first one, with other values."""
    one, _ = next(pair for pair in it.plant.pairs if not it.plant.entries(pair[0]))
    copy = b"z" * 25
    values = {**it.plant.records[one], b"cache.snapshot": value(copy.decode())}
    values[b"cache.createdAt"] = value(it.plant.get(one, b"cache.createdAt") + 1)
    for name, stored in changes.items():
        values[name.replace("_", ".").encode()] = stored or b""
    edit(it.root.records, {b"_main": {copy: values}})
    return copy


@pytest.mark.parametrize(
    ("changes", "dropped"),
    [
        ({"cache_cachePolicy": None}, True),
        ({"cache_lastUsedAt": value(7), "cache_usageCount": value(3), "snapshot_size": None}, True),
        ({"cache_recordType": value("other")}, False),
        ({"cache_blob": value("sha256:" + "1" * 64), "cache_blobsize": value(5)}, False),
        ({"who_knows": value("that")}, False),
    ],
)
def test_a_surplus_half_goes_if_it_says_nothing_else(
    tmp_path: Path, changes: dict[str, bytes | None], dropped: bool
) -> None:
    it = World(tmp_path)
    copy = copied(it, **changes)
    assert (copy in plan(it.root, DROP).dropped) == dropped
    assert any(finding.rule == "C13" for finding in check(it.root))


def test_a_surplus_half_stays_if_something_is_built_on_it(tmp_path: Path) -> None:
    it = World(tmp_path)
    copy = copied(it)
    one, _ = next(pair for pair in it.plant.pairs if not it.plant.entries(pair[0]))
    for layer in (it.top, it.plant.tops[1]):
        it.plant.put(layer, b"cache.parent", value({it.top: copy, it.plant.tops[1]: one}[layer].decode()))
    surplus = {finding.subject.encode() for finding in check(it.root) if finding.rule == "C13"}
    assert len(surplus) == 1
    assert not surplus & set(plan(it.root, DROP).dropped)


def test_blobs_are_not_read_for_a_repair_if_a_check_does_not_read_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = World(tmp_path)
    no_blob_file(it)
    monkeypatch.setattr("buildkit_migrate.maintenance.check.MANY_BYTES", 1000)
    monkeypatch.setattr("buildkit_migrate.maintenance.disk.Content.digest_of", None)
    assert {one.rule for one in plan(it.root, DROP).mends} == {"C25"}


def test_costs_count_each_record_once(tmp_path: Path) -> None:
    it = World(tmp_path)
    child = next(id for id in it.plant.layers if it.plant.parent(it.plant.parent(id) or b"") is not None)
    parent = it.plant.parent(child) or b""
    for id in (child, parent):
        it.plant.put(id, b"cache.deleted", value(True))
    told = {one.subject.encode(): one.loses for one in plan(it.root, DROP).mends}
    assert told.keys() == {child, parent}
    first, second = sorted(told)
    if first == parent:
        assert told[second].startswith("nothing more")
    else:
        assert not told[second].startswith("nothing more")
    assert "bytes" in told[first]


def test_where_containerd_is_not_known_leases_stay_and_that_is_told(tmp_path: Path) -> None:
    root = v2_roots.v2_root("containerd", tmp_path)
    layer = Healthy(root).last[0]
    edit(root.records, {b"_main": {layer.id: {b"cache.parent": value(NOBODY)}}})
    alone = dataclasses.replace(root, options=())
    (one,) = mend(alone, DROP).mends
    assert "their leases stay" in one.loses
    assert {(it.rule, it.subject) for it in check(root)} - {("C53", layer.text)} >= {("C32", layer.text)}
    assert {it.rule for it in mend(root, RepairClass.RELEASE_LEAKS).mends} == {"C32"}
    assert {it.rule for it in check(root)} <= {"C53"}


def test_of_docker_s_builder_layers_stay_and_that_is_told(tmp_path: Path) -> None:
    (tmp_path / "oci").mkdir()
    it = World(tmp_path / "oci")
    it.plant.put(it.top, b"cache.diffID", b"{")
    it.plant.put(it.plant.tops[1], b"cache.deleted", value(True))
    docker = tmp_path / "docker" / "buildkit"
    docker.mkdir(parents=True)
    for path in (it.root.containerd, it.root.records, it.root.cache):
        shutil.copy(path, docker / path.name)
    shutil.copy(it.root.snapshots, docker / "snapshots.db")
    with open_stores(find_state(docker), it.root.place) as stores:
        planned = plan_repair(stores, {DROP})
    mends = {one.rule: one.loses for one in planned.mends}
    assert "layers stay on disk" in mends["C8"]
    assert "C15" not in mends  # Docker drops that at its start, layers and all
