"""Compaction against bbolt's own: ``pytest benches/bench_compact.py [--records N] [--directory DIR]``.

Needs the Go packages that tests/support/judge.py names. A file has 1000 bytes for each record: 1,000,000 make
1 GB.
The floor is the time to copy what is left through the page cache, with one fsync, as cp and sync do; the last
column is that of the same bypassing the cache.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import judge
from buildkit_migrate import compact_root, undo_compaction
from buildkit_migrate.bench.floors import one_copy_seconds
from conftest import Report

_BYTES = 1000
_ROUNDS = 5


@pytest.fixture(scope="module")
def place(directory: str | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=directory) as place:
        yield Path(place)


@pytest.fixture(scope="module")
def program(place: Path) -> Path:
    if reason := judge.why_missing():
        pytest.skip(reason)
    return judge.build(Path(__file__).with_name("compact.go"), place)


def seconds_of_ours(path: Path) -> float:
    os.sync()
    began = time.perf_counter()
    compact_root(path)
    return time.perf_counter() - began


def seconds_of_bbolt(program: Path, path: Path, target: Path) -> float:
    target.unlink(missing_ok=True)
    os.sync()
    done = subprocess.run([program, "compact", path, target], capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.parametrize("content", ["full", "little"])
def test_compaction(
    benchmark: BenchmarkFixture, report: Report, records: int, content: str, program: Path, place: Path
) -> None:
    path, theirs = place / f"{content}.db", place / "theirs.db"
    path.unlink(missing_ok=True)
    subprocess.run([program, content, path, str(records * _BYTES)], check=True)
    before = path.stat().st_size
    ours: list[float] = []
    bbolt: list[float] = []
    copied: dict[bool, list[float]] = {True: [], False: []}

    def turn() -> None:
        """All three, so that what else the machine does meets them alike."""
        ours.append(seconds_of_ours(path))
        for direct, seconds in copied.items():
            seconds.append(one_copy_seconds([path], path.stat().st_size, place, direct=direct))
        bbolt.append(seconds_of_bbolt(program, path.with_name(path.name + ".before-compact"), theirs))

    benchmark.pedantic(turn, teardown=lambda: undo_compaction(path), rounds=_ROUNDS)
    compact_root(path)
    report.add(
        "Compaction of a database",
        file=content,
        MB=f"{before / 1e6:,.0f}",
        left_MB=f"{path.stat().st_size / 1e6:,.1f}",
        bbolts_MB=f"{theirs.stat().st_size / 1e6:,.1f}",
        seconds=f"{min(ours):.3f}",
        bbolt_s=f"{min(bbolt):.3f}",
        x_faster=f"{min(bbolt) / min(ours):.1f}",
        floor_s=f"{min(copied[False]):.3f}",
        x_floor=f"{min(ours) / min(copied[False]):.2f}",
        direct_s=f"{min(copied[True]):.3f}",
    )
    at = f"{content}\n{before / 1e6:,.0f} MB, {path.stat().st_size / 1e6:,.1f} MB left"
    report.add_point("compact", "buildkit-migrate", at, min(ours), min(ours) / min(copied[False]))
    report.add_point("compact", "bbolt for Go", at, min(bbolt), min(bbolt) / min(copied[False]))
    report.add_point("compact", "copying what is left: floor", at, min(copied[False]))
    for file in (path, theirs, path.with_name(path.name + ".before-compact")):
        file.unlink()
