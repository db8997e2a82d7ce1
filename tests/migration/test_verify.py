"""The pure verification finds nothing in any migrated world, and every change to it."""

from __future__ import annotations

import copy
from dataclasses import replace

from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from buildkit_migrate._native.bolt import Reader
from buildkit_migrate._native.plan import Plan
from buildkit_migrate.bolt import BucketView
from buildkit_migrate.migration import oracle
from buildkit_migrate.migration.belonging import is_wrong_place
from buildkit_migrate.migration.findings import Difference, DifferenceKind
from buildkit_migrate.migration.plan import plain_plan, read_records
from buildkit_migrate.migration.verify import store_differences, verify
from buildkit_migrate.model import Kind, PlainPlan, PlainRecords, PlainState, PlainSurvey, Reason, Snapshot
from buildkit_migrate.values import gojson, keys
from dicts import edited, file_of
from fixtures import bucket
from plain_bbolt import BucketDict
from plans import native_survey
from strategies import worlds

# Without shrinking, which takes minutes with these worlds.
SLOW = settings(
    max_examples=60,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

Store = tuple[BucketDict, PlainSurvey]


@st.composite
def stores(draw: st.DrawFn) -> Store:
    """Stores with index keys and external data, of records and of none, and a foreign bucket."""
    records, survey = draw(worlds())
    ids = st.sampled_from([*records, b"gone"])
    index = draw(st.lists(st.builds(keys.index_key, st.sampled_from([b"i", b"git::", b"chainid:x"]), ids)))
    external: BucketDict = {id: {b"name": b"raw", b"none": b""} for id in draw(st.sets(ids))}
    store: BucketDict = {
        b"_main": {id: _bucket_of(record) for id, record in records.items()} | {b"stray": b"key"},
        b"_index": dict.fromkeys(index, b""),
        b"_external": external,
        b"foreign": {b"k": {b"v": b""}},
    }
    for name in draw(st.sets(st.sampled_from(sorted(store)))) - {b"_main"}:
        del store[name]
    # containerd has no snapshot without its parent.
    for snapshot in list(survey.snapshots.values()):
        if snapshot.parent:
            survey.snapshots.setdefault(snapshot.parent, Snapshot(Kind.COMMITTED))
    # A migration refuses a store and a containerd that don't belong together.
    needing = [id for id in records if not _has_equal_mutable(store, id)]
    assume(records and not is_wrong_place(len(needing), sum(id in survey.snapshots for id in needing)))
    return store, survey


def _bucket_of(record: dict[bytes, bytes | None]) -> BucketDict:
    return {key: {b"k": b"v"} if value is None else value for key, value in record.items()}


def migrated(
    store: BucketDict, survey: PlainSurvey, *, upstream_exact: bool = False
) -> tuple[Reader, BucketDict, PlainState]:
    """The v1 file, the content of the v2 file that the migration makes of it, and containerd afterwards."""
    v1 = Reader(file_of(store))
    plan = Plan(
        read_records(v1),
        native_survey(survey),
        upstream_exact=upstream_exact,
    )
    return v1, edited(v1, plan.store_edits()), after(survey, plain_plan(plan))


def after(survey: PlainSurvey, plan: PlainPlan) -> PlainState:
    leases = {id: set(resources) for id, resources in survey.leases.items()}
    for id, record in plan.records.items():
        leases.setdefault(id, set()).update(record.add_resources)
    return PlainState(
        survey.snapshotter,
        {
            name: replace(snapshot, root_label=snapshot.root_label and name not in plan.unlabel_snapshots)
            for name, snapshot in survey.snapshots.items()
        },
        {
            digest: replace(blob, root_label=blob.root_label and digest not in plan.unlabel_blobs)
            for digest, blob in survey.blobs.items()
        },
        leases,
        {id: expire for id, expire in survey.expiring_leases.items() if id not in plan.records},
        set(leases),
    )


@SLOW
@given(stores(), st.booleans())
def test_migrated_store_verifies(store: Store, upstream_exact: bool) -> None:
    content, survey = store
    v1, v2, state = migrated(content, survey, upstream_exact=upstream_exact)
    findings = verify(BucketView(v1.root), v2, state, upstream_exact=upstream_exact)
    assert findings.differences == ()
    plan = oracle.plan(_records(content), survey, upstream_exact=upstream_exact)
    assert findings.records == len(plan.records)
    assert findings.problems == tuple(plan.problems)
    assert findings.upstream_exact == upstream_exact
    assert list(store_differences(content, v2, survey, upstream_exact=upstream_exact)) == []


@SLOW
@given(stores(), st.booleans())
def test_store_shows_whether_blob_sizes_were_written(store: Store, upstream_exact: bool) -> None:
    content, survey = store
    # A nested bucket instead of a size makes a broken record, but not with upstream_exact.
    assume(None not in {record.get(keys.BLOB_SIZE, b"") for record in _records(content).values()})
    _, v2, state = migrated(content, survey, upstream_exact=upstream_exact)
    findings = verify(content, v2, state)
    assert findings.differences == ()
    before, after = _records(content), _records(v2)
    sizes_changed = any(
        record.get(keys.BLOB_SIZE) != before[id].get(keys.BLOB_SIZE) for id, record in after.items()
    )
    assert findings.upstream_exact != sizes_changed


@SLOW
@given(stores(), st.data())
def test_blob_sizes_that_containerd_lost_are_accepted_but_not_other_sizes(
    store: Store, data: st.DataObject
) -> None:
    """v2 has them; where containerd has another size, v2 is wrong."""
    content, survey = store
    _, v2, state = migrated(content, survey)
    blobs = data.draw(st.sets(st.sampled_from(sorted(state.blobs)))) if state.blobs else set()
    for digest in blobs:
        state.blobs[digest] = replace(state.blobs[digest], size=None)
    assert verify(content, v2, state, upstream_exact=False).differences == ()
    for digest, blob in survey.blobs.items():
        state.blobs[digest] = replace(state.blobs[digest], size=(blob.size or 1) % 2**62 + 1)
    plan = oracle.plan(_records(content), survey)
    with_blob = {id for id, record in plan.records.items() if keys.BLOB in record.puts}
    found = verify(content, v2, state, upstream_exact=False).differences
    assert {difference.subject for difference in found} == with_blob
    assert {difference.key for difference in found} <= {keys.BLOB_SIZE}


def _records(store: BucketDict) -> PlainRecords:
    return {
        id: {key: value if isinstance(value, bytes) else None for key, value in record.items()}
        for id, record in bucket(store, b"_main").items()
        if isinstance(record, dict)
    }


@SLOW
@given(stores(), st.data())
def test_any_change_in_v2_is_a_difference(store: Store, data: st.DataObject) -> None:
    """One key is lost, new, or has another value, anywhere in v2."""
    content, survey = store
    _, v2, state = migrated(content, survey)
    paths = sorted(_paths(v2))
    path = data.draw(st.sampled_from(paths))
    *above, name = path
    at = bucket(v2, *above)
    match data.draw(st.sampled_from(["lose", "change", "add"])):
        case "lose":
            del at[name]
        case "change":
            at[name] = b'{"value":"other"}'
        case _:
            at[name + b"!"] = b'{"value":"other"}'
    assert verify(content, v2, state, upstream_exact=False).differences
    assert list(store_differences(content, v2, survey))


def _paths(tree: BucketDict, *above: bytes) -> list[tuple[bytes, ...]]:
    paths = []
    for name, value in tree.items():
        paths.append((*above, name))
        if isinstance(value, dict):
            paths += _paths(value, *above, name)
    return paths


@SLOW
@given(stores(), st.data())
def test_any_loss_in_containerd_is_a_difference(store: Store, data: st.DataObject) -> None:
    content, survey = store
    _, v2, state = migrated(content, survey)
    plan = oracle.plan(_records(content), survey)
    assume(plan.records)
    id = data.draw(st.sampled_from(sorted(plan.records)))
    record = plan.records[id]
    own = state.snapshots.get(id)
    repaired = {problem.record for problem in plan.problems if problem.reason is Reason.REPAIRED}
    has_own = not _has_equal_mutable(content, id) or id in repaired
    match data.draw(st.sampled_from(["lease", "flat", "resource", "label", "snapshot", "kind", "blob"])):
        case "lease":
            del state.leases[id]
            expected = Difference(DifferenceKind.LEASE_MISSING, id)
        case "flat":
            state.flat_leases.remove(id)
            expected = Difference(DifferenceKind.LEASE_NOT_FLAT, id)
        case "resource":
            snapshotter = f"snapshots/{survey.snapshotter}"
            state.leases[id].remove((snapshotter, id))
            expected = Difference(DifferenceKind.RESOURCE_MISSING, id, snapshotter.encode(), id)
        case "label":
            assume(has_own and own is not None)
            assert own is not None
            state.snapshots[id] = replace(own, root_label=True)
            is_view = own.kind is Kind.VIEW
            kind = DifferenceKind.LABEL_ON_VIEW if is_view else DifferenceKind.LABEL_ON_SNAPSHOT
            expected = Difference(kind, id)
        case "snapshot":
            # A parent name that is not UTF-8 is stored in another form.
            assume(has_own and own is not None and b"\xfe" not in own.parent)
            del state.snapshots[id]
            expected = Difference(DifferenceKind.SNAPSHOT_MISSING, id, id)
        case "kind":
            assume(has_own and own is not None and own.kind is Kind.ACTIVE)
            assume(keys.COMMITTED not in bucket(content, b"_main", id))
            state.snapshots[id] = Snapshot(Kind.COMMITTED, own.parent if own else b"")
            value = b'{"value":true}'
            expected = Difference(DifferenceKind.SNAPSHOT_KIND, id, keys.COMMITTED, value, None)
        case _:
            assume(keys.BLOB in record.puts)
            blob = bucket(v2, b"_main", id)[keys.BLOB]
            digest = next(digest for digest in state.blobs if b'"%b"' % digest in _bytes(blob))
            # Otherwise its absence looks as it did in v1.
            assume(blob != bucket(content, b"_main", id).get(keys.BLOB))
            del state.blobs[digest]
            missing = {d.subject for d in verify(content, v2, state).differences}
            assert missing == {digest}
            return
    assert set(verify(content, v2, state).differences) == {expected}


def _has_equal_mutable(store: BucketDict, id: bytes) -> bool:
    return bool(gojson.string(_records(store)[id].get(keys.EQUAL_MUTABLE)))


def _bytes(value: bytes | BucketDict) -> bytes:
    assert isinstance(value, bytes)
    return value


def test_verify_does_not_change_its_arguments() -> None:
    content: BucketDict = {b"_main": {b"a": {b"etag": b'{"value":"1"}'}}}
    survey = PlainSurvey("s", {b"a": Snapshot(Kind.ACTIVE, b"", True)})
    _, v2, state = migrated(content, survey)
    before = copy.deepcopy((content, v2, state))
    assert verify(content, v2, state).differences == ()
    assert before == (content, v2, state)


def test_unrelated_containerd_is_a_difference() -> None:
    """The result of a migration with the wrong containerd, had it not been refused."""
    content: BucketDict = {b"_main": {b"%02d" % number: {b"etag": b'{"value":"1"}'} for number in range(21)}}
    survey = PlainSurvey("s", {b"other": Snapshot(Kind.COMMITTED, b"", True)})
    for right in (0, 1, 2):
        survey.snapshots[b"%02d" % right] = Snapshot(Kind.ACTIVE)
        _, v2, state = migrated(content, survey)
        differences = verify(content, v2, state).differences
        wrong = Difference(
            DifferenceKind.WRONG_PLACE, b"s", b"", b"snapshots of 21 records", b"%d" % (right + 1)
        )
        assert differences == (() if right == 2 else (wrong,))


def test_missing_records_are_a_difference_if_containerd_holds_objects() -> None:
    survey = PlainSurvey("s", {b"other": Snapshot(Kind.COMMITTED, b"", True)})
    _, v2, state = migrated({}, survey)
    found = b"none, and 1 snapshots and blobs with the gc.root label"
    assert verify({}, v2, state).differences == (
        Difference(DifferenceKind.WRONG_PLACE, b"s", b"", b"records in v1", found),
    )
    state.snapshots[b"other"] = Snapshot(Kind.COMMITTED)
    assert verify({}, v2, state).differences == ()


def test_leases_that_containerd_would_delete_are_differences() -> None:
    content: BucketDict = {b"_main": {b"a": {b"etag": b'{"value":"1"}'}}}
    survey = PlainSurvey("s", {b"a": Snapshot(Kind.ACTIVE)})
    _, v2, state = migrated(content, survey)
    second = 10**9
    for expire, now, kind in (
        (b"1970-01-01T00:00:02Z", 3 * second, DifferenceKind.LEASE_EXPIRED),
        (b"1970-01-01T01:00:02.5+01:00", 3 * second, DifferenceKind.LEASE_EXPIRED),
        (b"1970-01-01T00:00:02Z", second, DifferenceKind.LEASE_EXPIRES),
        (b"nonsense", second, DifferenceKind.LEASE_EXPIRES),
    ):
        state.expiring_leases[b"a"] = expire
        assert verify(content, v2, state, now=now).differences == (Difference(kind, b"a", found=expire),)
    state.expiring_leases.clear()
    state.undated_leases.add(b"a")
    assert verify(content, v2, state).differences == (Difference(DifferenceKind.LEASE_UNDATED, b"a"),)
