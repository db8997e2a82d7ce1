"""The reference model: against the reference's own results, and by hand-written cases."""

from __future__ import annotations

import hashlib
import sys
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
    Resource,
    Snapshot,
)
from buildkit_migrate.values import gojson, keys
from fixtures import Tree

# --- The reference's own results


def migrated(metadata: Tree, plan: PlainPlan) -> Tree:
    """The v2 store that a plan for good input makes of a v1 store."""
    index = dict(fixtures.bucket(metadata, b"_index"))
    main: Tree = dict(fixtures.bucket(metadata, b"_main"))
    for id, record in plan.records.items():
        main[id] = {**fixtures.bucket(main, id), **record.puts}
        index |= dict.fromkeys(record.index, b"")
    return {**metadata, b"_main": main, b"_index": index}


def but_for_blob_sizes(plan: PlainPlan) -> PlainPlan:
    records = {
        id: replace(record, puts={key: value for key, value in record.puts.items() if key != keys.BLOB_SIZE})
        for id, record in plan.records.items()
    }
    return replace(plan, records=records)


@pytest.mark.parametrize("name", fixtures.REAL_ROOTS)
def test_real_root(name: str) -> None:
    root = fixtures.real_root(name)
    plan = oracle.plan(root.records, root.survey, upstream_exact=True)
    assert plan.problems == []
    assert plan.cautions == set()
    assert migrated(root.metadata, plan) == root.metadata_v2
    with_sizes = oracle.plan(root.records, root.survey)
    assert migrated(root.metadata, with_sizes) == fixtures.with_blob_sizes(root.metadata_v2, root.survey)
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
    # What the garbage collector of a live daemon took meanwhile is not protected by the plan.
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
    assert migrated(store.metadata, plan) == store.metadata_v2
    with_sizes = oracle.plan(store.records, store.survey)
    assert migrated(store.metadata, with_sizes) == fixtures.with_blob_sizes(store.metadata_v2, store.survey)
    assert but_for_blob_sizes(with_sizes) == plan

    lease_calls: Counter[fixtures.Call] = Counter()
    for id, record in plan.records.items():
        lease = id.decode()
        lease_calls["leases.Create", lease, fixtures.FLAT_LABEL.decode()] += record.create_lease
        for kind, resource in record.add_resources:
            lease_calls["leases.AddResource", lease, kind, resource.decode()] += 1
    assert lease_calls == {call: n for call, n in store.calls.items() if call[0].startswith("leases.")}

    # The reference also updates what has no label, and some twice; the plan has what that changes.
    field_path = "labels." + fixtures.ROOT_LABEL.decode()
    assert {call[2] for call in store.calls if call[0].endswith(".Update")} == {field_path}
    snapshots = {call[1].encode() for call in store.calls if call[0] == "snapshots.Update"}
    blobs = {call[1].encode() for call in store.calls if call[0] == "content.Update"}
    assert plan.unlabel_snapshots == snapshots & _labelled_snapshots(store.survey)
    assert plan.unlabel_blobs == blobs & _labelled_blobs(store.survey)


# --- One case for each rule

BLOB = b"sha256:" + b"1" * 64
BLOB_2 = b"sha256:" + b"2" * 64
DIFF = b"sha256:" + b"d" * 64
DIFF_2 = b"sha256:" + b"e" * 64
COMMITTED = Snapshot(Kind.COMMITTED)
ACTIVE = Snapshot(Kind.ACTIVE)
VIEW = Snapshot(Kind.VIEW)


def hashed(text: bytes) -> bytes:
    return b"sha256:" + hashlib.sha256(text).hexdigest().encode()


def mapping(blob: bytes, diff_id: bytes) -> bytes:
    return b'{"value":{"Blobsum":"%b","DiffID":"%b"},"index":"blobmap::%b"}' % (blob, diff_id, blob)


def text(value: bytes) -> bytes:
    return b'{"value":"%b"}' % value


def em(target: bytes) -> dict[bytes, bytes]:
    return {keys.EQUAL_MUTABLE: text(target)}


def parent(target: bytes) -> dict[bytes, bytes]:
    return {keys.PARENT: text(target)}


LAYER = {keys.BLOB_MAPPING: mapping(BLOB, DIFF)}
"""A record's mapping to a blob that is there (in `planned`)."""


