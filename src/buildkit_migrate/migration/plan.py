"""Translates the codes and columns of native records and plans into names and plain objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from buildkit_migrate._native import facts
from buildkit_migrate._native import plan as native
from buildkit_migrate._native.bolt import Reader
from buildkit_migrate._native.facts import Records
from buildkit_migrate._native.plan import Plan
from buildkit_migrate.model import Caution, PlainPlan, Problem, Reason, RecordPlan
from buildkit_migrate.values import gojson, keys

__all__ = ["PlannedRecord", "cautions_of", "plain_plan", "planned_record", "problems_of", "read_records"]

_REASONS: Final[Mapping[int, Reason]] = {
    native.REPAIRED: Reason.REPAIRED,
    native.BAD_ID: Reason.BAD_ID,
    native.UNDECODABLE: Reason.UNDECODABLE,
    native.KEY_IS_BUCKET: Reason.KEY_IS_BUCKET,
    native.EQUAL_MUTABLE_CYCLE: Reason.CYCLE,
    native.NO_TARGET: Reason.NO_TARGET,
    native.NO_SNAPSHOT: Reason.NO_SNAPSHOT,
    native.BAD_DIGEST: Reason.BAD_DIGEST,
    native.KEY_TOO_LONG: Reason.KEY_TOO_LONG,
    native.NO_PARENT: Reason.NO_PARENT,
    native.PARENT_CYCLE: Reason.CYCLE,
    native.TARGET_DROPPED: Reason.DESCENDANT,
    native.PARENT_DROPPED: Reason.DESCENDANT,
}

_CAUTIONS: Final[Mapping[int, Caution]] = {
    native.EMPTY_BLOB_MAPPING: Caution.EMPTY_BLOB_MAPPING,
    native.NO_BLOB_SIZE: Caution.NO_BLOB_SIZE,
    native.PARENT_WITHOUT_RECORD: Caution.PARENT_WITHOUT_RECORD,
}


def read_records(reader: Reader) -> Records:
    """The records of a v1 store; empty if it has no `_main` bucket.

    Raises CorruptDatabaseError. Values that can't be decoded are problems of the plan, not errors.
    """
    return Records(reader, _decode)


def _decode(form: int, value: bytes) -> tuple[bytes, ...] | None:
    """Decodes values for `Records` that are not written exactly as BuildKit writes them."""
    try:
        if form == facts.MAPPING:
            return gojson.blob_mapping(value) or ()
        gojson.decode(value)
        return (gojson.string(value),) if form == facts.STRING else ()
    except gojson.UndecodableValueError:
        return None


class PlannedRecord(NamedTuple):
    """A record after the migration; "" for missing values. If it is dropped, only `id` is meaningful."""

    id: bytes
    dropped: bool
    committed: bool
    parent: bytes
    snapshot: bytes
    blob: bytes
    diff_id: bytes
    chain_id: bytes
    blob_chain_id: bytes


def problems_of(plan: Plan) -> list[Problem]:
    """Problems of the plan, at most one per record, sorted by record id."""
    return [Problem(id, _REASONS[code], detail) for id, code, detail in plan.faults()]


def cautions_of(plan: Plan) -> set[tuple[bytes, Caution]]:
    """Cautions about kept records, with their ids."""
    return {(id, _CAUTIONS[code]) for id, code in plan.oddities()}


def planned_record(plan: Plan, index: int) -> PlannedRecord:
    """The record at ``index``, in the order of ids. Raises IndexError."""
    dropped = plan.is_dropped(index)
    id, parent, blob, diff_id, chain_id, blob_chain_id = plan.texts(index)
    return PlannedRecord(
        id=id,
        dropped=dropped,
        committed=plan.is_committed(index),
        parent=parent,
        snapshot=b"" if dropped else id,
        blob=blob,
        diff_id=diff_id,
        chain_id=chain_id,
        blob_chain_id=blob_chain_id,
    )


def plain_plan(plan: Plan) -> PlainPlan:
    """The whole plan as plain objects: slow, for people and tests."""
    kept = (index for index in range(len(plan.records)) if not plan.is_dropped(index))
    return PlainPlan(
        records=dict(_plain_record(plan, index) for index in kept),
        problems=problems_of(plan),
        cautions=cautions_of(plan),
        unlabel_snapshots=set(plan.unlabel_snapshots()),
        unlabel_blobs=set(plan.unlabel_blobs()),
    )


def _plain_record(plan: Plan, index: int) -> tuple[bytes, RecordPlan]:
    id, *_, chain_id, blob_chain_id = plan.texts(index)
    entries: set[bytes] = set()
    if plan.writes_chain(index):
        entries.add(keys.index_key(keys.CHAIN_ID_INDEX + chain_id, id))
        entries.add(keys.index_key(keys.BLOB_CHAIN_ID_INDEX + blob_chain_id, id))
    create, keep, resources = plan.lease(index)
    return id, RecordPlan(plan.puts(index), frozenset(entries), create, resources, keep)
