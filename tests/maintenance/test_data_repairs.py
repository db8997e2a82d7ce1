"""C23, C26, C27: repairs of layers that lost their snapshots, and of leases, edit for edit."""

from __future__ import annotations

import shutil
from collections.abc import Iterable

import pytest
from faults import FLAT, TIME, Healthy, Record, check, found
from mending import Place, changed, everything, mend, plan, store

from buildkit_migrate.schema.snapshots import VIEW
from buildkit_migrate.values.times import is_stored_time, nanoseconds

pytestmark = pytest.mark.slow

EXPIRE = b"containerd.io/gc.expire"
TEMPORARY = b"buildkit/lease.temporary"
TIMES = "a time", "a time as text"


def mended(it: Healthy, *, left: Iterable[str] = ()) -> dict[Place, object]:
    """What a repair changes, with the root's times as TIMES; it leaves nothing to do."""
    before = everything(it.root)
    planned = mend(it.root)
    found_then = changed(before, everything(it.root))
    assert {finding.rule for finding in planned.left} == set(left)
    assert {finding.rule for finding in check(it.root)} == set(left)
    assert plan(it.root).mends == ()
    for place, value in found_then.items():
        if place[-1] == b"createdat" and isinstance(value, bytes) and is_stored_time(value):
            found_then[place] = TIMES[0]
        if place[-1] == FLAT and isinstance(value, bytes) and nanoseconds(value) is not None:
            found_then[place] = TIMES[1]
    return found_then


def lease(it: Healthy, id: bytes, *below: bytes) -> Place:
    return (store(it.root, it.root.containerd), b"v1", it.namespace, b"leases", id, *below)


def in_record(it: Healthy, id: bytes, key: bytes) -> Place:
    return (store(it.root, it.root.records), b"_main", id, key)


def resources(it: Healthy, record: Record) -> dict[Place, object]:
    """That a lease lists, with the buckets that they are in."""
    return listed_snapshot(it, record) | (listed_blob(it, record) if record.digest else {})


def listed_snapshot(it: Healthy, record: Record) -> dict[Place, object]:
    return {
        lease(it, record.id, b"snapshots"): 0,
        lease(it, record.id, b"snapshots", it.snapshotter): 0,
        lease(it, record.id, b"snapshots", it.snapshotter, record.key): b"",
    }


def listed_blob(it: Healthy, record: Record) -> dict[Place, object]:
    assert record.digest
    return {lease(it, record.id, b"content"): 0, lease(it, record.id, b"content", record.digest): b""}


def made(it: Healthy, record: Record) -> dict[Place, object]:
    """A whole lease."""
    return {
        lease(it, record.id): 0,
        lease(it, record.id, b"createdat"): TIMES[0],
        lease(it, record.id, b"labels"): 0,
        lease(it, record.id, b"labels", FLAT): TIMES[1],
        **resources(it, record),
    }


# --- C26, C27


@pytest.mark.parametrize("of", ["last", "middle", "pulled", "mounts"])
def test_a_lease_is_made(healthy: Healthy, of: str) -> None:
    record = getattr(healthy, of)[0]
    healthy.lease(record.id, None)
    assert mended(healthy) == made(healthy, record)


def test_leases_of_merges_list_snapshots_that_are_still_to_be_made(healthy: Healthy) -> None:
    records = [it for it in healthy.merges if not it.name and not it.digest][:2]
    records += [it for it in healthy.merges if it.name][:1]
    expected: dict[Place, object] = {}
    for record in records:
        healthy.lease(record.id, None)
        expected |= made(healthy, record)
    assert mended(healthy) == expected


@pytest.mark.parametrize("label", [{TEMPORARY: b"2026-11-26T16:16:07Z"}, {EXPIRE: b"2024-11-26T16:16:07Z"}])
@pytest.mark.parametrize("flat", [True, False])
def test_a_lease_that_would_go_stays(healthy: Healthy, label: dict[bytes, bytes], flat: bool) -> None:
    record = healthy.last[0]
    healthy.lease(record.id, {b"labels": label if flat else {FLAT: None, **label}})
    place = lease(healthy, record.id, b"labels")
    expected: dict[Place, object] = dict.fromkeys((*place, name) for name in label)
    if not flat:
        expected[(*place, FLAT)] = TIMES[1]
    assert mended(healthy) == expected


def test_a_lease_that_would_go_and_lists_nothing(healthy: Healthy) -> None:
    record = next(it for it in healthy.last if it.digest)
    labels = {TEMPORARY: b"2026-11-26T16:16:07Z"}
    healthy.lease(record.id, {b"labels": labels, b"snapshots": None, b"content": None})
    gone: dict[Place, object] = {lease(healthy, record.id, b"labels", TEMPORARY): None}
    assert mended(healthy) == gone | resources(healthy, record)


def test_the_snapshot_is_listed(healthy: Healthy) -> None:
    record = healthy.last[0]
    healthy.lease(record.id, {b"snapshots": {healthy.snapshotter: None, b"native": {record.key: b""}}})
    wanted = listed_snapshot(healthy, record)
    del wanted[lease(healthy, record.id, b"snapshots")]
    assert mended(healthy) == wanted


def test_the_blob_is_listed(healthy: Healthy) -> None:
    record = next(it for it in healthy.last if it.digest)
    healthy.lease(record.id, {b"content": None})
    assert mended(healthy) == listed_blob(healthy, record)


def test_an_empty_lease_lists_all(healthy: Healthy) -> None:
    record = next(it for it in healthy.last if it.digest)
    healthy.lease(record.id, {b"content": None, b"snapshots": None})
    assert mended(healthy) == resources(healthy, record)


