"""A running containerd with the state of the sample root, and what a migration makes of it."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fixtures
import ondisk
from containerd_daemon import Containerd
from ondisk import OnDisk
from plain_bbolt import BucketDict


@dataclass(frozen=True)
class Live:
    """The root of a stopped BuildKit, and its running containerd."""

    root: OnDisk
    daemon: Containerd

    def migrate(
        self, *arguments: str, address: str | None = None, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        address = self.daemon.address if address is None else address
        return ondisk.run(
            *("migrate", "--format", "json", "--address", address, *arguments, str(self.root.root)), **environ
        )

    def start_migration(self, address: str) -> subprocess.Popen[str]:
        """A migration in the background, with pipes as its streams."""
        return subprocess.Popen(
            [sys.executable, "-m", "buildkit_migrate", "migrate", "--address", address, str(self.root.root)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def verify(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return ondisk.run("verify", "--address", self.daemon.address, *arguments, str(self.root.root))

    def finish(self) -> BucketDict:
        """Collects garbage, stops the daemon and returns its database."""
        self.daemon.collect_garbage()
        self.daemon.stop()
        return ondisk.timeless(ondisk.tree(self.root.containerd))


@dataclass(frozen=True)
class Expected:
    """The result of the offline migration of the same state, after a daemon collected garbage in it."""

    v1: bytes
    v2: bytes
    containerd: BucketDict
    leases: int
    resources: int
    labels: int

    def check(self, live: Live) -> None:
        assert live.root.v1.read_bytes() == self.v1
        assert live.root.v2.read_bytes() == self.v2
        assert live.root.left_behind == []
        assert live.finish() == self.containerd


@functools.cache
def offline_result() -> Expected:
    with tempfile.TemporaryDirectory() as directory:
        root = ondisk.sample_of_containerd(Path(directory))
        v1 = root.v1.read_bytes()
        result = root.migrate("--format", "json")
        assert result.returncode == 0, result.stderr
        counts = json.loads(result.stdout)["workers"][0]["counts"]
        with Containerd(Path(directory) / "ctd" / "root") as daemon:
            containerd = Live(root, daemon).finish()
        assert len(fixtures.leases_of(containerd)) == counts["records"]
        return Expected(
            v1,
            root.v2.read_bytes(),
            containerd,
            counts["leases_to_create"],
            counts["resources_to_add"],
            counts["unlabel_snapshots"] + counts["unlabel_blobs"],
        )


def error_of(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The error that a run reports as its JSON document."""
    assert "Traceback" not in result.stderr
    error: dict[str, Any] = json.loads(result.stdout)["error"]
    assert result.returncode == error["exit_code"]
    return error
