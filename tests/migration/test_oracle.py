"""The oracle: against upstream's own results, and by hand-written cases."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

import fixtures
from buildkit_migrate.migration import oracle
from buildkit_migrate.model import (
    Blob,
    Caution,
    Kind,
    PlainPlan,
    PlainRecords,
    PlainSurvey,
    Problem,
    Reason,
    RecordPlan,
    Snapshot,
)
from buildkit_migrate.values import gojson, keys
from oracle_cases import (
    ACTIVE,
    BLOB,
    BLOB_2,
    COMMITTED,
    DIFF,
    DIFF_2,
    LAYER,
    VIEW,
    but_for_blob_sizes,
    equal_mutable,
    hashed,
    mapping,
    parent,
    planned,
    puts,
    text,
)

# --- Upstream's own results


@pytest.mark.parametrize("name", fixtures.REAL_ROOTS)
def test_real_root(name: str) -> None:
    root = fixtures.real_root(name)
    plan = oracle.plan(root.records, root.survey, upstream_exact=True)
    assert plan.problems == []
    assert plan.cautions == set()
    assert fixtures.migrated(root.metadata, plan) == root.metadata_v2
    with_sizes = oracle.plan(root.records, root.survey)
    assert fixtures.migrated(root.metadata, with_sizes) == fixtures.with_blob_sizes(
        root.metadata_v2, root.survey
    )
    assert but_for_blob_sizes(with_sizes) == plan

    leases = {id: set(resources) for id, resources in root.survey.leases.items()}
    for id, record in plan.records.items():
        assert record.create_lease == (id not in leases)
        leases.setdefault(id, set()).update(record.add_resources)
    assert leases == root.survey_after.leases
    for id in plan.records:
        labels = fixtures.bucket(root.containerd_after, b"v1", b"buildkit", b"leases", id, b"labels")
        assert set(labels) == {fixtures.FLAT_LABEL}

    assert plan.unlabel_snapshots == _labelled_snapshots(root.survey) - _labelled_snapshots(root.survey_after)
    assert plan.unlabel_blobs == _labelled_blobs(root.survey) - _labelled_blobs(root.survey_after)
    # The plan does not protect what a live daemon collected meanwhile.
    protected = {id for record in plan.records.values() for _, id in record.add_resources}
    assert protected & set(root.survey.snapshots) <= set(root.survey_after.snapshots)
    assert protected & set(root.survey.blobs) <= set(root.survey_after.blobs)


def _labelled_snapshots(survey: PlainSurvey) -> set[bytes]:
    return {name for name, snapshot in survey.snapshots.items() if snapshot.root_label}


def _labelled_blobs(survey: PlainSurvey) -> set[bytes]:
    return {digest for digest, blob in survey.blobs.items() if blob.root_label}


@pytest.mark.parametrize("name", fixtures.SYNTHETIC_STORES)
def test_synthetic_store(name: str) -> None:
    store = fixtures.synthetic_store(name)
    plan = oracle.plan(store.records, store.survey, upstream_exact=True)
    assert plan.problems == []
    assert fixtures.migrated(store.metadata, plan) == store.metadata_v2
    with_sizes = oracle.plan(store.records, store.survey)
    assert fixtures.migrated(store.metadata, with_sizes) == fixtures.with_blob_sizes(
        store.metadata_v2, store.survey
    )
    assert but_for_blob_sizes(with_sizes) == plan

    lease_calls: Counter[fixtures.Call] = Counter()
    for id, record in plan.records.items():
        lease = id.decode()
        lease_calls["leases.Create", lease, fixtures.FLAT_LABEL.decode()] += record.create_lease
        for kind, resource in record.add_resources:
            lease_calls["leases.AddResource", lease, kind, resource.decode()] += 1
    assert lease_calls == {call: n for call, n in store.calls.items() if call[0].startswith("leases.")}

    # Upstream also updates objects without label, and some twice; the plan has only real changes.
    field_path = "labels." + fixtures.ROOT_LABEL.decode()
    assert {call[2] for call in store.calls if call[0].endswith(".Update")} == {field_path}
    snapshots = {call[1].encode() for call in store.calls if call[0] == "snapshots.Update"}
    blobs = {call[1].encode() for call in store.calls if call[0] == "content.Update"}
    assert plan.unlabel_snapshots == snapshots & _labelled_snapshots(store.survey)
    assert plan.unlabel_blobs == blobs & _labelled_blobs(store.survey)


# --- One case for each rule


def test_no_records_give_an_empty_plan() -> None:
    assert planned({}, {}) == PlainPlan()


def test_mutable_record_gets_a_snapshot_and_a_lease() -> None:
    plan = planned({b"m": {}}, {b"m": Snapshot(Kind.ACTIVE, b"", root_label=True)})
    assert plan == PlainPlan(
        records={
            b"m": RecordPlan(
                puts={keys.SNAPSHOT: text(b"m")},
                index=frozenset(),
                create_lease=True,
                add_resources=frozenset({("snapshots/overlayfs", b"m")}),
            )
        },
        unlabel_snapshots={b"m"},
    )


def test_layer_above_a_base_gets_chained_ids() -> None:
    plan = planned(
        {b"base": LAYER, b"top": {keys.BLOB_MAPPING: mapping(BLOB_2, DIFF_2)}},
        {b"base": COMMITTED, b"top": Snapshot(Kind.COMMITTED, b"base")},
    )
    base_blob_chain = hashed(BLOB + b" " + DIFF)
    chain = hashed(DIFF + b" " + DIFF_2)
    blob_chain = hashed(base_blob_chain + b" " + hashed(BLOB_2 + b" " + DIFF_2))
    assert puts(plan, b"base") == {
        keys.COMMITTED: b'{"value":true}',
        keys.SNAPSHOT: text(b"base"),
        keys.DIFF_ID: text(DIFF),
        keys.BLOB: text(BLOB),
        keys.BLOB_SIZE: b'{"value":11}',
        keys.MEDIA_TYPE: text(b"application/vnd.docker.image.rootfs.diff.tar.gzip"),
        keys.CHAIN_ID: b'{"value":"%b","index":"chainid:%b"}' % (DIFF, DIFF),
        keys.BLOB_CHAIN_ID: b'{"value":"%b","index":"blobchainid:%b"}' % (base_blob_chain, base_blob_chain),
    }
    assert puts(plan, b"top")[keys.PARENT] == text(b"base")
    assert plan.records[b"top"].index == {
        b"chainid:" + chain + b"::top",
        b"blobchainid:" + blob_chain + b"::top",
    }
    assert plan.records[b"top"].add_resources == {("snapshots/overlayfs", b"top"), ("content", BLOB_2)}
    assert plan.unlabel_blobs == {BLOB, BLOB_2}
    assert plan.problems == []


def test_parent_without_blob_is_hashed_as_nothing() -> None:
    plan = planned(
        {b"base": {}, b"top": LAYER}, {b"base": COMMITTED, b"top": Snapshot(Kind.COMMITTED, b"base")}
    )
    assert gojson.string(puts(plan, b"top")[keys.CHAIN_ID]) == hashed(b" " + DIFF)
    assert gojson.string(puts(plan, b"top")[keys.BLOB_CHAIN_ID]) == hashed(b" " + hashed(BLOB + b" " + DIFF))


def test_equal_mutable_record_takes_the_parent_of_its_target() -> None:
    plan = planned(
        {b"base": {}, b"em": equal_mutable(b"m"), b"m": {}, b"n": equal_mutable(b"o"), b"o": {}},
        {b"base": COMMITTED, b"m": Snapshot(Kind.ACTIVE, b"base"), b"o": ACTIVE},
    )
    assert puts(plan, b"em") == {
        keys.COMMITTED: b'{"value":true}',
        keys.PARENT: text(b"base"),
        keys.SNAPSHOT: text(b"em"),
    }
    assert puts(plan, b"n")[keys.PARENT] == b'{"value":""}'
    assert plan.records[b"em"].add_resources == {("snapshots/overlayfs", b"em")}
    assert plan.problems == []


def test_equal_mutable_chain_is_resolved_targets_first() -> None:
    chain = {b"%03d" % i: equal_mutable(b"%03d" % (i + 1)) for i in range(50)} | {b"050": {}, b"base": {}}
    plan = planned(chain, {b"050": Snapshot(Kind.ACTIVE, b"base"), b"base": COMMITTED})
    assert {puts(plan, b"%03d" % i)[keys.PARENT] for i in range(51)} == {text(b"base")}


def test_equal_mutable_record_keeps_a_parent_and_its_labels() -> None:
    plan = planned(
        {b"base": {}, b"em": equal_mutable(b"m") | parent(b"base") | LAYER, b"m": {}},
        {b"base": COMMITTED, b"m": ACTIVE, b"em": Snapshot(Kind.COMMITTED, b"other", root_label=True)},
    )
    assert keys.PARENT not in puts(plan, b"em")
    assert puts(plan, b"em")[keys.BLOB] == text(BLOB)
    assert plan.unlabel_snapshots == set()
    assert plan.unlabel_blobs == set()


def test_snapshot_without_parent_leaves_a_stored_parent() -> None:
    plan = planned({b"base": {}, b"r": parent(b"base")}, {b"base": COMMITTED, b"r": COMMITTED})
    assert keys.PARENT not in puts(plan, b"r")
    assert plan.problems == []


def test_cleared_or_null_equal_mutable_counts_as_absent() -> None:
    records = {b"a": {keys.EQUAL_MUTABLE: b""}, b"b": {keys.EQUAL_MUTABLE: b'{"value":null}'}}
    plan = planned(records, {b"a": COMMITTED, b"b": COMMITTED})
    assert set(plan.records) == {b"a", b"b"}
    assert keys.EQUAL_MUTABLE not in puts(plan, b"a")


def test_missing_blob_is_not_a_problem() -> None:
    plan = planned({b"r": LAYER}, {b"r": COMMITTED}, blobs={})
    assert set(puts(plan, b"r")) == {keys.COMMITTED, keys.SNAPSHOT}
    assert (plan.problems, plan.cautions) == ([], set())


@pytest.mark.parametrize("stored", [b"{}", b"null", b'{"value":null}', b'{"index":"i"}'])
def test_empty_blob_mapping_is_skipped_with_caution(stored: bytes) -> None:
    plan = planned({b"r": {keys.BLOB_MAPPING: stored}}, {b"r": COMMITTED})
    assert set(puts(plan, b"r")) == {keys.COMMITTED, keys.SNAPSHOT}
    assert plan.cautions == {(b"r", Caution.EMPTY_BLOB_MAPPING)}


def test_cleared_blob_mapping_counts_as_absent() -> None:
    plan = planned({b"r": {keys.BLOB_MAPPING: b""}}, {b"r": COMMITTED})
    assert (plan.problems, plan.cautions) == ([], set())


def test_complete_chain_ids_are_kept_and_used_by_children() -> None:
    given_ids = {keys.CHAIN_ID: text(b"given"), keys.BLOB_CHAIN_ID: text(b"blobs")}
    plan = planned(
        {b"base": LAYER | given_ids, b"top": LAYER},
        {b"base": COMMITTED, b"top": Snapshot(Kind.COMMITTED, b"base")},
    )
    assert plan.records[b"base"].index == frozenset()
    assert keys.CHAIN_ID not in puts(plan, b"base")
    assert gojson.string(puts(plan, b"top")[keys.CHAIN_ID]) == hashed(b"given " + DIFF)


@pytest.mark.parametrize("key", [keys.CHAIN_ID, keys.BLOB_CHAIN_ID])
def test_partial_chain_ids_are_computed_anew(key: bytes) -> None:
    plan = planned({b"r": LAYER | {key: text(b"given")}}, {b"r": COMMITTED})
    assert gojson.string(puts(plan, b"r")[keys.CHAIN_ID]) == DIFF
    assert len(plan.records[b"r"].index) == 2


def test_resources_are_added_to_existing_leases() -> None:
    own = ("snapshots/overlayfs", b"r")
    blob = ("content", BLOB)
    for has, adds in [
        ({own, blob}, set()),
        ({own}, {blob}),
        (set(), {own, blob}),
        ({("content", BLOB_2)}, {own, blob}),
    ]:
        plan = planned({b"r": LAYER}, {b"r": COMMITTED}, leases={b"r": has})
        assert not plan.records[b"r"].create_lease
        assert plan.records[b"r"].add_resources == adds


def test_labels_are_removed_only_from_records_and_views() -> None:
    labelled = {kind: Snapshot(kind, b"", root_label=True) for kind in Kind}
    plan = planned(
        {b"r": {}, b"unlabelled": LAYER},
        {
            b"r": labelled[Kind.COMMITTED],
            b"unlabelled": COMMITTED,
            b"view": labelled[Kind.VIEW],
            b"unlabelled view": VIEW,
            b"stray": labelled[Kind.COMMITTED],
            b"active": labelled[Kind.ACTIVE],
        },
        blobs={BLOB: Blob(), BLOB_2: Blob(True)},
    )
    assert plan.unlabel_snapshots == {b"r", b"view"}
    assert plan.unlabel_blobs == set()
    assert puts(plan, b"unlabelled")[keys.BLOB] == text(BLOB)


BLOB_SIZES = [1, 4096, 2**53 + 1, 2**63 - 1]


@pytest.mark.parametrize("size", BLOB_SIZES)
def test_blob_size_is_written(size: int) -> None:
    plan = planned({b"r": LAYER}, {b"r": COMMITTED}, blobs={BLOB: Blob(size=size)})
    assert puts(plan, b"r")[keys.BLOB_SIZE] == b'{"value":%d}' % size
    assert plan.cautions == set()
    exact = planned({b"r": LAYER}, {b"r": COMMITTED}, blobs={BLOB: Blob(size=size)}, upstream_exact=True)
    assert exact == but_for_blob_sizes(plan)
    assert keys.BLOB_SIZE not in puts(exact, b"r")


def test_unknown_blob_size_is_a_caution() -> None:
    plan = planned({b"r": LAYER}, {b"r": COMMITTED}, blobs={BLOB: Blob()})
    assert keys.BLOB_SIZE not in puts(plan, b"r")
    assert plan.cautions == {(b"r", Caution.NO_BLOB_SIZE)}
    exact = planned({b"r": LAYER}, {b"r": COMMITTED}, blobs={BLOB: Blob()}, upstream_exact=True)
    assert exact == replace(plan, cautions=set())


def test_stored_size_is_overwritten_only_for_blobs_that_exist() -> None:
    """Right or wrong."""
    stored = {keys.BLOB_SIZE: b'{"value":7}'}
    records: PlainRecords = {b"layer": LAYER | stored, b"other": {keys.BLOB: text(BLOB), **stored}}
    plan = planned(records, dict.fromkeys(records, COMMITTED))
    assert puts(plan, b"layer")[keys.BLOB_SIZE] == b'{"value":11}'
    assert keys.BLOB_SIZE not in puts(plan, b"other")
    exact = planned(records, dict.fromkeys(records, COMMITTED), upstream_exact=True)
    assert keys.BLOB_SIZE not in puts(exact, b"layer")


def test_nested_bucket_instead_of_a_size_is_a_problem_unless_upstream_exact() -> None:
    """It is only in the way if a size is written."""
    records: PlainRecords = {b"r": {keys.BLOB_SIZE: None}, b"s": {keys.BLOB_SIZE: None, keys.CHAIN_ID: None}}
    snapshots = dict.fromkeys(records, COMMITTED)
    plan = planned(records, snapshots)
    assert plan.problems == [Problem(id, Reason.KEY_IS_BUCKET, keys.BLOB_SIZE) for id in records]
    exact = planned(records, snapshots, upstream_exact=True)
    assert exact.problems == [Problem(b"s", Reason.KEY_IS_BUCKET, keys.CHAIN_ID)]
    assert keys.SNAPSHOT in puts(exact, b"r")
