"""C23, C24, C26 to C30: the data of records, and the leases that hold it."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults import TIME, Healthy, check, found

import v2_roots
from buildkit_migrate.maintenance.facts import Facts
from buildkit_migrate.schema.snapshots import VIEW

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", v2_roots.NAMES)
def test_a_healthy_root_has_no_finding(tmp_path: Path, name: str) -> None:
    assert found(v2_roots.v2_root(name, tmp_path), content=True) == set()


def test_the_snapshot_of_the_last_layer_is_gone(healthy: Healthy) -> None:
    layer = healthy.last[0]
    healthy.lose_snapshot(layer)
    assert found(healthy.root) == {("C23", "B", layer.text)}


def test_only_containerd_lost_the_snapshot(healthy: Healthy) -> None:
    layer = healthy.last[0]
    healthy.lose_in_containerd(layer)
    assert found(healthy.root) == {("C23", "B", layer.text)}


def test_a_middle_layer_without_snapshot_can_not_be_extracted_again(healthy: Healthy) -> None:
    layer = healthy.middle[0]
    healthy.lose_snapshot(layer)
    (finding,) = check(healthy.root)
    assert (finding.rule, finding.subject) == ("C23", layer.text)
    assert finding.repair is not None and "nothing will free their space" in finding.repair


def test_the_snapshot_of_a_pulled_layer_is_gone(healthy: Healthy) -> None:
    layer = healthy.pulled[0]
    healthy.lose_snapshot(layer)
    sharing = {it.text for it in healthy.pulled if it.key == layer.key}
    assert found(healthy.root) == {("C23", "B", id) for id in sharing}


def test_a_chain_without_snapshots(healthy: Healthy) -> None:
    layers = {it.name: it for it in (*healthy.last, *healthy.middle)}
    views = {name for name, kind in healthy.kinds.items() if kind == VIEW}
    chain = next(names for it in healthy.middle if set(names := healthy.above(it)) <= {*layers, *views})
    for name in chain:
        healthy.lose_snapshot(healthy.snapshot(name))
    findings = check(healthy.root)
    assert {it.subject for it in findings} == {layers[name].text for name in chain if name in layers}
    assert {(it.rule, it.repair) for it in findings} == {("C23", None)}


def test_a_chain_without_snapshots_and_with_a_layer_without_blob(healthy: Healthy) -> None:
    layers = {it.name: it for it in (*healthy.last, *healthy.middle)}
    views = {name for name, kind in healthy.kinds.items() if kind == VIEW}
    chain = next(names for it in healthy.middle if set(names := healthy.above(it)) <= {*layers, *views})
    for name in chain:
        healthy.lose_snapshot(healthy.snapshot(name))
    lowest = layers[chain[0]]
    assert lowest.digest is not None
    healthy.blob(lowest.digest, None)
    healthy.blob_file(lowest.digest).unlink()
    repairs = {it.subject: it.repair or "" for it in check(healthy.root) if it.rule == "C23"}
    assert "no blob to extract" in repairs.pop(lowest.text)
    assert repairs
    assert all("stands on a layer that can't be used or extracted" in it for it in repairs.values())


def test_a_merge_is_made_again_but_not_what_stands_on_it(healthy: Healthy) -> None:
    merge = next(it for it in healthy.merges if it.name)
    above = [healthy.snapshot(name) for name in healthy.children[merge.name]]
    healthy.lose_snapshot(merge)
    assert found(healthy.root) == {("C42", "B", it.text) for it in above}


def test_the_blob_of_a_layer_is_gone(healthy: Healthy) -> None:
    layer = next(it for it in healthy.last if it.digest)
    healthy.blob(layer.digest, None)
    healthy.blob_file(layer.digest).unlink()
    assert found(healthy.root) == {("C24", "B", layer.text)}


@pytest.mark.parametrize("of", ["last", "middle", "pulled", "mounts"])
def test_a_record_without_lease(healthy: Healthy, of: str) -> None:
    record = getattr(healthy, of)[0]
    healthy.lease(record.id, None)
    assert found(healthy.root) == {("C26", "B", record.text)}


def test_a_merge_without_lease(healthy: Healthy) -> None:
    made = next(it for it in healthy.merges if it.name)
    lazy = next(it for it in healthy.merges if not it.name and not it.digest)
    healthy.lease(made.id, None)
    healthy.lease(lazy.id, None)
    assert found(healthy.root) == {("C26", "B", made.text), ("C26", "H", lazy.text)}


@pytest.mark.parametrize(
    "label",
    [
        {b"buildkit/lease.temporary": b"2026-11-26T16:16:07.128629681Z"},
        {b"containerd.io/gc.expire": b"2024-11-26T16:16:07Z"},
    ],
)
def test_a_record_whose_lease_goes(healthy: Healthy, label: dict[bytes, bytes]) -> None:
    record = healthy.last[0]
    healthy.lease(record.id, {b"labels": label})
    assert found(healthy.root) == {("C26", "B", record.text)}


def test_a_lease_that_does_not_list_the_snapshot(healthy: Healthy) -> None:
    record = healthy.last[0]
    healthy.lease(record.id, {b"snapshots": {healthy.snapshotter: {record.key: None}}})
    assert found(healthy.root) == {("C27", "B", record.text)}


def test_a_lease_that_lists_the_snapshot_of_another_snapshotter(healthy: Healthy) -> None:
    record = healthy.last[0]
    healthy.lease(record.id, {b"snapshots": {healthy.snapshotter: None, b"native": {record.key: b""}}})
    assert found(healthy.root) == {("C27", "B", record.text)}


def test_a_lease_that_does_not_list_the_blob(healthy: Healthy) -> None:
    record = next(it for it in healthy.last if it.digest)
    healthy.lease(record.id, {b"content": {record.digest: None}})
    (finding,) = check(healthy.root)
    assert (finding.rule, finding.severity, finding.subject) == ("C27", "B", record.text)
    assert record.digest.decode() in finding.message


def test_the_lease_of_a_cache_mount_is_empty(healthy: Healthy) -> None:
    record = healthy.mounts[0]
    healthy.lease(record.id, {b"snapshots": None})
    assert found(healthy.root) == {("C27", "B", record.text)}


def test_a_lazy_merge_needs_no_snapshot(healthy: Healthy) -> None:
    assert any(not it.name for it in healthy.merges)
    assert found(healthy.root) == set()


def test_what_is_lost_needs_no_protection(healthy: Healthy) -> None:
    layer = healthy.last[0]
    healthy.lose_snapshot(layer)
    healthy.lease(layer.id, None)
    assert found(healthy.root) == {("C23", "B", layer.text)}


def test_a_lease_for_variants_is_gone(healthy: Healthy) -> None:
    lease = next(it for it in sorted(healthy.leases) if it.endswith(b"-variants"))
    healthy.lease(lease, None)
    assert found(healthy.root) == {("C28", "H", lease.decode())}


def test_a_lease_for_variants_does_not_list_one(healthy: Healthy) -> None:
    layer = next(it for it in healthy.last if it.digest)
    healthy.lease(layer.id + b"-variants", {b"content": None})
    assert found(healthy.root) == {("C28", "H", layer.text + "-variants")}


def test_a_variant_that_does_not_link_back(healthy: Healthy) -> None:
    layer = next(it for it in healthy.last if it.digest)
    other = next(digest for digest in healthy.blobs if digest != layer.digest)
    healthy.blob(layer.digest, {b"labels": {b"containerd.io/gc.ref.content.blob-" + other: other}})
    assert found(healthy.root) == {("C28", "H", layer.digest.decode())}


def test_containerd_knows_another_parent(healthy: Healthy) -> None:
    layer, other = healthy.last[0], healthy.middle[-1]
    healthy.known_snapshot(layer.key, {b"parent": other.key})
    assert found(healthy.root) == {("C29", "H", layer.text)}


def test_a_parent_of_the_same_chain_is_as_good(healthy: Healthy) -> None:
    layer = healthy.last[0]
    with healthy.root.open() as stores:
        facts = Facts(stores).workers[0]
        records, snapshots = facts.records, facts.snapshots
        assert records is not None
        assert snapshots is not None
        parent = records.text(b"cache.parent")[records.index.row(layer.id)] or b""
        chain = records.text(b"cache.chainID")[records.index.row(parent)] or b""
        row = snapshots.index.row(parent)
        same = {b"name": snapshots.name[row], b"parent": snapshots.parent[row]}
    healthy.known_snapshot(chain, {**same, b"createdat": TIME, b"updatedat": TIME})
    healthy.known_snapshot(layer.key, {b"parent": chain})
    assert found(healthy.root) == set()


def test_containerd_knows_no_parent(healthy: Healthy) -> None:
    layer = healthy.last[0]
    healthy.known_snapshot(layer.key, {b"parent": None})
    assert found(healthy.root) == {("C29", "H", layer.text)}


@pytest.mark.parametrize("kind", [b"\x01", b"\x02", b"\x00", b"\x04", b"", b"\x03\x00"])
def test_a_committed_record_whose_snapshot_is_not(healthy: Healthy, kind: bytes) -> None:
    layer = healthy.last[0]
    healthy.in_snapshots({b"snapshots": {layer.name: {b"kind": kind}}})
    assert found(healthy.root) == {("C30", "B", layer.text)}


@pytest.mark.parametrize("edits", [{b"id": None}, {b"id": b"\xff" * 11}, {b"createdat": b"\x01\x02"}])
def test_a_snapshot_that_does_not_decode(healthy: Healthy, edits: dict[bytes, bytes | None]) -> None:
    layer = healthy.last[0]
    healthy.in_snapshots({b"snapshots": {layer.name: edits}})
    assert found(healthy.root) == {("C30", "B", layer.text)}


def test_a_time_of_containerd_that_does_not_decode(healthy: Healthy) -> None:
    layer = healthy.last[0]
    healthy.known_snapshot(layer.key, {b"updatedat": TIME[:-1]})
    assert found(healthy.root) == {("C30", "B", layer.text)}
    healthy.known_snapshot(layer.key, {b"updatedat": TIME})
    assert found(healthy.root) == set()


def test_a_lease_for_variants_that_goes(healthy: Healthy) -> None:
    lease = next(it for it in sorted(healthy.leases) if it.endswith(b"-variants"))
    healthy.lease(lease, {b"labels": {b"containerd.io/gc.expire": b"2024-11-26T16:16:07Z"}})
    assert found(healthy.root) == {("C28", "H", lease.decode())}
