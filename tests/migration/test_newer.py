"""Records that a daemon put into v1 after the migration: `status` and `migrate` say how many there are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ondisk
from buildkit_migrate import migrate_root, root_status
from fixtures import bucket, buckets
from holding import held
from ondisk import OnDisk, run
from plain_bbolt import BucketDict

LATER = b'{"value":9000000000000000000}'


@pytest.fixture
def root(tmp_path: Path) -> OnDisk:
    root = ondisk.sample(tmp_path)
    root.migrate_here()
    return root


def without_journal(root: OnDisk) -> None:
    """As if BuildKit itself had migrated."""
    journal = root.v2.with_name("metadata_v2.db.journal")
    for path in journal.iterdir():
        path.unlink()
    journal.rmdir()


def add_to_v1(root: OnDisk, number: int, record: BucketDict) -> None:
    ondisk.edit(root.v1, {b"_main": {b"new%d" % i: record for i in range(number)}})


def newer_in_v1(root: OnDisk) -> int | None:
    """The number that both commands show in both formats; they must agree and change nothing."""
    before = ondisk.listing(root.root, without=["lock.mdb"])
    numbers = []
    for command in ("status", "migrate"):
        result = run(command, "--format", "json", str(root.root))
        assert result.returncode == 0
        (worker,) = json.loads(result.stdout)["workers"]
        number = worker["newer_in_v1"]
        text = run(command, str(root.root)).stdout
        assert (f"warning: v1 has {number} records" in text) == bool(number)
        numbers.append(number)
    assert ondisk.listing(root.root, without=["lock.mdb"]) == before
    assert numbers[0] == numbers[1]
    assert numbers[0] is None or isinstance(numbers[0], int)
    return numbers[0]


@pytest.mark.parametrize("journal", [True, False])
def test_records_added_to_v1_after_the_migration_are_counted(root: OnDisk, journal: bool) -> None:
    if not journal:
        without_journal(root)
    assert newer_in_v1(root) == 0
    add_to_v1(root, 12, {b"cache.createdAt": LATER})
    assert newer_in_v1(root) == 12


@pytest.mark.parametrize("record", [{}, {b"cache.createdAt": b"{"}, {b"cache.createdAt": b""}])
def test_records_without_a_time_are_counted(root: OnDisk, record: BucketDict) -> None:
    add_to_v1(root, 3, record)
    assert newer_in_v1(root) == 3


def test_records_pruned_from_v2_are_not_counted(root: OnDisk) -> None:
    """Even if v1 was used since."""
    records = buckets(bucket(ondisk.tree(root.v1), b"_main"))
    pruned = sorted(records, key=lambda id: records[id][b"cache.createdAt"])[:200]
    ondisk.edit(root.v2, {b"_main": dict.fromkeys(pruned)})
    assert newer_in_v1(root) == 0
    add_to_v1(root, 1, {b"cache.createdAt": LATER})
    assert newer_in_v1(root) == 1


def test_unchanged_v1_has_no_newer_records(root: OnDisk) -> None:
    """The journal shows that v1 is unchanged, even if a daemon pruned all of v2."""
    ondisk.edit(root.v2, {b"_main": None})
    assert newer_in_v1(root) == 0


def test_newer_records_of_a_locked_store_are_unknown(root: OnDisk) -> None:
    add_to_v1(root, 2, {})
    for path in (root.v1, root.v2):
        with held(path):
            assert newer_in_v1(root) is None
    assert newer_in_v1(root) == 2


def test_newer_records_of_a_damaged_v1_are_unknown(root: OnDisk) -> None:
    root.v1.write_bytes(b"text" * 4096)
    assert newer_in_v1(root) is None


def test_missing_v1_has_no_newer_records(root: OnDisk) -> None:
    root.v1.unlink()
    assert newer_in_v1(root) == 0


def test_library_reports_newer_records(root: OnDisk) -> None:
    add_to_v1(root, 2, {})
    assert [status.newer_in_v1 for status in root_status(root.root)] == [2]
    assert [report.newer_in_v1 for report in migrate_root(root.root)] == [2]
