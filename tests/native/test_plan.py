"""The native plan: equal to the oracle, and its edits do what the plan says."""

from __future__ import annotations

import copy
import gzip
from collections.abc import Mapping
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fixtures
from buildkit_migrate._native.bolt import Reader
from buildkit_migrate._native.facts import MAPPING, Records
from buildkit_migrate._native.plan import Plan
from buildkit_migrate.errors import CorruptDatabaseError
from buildkit_migrate.migration import oracle
from buildkit_migrate.migration.plan import plain_plan, planned_record, read_records
from buildkit_migrate.model import (
    Blob,
    Kind,
    PlainPlan,
    PlainRecords,
    PlainSurvey,
    Reason,
    Snapshot,
)
from buildkit_migrate.values import gojson, keys
from dicts import edited, file_of
from fixtures import bucket
from plain_bbolt import BucketDict
from plans import NOW_STORED, NOW_TEXT, SLOW, native_plan, native_survey, store_of
from strategies import worlds

pytestmark = pytest.mark.slow

# --- Equal to the oracle


@SLOW
@given(worlds(max_records=10), st.booleans())
def test_equals_the_oracle(world: tuple[PlainRecords, PlainSurvey], upstream_exact: bool) -> None:
    records, survey = world
    native = native_plan(store_of(records), survey, upstream_exact=upstream_exact)
    assert plain_plan(native) == oracle.plan(records, survey, upstream_exact=upstream_exact)


CANONICAL = [
    rb'{"value":"mount / from exec /bin/sh -c echo b \u003e /data/b"}',
    b'{"value":-12,"index":"i\\n"}',
    b'{"value":true}',
    b'{"value":null}',
    b'{"value":{"Blobsum":"sha256:1","DiffID":"a"},"index":"blobmap::sha256:1"}',
    b"{}",
]


@st.composite
def almost_canonical(draw: st.DrawFn) -> bytes:
    """A value as BuildKit writes it, with a few bytes put in, left out or changed."""
    value = bytearray(draw(st.sampled_from(CANONICAL)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(value)))
        piece = draw(
            st.sampled_from([b"", b'"', b"\\", b"u", b"0", b"-", b",", b"}", b" ", b"\x1f", b"\xc3", b"e"])
        )
        value[at : at + draw(st.integers(0, 2))] = piece
    return bytes(value) or b"x"


@settings(SLOW, max_examples=1000)
@given(st.sampled_from([b"etag", keys.EQUAL_MUTABLE, keys.BLOB_MAPPING, keys.DIFF_ID]), almost_canonical())
def test_values_are_read_as_go_reads_them(key: bytes, value: bytes) -> None:
    records: PlainRecords = {b"a": {key: value, keys.BLOB: b'{"value":"sha256:%b"}' % (b"0" * 64)}}
    survey = PlainSurvey("s", {b"a": Snapshot(Kind.ACTIVE)}, {b"sha256:1": Blob()})
    assert plain_plan(native_plan(store_of(records), survey)) == oracle.plan(records, survey)


@pytest.mark.parametrize("name", fixtures.REAL_ROOTS)
def test_real_root(name: str) -> None:
    root = fixtures.real_root(name)
    plan = native_plan(root.metadata, root.survey, upstream_exact=True)
    assert plain_plan(plan) == oracle.plan(root.records, root.survey, upstream_exact=True)
    assert edited(plan.records.reader, plan.store_edits()) == root.metadata_v2
    ours = native_plan(root.metadata, root.survey)
    assert plain_plan(ours) == oracle.plan(root.records, root.survey)
    with_sizes = fixtures.with_blob_sizes(root.metadata_v2, root.survey)
    assert edited(ours.records.reader, ours.store_edits()) == with_sizes


