"""Native plans of small worlds that are plain objects."""

from __future__ import annotations

import struct

from hypothesis import HealthCheck, settings

from buildkit_migrate._native.bolt import Reader
from buildkit_migrate._native.facts import Survey
from buildkit_migrate._native.plan import Plan
from buildkit_migrate.migration.plan import read_records
from buildkit_migrate.model import (
    PlainRecords,
    PlainSurvey,
)
from dicts import file_of
from plain_bbolt import BucketDict

SLOW = settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


NOW_STORED = struct.pack(">BqIh", 1, 62135596800 + 1_600_000_000, 120_000_000, -1)
NOW_TEXT = b"2020-09-13T12:26:40.12Z"


def store_of(records: PlainRecords) -> BucketDict:
    """A v1 store with these records; a key without a value is a nested bucket."""
    main: BucketDict = {}
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


def native_plan(store: BucketDict, survey: PlainSurvey, *, upstream_exact: bool = False) -> Plan:
    records = read_records(Reader(file_of(store)))
    return Plan(records, native_survey(survey), upstream_exact=upstream_exact)