def planned(
    records: PlainRecords,
    snapshots: dict[bytes, Snapshot],
    *,
    blobs: dict[bytes, Blob] | None = None,
    leases: dict[bytes, set[Resource]] | None = None,
    upstream_exact: bool = False,
) -> PlainPlan:
    blobs = {BLOB: Blob(True, 11), BLOB_2: Blob(True, 22)} if blobs is None else blobs
    survey = PlainSurvey("overlayfs", snapshots, blobs, leases or {})
    return oracle.plan(records, survey, upstream_exact=upstream_exact)


def puts(plan: PlainPlan, id: bytes) -> dict[bytes, bytes]:
    return plan.records[id].puts


def test_nothing() -> None:
    assert planned({}, {}) == PlainPlan()


def test_mutable_record() -> None:
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


def test_base_and_layer_above_it() -> None:
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
        {b"base": {}, b"em": em(b"m"), b"m": {}, b"n": em(b"o"), b"o": {}},
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
    chain = {b"%03d" % i: em(b"%03d" % (i + 1)) for i in range(50)} | {b"050": {}, b"base": {}}
    plan = planned(chain, {b"050": Snapshot(Kind.ACTIVE, b"base"), b"base": COMMITTED})
    assert {puts(plan, b"%03d" % i)[keys.PARENT] for i in range(51)} == {text(b"base")}