@pytest.mark.parametrize("name", fixtures.SYNTHETIC_STORES)
def test_synthetic_store(name: str) -> None:
    store = fixtures.synthetic_store(name)
    data = gzip.decompress((fixtures.directory() / "synthetic" / name / "metadata.db.gz").read_bytes())
    plan = Plan(read_records(Reader(data)), native_survey(store.survey), upstream_exact=True)
    assert plain_plan(plan) == oracle.plan(store.records, store.survey, upstream_exact=True)
    assert edited(plan.records.reader, plan.store_edits()) == store.metadata_v2
    ours = Plan(read_records(Reader(data)), native_survey(store.survey))
    assert plain_plan(ours) == oracle.plan(store.records, store.survey)
    with_sizes = fixtures.with_blob_sizes(store.metadata_v2, store.survey)
    assert edited(ours.records.reader, ours.store_edits()) == with_sizes


def test_store_without_records_gives_an_empty_plan() -> None:
    stores: list[BucketDict] = [{}, {b"_main": {}}, {b"_main": {b"no bucket": b""}}, {b"_main": b"no bucket"}]
    for store in stores:
        plan = native_plan(store, PlainSurvey("overlayfs"))
        assert plain_plan(plan) == PlainPlan()
        assert list(plan.store_edits()) == []
        assert list(plan.containerd_edits(NOW_STORED, NOW_TEXT)) == []


def test_damaged_store_is_refused() -> None:
    data = bytearray(file_of(store_of({b"%d" % i: {b"etag": b"x" * 500} for i in range(100)})))
    data[4 * 4096 : 5 * 4096] = b"\xff" * 4096
    with pytest.raises(CorruptDatabaseError):
        read_records(Reader(bytes(data)))


# --- Edits of the store


@st.composite
def stores(draw: st.DrawFn) -> tuple[BucketDict, PlainSurvey]:
    """Stores with index keys and external data of records, and of none."""
    records, survey = draw(worlds(max_records=10))
    ids = st.sampled_from([*records, b"gone", b""])
    indexes = st.sampled_from([b"i", b"blobchainid:x", b"chainid:sha256:0::x", b"git::", b"z:", b""])
    index = draw(st.lists(st.builds(keys.index_key, indexes, ids) | ids.filter(bool), max_size=6))
    external: dict[bytes, BucketDict] = draw(
        st.dictionaries(ids.filter(bool), st.just({b"name": b"raw"}), max_size=4)
    )
    store = store_of(records)
    if index:
        store[b"_index"] = dict.fromkeys(index, b"")
    has_external = draw(st.booleans())
    if external or has_external:
        store[b"_external"] = {**external}
    return store, survey


def after_migration(store: BucketDict, plan: PlainPlan) -> BucketDict:
    """The store that a plan makes."""
    dropped = {problem.record for problem in plan.problems if problem.reason is not Reason.REPAIRED}
    result = copy.deepcopy(store)
    for name in (b"_main", b"_external"):
        for id in dropped & set(bucket(result, name)):
            del bucket(result, name)[id]
    index = bucket(result, b"_index")
    for key in [key for key in index if keys.record_of_index_key(key) in dropped]:
        del index[key]
    for id, record in plan.records.items():
        bucket(result, b"_main", id).update(record.puts)
        index.update(dict.fromkeys(record.index, b""))
    if index:
        result[b"_index"] = index
    return result


@SLOW
@given(stores())
def test_store_edits_make_the_new_store(world: tuple[BucketDict, PlainSurvey]) -> None:
    store, survey = world
    plan = native_plan(store, survey)
    assert edited(plan.records.reader, plan.store_edits()) == after_migration(store, plain_plan(plan))


