"""Docker's builder: our migration against the engine's own, in one run.

``pytest benches/bench_docker.py [--records N[,N...]] [--directory DIR]``. Needs root and a dockerd 20.10.
The engine's time is that from the making of ``metadata_v2.db.tmp`` to its renaming, as inotify tells it; the
start of the engine around it does not count. Ours is the whole call, with the reading of layers.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import dockerd
from buildkit_migrate.api import migrate_root
from buildkit_migrate.bench.synthetic_docker import LAYERS, generate
from buildkit_migrate.bolt import Database
from buildkit_migrate.schema.records import Records
from conftest import Report

pytestmark = pytest.mark.skipif(bool(dockerd.why_missing()), reason=dockerd.why_missing())

_CREATED, _MOVED_TO = 0x100, 0x80
_EVENT = struct.Struct("iIII")


@pytest.fixture
def place(directory: str | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=directory) as place:
        yield Path(place)


class Watch(threading.Thread):
    """Notes when names appear in a directory."""

    def __init__(self, directory: Path) -> None:
        super().__init__(daemon=True)
        self.times: dict[str, float] = {}
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init()
        if libc.inotify_add_watch(self._fd, os.fsencode(directory), _CREATED | _MOVED_TO) < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch")
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.is_set():
            if not select.select([self._fd], [], [], 0.1)[0]:
                continue
            data, now, at = os.read(self._fd, 1 << 16), time.perf_counter(), 0
            while at < len(data):
                size = _EVENT.unpack_from(data, at)[3]
                name = data[at + _EVENT.size : at + _EVENT.size + size].rstrip(b"\0")
                self.times[os.fsdecode(name)] = now
                at += _EVENT.size + size

    def end(self) -> None:
        self._ended.set()
        self.join()
        os.close(self._fd)


def seconds_of_engine(data: Path) -> float:
    watch = Watch(data / "buildkit")
    watch.start()
    os.sync()
    try:
        with dockerd.Dockerd(data, patience=3600):
            pass
    finally:
        watch.end()
    return watch.times["metadata_v2.db"] - watch.times["metadata_v2.db.tmp"]


def seconds_of_ours(data: Path) -> float:
    os.sync()
    began = time.perf_counter()
    migrate_root(data)
    return time.perf_counter() - began


@pytest.mark.parametrize("layers", [0.0, LAYERS], ids=["without layers", "with layers"])
def test_docker(
    benchmark: BenchmarkFixture, report: Report, records: int, layers: float, place: Path
) -> None:
    stats = generate(place / "root", "forest", records, layers=layers)
    subprocess.run(["cp", "-a", place / "root", place / "theirs"], check=True)
    ours = benchmark.pedantic(lambda: seconds_of_ours(place / "root"))
    theirs = seconds_of_engine(place / "theirs")
    for data in ("root", "theirs"):
        with Database.open(place / data / "buildkit" / "metadata_v2.db") as migrated:
            assert len(Records(migrated.root)) > 0.9 * records
    report.add(
        "Docker's builder",
        records=f"{records:,}",
        layers=f"{stats.layers:,}",
        ours=f"{ours:.2f} s",
        engine=f"{theirs:.2f} s",
        times_faster=f"{theirs / ours:.0f}",
    )
    if layers:
        report.add_point("cost", "Docker's builder: migration", records, ours, ours / theirs)
        report.add_point("cost", "Docker's builder: dockerd 20.10 itself", records, theirs)
