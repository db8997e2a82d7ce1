"""Verifications against a running containerd."""

from __future__ import annotations

import pytest

import containerd_daemon
import ondisk
from buildkit_migrate.bolt import BucketView, Database
from buildkit_migrate.containerd.live import LiveContainerd
from buildkit_migrate.containerd.offline import OfflineContainerd
from buildkit_migrate.containerd.services import ConnectionOptions
from buildkit_migrate.migration.verify import record_ids
from live_root import Live

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(bool(containerd_daemon.why_missing()), reason=containerd_daemon.why_missing()),
]


def test_live_migration_verifies_live_and_offline(live: Live) -> None:
    assert live.migrate().returncode == 0
    before = ondisk.listing(live.root.root)
    result = live.verify()
    assert (result.returncode, result.stderr) == (0, "")
    assert f"{live.root.worker}: OK: " in result.stdout
    assert ondisk.listing(live.root.root) == before
    live.daemon.stop()
    assert live.root.verify("--offline").returncode == 0


def test_root_that_is_not_migrated_exits_with_10(live: Live) -> None:
    assert live.verify().returncode == 10


def test_missing_and_incomplete_leases_are_named(live: Live) -> None:
    assert live.migrate().returncode == 0
    with Database.open(live.root.v1) as v1:
        first, second, *_ = sorted(id.decode() for id in record_ids(BucketView(v1.root)))
    live.daemon.ctr("leases", "delete", first)
    live.daemon.ctr("leases", "delete", second)
    live.daemon.create_lease(second)
    result = live.verify()
    assert result.returncode == 10
    assert f"  lease-missing: {first}\n" in result.stdout
    assert f"  lease-without-gc.flat: {second}\n" in result.stdout
    assert f"  lease-resource-missing: {second} snapshots/overlayfs (expected {second})\n" in result.stdout


def test_content_option_is_refused_for_a_running_containerd(live: Live) -> None:
    assert live.migrate().returncode == 0
    result = live.verify("--content")
    assert (result.returncode, "--content" in result.stderr) == (7, True)


def test_live_state_equals_the_state_in_the_files(live: Live) -> None:
    assert live.migrate().returncode == 0
    live.daemon.collect_garbage()  # or it may collect leaked views between the two surveys
    with Database.open(live.root.v1) as v1:
        ids = record_ids(BucketView(v1.root))
    with LiveContainerd.open(options=ConnectionOptions(live.daemon.address)) as running:
        state = running.state(ids)
    assert state.flat_leases == set(state.leases) == set(ids)
    live.daemon.stop()
    with OfflineContainerd.open(live.root.containerd, live.root.snapshots) as stopped:
        assert stopped.state(ids) == state


def test_expiring_leases_are_named(live: Live) -> None:
    assert live.migrate().returncode == 0
    with Database.open(live.root.v1) as v1:
        first, second, *_ = sorted(id.decode() for id in record_ids(BucketView(v1.root)))
    for id, expire in ((first, "2100-01-01T00:00:00Z"), (second, "2101-01-01T00:00:00Z")):
        live.daemon.ctr("leases", "delete", id)
        live.daemon.create_lease(id, f"containerd.io/gc.expire={expire}")
    result = live.verify()
    assert result.returncode == 10
    assert f"  lease-with-gc.expire: {first} (found 2100-01-01T00:00:00Z)\n" in result.stdout
    assert f"  lease-with-gc.expire: {second} (found 2101-01-01T00:00:00Z)\n" in result.stdout
    assert "lease-createdat" not in result.stdout
