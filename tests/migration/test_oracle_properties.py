"""Properties of every plan of the oracle, however broken its input."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from hypothesis import given

from buildkit_migrate.migration import oracle
from buildkit_migrate.model import Caution, PlainPlan, PlainRecords, PlainSurvey, Reason
from buildkit_migrate.values import gojson, keys
from strategies import worlds

World = tuple[PlainRecords, PlainSurvey]


@given(worlds())
def test_each_record_is_kept_or_has_one_problem(world: World) -> None:
    records, survey = world
    plan = oracle.plan(records, survey)
    named = [problem.record for problem in plan.problems]
    assert named == sorted(set(named))
    dropped = {problem.record for problem in plan.problems if problem.reason is not Reason.REPAIRED}
    assert dropped.isdisjoint(plan.records)
    assert dropped | set(plan.records) == set(records)
    assert {record for record, _ in plan.cautions} <= set(plan.records)


@given(worlds())
def test_plan_does_not_depend_on_the_order_of_records(world: World) -> None:
    records, survey = world
    assert oracle.plan(dict(reversed(list(records.items()))), survey) == oracle.plan(records, survey)


@given(worlds())
def test_kept_records_depend_only_on_kept_records(world: World) -> None:
    records, survey = world
    plan = oracle.plan(records, survey)
    for id, record in _after(records, plan).items():
        for link in (keys.PARENT, keys.EQUAL_MUTABLE):
            target = gojson.string(record.get(link))
            if target and (id, Caution.PARENT_WITHOUT_RECORD) not in plan.cautions:
                assert target in plan.records


@given(worlds())
def test_chain_ids_follow_the_recursive_rule(world: World) -> None:
    records, survey = world
    plan = oracle.plan(records, survey)
    after = _after(records, plan)

    def chain(id: bytes) -> tuple[bytes, bytes]:
        record = after[id]
        diff_id, blob = gojson.string(record.get(keys.DIFF_ID)), gojson.string(record.get(keys.BLOB))
        if not diff_id or not blob:
            return b"", b""
        given_ids = [gojson.string(records[id].get(key)) for key in (keys.CHAIN_ID, keys.BLOB_CHAIN_ID)]
        if all(given_ids):
            return given_ids[0], given_ids[1]
        own = hashed(blob + b" " + diff_id)
        above = gojson.string(record.get(keys.PARENT))
        if not above:
            return diff_id, own
        chain_id, blob_chain_id = chain(above)
        return hashed(chain_id + b" " + diff_id), hashed(blob_chain_id + b" " + own)

    for id, kept in plan.records.items():
        if keys.CHAIN_ID in kept.puts:
            chain_id, blob_chain_id = chain(id)
            assert chain_id
            assert gojson.string(kept.puts[keys.CHAIN_ID]) == chain_id
            assert gojson.string(kept.puts[keys.BLOB_CHAIN_ID]) == blob_chain_id
            assert kept.index == {
                keys.index_key(b"chainid:" + chain_id, id),
                keys.index_key(b"blobchainid:" + blob_chain_id, id),
            }
        else:
            assert kept.index == frozenset()


@given(worlds())
def test_planning_the_result_again_changes_nothing(world: World) -> None:
    records, survey = world
    plan = oracle.plan(records, survey)
    after = _after(records, plan)
    leases = {id: set(resources) for id, resources in survey.leases.items()}
    for id, record in plan.records.items():
        leases.setdefault(id, set()).update(record.add_resources)
    survey_after = replace(
        survey,
        leases=leases,
        snapshots={
            name: replace(snapshot, root_label=snapshot.root_label and name not in plan.unlabel_snapshots)
            for name, snapshot in survey.snapshots.items()
        },
        blobs={
            digest: replace(blob, root_label=blob.root_label and digest not in plan.unlabel_blobs)
            for digest, blob in survey.blobs.items()
        },
    )
    again = oracle.plan(after, survey_after)
    assert again.problems == []
    assert again.cautions == plan.cautions
    assert not any(
        record.create_lease or record.add_resources or record.index for record in again.records.values()
    )
    assert not again.unlabel_snapshots
    assert not again.unlabel_blobs
    assert _after(after, again) == after


def _after(records: PlainRecords, plan: PlainPlan) -> dict[bytes, dict[bytes, bytes | None]]:
    return {id: {**records[id], **kept.puts} for id, kept in plan.records.items()}


def hashed(text: bytes) -> bytes:
    return b"sha256:" + hashlib.sha256(text).hexdigest().encode()
