"""The native plan and containerd's databases: what it reads in them, and the edits it makes of them."""

from __future__ import annotations

import copy
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fixtures
from buildkit_migrate._native.bolt import Reader
from buildkit_migrate._native.facts import Survey
from buildkit_migrate._native.plan import Plan
from buildkit_migrate.containerd.plain import read_state
from buildkit_migrate.errors import CorruptDatabaseError
from buildkit_migrate.migration import oracle
from buildkit_migrate.migration.plan import cautions_of, plain_plan, problems_of, read_records
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
from fixtures import EXPIRE_LABEL, bucket
from plain_bbolt import BucketDict
from plans import NOW_STORED, NOW_TEXT, SLOW, native_plan, store_of
from strategies import worlds

pytestmark = pytest.mark.slow

ZERO_TIME = b"\x01" + bytes(12) + b"\xff\xff"
EARLIER = struct.pack(">BqIh", 1, 62135596800, 5, -1)


def databases_of(survey: PlainSurvey, namespace: bytes = b"buildkit") -> tuple[BucketDict, BucketDict]:
    """containerd's database and the snapshotter's, with what a survey says."""
    backend: BucketDict = {b"left over": {b"kind": b"\1"}}
    snapshots: BucketDict = {
        b"no backend": {b"name": b"x", b"labels": {fixtures.ROOT_LABEL: b"t"}},
        b"leaf": b"",
    }
    for number, (name, snapshot) in enumerate(survey.snapshots.items()):
        backend_name = b"%b/%d/%b" % (namespace, number, name)
        backend[backend_name] = {b"kind": bytes([snapshot.kind])}
        snapshots[name] = {b"name": backend_name, **_labels(number, snapshot.root_label)}
        if snapshot.parent:
            bucket(snapshots, name)[b"parent"] = snapshot.parent
    blobs: BucketDict = {
        digest: {**_labels(number, blob.root_label), **_size(number, blob.size)}
        for number, (digest, blob) in enumerate(survey.blobs.items())
    }
    leases: BucketDict = {}
    for id, resources in survey.leases.items():
        lease: BucketDict = {b"createdat": EARLIER}
        for kind, resource in resources:
            if kind == "content":
                lease.setdefault(b"content", {})[resource] = b""  # type: ignore[index]
            else:
                of_type = lease.setdefault(b"snapshots", {}).setdefault(kind.split("/")[1].encode(), {})  # type: ignore[union-attr]
                of_type[resource] = b""  # type: ignore[index]
        if id in survey.expiring_leases:
            lease[b"labels"] = {EXPIRE_LABEL: survey.expiring_leases[id], b"other": b"l"}
        leases[id] = lease
    containerd: BucketDict = {
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


def _labels(number: int, root: bool) -> BucketDict:
    """Labels of an object in each form that occurs: with others, an empty bucket, no bucket."""
    labels: BucketDict = {b"other": b"l"} if number % 2 else {}
    if root:
        labels[fixtures.ROOT_LABEL] = b"2020"
    entry: BucketDict = {b"createdat": EARLIER} if number % 3 else {}
    return {**entry, b"labels": labels} if labels or number % 4 else entry


STORED_SIZES = {
    b"": None,
    b"\0": None,
    b"\x01": None,  # -1
    b"\x02": 1,
    b"\x80\x40": 4096,
    b"\x80\x40\x80\xff": 4096,  # bytes after the number do not count
    b"\x82\x00": 1,
    b"\x80": None,  # cut short
    b"\xff" * 9: None,
    b"\xff" * 9 + b"\x01": None,  # -2**63
    b"\xfe" + b"\xff" * 8 + b"\x01": 2**63 - 1,
    b"\xfe" + b"\xff" * 8 + b"\x03": None,  # more than 64 bits
    b"\xfe" + b"\xff" * 9 + b"\x00": None,
}
"""Stored sizes, and the number that each stands for."""

UNKNOWN_SIZES = [stored for stored, size in STORED_SIZES.items() if size is None]


def _size(number: int, size: int | None) -> BucketDict:
    """A size in one of its stored forms."""
    if size is None:
        forms = [{}, {b"size": {}}, *({b"size": stored} for stored in UNKNOWN_SIZES)]
        return forms[number % len(forms)]
    groups = [2 * size >> shift & 0x7F for shift in range(0, (2 * size).bit_length(), 7)]
    stored = bytes([group | 0x80 for group in groups[:-1]] + groups[-1:])
    return {b"size": stored + b"\xff" * (number % 3)}


def after_update(containerd: BucketDict, plan: PlainPlan, snapshotter: bytes) -> BucketDict:
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


def _unlabel(entry: BucketDict) -> BucketDict:
    bucket(entry, b"labels").pop(fixtures.ROOT_LABEL)
    entry.setdefault(b"createdat", ZERO_TIME)
    entry[b"updatedat"] = NOW_STORED
    return entry


@SLOW
@given(worlds(max_records=10))
def test_offline_survey_and_edits_agree_with_the_oracle(world: tuple[PlainRecords, PlainSurvey]) -> None:
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


def offline_size(entry: BucketDict) -> int | None:
    """The size that a record gets from a blob with this bucket."""
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


def test_missing_size_is_unknown() -> None:
    assert offline_size({}) is None
    assert offline_size({b"size": {b"\x02": b"\x02"}}) is None


@given(st.binary(max_size=12))
def test_any_bytes_give_a_valid_size_or_none(stored: bytes) -> None:
    size = offline_size({b"size": stored})
    assert size is None or 0 < size < 2**63


@pytest.mark.parametrize("size", [0, -1, 2**63, -(2**63) - 1])
def test_impossible_sizes_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"{size} bytes"):
        Survey("s", [], [(b"sha256:1", False, size)], [])


def test_missing_buckets_count_as_empty() -> None:
    """At any level."""
    trees: list[BucketDict] = [{}, {b"v1": {}}, {b"v1": b""}, {b"v1": {b"buildkit": {}}}]
    trees.append({b"v1": {b"buildkit": {b"content": {}, b"leases": {}, b"snapshots": {}}}})
    store = store_of({b"a": {}})
    for tree in trees:
        for backend in (None, Reader(file_of({})), Reader(file_of({b"v1": {b"snapshots": {}}}))):
            offline = Survey.offline(Reader(file_of(tree)), backend, "buildkit", "overlayfs")
            plan = Plan(read_records(Reader(file_of(store))), offline)
            assert problems_of(plan) == [Problem(b"a", Reason.NO_SNAPSHOT)]
            assert list(plan.containerd_edits(NOW_STORED, NOW_TEXT)) == []


def test_other_namespaces_and_snapshotters_are_ignored() -> None:
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


def test_damaged_database_is_named() -> None:
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
