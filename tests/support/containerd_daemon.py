"""A private containerd: started on its own directory, queried with ctr, and stopped again."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any

NAMESPACE = "buildkit"
GC_ROOT = "containerd.io/gc.root"

# The garbage collector keeps its defaults; what needs hardware, network or other daemons is off.
CONFIG = """\
version = 2
root = "{root}"
state = "{state}"
disabled_plugins = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]
[grpc]
address = "{address}"
"""


@dataclass(frozen=True)
class Snapshot:
    kind: str
    """"Committed", "Active" or "View"."""
    parent: str
    """"" for a base."""


def why_missing() -> str:
    """The reason why no containerd can be started here, "" if one can."""
    for program in ("containerd", "ctr"):
        if shutil.which(program) is None:
            return f"no {program} command"
    return "" if os.geteuid() == 0 else "containerd needs root"


def end(process: subprocess.Popen[bytes] | None, patience: float) -> None:
    """Ends a daemon with SIGTERM, or with SIGKILL if it has not ended after so many seconds."""
    if process is None:
        return
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Containerd:
    """A daemon that runs inside a `with` block, in which `stop` and `start` may be called.

    `root`: containerd's root directory; what is in it before `start` is used. `address`: the socket.
    """

    def __init__(self, root: Path | None = None) -> None:
        # The path of a Unix socket has at most 107 bytes, which pytest's own directories may exceed.
        self.directory = Path(tempfile.mkdtemp(prefix="bkm", dir="/tmp"))
        self.root = root or self.directory / "root"
        self.address = str(self.directory / "s")
        self.log = self.directory / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._collections = itertools.count()

    def __enter__(self) -> Containerd:
        try:
            self.start()
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(self._last_words())
        self._discard()

    def start(self) -> None:
        """Starts the daemon and waits until it answers and has collected garbage, as it does at each start.

        From then on it collects again only after deletions or a hundred changes.
        """
        config = self.directory / "config.toml"
        config.write_text(CONFIG.format(root=self.root, state=self.directory / "state", address=self.address))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["containerd", "--config", config], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 60
        while self._ctr("version").returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"containerd does not answer\n{self._last_words()}")
            time.sleep(0.1)
        self.collect_garbage()

    def stop(self) -> None:
        """Ends the daemon with SIGTERM, or with SIGKILL if that does not help."""
        process, self._process = self._process, None
        end(process, 20)

    def kill(self) -> None:
        """Ends the daemon with SIGKILL."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def ctr(self, *arguments: str, data: bytes | None = None) -> str:
        """Runs ctr in the namespace `buildkit`; returns what it prints."""
        done = self._ctr(*arguments, data=data)
        if done.returncode != 0:
            raise RuntimeError(f"ctr {' '.join(arguments)}: {done.stderr.decode()}\n{self._last_words()}")
        return done.stdout.decode()

    def leases(self) -> dict[str, dict[str, str]]:
        """Labels of each lease."""
        lines = self.ctr("leases", "ls").splitlines()[1:]
        fields = [line.split(maxsplit=2) for line in lines]
        return {row[0]: _labels(row[2]) for row in fields}

    def create_lease(self, name: str, *labels: str) -> None:
        """A lease that does not expire, with labels as `key=value`."""
        self.ctr("leases", "create", "--id", name, "--expires", "0", *labels)

    def collect_garbage(self) -> None:
        """Runs the garbage collector and waits for it."""
        name = f"collect-garbage-{next(self._collections)}"  # several threads may ask for one
        self.create_lease(name)
        self.ctr("leases", "delete", "--sync", name)

    def snapshots(self, snapshotter: str) -> dict[str, Snapshot]:
        """All snapshots by name."""
        found = {}
        for line in self.ctr("snapshots", "--snapshotter", snapshotter, "ls").splitlines()[1:]:
            name, *parent, kind = line.split()
            found[name] = Snapshot(kind, "".join(parent))
        return found

    def snapshot_labels(self, snapshotter: str, name: str) -> dict[str, str]:
        info: dict[str, Any] = json.loads(self.ctr("snapshots", "--snapshotter", snapshotter, "info", name))
        labels: dict[str, str] = info.get("Labels", {})
        return labels

    def prepare(self, snapshotter: str, name: str, parent: str = "") -> None:
        """Makes an active snapshot, labelled as a root of the garbage collector (as BuildKit v0.6.4 does)."""
        self.ctr("snapshots", "--snapshotter", snapshotter, "prepare", name, *([parent] if parent else []))

    def commit(self, snapshotter: str, name: str, active: str) -> None:
        """Commits an active snapshot under another name, with the same label."""
        self.ctr("snapshots", "--snapshotter", snapshotter, "commit", name, active)

    def view(self, snapshotter: str, name: str, parent: str) -> None:
        """Makes a view, with the same label."""
        snapshots = ("snapshots", "--snapshotter", snapshotter)
        self.ctr(*snapshots, "view", name, parent)
        self.ctr(*snapshots, "label", name, f"{GC_ROOT}={datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")

    def content(self) -> dict[str, dict[str, str]]:
        """Labels of each blob by digest."""
        lines = self.ctr("content", "ls").splitlines()[1:]
        fields = [line.split("\t") for line in lines]
        return {row[0]: _labels(row[-1]) for row in fields}

    def ingest(self, data: bytes, *labels: str) -> str:
        """Stores a blob, with labels as `key=value`; returns its digest."""
        digest = f"sha256:{sha256(data).hexdigest()}"
        self.ctr("content", "ingest", "--expected-digest", digest, digest, data=data)
        if labels:
            self.ctr("content", "label", digest, *labels)
        return digest

    def _ctr(self, *arguments: str, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        command = ["ctr", "--address", self.address, "--namespace", NAMESPACE, *arguments]
        return subprocess.run(command, input=data or b"", capture_output=True, timeout=60)

    def _last_words(self) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return f"containerd's log ends with:\n{text[-4000:]}"

    def _discard(self) -> None:
        self.stop()
        shutil.rmtree(self.directory)


def _labels(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in text.strip().split(",") if "=" in pair)
