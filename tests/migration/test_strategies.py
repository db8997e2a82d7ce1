"""The generated worlds cover the cases that plans are compared in."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, Phase, given, settings

from buildkit_migrate.migration import oracle
from buildkit_migrate.model import Caution, PlainPlan, PlainRecords, PlainSurvey, Reason
from buildkit_migrate.values import gojson, keys
from strategies import decodable_values, undecodable_values, worlds

COUNTED = settings(
    max_examples=1500,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)


def test_worlds_have_every_reason_and_caution_often() -> None:
    examples: Counter[str] = Counter()

    @COUNTED
    @given(worlds())
    def count(world: tuple[PlainRecords, PlainSurvey]) -> None:
        records, survey = world
        examples.update(_what_is_in(records, survey, oracle.plan(records, survey)))

    count()
    wanted = {*Reason, *Caution, *FURTHER}
    rare = {what: examples[what] for what in wanted if examples[what] < 12}
    assert not rare, f"of {COUNTED.max_examples} worlds only so many have: {rare}"


FURTHER = {
    "all kept",
    "chain of two",
    "complete chain ids given",
    "partial chain ids given",
    "equal-mutable cycle",
    "parent cycle",
    "equal-mutable of equal-mutable",
    "empty parent written",
    "size written",
    "size overwritten",
    "empty lease",
    "lease lacks some",
    "lease lacks nothing",
    "view unlabelled",
    "blob unlabelled",
    "parent of another's store",
}


def _what_is_in(records: PlainRecords, survey: PlainSurvey, plan: PlainPlan) -> set[str]:
    found: set[str] = {problem.reason for problem in plan.problems} | {
        caution for _, caution in plan.cautions
    }
    if not plan.problems:
        found.add("all kept")
    for problem in plan.problems:
        if problem.reason is Reason.CYCLE:
            em = gojson.string(records[problem.record].get(keys.EQUAL_MUTABLE))
            found.add("equal-mutable cycle" if em == problem.detail else "parent cycle")
    for id, kept in plan.records.items():
        given_chain_ids = sum(
            gojson.string(records[id].get(key)) != b"" for key in (keys.CHAIN_ID, keys.BLOB_CHAIN_ID)
        )
        if keys.BLOB_SIZE in kept.puts:
            found.add("size overwritten" if keys.BLOB_SIZE in records[id] else "size written")
        parent = gojson.string(kept.puts.get(keys.PARENT))
        if keys.CHAIN_ID in kept.puts:
            if given_chain_ids == 1:
                found.add("partial chain ids given")
            if parent in plan.records and keys.CHAIN_ID in plan.records[parent].puts:
                found.add("chain of two")
        elif given_chain_ids == 2 and keys.BLOB in kept.puts:
            found.add("complete chain ids given")
        em = gojson.string(kept.puts.get(keys.EQUAL_MUTABLE, records[id].get(keys.EQUAL_MUTABLE)))
        if em and gojson.string(records[em].get(keys.EQUAL_MUTABLE)):
            found.add("equal-mutable of equal-mutable")
        if kept.puts.get(keys.PARENT) == b'{"value":""}':
            found.add("empty parent written")
        if keys.PARENT not in kept.puts and gojson.string(records[id].get(keys.PARENT)):
            found.add("parent of another's store")
        if not kept.create_lease:
            found.add("lease lacks some" if kept.add_resources else "lease lacks nothing")
            if not survey.leases[id]:
                found.add("empty lease")
    if plan.unlabel_snapshots - set(plan.records):
        found.add("view unlabelled")
    if plan.unlabel_blobs:
        found.add("blob unlabelled")
    return found


@given(decodable_values())
def test_decodable_values_decode(stored: bytes) -> None:
    gojson.decode(stored)


@given(undecodable_values)
def test_undecodable_values_do_not_decode(stored: bytes) -> None:
    try:
        gojson.decode(stored)
    except gojson.UndecodableValueError:
        return
    raise AssertionError(f"{stored[:80]!r} decodes")
