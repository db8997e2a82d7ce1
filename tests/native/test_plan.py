"""The native plan: equal to the oracle, and its edits do what the plan says."""

from __future__ import annotations

import copy
import gzip
import struct
from collections.abc import Mapping
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fixtures
from buildkit_migrate._native.bolt import Reader
from buildkit_migrate._native.facts import MAPPING, Records, Survey
from buildkit_migrate._native.plan import Plan
from buildkit_migrate.containerd.plain import read_state
from buildkit_migrate.errors import CorruptDatabaseError
from buildkit_migrate.migration import oracle
from buildkit_migrate.migration.plan import cautions_of, plain_plan, planned_record, problems_of, read_records
from buildkit_migrate.model import (
    Blob,
    Caution,
    Kind,
    PlainPlan,
    PlainRecords,
    PlainSurvey,
    Problem,
    Reason,
    Snapshot,
)
from buildkit_migrate.values import gojson, keys
from buildkit_migrate.values.times import stored_time, text_time
from dicts import edited, file_of
from fixtures import EXPIRE_LABEL, Tree, bucket
from strategies import worlds

SLOW = settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
NOW = 1_600_000_000_120_000_000
NOW_STORED = struct.pack(">BqIh", 1, 62135596800 + 1_600_000_000, 120_000_000, -1)
NOW_TEXT = b"2020-09-13T12:26:40.12Z"
ZERO_TIME = b"\x01" + bytes(12) + b"\xff\xff"
EARLIER = struct.pack(">BqIh", 1, 62135596800, 5, -1)


def store_of(records: PlainRecords) -> Tree:
    main: Tree = {}
    for id, record in records.items():
        main[id] = {key: {b"k": b"v"} if value is None else value for key, value in record.items()}
    return {b"_main": main}


def native_survey(survey: PlainSurvey) -> Survey:
    return Survey(
        survey.snapshotter,
        [(name, s.kind, s.parent, s.root_label) for name, s in survey.snapshots.items()],
        [(digest, blob.root_label, blob.size) for digest, blob in survey.blobs.items()],
        survey.leases.items(),
        expiring=survey.expiring_leases,
    )


def native_plan(store: Tree, survey: PlainSurvey, *, upstream_exact: bool = False) -> Plan:
    records = read_records(Reader(file_of(store)))
    return Plan(records, native_survey(survey), upstream_exact=upstream_exact)


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


def test_store_without_records() -> None:
    stores: list[Tree] = [{}, {b"_main": {}}, {b"_main": {b"no bucket": b""}}, {b"_main": b"no bucket"}]
    for store in stores:
        plan = native_plan(store, PlainSurvey("overlayfs"))
        assert plain_plan(plan) == PlainPlan()
        assert list(plan.store_edits()) == []
        assert list(plan.containerd_edits(NOW_STORED, NOW_TEXT)) == []


def test_damaged_store() -> None:
    data = bytearray(file_of(store_of({b"%d" % i: {b"etag": b"x" * 500} for i in range(100)})))
    data[4 * 4096 : 5 * 4096] = b"\xff" * 4096
    with pytest.raises(CorruptDatabaseError):
        read_records(Reader(bytes(data)))


# --- Edits of the store


@st.composite
def stores(draw: st.DrawFn) -> tuple[Tree, PlainSurvey]:
    """Stores whose records have index keys and external values, and keys that belong to no record."""
    records, survey = draw(worlds(max_records=10))
    ids = st.sampled_from([*records, b"gone", b""])
    indexes = st.sampled_from([b"i", b"blobchainid:x", b"chainid:sha256:0::x", b"git::", b"z:", b""])
    index = draw(st.lists(st.builds(keys.index_key, indexes, ids) | ids.filter(bool), max_size=6))
    external: dict[bytes, Tree] = draw(
        st.dictionaries(ids.filter(bool), st.just({b"name": b"raw"}), max_size=4)
    )
    store = store_of(records)
    if index:
        store[b"_index"] = dict.fromkeys(index, b"")
    has_external = draw(st.booleans())
    if external or has_external:
        store[b"_external"] = {**external}
    return store, survey


def after_migration(store: Tree, plan: PlainPlan) -> Tree:
    """What a plan makes of a store."""
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
def test_store_edits_make_the_new_store(world: tuple[Tree, PlainSurvey]) -> None:
    store, survey = world
    plan = native_plan(store, survey)
    assert edited(plan.records.reader, plan.store_edits()) == after_migration(store, plain_plan(plan))


