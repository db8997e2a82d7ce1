"""C31 to C39: leases without an owner, and what they cost."""

from __future__ import annotations

from hashlib import sha256

import pytest
from faults import FLAT, TIME, Healthy, check, found

from buildkit_migrate.bolt.edits import Edits
from planting import below, edit

pytestmark = pytest.mark.slow

TEMPORARY = b"buildkit/lease.temporary"
EXPIRE = b"containerd.io/gc.expire"
LONG_AGO, LONG_AFTER = b"2024-01-01T00:00:00Z", b"2999-01-01T00:00:00Z"


def lease(labels: dict[bytes, bytes], *digests: bytes, **more: Edits) -> Edits:
    return {
        b"createdat": TIME,
        b"labels": labels,
        b"content": dict.fromkeys(digests, b""),
        **{name.encode(): value for name, value in more.items()},
    }


def test_the_record_of_a_lease_is_gone(healthy: Healthy) -> None:
    layer = next(it for it in healthy.last if it.digest)
    healthy.drop_record(layer)
    (finding,) = check(healthy.root)
    assert (finding.rule, finding.severity, finding.subject) == ("C32", "L", layer.text)
    assert finding.bytes is not None
    assert finding.bytes >= healthy.blobs[layer.digest] > 0


def test_the_record_of_a_mutable_lease_is_gone(healthy: Healthy) -> None:
    mount = next(it for it in healthy.mounts if it.partner is not None and not it.parent)
    healthy.drop_record(healthy.record(mount.partner))
    healthy.drop_record(mount)
    (finding,) = [it for it in check(healthy.root) if it.rule != "C53"]
    assert (finding.rule, finding.subject) == ("C32", mount.text)
    assert finding.bytes  # measured


def test_only_the_second_lease_of_a_record_is_left(healthy: Healthy) -> None:
    layer = next(it for it in healthy.last if it.digest)
    healthy.drop_record(layer)
    healthy.lease(layer.id, None)
    (finding,) = check(healthy.root)
    assert (finding.rule, finding.severity, finding.subject) == ("C33", "L", f"{layer.text}-variants")
    assert finding.bytes == healthy.blobs[layer.digest]


def test_a_lease_of_a_migrated_record(healthy: Healthy) -> None:
    chain = b"sha256:" + b"5" * 64
    healthy.lease(chain, lease({FLAT: b"1"}))
    (finding,) = check(healthy.root)
    assert (finding.rule, finding.subject, finding.bytes) == ("C32", chain.decode(), 0)


def test_the_build_of_a_lease_is_gone(healthy: Healthy) -> None:
    build = sorted(healthy.builds)[0]
    edit(healthy.root.history, {b"_records": {build: None}})
    (finding,) = check(healthy.root)
    assert (finding.rule, finding.severity, finding.subject) == ("C34", "L", f"ref_{build.decode()}")
    assert finding.bytes


def test_the_history_was_reset(healthy: Healthy) -> None:
    edit(healthy.root.history, {b"_records": dict.fromkeys(healthy.builds)})
    assert found(healthy.root) == {("C34", "L", f"ref_{build.decode()}") for build in healthy.builds}


@pytest.mark.parametrize("known", [True, False])
def test_a_lease_of_a_build_where_v011_had_it(healthy: Healthy, known: bool) -> None:
    build = sorted(healthy.builds)[0] if known else b"0123456789abcdefghijklmno"
    healthy.lease(b"ref_" + build, lease({}))
    assert found(healthy.root) == {("C35", "L", f"ref_{build.decode()}")}


@pytest.mark.parametrize(
    "name", [b"nerdctl-image", b"A" * 25, b"0" * 24, b"-variants", b"x-variants", b"12-abcde"]
)
def test_a_lease_of_somebody_else(healthy: Healthy, name: bytes) -> None:
    digest = sorted(healthy.blobs)[0]
    healthy.lease(name, lease({}, digest))
    assert found(healthy.root) == {("C36", "L", name.decode())}


def test_a_lease_of_somebody_else_among_those_of_builds(healthy: Healthy) -> None:
    healthy.lease(b"mine", lease({}), healthy.namespace + b"_history")
    assert found(healthy.root) == {("C36", "L", "mine")}


def test_the_form_of_a_record_but_not_flat(healthy: Healthy) -> None:
    healthy.lease(b"0" * 25, lease({}))
    assert found(healthy.root) == {("C36", "L", "0" * 25)}


@pytest.mark.parametrize(
    "labels", [{TEMPORARY: LONG_AGO}, {EXPIRE: LONG_AGO}, {EXPIRE: LONG_AFTER, FLAT: b"1"}]
)
def test_a_lease_that_goes(healthy: Healthy, labels: dict[bytes, bytes]) -> None:
    healthy.lease(b"export-of-mine", lease(labels))
    assert found(healthy.root) == {("C31", "H", "export-of-mine")}


