"""What the oracle refuses or repairs, case by case."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from buildkit_migrate.model import (
    Blob,
    Caution,
    Kind,
    PlainRecords,
    Problem,
    Reason,
    Snapshot,
)
from buildkit_migrate.values import gojson, keys
from oracle_cases import (
    ACTIVE,
    BLOB,
    COMMITTED,
    DIFF,
    LAYER,
    VIEW,
    equal_mutable,
    hashed,
    mapping,
    parent,
    planned,
    problem_of,
    puts,
    text,
)


def test_id_that_is_not_utf8_is_a_problem() -> None:
    plan = planned({b"\xff": {b"etag": b"x"}, b"ok": {}}, {b"\xff": COMMITTED, b"ok": COMMITTED})
    assert problem_of(plan, b"\xff") == (Reason.BAD_ID, b"")
    assert set(plan.records) == {b"ok"}


def test_first_undecodable_key_is_named() -> None:
    stored = {b"b": b"x", b"a": b"", b"c": b"x", keys.EQUAL_MUTABLE: text(b"none")}
    assert problem_of(planned({b"r": stored}, {}), b"r") == (Reason.UNDECODABLE, b"b")


def test_blob_mapping_must_decode_even_if_its_blob_is_missing() -> None:
    plan = planned({b"r": {keys.BLOB_MAPPING: b'{"value":"b"}'}}, {b"r": COMMITTED}, blobs={})
    assert problem_of(plan, b"r") == (Reason.UNDECODABLE, keys.BLOB_MAPPING)


@pytest.mark.parametrize("key", sorted(keys.WRITTEN))
def test_nested_bucket_under_a_written_key_is_a_problem(key: bytes) -> None:
    assert problem_of(planned({b"r": {key: None}}, {b"r": COMMITTED}), b"r") == (Reason.KEY_IS_BUCKET, key)


@pytest.mark.parametrize("key", [keys.EQUAL_MUTABLE, keys.BLOB_MAPPING, b"etag", b"_x"])
def test_nested_bucket_under_another_key_is_ignored(key: bytes) -> None:
    plan = planned({b"r": {key: None}}, {b"r": COMMITTED})
    assert (plan.problems, plan.cautions) == ([], set())


def test_first_faulty_key_decides_the_reason() -> None:
    first = {keys.BLOB: None, keys.SNAPSHOT: b"x"}
    second = {keys.BLOB: b"x", keys.SNAPSHOT: None}
    plan = planned({b"1": first, b"2": second}, {b"1": COMMITTED, b"2": COMMITTED})
    assert problem_of(plan, b"1") == (Reason.KEY_IS_BUCKET, keys.BLOB)
    assert problem_of(plan, b"2") == (Reason.UNDECODABLE, keys.BLOB)


def test_equal_mutable_cycle_is_a_problem_of_its_members() -> None:
    plan = planned(
        {
            b"a": equal_mutable(b"b"),
            b"b": equal_mutable(b"a"),
            b"c": equal_mutable(b"a"),
            b"self": equal_mutable(b"self"),
        },
        {b"a": COMMITTED},
    )
    assert problem_of(plan, b"a") == (Reason.CYCLE, b"b")
    assert problem_of(plan, b"b") == (Reason.CYCLE, b"a")
    assert problem_of(plan, b"c") == (Reason.DESCENDANT, b"a")
    assert problem_of(plan, b"self") == (Reason.CYCLE, b"self")


def test_equal_mutable_cycle_includes_undecodable_records() -> None:
    plan = planned({b"a": equal_mutable(b"b"), b"b": equal_mutable(b"a") | {b"etag": b"x"}}, {})
    assert problem_of(plan, b"a") == (Reason.CYCLE, b"b")
    assert problem_of(plan, b"b") == (Reason.UNDECODABLE, b"etag")


@pytest.mark.parametrize("own", [None, ACTIVE, VIEW])
def test_missing_equal_mutable_target_is_a_problem(own: Snapshot | None) -> None:
    plan = planned({b"em": equal_mutable(b"gone")}, {} if own is None else {b"em": own})
    assert problem_of(plan, b"em") == (Reason.NO_TARGET, b"gone")


def test_target_without_snapshot_drops_its_record() -> None:
    plan = planned({b"em": equal_mutable(b"m"), b"m": {}}, {b"em": ACTIVE})
    assert problem_of(plan, b"m") == (Reason.NO_SNAPSHOT, b"")
    assert problem_of(plan, b"em") == (Reason.DESCENDANT, b"m")


@pytest.mark.parametrize("target", [{}, {b"m": {}}], ids=["no record", "no snapshot"])
def test_committed_record_without_target_is_repaired(target: PlainRecords) -> None:
    plan = planned(
        {b"base": {}, b"em": equal_mutable(b"m") | LAYER, **target},
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
    plan = planned(
        {b"a": equal_mutable(b"b"), b"b": equal_mutable(b"gone")}, {b"a": COMMITTED, b"b": COMMITTED}
    )
    assert plan.problems == [Problem(b"b", Reason.REPAIRED, b"gone")]
    assert keys.EQUAL_MUTABLE not in puts(plan, b"a")


def test_target_that_is_equal_mutable_needs_no_snapshot() -> None:
    plan = planned(
        {b"a": equal_mutable(b"b"), b"b": equal_mutable(b"m"), b"m": {}}, {b"a": COMMITTED, b"m": ACTIVE}
    )
    assert plan.problems == []
    assert keys.EQUAL_MUTABLE not in puts(plan, b"a")


def test_repaired_record_with_another_problem_is_dropped() -> None:
    plan = planned({b"em": equal_mutable(b"gone") | {keys.BLOB: text(b"odd")}}, {b"em": COMMITTED})
    assert plan.problems == [Problem(b"em", Reason.BAD_DIGEST, b"odd")]


def test_missing_snapshot_is_a_problem() -> None:
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
def test_invalid_digest_is_a_problem(blob: bytes) -> None:
    stored = planned({b"r": {keys.BLOB: text(blob)}}, {b"r": COMMITTED})
    mapped = planned(
        {b"r": {keys.BLOB_MAPPING: mapping(blob, DIFF)}}, {b"r": COMMITTED}, blobs={blob: Blob(True)}
    )
    for plan in (stored, mapped):
        assert problem_of(plan, b"r") == (Reason.BAD_DIGEST, blob)
        assert plan.unlabel_blobs == set()


@pytest.mark.parametrize("blob", [BLOB, b"sha384:" + b"0" * 96, b"sha512:" + b"9" * 128])
def test_digest_missing_from_the_content_store_is_leased_nevertheless(blob: bytes) -> None:
    plan = planned({b"r": {keys.BLOB: text(blob)}}, {b"r": COMMITTED}, blobs={})
    assert plan.records[b"r"].add_resources == {("snapshots/overlayfs", b"r"), ("content", blob)}
    assert plan.unlabel_blobs == set()


def test_index_key_over_the_limit_is_a_problem() -> None:
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


def test_parent_without_record_is_a_problem_only_for_chained_layers() -> None:
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


def test_parent_cycle_is_a_problem_of_its_members() -> None:
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


def test_cycle_through_a_dropped_record_is_not_reported_as_one() -> None:
    links = {b"a": b"b", b"b": b"a"}
    snapshots = {id: Snapshot(Kind.COMMITTED, above) for id, above in links.items()}
    plan = planned({b"a": {}, b"b": {keys.BLOB: text(b"odd")}}, snapshots)
    assert problem_of(plan, b"a") == (Reason.DESCENDANT, b"b")
    assert problem_of(plan, b"b") == (Reason.BAD_DIGEST, b"odd")


def test_descendants_name_the_record_they_depend_on() -> None:
    records = {
        b"bad": {b"etag": b"x"},
        b"child": {},
        b"em": equal_mutable(b"child"),
        b"both": equal_mutable(b"child") | parent(b"bad"),
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