def test_index_keys_of_odd_texts_come_in_order() -> None:
    """A base layer's chain id is its diffID, whatever that is; "::" in texts and ids may meet."""
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


def test_records_with_one_index_key() -> None:
    """Ids with "::" can make the same key of two records; it is put once."""
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


def test_new_index_key_that_looks_like_one_of_a_dropped_record() -> None:
    digest = b"sha256:" + b"1" * 64
    mapping = b'{"value":{"Blobsum":"%b","DiffID":"d"}}' % digest
    store = store_of({b"a::gone": {keys.BLOB_MAPPING: mapping}, b"gone": {}})
    store[b"_index"] = {b"chainid:d::a::gone": b"", b"chainid:d::gone": b""}
    plan = native_plan(store, PlainSurvey("s", {b"a::gone": Snapshot(Kind.COMMITTED)}, {digest: Blob(True)}))
    expected = after_migration(store, plain_plan(plan))
    assert [key for key in bucket(expected, b"_index") if key.startswith(b"chain")] == [b"chainid:d::a::gone"]
    assert edited(plan.records.reader, plan.store_edits()) == expected


def test_streams_of_many_chunks() -> None:
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


# --- containerd's database


def databases_of(survey: PlainSurvey, namespace: bytes = b"buildkit") -> tuple[Tree, Tree]:
    """containerd's database and the snapshotter's own, as a survey of them says."""
    backend: Tree = {b"left over": {b"kind": b"\1"}}
    snapshots: Tree = {b"no backend": {b"name": b"x", b"labels": {fixtures.ROOT_LABEL: b"t"}}, b"leaf": b""}
    for number, (name, snapshot) in enumerate(survey.snapshots.items()):
        backend_name = b"%b/%d/%b" % (namespace, number, name)
        backend[backend_name] = {b"kind": bytes([snapshot.kind])}
        snapshots[name] = {b"name": backend_name, **_labels(number, snapshot.root_label)}
        if snapshot.parent:
            bucket(snapshots, name)[b"parent"] = snapshot.parent
    blobs: Tree = {
        digest: {**_labels(number, blob.root_label), **_size(number, blob.size)}
        for number, (digest, blob) in enumerate(survey.blobs.items())
    }
    leases: Tree = {}
    for id, resources in survey.leases.items():
        lease: Tree = {b"createdat": EARLIER}
        for kind, resource in resources:
            if kind == "content":
                lease.setdefault(b"content", {})[resource] = b""  # type: ignore[index]
            else:
                of_type = lease.setdefault(b"snapshots", {}).setdefault(kind.split("/")[1].encode(), {})  # type: ignore[union-attr]
                of_type[resource] = b""  # type: ignore[index]
        if id in survey.expiring_leases:
            lease[b"labels"] = {EXPIRE_LABEL: survey.expiring_leases[id], b"other": b"l"}
        leases[id] = lease
    containerd: Tree = {
        b"v1": {
            b"version": b"\6",
            b"another": {b"leases": {b"theirs": {}}},
            namespace: {
                b"snapshots": {survey.snapshotter.encode(): snapshots},
                b"content": {b"blob": blobs},
                b"leases": leases,
            },
        }
    }
    return containerd, {b"v1": {b"snapshots": backend}}


def _labels(number: int, root: bool) -> Tree:
    """Labels of an object, in the forms that occur: other labels too, an empty bucket, none."""
    labels: Tree = {b"other": b"l"} if number % 2 else {}
    if root:
        labels[fixtures.ROOT_LABEL] = b"2020"
    entry: Tree = {b"createdat": EARLIER} if number % 3 else {}
    return {**entry, b"labels": labels} if labels or number % 4 else entry


STORED_SIZES = {
    b"": None,
    b"\0": None,
    b"\x01": None,  # -1
    b"\x02": 1,
    b"\x80\x40": 4096,
    b"\x80\x40\x80\xff": 4096,  # what follows the number does not count
    b"\x82\x00": 1,
    b"\x80": None,  # cut short
    b"\xff" * 9: None,
    b"\xff" * 9 + b"\x01": None,  # -2**63
    b"\xfe" + b"\xff" * 8 + b"\x01": 2**63 - 1,
    b"\xfe" + b"\xff" * 8 + b"\x03": None,  # more than 64 bits
    b"\xfe" + b"\xff" * 9 + b"\x00": None,
}
"""What containerd's database can say of a size, and what that is."""

