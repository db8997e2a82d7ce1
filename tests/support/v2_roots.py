"""Real v2 roots with what their daemons said of them; each test that asks for one has a copy of its own.

Those of ``data/fixtures/v2`` (see fixtures.py; MANIFEST.md there describes them), and `healed`, which the
source distribution has, too. They hold device nodes, so that only root can unpack them.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gzip
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import fixtures
from buildkit_migrate.containerd.services import ConnectionOptions
from buildkit_migrate.settings import DEFAULT_NAMESPACE, Setting
from buildkit_migrate.workspace.opening import ContainerdPlace
from buildkit_migrate.workspace.stores import Stores, find_state, open_stores

__all__ = ["NAMES", "V2Root", "healed", "healed_databases", "v2_root"]

NAMES = ("rich", "native", "v012", "containerd", "healed", "growth")
HEALED = Path(__file__).parents[1] / "data" / "healed-v2-root.tar.zst"


@dataclass(frozen=True)
class V2Root:
    """A root of a stopped daemon, and its one worker.

    ``containerd``: containerd's metadata database; ``snapshots``: the snapshotter's. ``options``: what
    commands need for it.
    """

    root: Path
    name: str
    worker: Path
    containerd: Path
    snapshots: Path
    snapshotter: str
    options: tuple[str, ...] = ()

    @property
    def records(self) -> Path:
        return self.worker / "metadata_v2.db"

    @property
    def cache(self) -> Path:
        return self.root / "cache.db"

    @property
    def history(self) -> Path:
        return self.root / "history.db"

    @property
    def directories(self) -> Path:
        """Where the snapshots are, each in a directory named by its number."""
        return self.snapshots.parent / "snapshots"

    @property
    def databases(self) -> tuple[Path, ...]:
        return self.records, self.containerd, self.snapshots, self.cache, self.history

    @property
    def place(self) -> ContainerdPlace:
        containerd_root = Setting(self.options[1]) if self.options else None
        return ContainerdPlace(ConnectionOptions(), containerd_root, DEFAULT_NAMESPACE, None)

    @contextlib.contextmanager
    def open(self) -> Iterator[Stores]:
        with open_stores(find_state(self.root), self.place) as stores:
            yield stores

    def said(self, name: str) -> bytes:
        """What the daemon said: of a file such as ``du-v.txt`` beside the root."""
        return gzip.decompress((fixtures.directory() / "v2" / self.name / f"{name}.gz").read_bytes())

    def du(self) -> list[dict[str, Any]]:
        """The records that ``buildctl du --format '{{json .}}'`` listed."""
        listed: list[dict[str, Any]] = json.loads(self.said("du.json"))
        return listed


def v2_root(name: str, into: Path) -> V2Root:
    """A private copy of one of the roots, below the directory ``into``."""
    archive = HEALED if name == "healed" else fixtures.directory() / "v2" / name / "v2.tar.zst"
    return _copy(archive, name, into)


def healed(into: Path) -> V2Root:
    """A private copy of the healthy root that the repository has."""
    return _copy(HEALED, "healed", into)


def healed_databases(into: Path) -> V2Root:
    """Only the databases of `healed`: they take less time and space than all files."""
    source = _unpacked(HEALED)
    for path in _root_in(source, "healed").databases:
        copy = into / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    (into / "root" / "buildkitd.lock").touch()
    return _root_in(into, "healed")


def _copy(archive: Path, name: str, into: Path) -> V2Root:
    source = _unpacked(archive)
    subprocess.run(["cp", "-a", "--reflink=auto", f"{source}/.", str(into)], check=True)
    return _root_in(into, name)


def _root_in(into: Path, name: str) -> V2Root:
    root = into / "root"
    (worker,) = [entry for entry in root.iterdir() if entry.name.startswith(("runc-", "containerd-"))]
    kind, _, snapshotter = worker.name.partition("-")
    if kind == "runc":
        snapshots = worker / "snapshots" / "metadata.db"
        return V2Root(root, name, worker, worker / "containerdmeta.db", snapshots, snapshotter)
    containerd = into / "ctd" / "root"
    return V2Root(
        root,
        name,
        worker,
        containerd / "io.containerd.metadata.v1.bolt" / "meta.db",
        containerd / f"io.containerd.snapshotter.v1.{snapshotter}" / "metadata.db",
        snapshotter,
        ("--containerd-root", str(containerd)),
    )


@functools.cache
def _unpacked(archive: Path) -> Path:
    """Unpacked once in a run; nobody writes there."""
    if reason := _why_not():
        pytest.skip(reason)
    into = Path(tempfile.mkdtemp(prefix="v2-root-"))
    atexit.register(shutil.rmtree, into, ignore_errors=True)
    unpack = ["tar", "--xattrs", "--xattrs-include=*", "-I", "zstd", "-xf", str(archive), "-C", str(into)]
    done = subprocess.run(unpack, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"can't unpack {archive.name} here: {done.stderr.strip().splitlines()[-1]}")
    return into


def _why_not() -> str:
    if os.geteuid() != 0:
        return "the layers of a real v2 root have device nodes, which only root can make"
    if shutil.which("zstd") is None:
        return "no zstd"
    return ""
