"""`check` and `du`: ``pytest benches/bench_check.py [--records N,N] [--directory DIR]``.

Each command runs in a process of its own on a healthy synthetic v2 root, and is compared with reading the
databases that it reads from front to back, which one thread does: "x floor" is time that passes. `check` uses
two threads, so its processor time is given, too. The check of pages is compared with bbolt's own on each
database of that root; that takes a Go compiler and Debian's package of bbolt.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import judge
from buildkit_migrate.bench.floors import copy_seconds
from buildkit_migrate.bench.synthetic_v2 import DATABASES, Stats, generate
from buildkit_migrate.bolt import Database, check
from conftest import Report

ROUNDS = 3
SAMPLING = 0.002  # seconds
STARTED = 100  # records of a root that takes no time: what is left is the start of the interpreter
READ = {"check": DATABASES, "du": DATABASES[:3]}


@dataclass(frozen=True)
class Run:
    """``processor``: time of all threads, the system's included, in seconds. ``private``: peak of anonymous
    memory in bytes (RssAnon of /proc); mapped files do not count.
    """

    seconds: float
    processor: float
    private: int


class Root:
    def __init__(self, path: Path, stats: Stats) -> None:
        self.path = path
        self.stats = stats

    def databases(self, names: tuple[str, ...] = DATABASES) -> list[Path]:
        return [self.path / name for name in names]


@pytest.fixture(scope="module")
def root(records: int, directory: str | None) -> Iterator[Root]:
    with tempfile.TemporaryDirectory(dir=directory) as place:
        path = Path(place) / "root"
        yield Root(path, generate(path, records))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "root"
    generate(path, STARTED)
    return path


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> judge.Judge:
    if missing := judge.why_missing():
        pytest.skip(missing)
    return judge.Judge(tmp_path_factory.mktemp("judge"))


def run(command: str, root: Path) -> Run:
    """Runs the command on a healthy root; its memory is sampled from outside."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "buildkit_migrate", command, str(root)], stdout=subprocess.DEVNULL
    )
    peak = 0
    while True:
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        peak = max(peak, private(process.pid))
        time.sleep(SAMPLING)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return Run(seconds, used.ru_utime + used.ru_stime, peak)


def private(pid: int) -> int:
    """0 once the process has ended."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:")), 0)


def best(runs: list[Run]) -> Run:
    """The least times, and the most memory."""
    return Run(
        min(run.seconds for run in runs), min(run.processor for run in runs), max(run.private for run in runs)
    )


@pytest.mark.parametrize("command", READ)
def test_command(benchmark: BenchmarkFixture, report: Report, root: Root, small: Path, command: str) -> None:
    paths = root.databases(READ[command])
    runs: list[Run] = []
    benchmark.pedantic(lambda: runs.append(run(command, root.path)), rounds=ROUNDS, warmup_rounds=1)
    measured = best(runs[1:])
    start = best([run(command, small) for _ in range(ROUNDS)])
    floor = copy_seconds(paths, 0, root.path.parent)
    memory = (measured.private - start.private) / root.stats.records
    report.add(
        "check and du, against reading the databases",
        command=command,
        records=f"{root.stats.records:,}",
        read_MB=f"{sum(path.stat().st_size for path in paths) / 1e6:,.1f}",
        seconds=f"{measured.seconds:.2f}",
        processor_s=f"{measured.processor:.2f}",
        start_s=f"{start.seconds:.2f}",
        floor_s=f"{floor:.3f}",
        x_floor=f"{(measured.seconds - start.seconds) / floor:.2f}",
        memory_B_per_record=f"{memory:,.0f}",
    )
    at, seconds = f"{command}, {root.stats.records:,} records", measured.seconds - start.seconds
    report.add_point("care", "without the start of Python", at, seconds, seconds / floor)
    report.add_point("care", "reading the databases: floor", at, floor)
    benchmark.extra_info.update(
        records=root.stats.records, floor=floor, processor=measured.processor, memory_per_record=memory
    )


def page_seconds(path: Path) -> float:
    with Database.open(path) as database:
        began = time.perf_counter()
        found = check(database.reader)
        seconds = time.perf_counter() - began
    assert found == []
    return seconds


@pytest.mark.parametrize("name", DATABASES)
def test_pages(benchmark: BenchmarkFixture, report: Report, root: Root, go: judge.Judge, name: str) -> None:
    path = root.path / name
    ours: list[float] = []
    theirs: list[float] = []

    def both() -> None:
        ours.append(page_seconds(path))
        theirs.append(go.seconds(path))

    benchmark.pedantic(both, rounds=ROUNDS, warmup_rounds=1)
    report.add(
        "Check of all pages, against bbolt's own",
        database=name,
        records=f"{root.stats.records:,}",
        MB=f"{path.stat().st_size / 1e6:,.1f}",
        milliseconds=f"{min(ours) * 1e3:.2f}",
        bbolt_milliseconds=f"{min(theirs) * 1e3:.2f}",
        ratio=f"{min(theirs) / min(ours):.1f}",
    )
    short = name.removeprefix("runc-overlayfs/").removesuffix("/metadata.db").removesuffix(".db")
    at = f"{short}\n{path.stat().st_size / 1e6:,.1f} MB"
    report.add_point("pages", "buildkit-migrate", at, min(ours) * 1e3, min(ours) / min(theirs))
    report.add_point("pages", "bbolt for Go", at, min(theirs) * 1e3)
    benchmark.extra_info.update(records=root.stats.records, ratio=min(theirs) / min(ours))