UNKNOWN_SIZES = [stored for stored, size in STORED_SIZES.items() if size is None]


def _size(number: int, size: int | None) -> Tree:
    """A size in one of the forms that say it."""
    if size is None:
        forms = [{}, {b"size": {}}, *({b"size": stored} for stored in UNKNOWN_SIZES)]
        return forms[number % len(forms)]
    groups = [2 * size >> shift & 0x7F for shift in range(0, (2 * size).bit_length(), 7)]
    stored = bytes([group | 0x80 for group in groups[:-1]] + groups[-1:])
    return {b"size": stored + b"\xff" * (number % 3)}


def after_update(containerd: Tree, plan: PlainPlan, snapshotter: bytes) -> Tree:
    result = copy.deepcopy(containerd)
    namespace = bucket(result, b"v1", b"buildkit")
    for digest in plan.unlabel_blobs:
        _unlabel(bucket(namespace, b"content", b"blob", digest)).setdefault(b"size", b"\0")
    for name in plan.unlabel_snapshots:
        _unlabel(bucket(namespace, b"snapshots", snapshotter, name))
    for id, record in plan.records.items():
        if record.create_lease:
            bucket(namespace, b"leases")[id] = {
                b"createdat": NOW_STORED,
                b"labels": {fixtures.FLAT_LABEL: NOW_TEXT},
            }
        lease = bucket(namespace, b"leases", id)
        if record.keep_lease:
            del bucket(lease, b"labels")[EXPIRE_LABEL]
        for kind, resource in record.add_resources:
            path = [b"content"] if kind == "content" else [b"snapshots", snapshotter]
            at = lease
            for step in path:
                at = at.setdefault(step, {})  # type: ignore[assignment]
            at[resource] = b""
    return result


def _unlabel(entry: Tree) -> Tree:
    bucket(entry, b"labels").pop(fixtures.ROOT_LABEL)
    entry.setdefault(b"createdat", ZERO_TIME)
    entry[b"updatedat"] = NOW_STORED
    return entry


@SLOW
@given(worlds(max_records=10))
def test_offline_survey_and_containerd_edits(world: tuple[PlainRecords, PlainSurvey]) -> None:
    records, survey = world
    containerd, backend = databases_of(survey)
    metadata = Reader(file_of(containerd))
    offline = Survey.offline(metadata, Reader(file_of(backend)), "buildkit", survey.snapshotter)
    expected = oracle.plan(records, survey)
    plan = Plan(read_records(Reader(file_of(store_of(records)))), offline)
    assert plain_plan(plan) == expected
    snapshotter = survey.snapshotter.encode()
    assert edited(metadata, plan.containerd_edits(NOW_STORED, NOW_TEXT)) == after_update(
        containerd, expected, snapshotter
    )
    assert {id: (create, resources) for id, create, resources in plan.leases()} == {
        id: (record.create_lease, record.add_resources)
        for id, record in expected.records.items()
        if record.create_lease or record.keep_lease or record.add_resources
    }
    assert list(plan.kept_leases()) == sorted(
        id for id in expected.records if expected.records[id].keep_lease
    )


def offline_size(entry: Tree) -> int | None:
    """The size that a blob with this bucket gives to a record."""
    digest = b"sha256:" + b"1" * 64
    mapping = b'{"value":{"Blobsum":"%b","DiffID":"d"}}' % digest
    survey = PlainSurvey("overlayfs", {b"a": Snapshot(Kind.COMMITTED)})
    containerd, backend = databases_of(survey)
    bucket(containerd, b"v1", b"buildkit", b"content", b"blob")[digest] = entry
    metadata, snapshots = Reader(file_of(containerd)), Reader(file_of(backend))
    records = read_records(Reader(file_of(store_of({b"a": {keys.BLOB_MAPPING: mapping}}))))
    plan = Plan(records, Survey.offline(metadata, snapshots, "buildkit", "overlayfs"))
    size = gojson.integer(plain_plan(plan).records[b"a"].puts.get(keys.BLOB_SIZE))
    assert (size is None) == ((b"a", Caution.NO_BLOB_SIZE) in cautions_of(plan))
    assert read_state(metadata.root, snapshots.root, "buildkit", "overlayfs").blobs == {
        digest: Blob(size=size)
    }
    return size


@pytest.mark.parametrize(("stored", "size"), STORED_SIZES.items())
def test_sizes_of_blobs_are_read_as_containerd_reads_them(stored: bytes, size: int | None) -> None:
    assert offline_size({b"size": stored}) == size


