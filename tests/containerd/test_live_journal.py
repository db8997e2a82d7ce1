"""Killed live migrations continue without repeating calls; undo, killed or not, restores the exact state."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest

import containerd_daemon
import ondisk
from buildkit_migrate.bolt import Database
from buildkit_migrate.containerd.live import LiveContainerd
from buildkit_migrate.containerd.services import ConnectionOptions
from buildkit_migrate.model import Kind, PlainState
from fixtures import bucket, buckets
from grpc_proxy import Proxy
from live_root import Expected, Live, error_of
from plain_bbolt import BucketDict

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(bool(containerd_daemon.why_missing()), reason=containerd_daemon.why_missing()),
    pytest.mark.slow,
]

ROUNDS = int(os.environ.get("BUILDKIT_MIGRATE_ROUNDS", "2"))
"""Number of kills of a migration, and of an undo."""

MOST_REPEATED = 128
"""Calls a kill may cost: one for each lease not yet in the journal (96), those in flight, the survey."""


def state(live: Live) -> PlainState:
    """containerd's state without views, which it may collect at any time once they have no label."""
    with Database.open(live.root.v1) as v1:
        main = v1.root.bucket(b"_main")
        assert main is not None
        ids = [id for id, _ in main.items()]
    with LiveContainerd.open(options=ConnectionOptions(live.daemon.address)) as containerd:
        found = containerd.state(ids)
    found.snapshots = {
        name: snapshot for name, snapshot in found.snapshots.items() if snapshot.kind is not Kind.VIEW
    }
    return found


class Killer:
    """A run of the command over a proxy that kills it with SIGKILL before its n-th call."""

    def __init__(self, live: Live, command: Sequence[str], at: int) -> None:
        self._at = at
        self._seen = 0
        with Proxy(live.daemon.address, self._kill) as proxy:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "buildkit_migrate", *command, "--format", "json"),
                    *("--address", proxy.address, str(live.root.root)),
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            self._process.communicate(timeout=120)
        self.status = self._process.returncode
        self.calls = sum(proxy.calls.values())

    def _kill(self, name: str, number: int) -> None:
        self._seen += 1
        if self._seen == self._at:
            os.kill(self._process.pid, signal.SIGKILL)


def run(live: Live, *command: str) -> int:
    """Runs the command undisturbed; returns how many calls it made."""
    with Proxy(live.daemon.address) as proxy:
        result = ondisk.run(*command, "--format", "json", "--address", proxy.address, str(live.root.root))
        assert (result.returncode, result.stderr) == (0, "")
        return sum(proxy.calls.values())


def test_killed_migrations_and_undos_continue_without_repeating_calls(live: Live) -> None:
    seed = int(os.environ.get("BUILDKIT_MIGRATE_SEED", "1"))
    rnd = random.Random(seed)
    # What only leaked views and labels kept alive is collected during the first migration.
    run(live, "migrate")
    live.daemon.collect_garbage()
    run(live, "undo")
    before = state(live)
    undisturbed = run(live, "migrate")
    after = state(live)
    v2 = live.root.v2.read_bytes()
    undoing = run(live, "undo")
    assert state(live) == before
    most = 0
    for number in range(ROUNDS):
        at = rnd.randrange(1, undisturbed)
        killed = Killer(live, ["migrate"], at)
        assert killed.status == -signal.SIGKILL, (seed, number)
        assert not live.root.v2.exists()
        calls = run(live, "migrate")
        assert state(live) == after, (seed, number, at)
        assert live.root.v2.read_bytes() == v2
        most = max(most, killed.calls + calls - undisturbed)
        assert killed.calls + calls - undisturbed < MOST_REPEATED, (seed, number, at)

        at = rnd.randrange(1, undoing)
        killed = Killer(live, ["undo"], at)
        assert killed.status == -signal.SIGKILL, (seed, number)
        calls = run(live, "undo")
        assert state(live) == before, (seed, number, at)
        assert not live.root.v2.with_name("metadata_v2.db.journal").exists()
    print(f"{ROUNDS} kills of a migration and of an undo; at most {most} more calls than {undisturbed}")


