"""Each stage of an offline migration: ``pytest benches/bench_stages.py [--records N,N] [--directory DIR]``.

Each stage runs in its own process on the same synthetic root. It is compared with copying the bytes that it
reads and writes, with one fsync, and, if it hashes, with hashing as many blocks by the best kernel. fsyncs
are counted if strace is installed. The oracle runs on the same root if that is not too large.

``--race COMMAND`` measures another migration: the command gets a copy of the v1 store and a world file, and
prints how many seconds it took. The world file is JSON with the answers of the containerd services, in
``snapshots`` (id, kind, parent, gcroot) and ``content`` (digest, gcroot); empty values are left out.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import orjson
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from buildkit_migrate.bench.floors import block_seconds
from buildkit_migrate.bench.measure import Measured, best, measure
from buildkit_migrate.bench.parts import SHAPES
from buildkit_migrate.bench.pictures import stage_points
from buildkit_migrate.bench.results import Result, set_against_floor
from buildkit_migrate.bench.stages import STAGES
from buildkit_migrate.bench.synthetic import (
    CONTAINERD,
    SNAPSHOTS,
    SNAPSHOTTER,
    V1,
    WORKER,
    Stats,
    generate,
)
from buildkit_migrate.bolt import Database
from buildkit_migrate.containerd.plain import read_state
from conftest import Report

ROUNDS = 3
ORACLE_RECORDS = 100_000  # more would take too much time and memory
PICTURED = "forest"  # what real caches are like
TABLE = "Stages of an offline migration"
STRACE = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", "signal=none", "-e", "trace=fsync,fdatasync,msync"]


class Root:
    def __init__(self, path: Path, stats: Stats, shape: str) -> None:
        self.path = path
        self.stats = stats
        self.shape = shape


@pytest.fixture(scope="module", params=SHAPES)
def root(request: pytest.FixtureRequest, records: int, directory: str | None) -> Iterator[Root]:
    with tempfile.TemporaryDirectory(dir=directory) as place:
        path = Path(place) / "root"
        yield Root(path, generate(path, request.param, records), request.param)


@pytest.fixture(scope="module")
def block() -> float:
    return block_seconds()


@cache
def may_trace() -> bool:
    if shutil.which("strace") is None:
        return False
    return (
        subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode
        == 0
    )


def run(stage: str, root: Path) -> tuple[Measured, int | None]:
    """Runs a stage. Returns the measurement, and the number of fsyncs if they can be counted."""
    if not may_trace():
        return measure(stage, root), None
    with tempfile.NamedTemporaryFile("r") as trace:
        measured = measure(stage, root, wrapper=[*STRACE, "-o", trace.name])
        return measured, sum("unfinished" not in line for line in trace)


@pytest.mark.parametrize("stage", STAGES)
def test_stage(benchmark: BenchmarkFixture, report: Report, root: Root, block: float, stage: str) -> None:
    if stage == "oracle" and root.stats.records > ORACLE_RECORDS:
        pytest.skip(f"the oracle is for {ORACLE_RECORDS} records at most")
    done: list[tuple[Measured, int | None]] = []
    benchmark.pedantic(lambda: done.append(run(stage, root.path)), rounds=1 if stage == "oracle" else ROUNDS)
    measured = best([measured for measured, _ in done])
    result = set_against_floor(measured, root.path, root.stats, block, done[0][1])
    report.add_result(f"{TABLE}, {root.shape}", result)
    if root.shape == PICTURED:
        report.points += stage_points(stage, result, report.run)
    benchmark.extra_info.update(result.as_dict())
    compare(report, root, result)


def compare(report: Report, root: Root, result: Result) -> None:
    """Reports ratios to earlier measurements of the same run."""
    earlier = report.results(f"{TABLE}, {root.shape}")
    for other in earlier:
        if other.title == result.title and other.records < result.records:
            report.add(
                "Cost of a record as the root grows",
                what=f"{root.shape}, {result.title}",
                records=f"{result.records:,}",
                against=f"{other.records:,}",
                ratio=f"{result.nanoseconds / other.nanoseconds:.2f}",
            )
    if result.title == STAGES["oracle"].title:
        dry_run = next(
            other
            for other in earlier
            if other.title == STAGES["dry-run"].title and other.records == result.records
        )
        report.add(
            "Plain Python against native code, reading and planning",
            what=f"{root.shape}, {result.records:,}",
            times_as_long=f"{result.seconds / dry_run.seconds:.0f}",
        )


def write_world(root: Path, world: Path) -> None:
    worker = root / WORKER
    with Database.open(worker / CONTAINERD) as containerd, Database.open(worker / SNAPSHOTS) as snapshots:
        state = read_state(containerd.root, snapshots.root, "buildkit", SNAPSHOTTER)
    gcroot = {"gcroot": "2019-11-01T08:00:00Z"}
    document = {
        "snapshotter": SNAPSHOTTER,
        "snapshots": [
            {
                "id": name.decode(),
                "kind": snapshot.kind.name.lower(),
                **({"parent": snapshot.parent.decode()} if snapshot.parent else {}),
                **(gcroot if snapshot.root_label else {}),
            }
            for name, snapshot in state.snapshots.items()
        ],
        "content": [
            {"digest": digest.decode(), **(gcroot if blob.root_label else {})}
            for digest, blob in state.blobs.items()
        ],
    }
    world.write_bytes(orjson.dumps(document))


def test_race(
    benchmark: BenchmarkFixture, report: Report, root: Root, request: pytest.FixtureRequest
) -> None:
    command = request.config.getoption("--race")
    if command is None:
        pytest.skip("no --race COMMAND")
    seconds: list[float] = []
    with tempfile.TemporaryDirectory(dir=root.path.parent) as place:
        store, world = Path(place) / V1, Path(place) / "world.json"
        shutil.copyfile(root.path / WORKER / V1, store)
        write_world(root.path, world)

        def race() -> None:
            done = subprocess.run(
                [*shlex.split(command), str(store), str(world)], stdout=subprocess.PIPE, text=True, check=True
            )
            seconds.append(float(done.stdout.split()[-1]))

        benchmark.pedantic(race, rounds=1)
        ours = measure("migrate", root.path)
    report.add(
        "Another migration against this one",
        what=f"{root.shape}, {root.stats.records:,}",
        seconds=f"{seconds[0]:.3f}",
        ours=f"{ours.seconds:.3f}",
        ratio=f"{seconds[0] / ours.seconds:.1f}",
    )
    if root.shape == PICTURED:
        report.add_point("cost", f"another migration: {command}", root.stats.records, seconds[0])