def test_equal_mutable_record_keeps_a_parent_and_its_labels() -> None:
    plan = planned(
        {b"base": {}, b"em": em(b"m") | parent(b"base") | LAYER, b"m": {}},
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


def test_cleared_and_null_equal_mutable_count_as_absent() -> None:
    records = {b"a": {keys.EQUAL_MUTABLE: b""}, b"b": {keys.EQUAL_MUTABLE: b'{"value":null}'}}
    plan = planned(records, {b"a": COMMITTED, b"b": COMMITTED})
    assert set(plan.records) == {b"a", b"b"}
    assert keys.EQUAL_MUTABLE not in puts(plan, b"a")


def test_missing_blob_is_normal() -> None:
    plan = planned({b"r": LAYER}, {b"r": COMMITTED}, blobs={})
    assert set(puts(plan, b"r")) == {keys.COMMITTED, keys.SNAPSHOT}
    assert (plan.problems, plan.cautions) == ([], set())


@pytest.mark.parametrize("stored", [b"{}", b"null", b'{"value":null}', b'{"index":"i"}'])
def test_empty_blob_mapping_is_skipped_with_caution(stored: bytes) -> None:
    plan = planned({b"r": {keys.BLOB_MAPPING: stored}}, {b"r": COMMITTED})
    assert set(puts(plan, b"r")) == {keys.COMMITTED, keys.SNAPSHOT}
    assert plan.cautions == {(b"r", Caution.EMPTY_BLOB_MAPPING)}


def test_cleared_blob_mapping_is_absent() -> None:
    plan = planned({b"r": {keys.BLOB_MAPPING: b""}}, {b"r": COMMITTED})
    assert (plan.problems, plan.cautions) == ([], set())


def test_complete_chain_ids_are_kept_without_index_and_used() -> None:
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


def test_labels_go_from_records_and_views_only() -> None:
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


def problem_of(plan: PlainPlan, id: bytes) -> tuple[Reason, bytes]:
    """The one problem of a record; a dropped record has no part in the plan."""
    [problem] = [problem for problem in plan.problems if problem.record == id]
    assert (id in plan.records) == (problem.reason is Reason.REPAIRED)
    return problem.reason, problem.detail


def test_bad_id() -> None:
    plan = planned({b"\xff": {b"etag": b"x"}, b"ok": {}}, {b"\xff": COMMITTED, b"ok": COMMITTED})
    assert problem_of(plan, b"\xff") == (Reason.BAD_ID, b"")
    assert set(plan.records) == {b"ok"}


BLOB_SIZES = [1, 4096, 2**53 + 1, 2**63 - 1]


@pytest.mark.parametrize("size", BLOB_SIZES)
def test_blob_gets_its_size(size: int) -> None:
    plan = planned({b"r": LAYER}, {b"r": COMMITTED}, blobs={BLOB: Blob(size=size)})
    assert puts(plan, b"r")[keys.BLOB_SIZE] == b'{"value":%d}' % size
    assert plan.cautions == set()
    exact = planned({b"r": LAYER}, {b"r": COMMITTED}, blobs={BLOB: Blob(size=size)}, upstream_exact=True)
    assert exact == but_for_blob_sizes(plan)
    assert keys.BLOB_SIZE not in puts(exact, b"r")


def test_blob_without_size() -> None:
    plan = planned({b"r": LAYER}, {b"r": COMMITTED}, blobs={BLOB: Blob()})
    assert keys.BLOB_SIZE not in puts(plan, b"r")
    assert plan.cautions == {(b"r", Caution.NO_BLOB_SIZE)}
    exact = planned({b"r": LAYER}, {b"r": COMMITTED}, blobs={BLOB: Blob()}, upstream_exact=True)
    assert exact == replace(plan, cautions=set())


def test_size_that_v1_has_already() -> None:
    """It is overwritten where the blob is, be it right or wrong, and left alone elsewhere."""
    stored = {keys.BLOB_SIZE: b'{"value":7}'}
    records: PlainRecords = {b"layer": LAYER | stored, b"other": {keys.BLOB: text(BLOB), **stored}}
    plan = planned(records, dict.fromkeys(records, COMMITTED))
    assert puts(plan, b"layer")[keys.BLOB_SIZE] == b'{"value":11}'
    assert keys.BLOB_SIZE not in puts(plan, b"other")
    exact = planned(records, dict.fromkeys(records, COMMITTED), upstream_exact=True)
    assert keys.BLOB_SIZE not in puts(exact, b"layer")


def test_bucket_in_the_place_of_a_size() -> None:
    """It is in the way of the size, so there is no problem without one."""
    records: PlainRecords = {b"r": {keys.BLOB_SIZE: None}, b"s": {keys.BLOB_SIZE: None, keys.CHAIN_ID: None}}
    snapshots = dict.fromkeys(records, COMMITTED)
    plan = planned(records, snapshots)
    assert plan.problems == [Problem(id, Reason.KEY_IS_BUCKET, keys.BLOB_SIZE) for id in records]
    exact = planned(records, snapshots, upstream_exact=True)
    assert exact.problems == [Problem(b"s", Reason.KEY_IS_BUCKET, keys.CHAIN_ID)]
    assert keys.SNAPSHOT in puts(exact, b"r")


def test_undecodable_names_the_first_key() -> None:
    stored = {b"b": b"x", b"a": b"", b"c": b"x", keys.EQUAL_MUTABLE: text(b"none")}
    assert problem_of(planned({b"r": stored}, {}), b"r") == (Reason.UNDECODABLE, b"b")


def test_blob_mapping_must_decode_as_one_even_without_its_blob() -> None:
    plan = planned({b"r": {keys.BLOB_MAPPING: b'{"value":"b"}'}}, {b"r": COMMITTED}, blobs={})
    assert problem_of(plan, b"r") == (Reason.UNDECODABLE, keys.BLOB_MAPPING)


@pytest.mark.parametrize("key", sorted(keys.WRITTEN))
def test_bucket_under_a_key_that_is_written(key: bytes) -> None:
    assert problem_of(planned({b"r": {key: None}}, {b"r": COMMITTED}), b"r") == (Reason.KEY_IS_BUCKET, key)


@pytest.mark.parametrize("key", [keys.EQUAL_MUTABLE, keys.BLOB_MAPPING, b"etag", b"_x"])
def test_bucket_under_another_key_is_absent(key: bytes) -> None:
    plan = planned({b"r": {key: None}}, {b"r": COMMITTED})
    assert (plan.problems, plan.cautions) == ([], set())


def test_bucket_and_undecodable_value_come_in_the_order_of_keys() -> None:
    first = {keys.BLOB: None, keys.SNAPSHOT: b"x"}
    second = {keys.BLOB: b"x", keys.SNAPSHOT: None}
    plan = planned({b"1": first, b"2": second}, {b"1": COMMITTED, b"2": COMMITTED})
    assert problem_of(plan, b"1") == (Reason.KEY_IS_BUCKET, keys.BLOB)
    assert problem_of(plan, b"2") == (Reason.UNDECODABLE, keys.BLOB)


def test_equal_mutable_cycle() -> None:
    plan = planned({b"a": em(b"b"), b"b": em(b"a"), b"c": em(b"a"), b"self": em(b"self")}, {b"a": COMMITTED})
    assert problem_of(plan, b"a") == (Reason.CYCLE, b"b")
    assert problem_of(plan, b"b") == (Reason.CYCLE, b"a")
    assert problem_of(plan, b"c") == (Reason.DESCENDANT, b"a")
    assert problem_of(plan, b"self") == (Reason.CYCLE, b"self")


def test_equal_mutable_links_count_as_stored_even_of_undecodable_records() -> None:
    plan = planned({b"a": em(b"b"), b"b": em(b"a") | {b"etag": b"x"}}, {})
    assert problem_of(plan, b"a") == (Reason.CYCLE, b"b")
    assert problem_of(plan, b"b") == (Reason.UNDECODABLE, b"etag")


@pytest.mark.parametrize("own", [None, ACTIVE, VIEW])
def test_no_target(own: Snapshot | None) -> None:
    plan = planned({b"em": em(b"gone")}, {} if own is None else {b"em": own})
    assert problem_of(plan, b"em") == (Reason.NO_TARGET, b"gone")


def test_target_without_snapshot_takes_its_record_down() -> None:
    plan = planned({b"em": em(b"m"), b"m": {}}, {b"em": ACTIVE})
    assert problem_of(plan, b"m") == (Reason.NO_SNAPSHOT, b"")
    assert problem_of(plan, b"em") == (Reason.DESCENDANT, b"m")


@pytest.mark.parametrize("target", [{}, {b"m": {}}], ids=["no record", "no snapshot"])
def test_repaired(target: PlainRecords) -> None:
    plan = planned(
        {b"base": {}, b"em": em(b"m") | LAYER, **target},
        {b"base": COMMITTED, b"em": Snapshot(Kind.COMMITTED, b"base", root_label=True)},
    )
    assert problem_of(plan, b"em") == (Reason.REPAIRED, b"m")
    expected = {keys.EQUAL_MUTABLE: b"", keys.PARENT: text(b"base"), keys.COMMITTED: b'{"value":true}'}
    assert puts(plan, b"em").items() >= expected.items()
    assert plan.unlabel_snapshots == {b"em"}
    assert plan.unlabel_blobs == {BLOB}
    for id in target:
        assert problem_of(plan, id) == (Reason.NO_SNAPSHOT, b"")


def test_equal_mutable_of_a_repaired_record_is_not_repaired() -> None:
    plan = planned({b"a": em(b"b"), b"b": em(b"gone")}, {b"a": COMMITTED, b"b": COMMITTED})
    assert plan.problems == [Problem(b"b", Reason.REPAIRED, b"gone")]
    assert keys.EQUAL_MUTABLE not in puts(plan, b"a")


def test_target_that_is_equal_mutable_needs_no_snapshot() -> None:
    plan = planned({b"a": em(b"b"), b"b": em(b"m"), b"m": {}}, {b"a": COMMITTED, b"m": ACTIVE})
    assert plan.problems == []
    assert keys.EQUAL_MUTABLE not in puts(plan, b"a")


def test_repaired_and_then_dropped() -> None:
    plan = planned({b"em": em(b"gone") | {keys.BLOB: text(b"odd")}}, {b"em": COMMITTED})
    assert plan.problems == [Problem(b"em", Reason.BAD_DIGEST, b"odd")]


def test_no_snapshot() -> None:
    assert problem_of(planned({b"r": {}}, {}), b"r") == (Reason.NO_SNAPSHOT, b"")


@pytest.mark.parametrize(
    "blob",
    [
        b"sha256:" + b"A" * 64,
        b"sha256:" + b"0" * 63,
        b"sha256:" + b"0" * 65,
        b"sha384:" + b"0" * 64,
        b"sha512:" + b"0" * 127,
        b"sha1:" + b"0" * 40,
        b"sha256",
        b"x",
    ],
)
def test_bad_digest(blob: bytes) -> None:
    stored = planned({b"r": {keys.BLOB: text(blob)}}, {b"r": COMMITTED})
    mapped = planned(
        {b"r": {keys.BLOB_MAPPING: mapping(blob, DIFF)}}, {b"r": COMMITTED}, blobs={blob: Blob(True)}
    )
    for plan in (stored, mapped):
        assert problem_of(plan, b"r") == (Reason.BAD_DIGEST, blob)
        assert plan.unlabel_blobs == set()


@pytest.mark.parametrize("blob", [BLOB, b"sha384:" + b"0" * 96, b"sha512:" + b"9" * 128])
def test_good_digest_that_is_not_in_the_content_store(blob: bytes) -> None:
    plan = planned({b"r": {keys.BLOB: text(blob)}}, {b"r": COMMITTED}, blobs={})
    assert plan.records[b"r"].add_resources == {("snapshots/overlayfs", b"r"), ("content", blob)}
    assert plan.unlabel_blobs == set()


def test_index_key_too_long() -> None:
    """bbolt's limit is 32768 bytes; the chainID of a base is its diffID, however long."""
    room = 32768 - len(b"chainid:") - len(b"::")

    def reason(id: bytes, diff_id: bytes, stored: dict[bytes, bytes], parent: bytes = b"") -> Reason | None:
        records = {id: {keys.BLOB_MAPPING: mapping(BLOB, diff_id)} | stored, b"base": {}}
        plan = planned(records, {id: Snapshot(Kind.COMMITTED, parent), b"base": COMMITTED})
        return None if id in plan.records else problem_of(plan, id)[0]

    assert reason(b"r", b"d" * (room - 1), {}) is None
    assert reason(b"r", b"d" * room, {}) is Reason.KEY_TOO_LONG
    assert reason(b"r", b"d" * room, {}, parent=b"base") is None
    assert reason(b"r", b"d" * room, {keys.CHAIN_ID: text(b"c"), keys.BLOB_CHAIN_ID: text(b"b")}) is None
    long_id = 32768 - len(b"blobchainid:" + BLOB + b"::")
    assert reason(b"i" * long_id, DIFF, {}) is None
    assert reason(b"i" * (long_id + 1), DIFF, {}) is Reason.KEY_TOO_LONG


def test_parent_without_record() -> None:
    above_nothing = Snapshot(Kind.COMMITTED, b"gone")
    chain_ids = {keys.CHAIN_ID: text(b"c"), keys.BLOB_CHAIN_ID: text(b"b")}
    records = {b"layer": LAYER, b"no blob": {}, b"chained": LAYER | chain_ids}
    plan = planned(records, dict.fromkeys(records, above_nothing))
    assert problem_of(plan, b"layer") == (Reason.NO_PARENT, b"gone")
    assert set(plan.records) == {b"no blob", b"chained"}
    assert plan.cautions == {
        (b"no blob", Caution.PARENT_WITHOUT_RECORD),
        (b"chained", Caution.PARENT_WITHOUT_RECORD),
    }


def test_parent_cycle() -> None:
    links = {b"0": b"b", b"a": b"b", b"b": b"c", b"c": b"a", b"d": b"a", b"self": b"self"}
    plan = planned(
        {id: {} for id in links}, {id: Snapshot(Kind.COMMITTED, above) for id, above in links.items()}
    )
    assert [(p.record, p.reason, p.detail) for p in plan.problems] == [
        (b"0", Reason.DESCENDANT, b"b"),
        (b"a", Reason.CYCLE, b"b"),
        (b"b", Reason.CYCLE, b"c"),
        (b"c", Reason.CYCLE, b"a"),
        (b"d", Reason.DESCENDANT, b"a"),
        (b"self", Reason.CYCLE, b"self"),
    ]


def test_cycle_through_a_dropped_record_is_none() -> None:
    links = {b"a": b"b", b"b": b"a"}
    snapshots = {id: Snapshot(Kind.COMMITTED, above) for id, above in links.items()}
    plan = planned({b"a": {}, b"b": {keys.BLOB: text(b"odd")}}, snapshots)
    assert problem_of(plan, b"a") == (Reason.DESCENDANT, b"b")
    assert problem_of(plan, b"b") == (Reason.BAD_DIGEST, b"odd")


def test_descendants_name_what_they_depend_on() -> None:
    records = {
        b"bad": {b"etag": b"x"},
        b"child": {},
        b"em": em(b"child"),
        b"both": em(b"child") | parent(b"bad"),
    }
    snapshots = {b"bad": COMMITTED, b"child": Snapshot(Kind.ACTIVE, b"bad")}
    plan = planned(records, snapshots)
    assert problem_of(plan, b"child") == (Reason.DESCENDANT, b"bad")
    assert problem_of(plan, b"em") == (Reason.DESCENDANT, b"child")
    assert problem_of(plan, b"both") == (Reason.DESCENDANT, b"child")
    assert plan.records == {}


def test_deep_chain_needs_no_recursion() -> None:
    depth = 2 * sys.getrecursionlimit()
    ids = [b"%05d" % i for i in range(depth)]
    snapshots = {id: Snapshot(Kind.COMMITTED, above) for id, above in zip(ids, [b"", *ids], strict=False)}
    # Top first in the order of ids, too.
    for order in (snapshots, {id[::-1]: replace(s, parent=s.parent[::-1]) for id, s in snapshots.items()}):
        plan = planned(dict.fromkeys(order, LAYER), order)
        chain = DIFF
        for id in list(order)[1:]:
            chain = hashed(chain + b" " + DIFF)
            assert gojson.string(puts(plan, id)[keys.CHAIN_ID]) == chain