def test_index_keys_of_odd_texts_are_in_order() -> None:
    """The chainID of a base layer is its diffID, whatever that is; "::" may occur in texts and ids."""
    digest = b"sha256:" + b"1" * 64
    records: dict[bytes, dict[bytes, bytes | None]] = {}
    texts = [b"a", b"a::b", b"a:", b"sha256:", b"sha256:00000000", b"sha256:00000000::", digest, b"z" * 200]
    for number, text in enumerate([*texts, "sha256:é".encode(), b"a"]):
        for id in (b"%d" % number, b"b::%d" % number, b":%d" % number, b"c", b"b::c"):
            mapping = b'{"value":{"Blobsum":"%b","DiffID":"%b"}}' % (digest, text)
            records[id] = {keys.BLOB_MAPPING: mapping}
    survey = PlainSurvey("s", {id: Snapshot(Kind.COMMITTED) for id in records}, {digest: Blob(True)})
    plan = native_plan(store_of(records), survey)
    plain = oracle.plan(records, survey)
    assert plain_plan(plan) == plain
    assert edited(plan.records.reader, plan.store_edits()) == after_migration(store_of(records), plain)


def test_index_key_shared_by_two_records_is_put_once() -> None:
    """Two ids with "::" can give the same index key."""
    digest = b"sha256:" + b"1" * 64
    records: dict[bytes, dict[bytes, bytes | None]] = {
        id: {keys.BLOB_MAPPING: b'{"value":{"Blobsum":"%b","DiffID":"%b"}}' % (digest, diff_id)}
        for id, diff_id in ((b"b::c", b"a"), (b"c", b"a::b"))
    }
    survey = PlainSurvey("s", {id: Snapshot(Kind.COMMITTED) for id in records}, {digest: Blob(True)})
    plan = native_plan(store_of(records), survey)
    expected = after_migration(store_of(records), plain_plan(plan))
    assert b"chainid:a::b::c" in bucket(expected, b"_index")
    assert edited(plan.records.reader, plan.store_edits()) == expected


def test_new_index_key_is_kept_although_it_ends_like_a_dropped_record() -> None:
    digest = b"sha256:" + b"1" * 64
    mapping = b'{"value":{"Blobsum":"%b","DiffID":"d"}}' % digest
    store = store_of({b"a::gone": {keys.BLOB_MAPPING: mapping}, b"gone": {}})
    store[b"_index"] = {b"chainid:d::a::gone": b"", b"chainid:d::gone": b""}
    plan = native_plan(store, PlainSurvey("s", {b"a::gone": Snapshot(Kind.COMMITTED)}, {digest: Blob(True)}))
    expected = after_migration(store, plain_plan(plan))
    assert [key for key in bucket(expected, b"_index") if key.startswith(b"chain")] == [b"chainid:d::a::gone"]
    assert edited(plan.records.reader, plan.store_edits()) == expected


def test_edits_of_many_chunks_are_complete() -> None:
    """More than a chunk in each stream, and one record that is larger than a chunk."""
    long = b"p" * 600_000
    records: PlainRecords = {b"r%05d" % i: {b"snapshot.size": b'{"value":1}'} for i in range(12_000)}
    survey = PlainSurvey(
        "s", {id: Snapshot(Kind.ACTIVE, long if id == b"r00500" else b"", True) for id in records}
    )
    plan = native_plan(store_of(records), survey)
    chunks = list(plan.store_edits())
    assert len(chunks) > 2
    assert edited(plan.records.reader, chunks) == after_migration(
        store_of(records), oracle.plan(records, survey)
    )
    assert len(list(plan.containerd_edits(NOW_STORED, NOW_TEXT))) > 2


# --- What is shown


def _has_equal_mutable(values: Mapping[bytes, bytes | None]) -> bool:
    try:
        return bool(gojson.string(values.get(keys.EQUAL_MUTABLE)))
    except gojson.UndecodableValueError:
        return False


