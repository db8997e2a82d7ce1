"""C10 to C16 and C59: what records name, and the snapshots of mutable ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults import Healthy, check, found
from record_faults import Planter, value

from buildkit_migrate.schema.snapshots import COMMITTED, VIEW
from planting import below, edit

pytestmark = pytest.mark.slow

NOBODY = "0" * 25


@pytest.fixture
def plant(tmp_path: Path) -> Planter:
    return Planter(tmp_path)


@pytest.fixture
def healthy(plant: Planter) -> Healthy:
    return Healthy(plant.root)


def text(*ids: bytes) -> set[str]:
    return {id.decode() for id in ids}


# --- C10


def test_a_parent_that_does_not_exist(plant: Planter) -> None:
    for id in plant.tops[:2]:
        plant.put(id, b"cache.parent", value(NOBODY))
    assert found(plant.root) == {("C10", "H", id) for id in text(*plant.tops[:2])}


def test_of_a_layer_with_descendants_only_the_layer_is_told(plant: Planter) -> None:
    id = max(plant.layers, key=lambda id: len(plant.children(id)))
    assert plant.children(id)
    plant.put(id, b"cache.parent", value(NOBODY))
    assert found(plant.root) == {("C10", "H", id.decode())}


@pytest.mark.parametrize("place", [0, -1])
def test_a_parent_of_a_merge_that_does_not_exist(plant: Planter, place: int) -> None:
    id = plant.with_key(b"cache.mergeParents")[0]
    parents = plant.get(id, b"cache.mergeParents")
    parents[place] = NOBODY
    plant.put(id, b"cache.mergeParents", value(parents))
    assert found(plant.root) == {("C10", "H", id.decode())}
    (finding,) = check(plant.root)
    assert f"cache.mergeParents names {NOBODY}" in finding.message


@pytest.mark.parametrize("key", [b"cache.lowerDiffParent", b"cache.upperDiffParent"])
def test_a_parent_of_a_diff_that_does_not_exist(plant: Planter, key: bytes) -> None:
    id = plant.with_key(key)[0]
    plant.put(id, key, value(NOBODY))
    assert found(plant.root) == {("C10", "H", id.decode())}


def test_with_a_parent_the_other_kinds_are_not_looked_at(plant: Planter) -> None:
    id = plant.tops[0]
    for key, wrong in ((b"cache.mergeParents", [NOBODY, NOBODY]), (b"cache.lowerDiffParent", NOBODY)):
        plant.put(id, key, value(wrong))
    assert found(plant.root) == set()


@pytest.mark.parametrize("stored", [b'{"value":["%s",""]}', b'{"value":[null,"%s"]}'])
def test_a_parent_of_a_merge_with_an_empty_id(plant: Planter, stored: bytes) -> None:
    id = plant.with_key(b"cache.mergeParents")[0]
    parent = plant.get(id, b"cache.mergeParents")[0].encode()
    plant.put(id, b"cache.mergeParents", stored % parent)
    assert found(plant.root) == {("C10", "H", id.decode())}


# --- C11


@pytest.mark.parametrize("kind", ["merge", "diff"])
def test_a_circle_that_no_daemon_goes_round_as_another_parent_is_missing(plant: Planter, kind: str) -> None:
    if kind == "merge":
        id = plant.with_key(b"cache.mergeParents")[0]
        plant.put(id, b"cache.mergeParents", value([NOBODY, id.decode()]))
    else:
        id = plant.with_key(b"cache.upperDiffParent")[0]
        for key, parent in ((b"cache.lowerDiffParent", NOBODY), (b"cache.upperDiffParent", id.decode())):
            plant.put(id, key, value(parent))
        plant.put(id, b"cache.blob", None)
    assert found(plant.root) == {("C10", "H", id.decode())}


def test_a_mutable_record_that_is_its_own_partner(plant: Planter) -> None:
    id = next(mutable for _, mutable in plant.pairs)
    plant.put(id, b"cache.equalMutable", value(id.decode()))
    assert found(plant.root) == {("C11", "S", id.decode())}


def test_a_layer_that_is_its_own_parent(plant: Planter) -> None:
    id = plant.tops[0]
    plant.put(id, b"cache.parent", value(id.decode()))
    assert found(plant.root) == {("C11", "S", id.decode())}


def test_two_layers_that_are_each_other_s_parent(plant: Planter) -> None:
    child = next(id for id in plant.layers if plant.parent(plant.parent(id) or b"") is not None)
    parent = plant.parent(child)
    assert parent is not None
    plant.put(parent, b"cache.parent", value(child.decode()))
    assert found(plant.root) == {("C11", "S", id) for id in text(child, parent)}


def test_a_circle_over_a_merge(plant: Planter) -> None:
    merge = plant.with_key(b"cache.mergeParents")[0]
    parents = plant.get(merge, b"cache.mergeParents")
    base = parents[0].encode()
    plant.put(base, b"cache.parent", value(merge.decode()))
    findings = {it for it in found(plant.root) if it[0] != "C12"}
    assert ("C11", "S", merge.decode()) in findings
    assert ("C11", "S", base.decode()) in findings
    assert {rule for rule, _, _ in findings} == {"C11"}


def test_a_record_that_is_its_own_equal_mutable(plant: Planter) -> None:
    id = plant.tops[0]
    plant.put(id, b"cache.equalMutable", value(id.decode()))
    assert found(plant.root) == {("C11", "S", id.decode())}


# --- C12


def test_the_mutable_half_is_missing_and_a_committed_snapshot_is_there(plant: Planter) -> None:
    id = plant.tops[0]
    plant.put(id, b"cache.equalMutable", value(NOBODY))
    assert found(plant.root) == {("C12", "H", id.decode())}
    (finding,) = check(plant.root)
    assert finding.repair is not None and "clears" in finding.repair


def test_the_mutable_half_is_missing_and_there_is_no_snapshot(plant: Planter) -> None:
    id, _ = next(plant.pairs)
    plant.put(id, b"cache.equalMutable", value(NOBODY))
    assert found(plant.root) == {("C12", "H", id.decode())}
    (finding,) = check(plant.root)
    assert finding.repair is None


def test_what_a_missing_mutable_record_s_lease_holds_leaks(plant: Planter) -> None:
    id, mutable = next(pair for pair in plant.pairs if not plant.external or pair[1] not in plant.external)
    edits = dict.fromkeys(plant.entries(mutable))
    edit(plant.root.records, {b"_main": {mutable: None}, b"_index": edits})
    assert found(plant.root) >= {("C12", "H", id.decode()), ("C32", "L", mutable.decode())}


def test_the_mutable_half_is_not_mutable(plant: Planter) -> None:
    id, _ = next(plant.pairs)
    plant.put(id, b"cache.equalMutable", value(plant.tops[0].decode()))
    assert found(plant.root) == {("C12", "H", id.decode())}


# --- C13


def test_a_second_immutable_half(plant: Planter) -> None:
    id, _ = next(pair for pair in plant.pairs if not plant.entries(pair[0]))
    copy = b"zzzzzzzzzzzzzzzzzzzzzzzzz"
    values = dict(plant.records[id])
    values[b"cache.snapshot"] = value(copy.decode())
    values[b"cache.createdAt"] = value(plant.get(id, b"cache.createdAt") + 1)
    edit(plant.root.records, {b"_main": {copy: values}})
    assert found(plant.root) == {("C13", "P", copy.decode())}


def test_the_surplus_half_is_the_newer_one_whatever_its_id(plant: Planter) -> None:
    id, _ = next(pair for pair in plant.pairs if not plant.entries(pair[0]))
    copy = b"0000000000000000000000000"
    values = dict(plant.records[id])
    values[b"cache.createdAt"] = value(plant.get(id, b"cache.createdAt") + 1)
    values[b"cache.snapshot"] = value(copy.decode())
    edit(plant.root.records, {b"_main": {copy: values}})
    assert found(plant.root) == {("C13", "P", copy.decode())}


# --- C14


def test_the_snapshot_of_a_cache_mount_is_gone(plant: Planter, healthy: Healthy) -> None:
    mount = next(it for it in healthy.mounts if it.id in plant.mounts)
    healthy.lose_snapshot(mount)
    assert found(plant.root) == {("C14", "H", mount.text)}


@pytest.mark.parametrize("kind", [VIEW, COMMITTED])
def test_the_snapshot_of_a_mutable_record_is_not_active(plant: Planter, healthy: Healthy, kind: int) -> None:
    mount = next(it for it in healthy.mounts if not healthy.children[it.name])
    edit(plant.root.snapshots, below((b"v1", b"snapshots", mount.name), {b"kind": bytes([kind])}))
    assert found(plant.root) == {("C14", "B", mount.text)}


# --- C15


def test_a_layer_with_children_is_marked_as_deleted(plant: Planter) -> None:
    id = max(plant.layers, key=lambda id: len(plant.children(id)))
    plant.put(id, b"cache.deleted", value(True))
    assert found(plant.root) == {("C15", "H", id.decode())}


def test_a_record_that_is_not_deleted(plant: Planter) -> None:
    plant.put(plant.tops[0], b"cache.deleted", value(False))
    assert found(plant.root) == set()


def test_a_prune_that_was_cut(plant: Planter) -> None:
    id = plant.tops[0]
    plant.put(id, b"cache.deleted", value(True))
    edit(plant.root.containerd, below((b"v1", b"buildkit", b"leases"), {id: None, id + b"-variants": None}))
    assert found(plant.root) == {("C15", "H", id.decode())}


# --- C16


SIGNS = {
    "variants": "lease for variants",
    "size": "size is known",
    "description": "description",
}
"""What tells of a blob that was here, and how that is told."""


@pytest.mark.parametrize("left", SIGNS)
def test_lazy_layers_whose_data_was_here(plant: Planter, healthy: Healthy, left: str) -> None:
    lower, upper = lose_pulled_image(plant, healthy)
    for id in (lower, upper):
        if left != "variants":
            healthy.lease(id + b"-variants", None)
        for name, key in (("size", b"snapshot.size"), ("description", b"cache.description")):
            if left != name:
                plant.put(id, key, b"")
    assert found(plant.root) == {("C16", "H", id) for id in text(lower, upper)}
    assert all(SIGNS[left] in finding.message for finding in check(plant.root))


def test_lazy_layers_that_never_had_data_are_sound(plant: Planter, healthy: Healthy) -> None:
    for id in lose_pulled_image(plant, healthy):
        healthy.lease(id + b"-variants", None)
        for key in (b"snapshot.size", b"cache.description"):
            plant.put(id, key, None)
    assert found(plant.root) == set()


def test_something_was_built_on_a_lazy_layer(plant: Planter, healthy: Healthy) -> None:
    lower, upper = lose_pulled_image(plant, healthy)
    for id in (lower, upper):
        healthy.lease(id + b"-variants", None)
        for key in (b"snapshot.size", b"cache.description"):
            plant.put(id, key, None)
    layers = plant.with_key(
        b"snapshot.committed", b"cache.chainID", b"cache.mergeParents", b"cache.equalMutable"
    )
    child = next(id for id in layers if plant.parent(id) is not None)
    plant.put(child, b"cache.parent", value(upper.decode()))
    assert found(plant.root) == {("C16", "H", upper.decode())}


def lose_pulled_image(plant: Planter, healthy: Healthy) -> tuple[bytes, bytes]:
    """Makes the layers of an image of two lazy, and removes their blobs and snapshots."""
    upper = next(
        id
        for id in plant.with_key(b"cache.imageRefs")
        if not plant.children(id) and plant.parent(id) and plant.children(plant.parent(id) or b"") == [id]
    )
    lower = plant.parent(upper)
    assert lower is not None and plant.parent(lower) is None
    for id in (upper, lower):
        plant.put(id, b"cache.blobonly", value(True))
        digest = plant.get(id, b"cache.blob").encode()
        healthy.blob(digest, None)
        healthy.blob_file(digest).unlink()
        key = plant.get(id, b"cache.snapshot").encode()
        name = next(name for name in healthy.numbers if name.endswith(b"/" + key))
        healthy.lose_snapshot(healthy.snapshot(name))
    return lower, upper


# --- C59


def test_a_pair_that_nobody_keeps(plant: Planter) -> None:
    id, mutable = next(pair for pair in plant.pairs if not plant.children(pair[0]))
    for half in (id, mutable):
        plant.put(half, b"cache.cachePolicy", b"")
    assert found(plant.root) == {("C59", "H", id.decode())}


def test_one_of_a_pair_is_enough(plant: Planter) -> None:
    for id, _ in plant.pairs:
        plant.put(id, b"cache.cachePolicy", b"")
    kept = {mutable for _, mutable in plant.pairs if plant.get(mutable, b"cache.cachePolicy") == 1}
    expected = {id for id, mutable in plant.pairs if mutable not in kept and not plant.children(id)}
    assert {subject for _, _, subject in found(plant.root)} <= text(*expected)