def test_blob_without_a_size() -> None:
    assert offline_size({}) is None
    assert offline_size({b"size": {b"\x02": b"\x02"}}) is None


@given(st.binary(max_size=12))
def test_any_bytes_are_a_size_or_none(stored: bytes) -> None:
    size = offline_size({b"size": stored})
    assert size is None or 0 < size < 2**63


@pytest.mark.parametrize("size", [0, -1, 2**63, -(2**63) - 1])
def test_sizes_that_no_blob_has(size: int) -> None:
    with pytest.raises(ValueError, match=f"{size} bytes"):
        Survey("s", [], [(b"sha256:1", False, size)], [])


def test_offline_survey_of_databases_without_the_buckets() -> None:
    """A bucket that is missing at any level is an empty one."""
    trees: list[Tree] = [{}, {b"v1": {}}, {b"v1": b""}, {b"v1": {b"buildkit": {}}}]
    trees.append({b"v1": {b"buildkit": {b"content": {}, b"leases": {}, b"snapshots": {}}}})
    store = store_of({b"a": {}})
    for tree in trees:
        for backend in (None, Reader(file_of({})), Reader(file_of({b"v1": {b"snapshots": {}}}))):
            offline = Survey.offline(Reader(file_of(tree)), backend, "buildkit", "overlayfs")
            plan = Plan(read_records(Reader(file_of(store))), offline)
            assert problems_of(plan) == [Problem(b"a", Reason.NO_SNAPSHOT)]
            assert list(plan.containerd_edits(NOW_STORED, NOW_TEXT)) == []


def test_other_namespace_and_snapshotter_are_not_looked_at() -> None:
    survey = PlainSurvey("overlayfs", {b"a": Snapshot(Kind.ACTIVE)})
    containerd, backend = (Reader(file_of(tree)) for tree in databases_of(survey))
    records = read_records(Reader(file_of(store_of({b"a": {}}))))
    for namespace, snapshotter, kept in (
        ("buildkit", "overlayfs", 1),
        ("moby", "overlayfs", 0),
        ("buildkit", "btrfs", 0),
    ):
        offline = Survey.offline(containerd, backend, namespace, snapshotter)
        assert Plan(records, offline).counts["kept"] == kept


def test_damaged_databases_are_told_apart() -> None:
    good = Reader(file_of({b"v1": {b"snapshots": {}}}))
    data = bytearray(file_of({b"v1": {b"%d" % i: b"x" * 500 for i in range(100)}}))
    data[3 * 4096 : -4096] = b"\xff" * (len(data) - 4 * 4096)
    damaged = Reader(bytes(data), "damaged.db")
    for pair in ((good, damaged), (damaged, good)):
        with pytest.raises(CorruptDatabaseError, match=r"damaged\.db"):
            Survey.offline(*pair, "buildkit", "overlayfs")


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0, b"2020-09-13T12:26:40Z"), (1, b"2020-09-13T12:26:40.000000001Z"), (12 * 10**7, NOW_TEXT)],
)
def test_time_text(fraction: int, text: bytes) -> None:
    plan = native_plan(store_of({b"a": {}}), PlainSurvey("s", {b"a": Snapshot(Kind.ACTIVE)}))
    now = 1_600_000_000 * 10**9 + fraction
    tree = edited(Reader(file_of({})), plan.containerd_edits(stored_time(now), text_time(now)))
    assert bucket(tree, b"v1", b"buildkit", b"leases", b"a", b"labels") == {fixtures.FLAT_LABEL: text}


# --- What people look at


def _has_equal_mutable(values: Mapping[bytes, bytes | None]) -> bool:
    try:
        return bool(gojson.string(values.get(keys.EQUAL_MUTABLE)))
    except gojson.UndecodableValueError:
        return False


@SLOW
@given(worlds(max_records=10))
def test_counts(world: tuple[PlainRecords, PlainSurvey]) -> None:
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
def test_record_tells_what_the_new_store_says(world: tuple[PlainRecords, PlainSurvey]) -> None:
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


def test_a_record_that_there_is_not_has_nothing() -> None:
    plan = native_plan(store_of({b"a": {}}), PlainSurvey("s"))
    for use in (plan.is_dropped, plan.is_committed, plan.writes_chain, plan.texts, plan.puts, plan.lease):
        for index in (-1, 1):
            with pytest.raises(IndexError):
                use(index)
