"""Small worlds written by hand for the oracle, and what it plans for them."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from buildkit_migrate.migration import oracle
from buildkit_migrate.model import (
    Blob,
    Kind,
    PlainPlan,
    PlainRecords,
    PlainSurvey,
    Reason,
    Resource,
    Snapshot,
)
from buildkit_migrate.values import keys

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


def equal_mutable(target: bytes) -> dict[bytes, bytes]:
    return {keys.EQUAL_MUTABLE: text(target)}


def parent(target: bytes) -> dict[bytes, bytes]:
    return {keys.PARENT: text(target)}


LAYER = {keys.BLOB_MAPPING: mapping(BLOB, DIFF)}
"""A record's mapping to a blob that exists (in `planned`)."""


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


def problem_of(plan: PlainPlan, id: bytes) -> tuple[Reason, bytes]:
    """The one problem of a record; a dropped record has no part in the plan."""
    [problem] = [problem for problem in plan.problems if problem.record == id]
    assert (id in plan.records) == (problem.reason is Reason.REPAIRED)
    return problem.reason, problem.detail


def but_for_blob_sizes(plan: PlainPlan) -> PlainPlan:
    records = {
        id: replace(record, puts={key: value for key, value in record.puts.items() if key != keys.BLOB_SIZE})
        for id, record in plan.records.items()
    }
    return replace(plan, records=records)
