"""A whole offline migration: ``pytest benches/bench_migrate.py -s [--records N] [--directory DIR]``.

In one run, on the same root: the command's own work in a process of its own, the plain-Python reference
model (reading and planning alone: it writes nothing), and the floor, writing as many bytes with one fsync.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from roots import WORKER, generate

MIGRATE = "from buildkit_migrate import migrate_root; migrate_root({root!r})"
PLAN = "from buildkit_migrate import migrate_root; migrate_root({root!r}, dry_run=True)"
REFERENCE = """
from pathlib import Path
from buildkit_migrate import reference
from buildkit_migrate.bolt.file import Database
from buildkit_migrate.migration.model import Kind, PlainSurvey, Snapshot

def database(name):
    return Database.open(Path({root!r}) / {worker!r} / name).root

def rows(bucket):
    return bucket.items() if bucket is not None else ()

records = {{
    id: {{key: value if isinstance(value, bytes) else None for key, value in record.items()}}
    for id, record in rows(database("metadata.db").bucket(b"_main")) if not isinstance(record, bytes)
}}
containerd = database("containerdmeta.db").bucket(b"v1", b"buildkit")
kinds = database("snapshots/metadata.db").bucket(b"v1", b"snapshots")

def labelled(row):
    labels = row.bucket(b"labels")
    return labels is not None and labels.get(b"containerd.io/gc.root") is not None

survey = PlainSurvey(
    "overlayfs",
    {{
        name: Snapshot(
            Kind(kinds.bucket(row.get(b"name")).get(b"kind")[0]), row.get(b"parent") or b"", labelled(row)
        )
        for name, row in rows(containerd.bucket(b"snapshots", b"overlayfs"))
    }},
    {{digest: labelled(row) for digest, row in rows(containerd.bucket(b"content", b"blob"))}},
)
reference.plan(records, survey)
"""


@pytest.fixture(scope="module")
def root(request: pytest.FixtureRequest) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=request.config.getoption("--directory")) as directory:
        path = Path(directory) / "root"
        generate(path, "forest", request.config.getoption("--records"))
        yield path


def anonymous(pid: int) -> int:
    """Private memory of a process in bytes; mapped files do not count."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0  # it has ended


def run(code: str) -> tuple[float, int]:
    """Seconds and peak private memory, sampled, of a Python process that runs `code`."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code])
    peak = 0
    while process.poll() is None:
        peak = max(peak, anonymous(process.pid))
        time.sleep(0.005)
    assert process.returncode == 0
    return time.perf_counter() - began, peak


def copy_floor(directory: Path, size: int) -> float:
    """Seconds for writing `size` bytes with one fsync."""
    block = os.urandom(1 << 20)
    path = directory / "floor"
    began = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for _ in range(size >> 20):
            file.write(block)
        os.fsync(file.fileno())
    seconds = time.perf_counter() - began
    path.unlink()
    return seconds


def test_whole_offline_migration(
    benchmark: BenchmarkFixture, root: Path, request: pytest.FixtureRequest
) -> None:
    records = request.config.getoption("--records")
    copy = root.parent / "migrated"
    results: list[tuple[float, int]] = []

    def prepare() -> None:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(root, copy)
        os.sync()

    benchmark.pedantic(lambda: results.append(run(MIGRATE.format(root=str(copy)))), setup=prepare, rounds=3)
    seconds, memory = min(results)
    plan_seconds, plan_memory = run(PLAN.format(root=str(root)))
    reference_seconds, reference_memory = run(REFERENCE.format(root=str(root), worker=WORKER))
    written = sum((copy / WORKER / name).stat().st_size for name in ("metadata_v2.db", "containerdmeta.db"))
    floor = copy_floor(root.parent, written)
    shutil.rmtree(copy)

    print(f"\n{records} records, {written / 1e6:.0f} MB written")
    for name, took, peak in (
        ("migration, all", seconds, memory),
        ("plan alone (dry run)", plan_seconds, plan_memory),
        ("reference.py, plan alone", reference_seconds, reference_memory),
        ("writing the same bytes", floor, 0),
    ):
        print(f"  {name:26} {took:7.2f} s  {peak / records:6.0f} bytes/record")
    print(f"  plan: {reference_seconds / plan_seconds:.1f} times as fast as reference.py")
    print(f"  migration: {seconds / floor:.2f} times the time of writing the bytes")
    benchmark.extra_info.update(
        records=records,
        written=written,
        bytes_per_record=memory / records,
        reference_over_plan=reference_seconds / plan_seconds,
        migration_over_floor=seconds / floor,
    )
