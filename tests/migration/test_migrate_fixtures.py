"""Whole migrations of real roots by the command, against what upstream made of the same roots."""

from __future__ import annotations

import gzip
import json
import re
import stat
from pathlib import Path

import pytest

import fixtures
import ondisk
from buildkit_migrate.bolt import Database
from buildkit_migrate.migration import oracle
from fixtures import FLAT_LABEL, NAMESPACE, ROOT_LABEL, bucket, buckets
from plain_bbolt import BucketDict

RFC3339 = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,8}[1-9])?Z")


@pytest.fixture(params=sorted(fixtures.REAL_ROOTS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("upstream_exact", [True, False])
def test_result_equals_that_of_upstream(name: str, upstream_exact: bool, tmp_path: Path) -> None:
    root = ondisk.real(name, tmp_path)
    expected = fixtures.real_root(name)
    untouched = ondisk.listing(
        tmp_path, without=("metadata_v2.db", root.containerd.name, root.containerd.name + ".before-v2")
    )
    before = root.containerd.read_bytes()
    mode = root.containerd.stat().st_mode
    sequence = _snapshots_sequence(root)

    result = root.migrate(*(["--upstream-exact"] if upstream_exact else []))

    assert (result.returncode, result.stderr) == (0, "")
    theirs = expected.metadata_v2
    ours = theirs if upstream_exact else fixtures.with_blob_sizes(theirs, expected.survey)
    assert ondisk.tree(root.v2) == ours
    assert stat.S_IMODE(root.v2.stat().st_mode) == 0o600
    after = ondisk.tree(root.containerd)
    _check_leases(after, expected.containerd_after)
    _check_labels(after, expected)
    _check_nothing_else_changed(expected.containerd, after)
    assert root.containerd.stat().st_mode == mode
    assert _snapshots_sequence(root) == sequence
    assert root.kept.read_bytes() == before
    assert root.left_behind == []

    now = ondisk.listing(tmp_path)
    changed = {path for path in untouched if now[path] != untouched[path]}
    directories = {
        str(path.relative_to(tmp_path)) for path in (root.root, root.worker, root.containerd.parent)
    }
    assert changed <= directories  # their times, as files were created in them
    assert {Path(path).name for path in set(now) - set(untouched)} == {
        "buildkitd.lock",
        "metadata_v2.db",
        root.containerd.name,
        root.kept.name,
        "metadata_v2.db.journal",
        "data.mdb",
        "lock.mdb",
    }


def _snapshots_sequence(root: ondisk.OnDisk) -> int:
    with Database.open(root.containerd) as database:
        found = database.root.bucket(*NAMESPACE, b"snapshots", root.snapshotter.encode())
        assert found is not None
        return found.sequence


def _check_leases(after: BucketDict, upstream_after: BucketDict) -> None:
    ours = buckets(bucket(after, *NAMESPACE, b"leases"))
    theirs = buckets(bucket(upstream_after, *NAMESPACE, b"leases"))
    for lease in (*ours.values(), *theirs.values()):
        created = lease.pop(b"createdat")
        assert isinstance(created, bytes)
        assert (len(created), created[:1], created[-2:]) == (15, b"\x01", b"\xff\xff")
        flat = bucket(lease, b"labels").pop(FLAT_LABEL)
        assert isinstance(flat, bytes)
        assert RFC3339.fullmatch(flat)
    assert ours == theirs


def _check_labels(after: BucketDict, expected: fixtures.RealRoot) -> None:
    """Compares all objects that upstream's run left; it also rewrote labels of objects without root label."""
    theirs = expected.containerd_after
    (snapshotter,) = buckets(bucket(after, *NAMESPACE, b"snapshots"))
    for path in ((b"snapshots", snapshotter), (b"content", b"blob")):
        before = buckets(bucket(expected.containerd, *NAMESPACE, *path))
        ours = buckets(bucket(after, *NAMESPACE, *path))
        for id, object in buckets(bucket(theirs, *NAMESPACE, *path)).items():
            assert bucket(ours[id], b"labels") == bucket(object, b"labels")
            if ROOT_LABEL in bucket(before[id], b"labels"):
                # An empty bucket of labels is not the same as none.
                assert (b"labels" in ours[id]) == (b"labels" in object)
    assert expected.survey_after.snapshots.keys() <= expected.survey.snapshots.keys()


def _check_nothing_else_changed(before: BucketDict, after: BucketDict) -> None:
    """Apart from leases, only objects that lost the root label differ, in that label and their time."""
    _forget_leases(before)
    _forget_leases(after)
    (snapshotter,) = buckets(bucket(after, *NAMESPACE, b"snapshots"))
    for path in ((b"snapshots", snapshotter), (b"content", b"blob")):
        ours = buckets(bucket(after, *NAMESPACE, *path))
        for id, old in buckets(bucket(before, *NAMESPACE, *path)).items():
            had_label = bucket(old, b"labels").pop(ROOT_LABEL, None) is not None
            assert (ours[id][b"updatedat"] != old[b"updatedat"]) == (
                had_label and ROOT_LABEL not in bucket(ours[id], b"labels")
            )
            old[b"updatedat"] = ours[id][b"updatedat"]
            bucket(ours[id], b"labels").pop(ROOT_LABEL, None)
    assert after == before


def _forget_leases(containerd: BucketDict) -> None:
    bucket(containerd, *NAMESPACE).pop(b"leases", None)


def test_verbose_lines_equal_those_of_upstream(name: str, tmp_path: Path) -> None:
    root = ondisk.real(name, tmp_path)
    log = gzip.decompress((fixtures.directory() / name / "migrated.log.gz").read_bytes()).decode()
    theirs = [re.sub(r'\\"', '"', line) for line in re.findall(r'msg="migrated ((?:[^"\\]|\\.)*)"', log)]
    result = root.migrate("--dry-run", "-v")
    ours = [
        line.removeprefix("would migrate ")
        for line in result.stdout.splitlines()
        if line.startswith("would migrate ")
    ]
    assert len(theirs) == len(fixtures.real_root(name).records)
    assert sorted(ours) == sorted(theirs)


def test_second_run_does_nothing(name: str, tmp_path: Path) -> None:
    root = ondisk.real(name, tmp_path)
    assert root.migrate().returncode == 0
    before = ondisk.listing(tmp_path)
    result = root.migrate("--format", "json")
    assert result.returncode == 0
    assert [worker["outcome"] for worker in json.loads(result.stdout)["workers"]] == ["already-migrated"]
    assert ondisk.listing(tmp_path) == before


def test_sample_root_gives_what_the_oracle_plans(tmp_path: Path) -> None:
    root = ondisk.sample(tmp_path)
    metadata, containerd = ondisk.tree(root.v1), ondisk.tree(root.containerd)
    survey = fixtures.survey_of(containerd, ondisk.tree(root.snapshots), root.snapshotter)
    plan = oracle.plan(fixtures.records_of(metadata), survey)
    assert plan.records
    assert plan.problems == []

    assert root.migrate().returncode == 0

    assert ondisk.tree(root.v2) == fixtures.migrated(metadata, plan)
    after = ondisk.tree(root.containerd)
    leases = fixtures.leases_of(after)
    assert leases == {id: set(record.add_resources) for id, record in plan.records.items()}
    assert set(after) == set(containerd)
    after_survey = fixtures.survey_of(after, ondisk.tree(root.snapshots), root.snapshotter)
    still = {name for name, snapshot in after_survey.snapshots.items() if snapshot.root_label}
    had = {name for name, snapshot in survey.snapshots.items() if snapshot.root_label}
    assert plan.unlabel_snapshots
    assert still == had - plan.unlabel_snapshots
    assert {digest for digest, blob in after_survey.blobs.items() if blob.root_label} == {
        digest for digest, blob in survey.blobs.items() if blob.root_label
    } - plan.unlabel_blobs