def test_undo_restores_the_exact_state(live: Live) -> None:
    live.daemon.stop()
    before = ondisk.timeless(ondisk.tree(live.root.containerd))
    v1 = live.root.v1.read_bytes()
    live.daemon.start()
    assert live.migrate().returncode == 0
    run(live, "undo")
    after = live.finish()
    assert live.root.v1.read_bytes() == v1
    assert not live.root.v2.exists()
    namespace = (b"v1", b"buildkit")
    assert bucket(after, *namespace, b"leases") == {}
    for path in ((b"snapshots", b"overlayfs"), (b"content", b"blob")):
        old, new = (buckets(bucket(tree, *namespace, *path)) for tree in (before, after))
        assert new.keys() <= old.keys()
        for name in new:
            assert without_gone_children(new[name], new) == without_gone_children(old[name], new)
    kinds = ondisk.tree(live.root.snapshots)
    snapshots = buckets(bucket(before, *namespace, b"snapshots", b"overlayfs"))
    gone = snapshots.keys() - bucket(after, *namespace, b"snapshots", b"overlayfs").keys()
    assert gone  # leaked views, which were collected while they had no label
    still = bucket(kinds, b"v1", b"snapshots").keys()
    assert not {snapshots[name][b"name"] for name in gone} & still


def without_gone_children(row: BucketDict, rows: dict[bytes, BucketDict]) -> BucketDict:
    children = {name for name in bucket(row, b"children") if name in rows}
    labels = bucket(row, b"labels")
    return {key: value for key, value in row.items() if key not in (b"children", b"labels")} | {
        b"children": dict.fromkeys(children, b""),
        b"labels": labels,
    }


def test_undo_makes_only_the_calls_it_needs(live: Live, expected: Expected) -> None:
    assert live.migrate().returncode == 0
    live.daemon.collect_garbage()
    left = state(live)
    with Proxy(live.daemon.address) as proxy:
        result = ondisk.run("undo", "--address", proxy.address, str(live.root.root))
        assert result.returncode == 0
        assert proxy.calls["Leases.Delete"] == expected.leases
        assert proxy.calls["Leases.ListResources"] == 0
        assert proxy.calls["Snapshots.Update"] == len(left.snapshots)
        assert "Leases.Create" not in proxy.calls


def test_interrupted_live_migration_can_not_continue_offline(live: Live) -> None:
    killed = Killer(live, ["migrate"], 600)
    assert killed.status == -signal.SIGKILL
    status = ondisk.run("status", "--format", "json", str(live.root.root))
    (worker,) = json.loads(status.stdout)["workers"]
    assert worker["stage"] == "interrupted"
    assert worker["finished_leases"] > 0
    live.daemon.stop()
    refused = live.root.migrate("--format", "json")
    assert error_of(refused)["type"] == "JournalError"
    assert "begun over a running containerd, and this one works offline" in error_of(refused)["message"]
    # Undone in the files of the stopped daemon, although it was begun over the running one.
    result = ondisk.run("undo", *live.root.options, str(live.root.root))
    assert (result.returncode, result.stderr) == (0, "")
    live.daemon.start()
    assert live.daemon.leases() == {}
    assert live.migrate().returncode == 0
    assert len(live.daemon.leases()) == 287


def test_offline_migration_is_undone_over_a_running_daemon(live: Live) -> None:
    before = state(live)
    live.daemon.stop()
    assert live.root.migrate().returncode == 0
    live.daemon.start()
    assert len(live.daemon.leases()) == 287
    run(live, "undo")
    after = state(live)
    assert after.leases == before.leases
    assert after.snapshots == before.snapshots
    # A blob that only another blob's label refers to is not held by flat leases, nor by upstream's.
    assert after.blobs.items() <= before.blobs.items()
    assert len(after.blobs) > 100


def test_undo_refuses_the_wrong_containerd(live: Live) -> None:
    assert live.migrate().returncode == 0
    with containerd_daemon.Containerd() as other:
        result = ondisk.run("undo", "--format", "json", "--address", other.address, str(live.root.root))
    assert error_of(result)["type"] == "ContainerdStateError"
    assert live.root.v2.exists()
    run(live, "undo")
    assert live.daemon.leases() == {}


def test_status_says_that_containerd_is_not_asked(live: Live) -> None:
    assert live.migrate().returncode == 0
    told = ondisk.run("status", str(live.root.root)).stdout
    assert "undo goes back" not in told
    assert "a running containerd is not asked here: undo --dry-run shows" in told
