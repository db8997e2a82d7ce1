"""Expiring leases of a running containerd: created anew without expiry, and by undo with it."""

from __future__ import annotations

import grpc
import pytest

import containerd_daemon
import grpc_proxy
import ondisk
from buildkit_migrate.containerd.live import LiveContainerd
from buildkit_migrate.containerd.services import ConnectionOptions
from buildkit_migrate.model import PlainState
from fixtures import EXPIRE_LABEL, FLAT_LABEL, bucket, buckets
from grpc_proxy import Proxy
from live_root import Live

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(bool(containerd_daemon.why_missing()), reason=containerd_daemon.why_missing()),
]

FUTURE = "2100-01-01T00:00:00Z"


def record_ids(live: Live) -> list[bytes]:
    return sorted(buckets(bucket(ondisk.tree(live.root.v1), b"_main")))


def leases(live: Live) -> PlainState:
    with LiveContainerd.open(options=ConnectionOptions(live.daemon.address)) as containerd:
        state = containerd.state(record_ids(live))
    state.snapshots.clear()
    state.blobs.clear()
    return state


@pytest.fixture
def expiring(live: Live) -> bytes:
    """The expiring lease of the first record, with one resource of the record and one of another."""
    id = record_ids(live)[0]
    live.daemon.create_lease(id.decode(), f"{EXPIRE_LABEL.decode()}={FUTURE}", f"{FLAT_LABEL.decode()}=then")
    resources = frozenset(("snapshots/overlayfs", name) for name in (id, record_ids(live)[1]))
    with LiveContainerd.open(options=ConnectionOptions(live.daemon.address)) as containerd:
        containerd.connection.run(containerd.leases.add(id, resources))
    assert leases(live).expiring_leases == {id: FUTURE.encode()}
    return id


def undo(live: Live) -> None:
    result = ondisk.run("undo", "--address", live.daemon.address, str(live.root.root))
    assert (result.returncode, result.stderr) == (0, "")


def check_permanent(live: Live, id: bytes) -> None:
    after = leases(live)
    assert after.expiring_leases == {}
    assert live.daemon.leases()[id.decode()] == {FLAT_LABEL.decode(): "then"}
    assert ("snapshots/overlayfs", id) in after.leases[id]
    assert live.verify().returncode == 0


def test_expiring_lease_is_made_permanent_and_undo_restores_it(live: Live, expiring: bytes) -> None:
    before = leases(live)
    with Proxy(live.daemon.address) as proxy:
        assert live.migrate(address=proxy.address).returncode == 0
        assert proxy.calls["Leases.Delete"] == 1
    assert before.leases[expiring] <= leases(live).leases[expiring]
    check_permanent(live, expiring)
    undo(live)
    assert leases(live) == before


def test_expiring_lease_without_flat_label_stays_without_it(live: Live) -> None:
    """It keeps lacking the label, and verify accepts that."""
    id = record_ids(live)[0]
    live.daemon.create_lease(id.decode(), f"{EXPIRE_LABEL.decode()}={FUTURE}")
    assert live.migrate().returncode == 0
    assert live.daemon.leases()[id.decode()] == {}
    assert live.verify().returncode == 0


def interrupt_migration(live: Live) -> None:
    """After the old lease is deleted and before the new one is created."""
    fault = grpc_proxy.nth("Leases.Create", {0}, grpc.StatusCode.INTERNAL)
    with Proxy(live.daemon.address, fault) as proxy:
        assert live.migrate("--concurrency", "1", address=proxy.address).returncode == 12
        assert proxy.calls["Leases.Delete"] == 1


def test_undo_restores_the_lease_after_an_interruption(live: Live, expiring: bytes) -> None:
    before = leases(live)
    interrupt_migration(live)
    assert expiring not in leases(live).leases
    undo(live)
    assert leases(live) == before


def test_migration_continues_after_an_interruption(live: Live, expiring: bytes) -> None:
    before = leases(live)
    interrupt_migration(live)
    live.daemon.collect_garbage()
    assert live.migrate().returncode == 0
    assert leases(live).expiring_leases == {}
    assert live.verify().returncode == 0
    undo(live)
    assert leases(live) == before


def test_undo_continues_after_an_interruption(live: Live, expiring: bytes) -> None:
    before = leases(live)
    assert live.migrate().returncode == 0
    fault = grpc_proxy.nth("Leases.Create", {0}, grpc.StatusCode.INTERNAL)
    with Proxy(live.daemon.address, fault) as proxy:
        result = ondisk.run("undo", "--address", proxy.address, "--concurrency", "1", str(live.root.root))
        assert result.returncode == 12
    undo(live)
    assert leases(live) == before