def test_a_lease_whose_time_can_not_be_read_stays(healthy: Healthy) -> None:
    healthy.lease(b"0" * 25, lease({FLAT: b"1", EXPIRE: b"tomorrow"}))
    assert found(healthy.root) == {("C32", "L", "0" * 25)}


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        (b"128621741-rg3e", {TEMPORARY: LONG_AGO, EXPIRE: LONG_AGO}),
        (b"128621741-_-Ab", {TEMPORARY: LONG_AGO, EXPIRE: LONG_AFTER}),
        (b"128621741-rg3e", {}),
        (b"0123456789abcdefghijklmno-view", {TEMPORARY: LONG_AGO, FLAT: LONG_AGO}),
        (b"0123456789abcdefghijklmno", {TEMPORARY: LONG_AGO, FLAT: LONG_AGO}),
        (b"history_migration_0123456789abcdefghijklmno", {TEMPORARY: LONG_AGO}),
    ],
)
def test_what_daemons_leave(healthy: Healthy, name: bytes, labels: dict[bytes, bytes]) -> None:
    healthy.lease(name, {b"createdat": TIME, b"labels": labels})
    assert found(healthy.root) == set()


@pytest.mark.parametrize("label", [b"containerd.io/gc.root", b"containerd.io/gc.root.mine"])
def test_a_blob_that_only_its_label_holds(healthy: Healthy, label: bytes) -> None:
    digest = b"sha256:" + sha256(b"x" * 32).hexdigest().encode()
    healthy.blob_file(digest).write_bytes(b"x" * 32)
    healthy.blob(digest, {b"createdat": TIME, b"updatedat": TIME, b"size": b"\x40", b"labels": {label: b"1"}})
    assert found(healthy.root) == {("C38", "L", digest.decode())}


def test_a_label_on_what_is_held_anyway(healthy: Healthy) -> None:
    layer = next(it for it in healthy.last if it.digest)
    healthy.known_snapshot(layer.key, {b"labels": {b"containerd.io/gc.root": b"1"}})
    healthy.blob(layer.digest, {b"labels": {b"containerd.io/gc.root": b"1"}})
    assert found(healthy.root) == set()


def test_a_view_with_a_label(healthy: Healthy) -> None:
    view = next(name for name, kind in healthy.kinds.items() if kind == 1)
    key = view.split(b"/", 2)[2]
    healthy.known_snapshot(key, {b"labels": {b"containerd.io/gc.root": b"1"}})
    assert found(healthy.root) == {("C38", "L", key.decode())}


def test_a_record_store_without_records(healthy: Healthy) -> None:
    edit(healthy.root.records, {b"_main": None, b"_index": None, b"_external": None})
    (finding,) = check(healthy.root)
    assert (finding.rule, finding.severity, finding.subject) == ("C39", "L", "")
    assert finding.file == healthy.root.records
    assert finding.bytes
    assert finding.bytes > 100_000
    assert "leases" in finding.message


def test_two_orphans_that_share_data_do_not_count_it_twice(healthy: Healthy) -> None:
    layer = next(it for it in healthy.last if it.digest)
    healthy.drop_record(layer)
    alone = sum(it.bytes or 0 for it in check(healthy.root))
    healthy.lease(
        b"0" * 25,
        lease({FLAT: b"1"}, layer.digest, snapshots=below((healthy.snapshotter,), {layer.key: b""})),
    )
    findings = check(healthy.root)
    assert {it.rule for it in findings} == {"C32"}
    assert len(findings) == 2
    assert sum(it.bytes or 0 for it in findings) == alone


@pytest.mark.parametrize("history", [True, False])
def test_a_lease_of_a_build_that_goes(healthy: Healthy, history: bool) -> None:
    name = b"ref_" + b"n" * 25
    namespace = healthy.namespace + (b"_history" if history else b"")
    healthy.lease(name, lease({EXPIRE: LONG_AGO}), namespace)
    assert found(healthy.root) == {("C31", "H", name.decode())}


def test_what_a_lease_holds_is_counted_by_kind(healthy: Healthy) -> None:
    layer = next(it for it in healthy.last if it.digest and it.key == it.id)
    healthy.drop_record(layer)
    (finding,) = check(healthy.root)
    assert finding.message.endswith("holds 1 snapshot and 1 blob")
    healthy.lease(b"mine", lease({}, layer.digest))
    others = [it for it in check(healthy.root) if it.rule == "C36"]
    assert [it.message.rpartition("; ")[2] for it in others] == ["it alone holds no data"]


def test_nobody_deletes_what_is_only_called_temporary_in_the_namespace_of_builds(healthy: Healthy) -> None:
    history = healthy.namespace + b"_history"
    healthy.lease(b"ref_" + b"n" * 25, lease({TEMPORARY: LONG_AGO}), history)
    healthy.lease(b"mine", lease({TEMPORARY: LONG_AGO}), history)
    assert found(healthy.root) == {("C34", "L", "ref_" + "n" * 25), ("C36", "L", "mine")}