@SLOW
@given(worlds(max_records=10))
def test_counts_agree_with_the_plan(world: tuple[PlainRecords, PlainSurvey]) -> None:
    records, survey = world
    plain = oracle.plan(records, survey)
    kept = plain.records.values()
    needing = {id for id, values in records.items() if not _has_equal_mutable(values)}
    left = {name for name, s in survey.snapshots.items() if s.root_label} - plain.unlabel_snapshots
    assert native_plan(store_of(records), survey).counts == {
        "records": len(records),
        "snapshots_needed": len(needing),
        "snapshots_found": len(needing & survey.snapshots.keys()),
        "kept": len(kept),
        "dropped": len(records) - len(kept),
        "committed": sum(keys.COMMITTED in record.puts for record in kept),
        "blobs": sum(keys.BLOB in record.puts for record in kept),
        "blob_sizes": sum(keys.BLOB_SIZE in record.puts for record in kept),
        "chains": sum(keys.CHAIN_ID in record.puts for record in kept),
        "leases_to_create": sum(record.create_lease for record in kept),
        "leases_to_keep": sum(record.keep_lease for record in kept),
        "resources_to_add": sum(len(record.add_resources) for record in kept),
        "unlabel_snapshots": len(plain.unlabel_snapshots),
        "unlabel_blobs": len(plain.unlabel_blobs),
        "views": sum(survey.snapshots[name].kind is Kind.VIEW for name in plain.unlabel_snapshots),
        "labels_left_snapshots": len(left),
        "labels_left_blobs": len(
            {d for d, blob in survey.blobs.items() if blob.root_label} - plain.unlabel_blobs
        ),
    }


@SLOW
@given(worlds(max_records=10))
def test_shown_record_agrees_with_the_new_store(world: tuple[PlainRecords, PlainSurvey]) -> None:
    records, survey = world
    plan = native_plan(store_of(records), survey)
    plain = plain_plan(plan)
    assert [planned_record(plan, i).id for i in range(len(plan.records))] == sorted(records)
    for index, id in enumerate(sorted(records)):
        shown = planned_record(plan, index)
        assert shown.dropped == (id not in plain.records)
        if shown.dropped:
            continue
        values = {**records[id], **plain.records[id].puts}
        assert shown.committed == (keys.COMMITTED in plain.records[id].puts)
        assert shown.parent == gojson.string(values.get(keys.PARENT))
        assert shown.snapshot == gojson.string(values[keys.SNAPSHOT])
        assert shown.blob == gojson.string(values.get(keys.BLOB))
        assert shown.diff_id == gojson.string(values.get(keys.DIFF_ID))
    with pytest.raises(IndexError):
        planned_record(plan, len(records))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("text", TypeError),
        (("text",), TypeError),
        ((None,), TypeError),
        ((), ValueError),
        ((b"a", b"b"), ValueError),
    ],
)
def test_a_decoder_returns_texts(answer: Any, error: type[Exception]) -> None:
    odd = Reader(file_of(store_of({b"a": {keys.EQUAL_MUTABLE: b' {"value":"b"}'}})))
    with pytest.raises(error):
        Records(odd, lambda form, value: answer)
    assert len(read_records(odd)) == 1  # the reader can still be used


def test_what_a_decoder_raises_comes_out() -> None:
    def fail(form: int, value: bytes) -> NoReturn:
        raise KeyError(form, value)

    odd = Reader(file_of(store_of({b"a": {keys.BLOB_MAPPING: b" {}"}})))
    with pytest.raises(KeyError) as caught:
        Records(odd, fail)
    assert caught.value.args == (MAPPING, b" {}")


def test_a_dropped_record_has_nothing_but_its_id() -> None:
    plan = native_plan(store_of({b"a": {keys.DIFF_ID: b'{"value":"d"}'}}), PlainSurvey("s"))
    assert plan.is_dropped(0)
    assert plan.texts(0) == (b"a", b"", b"", b"", b"", b"")
    assert plan.puts(0) == {}
    assert plan.lease(0) == (False, False, frozenset())
    assert not plan.is_committed(0)
    assert not plan.writes_chain(0)


def test_unknown_record_is_an_error() -> None:
    plan = native_plan(store_of({b"a": {}}), PlainSurvey("s"))
    for use in (plan.is_dropped, plan.is_committed, plan.writes_chain, plan.texts, plan.puts, plan.lease):
        for index in (-1, 1):
            with pytest.raises(IndexError):
                use(index)
