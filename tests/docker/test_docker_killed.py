"""Roots of engines that were killed amid builds, or amid their own migration."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import dockerd
import ondisk
from buildkit_migrate.api import check_root, migrate_root, undo_root, verify_root
from buildkit_migrate.migration.verification import Verdict
from buildkit_migrate.values.times import stored_time
from dicts import file_of
from dockerd import Dockerd
from fixtures import bucket, buckets, leases_of
from ondisk import OnDisk
from plain_bbolt import BucketDict

CREATED = b'{"value":1795707167678090648}'
COMMITTED = b'{"value":true}'
NO_PARENT = b'{"value":""}'


def amid_builds(docker: OnDisk) -> None:
    """What 19.03 leaves in its databases at several moments of a build, all in one root.

    A pair is given up in steps: the immutable one gets a snapshot of its own, then its key is cleared, then
    the mutable one's record is deleted; the bucket of that stays.
    """
    rows = buckets(ondisk.tree(docker.snapshots))
    records = buckets(bucket(ondisk.tree(docker.v1), b"_main"))
    pairs = sorted(
        (id, stored.split(b'"')[3])
        for id, row in records.items()
        if isinstance(stored := row.get(b"cache.equalMutable"), bytes) and stored
    )
    (committed, first), (cleared, second), (deleted, third) = pairs[:3]
    above = next(id for id in records if b"chainid" in rows.get(id, {}))
    own: BucketDict = {b"cache.createdAt": CREATED, b"cache.description": b'{"value":"in flight"}'}
    ondisk.edit(
        docker.snapshots,
        {
            committed: {b"committed": first},
            cleared: {b"committed": second},
            deleted: {b"committed": third},
            b"inflight1": {b"parent": above},  # its record has been written, too
            b"inflight2": {b"parent": above},  # before its record
            b"inflight3": {b"parent": b""},
        },
    )
    ondisk.edit(
        docker.v1,
        {
            b"_main": {
                cleared: {b"cache.equalMutable": b""},
                deleted: {b"cache.equalMutable": b""},
                third: None,
                b"inflight1": own,
                b"inflight3": {b"cache.createdAt": CREATED},  # the first value that is written
            }
        },
    )
    for id in ("inflight1", "inflight2", "inflight3"):
        (docker.root.parent / "overlay2" / id / "diff").mkdir(parents=True)
    (docker.root / "executor" / "running" / "rootfs").mkdir(parents=True)


def amid_its_migration(docker: OnDisk) -> None:
    """What 20.10 leaves when it is killed: leases as far as it got, the last one without its resource."""
    amid_builds(docker)
    ids = sorted(buckets(bucket(ondisk.tree(docker.v1), b"_main")))
    lease: BucketDict = {
        b"createdat": stored_time(1795707167678090648),
        b"labels": {b"containerd.io/gc.flat": b"x"},
    }
    whole: BucketDict = {**lease, b"snapshots": {b"default": {ids[0]: b""}}}
    leases: BucketDict = {ids[0]: whole, ids[1]: lease}
    docker.containerd.write_bytes(file_of({b"v1": {b"buildkit": {b"leases": leases}}}))
    half = docker.v1.read_bytes()
    (docker.root / "metadata_v2.db.tmp").write_bytes(half[: len(half) // 2])


STATES = [amid_builds, amid_its_migration]


@pytest.fixture(params=STATES, ids=lambda state: str(state.__name__))
def killed(request: pytest.FixtureRequest, tmp_path: Path) -> OnDisk:
    docker = ondisk.docker_sample(tmp_path)
    request.param(docker)
    return docker


def test_nothing_of_them_is_broken_or_lost(killed: OnDisk) -> None:
    before = buckets(bucket(ondisk.tree(killed.v1), b"_main"))
    (report,) = migrate_root(killed.root.parent, verify=True)
    assert report.problems == ()
    records = buckets(bucket(ondisk.tree(killed.v2), b"_main"))
    assert records.keys() == before.keys()
    assert b"snapshot.committed" not in records[b"inflight1"]
    new = {b"cache.snapshot": b'{"value":"inflight3"}'}
    assert records[b"inflight3"] == {**before[b"inflight3"], **new}
    for id, stored in before.items():
        if stored.get(b"cache.equalMutable") == b"":
            assert records[id][b"snapshot.committed"] == COMMITTED
    leases = leases_of(ondisk.tree(killed.containerd))
    assert leases.keys() == records.keys()
    assert all(leases.values())
    assert not (killed.root / "metadata_v2.db.tmp").exists()
    assert verify_root(killed.root)[0].verdict is Verdict.OK
    assert {it.subject for it in check_root(killed.root, rules={"C41"}).findings} == {"inflight2"}


def test_they_go_back_to_what_they_were(killed: OnDisk) -> None:
    before = {path: ondisk.tree(path) for path in killed.root.glob("*.db")}
    killed.migrate_here()
    assert undo_root(killed.root)[0].outcome == "undone"
    assert {path: ondisk.tree(path) for path in killed.root.glob("*.db")} == before


@pytest.mark.real
@pytest.mark.skipif(bool(dockerd.why_missing()), reason=dockerd.why_missing())
def test_the_engine_makes_the_same_of_them(killed: OnDisk, tmp_path: Path) -> None:
    """20.10 leaves an empty ``cache.parent`` out, and the resource of a lease that it finds already made."""
    theirs = tmp_path / "theirs"
    subprocess.run(["cp", "-a", str(killed.root.parent), str(theirs)], check=True)
    with Dockerd(theirs) as engine:
        engine.stop()
    half_made = killed.containerd.exists()
    killed.migrate_here()
    made = ondisk.tree(killed.v2)
    for record in buckets(bucket(made, b"_main")).values():
        if record.get(b"cache.parent") == NO_PARENT:
            del record[b"cache.parent"]
    other = ondisk.docker(theirs)
    assert made == ondisk.tree(other.v2)
    ours, found = (leases_of(ondisk.tree(one.containerd)) for one in (killed, other))
    assert ours.keys() == found.keys()
    assert all(found[id] in (ours[id], set()) for id in ours)
    assert sum(found[id] != ours[id] for id in ours) == half_made