def test_all_leases_are_gone(healthy: Healthy) -> None:
    healthy.in_containerd({b"leases": None})
    before = everything(healthy.root)
    mend(healthy.root)
    place = len(lease(healthy, b""))
    ids = {it[place - 1] for it in changed(before, everything(healthy.root)) if len(it) >= place}
    assert ids == healthy.leases & healthy.ids
    assert "C26" not in {finding.rule for finding in check(healthy.root)}
    assert plan(healthy.root).mends == ()


# --- C23


def test_a_layer_that_nothing_stands_on_is_extracted_again(healthy: Healthy) -> None:
    layer = next(it for it in healthy.last if it.digest)
    healthy.lose_snapshot(layer)
    assert mended(healthy) == unextracted(healthy, layer)


def unextracted(it: Healthy, layer: Record) -> dict[Place, object]:
    return {
        in_record(it, layer.id, b"cache.blobonly"): b'{"value":true}',
        in_record(it, layer.id, b"snapshot.size"): b'{"value":-1}',
    }


def test_a_layer_that_lost_its_lease_as_well(healthy: Healthy) -> None:
    layer = next(it for it in healthy.last if it.digest)
    healthy.lose_snapshot(layer)
    healthy.lease(layer.id, None)
    assert mended(healthy) == unextracted(healthy, layer) | made(healthy, layer)


def test_a_layer_whose_lease_would_go_as_well(healthy: Healthy) -> None:
    layer = next(it for it in healthy.last if it.digest)
    healthy.lose_snapshot(layer)
    healthy.lease(layer.id, {b"labels": {EXPIRE: b"2024-11-26T16:16:07Z"}, b"snapshots": None})
    gone: dict[Place, object] = {lease(healthy, layer.id, b"labels", EXPIRE): None}
    assert mended(healthy) == unextracted(healthy, layer) | gone | listed_snapshot(healthy, layer)


def suffix(it: Healthy) -> list[Record]:
    """Layers on each other that have blobs, with all that stands on them; their snapshots are gone."""
    layers = {layer.name: layer for layer in (*it.last, *it.middle)}
    views = {name for name, kind in it.kinds.items() if kind == VIEW}
    names = next(
        above
        for layer in it.middle
        if set(above := it.above(layer)) <= {*layers, *views}
        and all(layers[name].digest for name in above if name in layers)
    )
    for name in names:
        it.lose_snapshot(it.snapshot(name))
    return [layers[name] for name in names if name in layers]


def test_all_layers_of_a_suffix_are_extracted_again(healthy: Healthy) -> None:
    layers = suffix(healthy)
    assert len(layers) > 1
    expected: dict[Place, object] = {}
    for layer in layers:
        expected |= unextracted(healthy, layer)
    assert mended(healthy) == expected


@pytest.mark.parametrize("fault", ["blob", "file", "length"])
def test_what_stands_on_a_layer_without_sound_blob_stays(healthy: Healthy, fault: str) -> None:
    lowest, *above = suffix(healthy)
    assert lowest.digest is not None
    if fault == "blob":
        healthy.blob(lowest.digest, None)
        healthy.blob_file(lowest.digest).unlink()
    elif fault == "file":
        healthy.blob_file(lowest.digest).unlink()
    else:
        healthy.blob_file(lowest.digest).write_bytes(b"")
    planned = plan(healthy.root)
    assert planned.changes == ()
    repairs = {it.subject: it.repair or "" for it in check(healthy.root) if it.rule == "C23"}
    assert repairs.keys() == {it.text for it in (lowest, *above)}
    assert all("--drop" in repair for repair in repairs.values())


def test_a_layer_on_a_snapshot_that_the_snapshotter_lost_stays(healthy: Healthy) -> None:
    lowest, *_ = suffix(healthy)
    parent = next(it for it in healthy.middle + healthy.pulled if it.name == lowest.parent)
    healthy.lose_in_snapshotter(parent)
    shutil.rmtree(healthy.directory(parent))
    assert not any(mend.rule == "C23" for mend in plan(healthy.root).mends)


@pytest.mark.parametrize("of", ["middle", "pulled"])
def test_a_layer_that_others_stand_on_stays(healthy: Healthy, of: str) -> None:
    layer = getattr(healthy, of)[0]
    healthy.lose_snapshot(layer)
    assert plan(healthy.root).changes == ()
    assert {finding.rule for finding in plan(healthy.root).left} == {"C23"}


def test_snapshots_of_others_with_the_same_key_do_not_matter(healthy: Healthy) -> None:
    """In a containerd that others use, who may have pulled the same image."""
    layer = next(it for it in healthy.last if it.digest)
    healthy.lose_snapshot(layer)
    fields = {b"kind": b"\x02", b"createdat": TIME, b"updatedat": TIME}
    theirs = b"k8s.io/1/" + layer.key, b"k8s.io/2/container"
    healthy.in_snapshots(
        {
            b"snapshots": {
                theirs[0]: {b"id": healthy.stored(1000), **fields},
                theirs[1]: {b"id": healthy.stored(1001), b"parent": theirs[0], **fields},
            }
        }
    )
    assert {mend.rule for mend in plan(healthy.root).mends} >= {"C23"}


def test_no_blob_no_repair(healthy: Healthy) -> None:
    layer = next(it for it in healthy.last if not it.digest)
    healthy.lose_snapshot(layer)
    assert plan(healthy.root).changes == ()
    assert found(healthy.root) == {("C23", "B", layer.text)}
