"""Cost to a daemon at each start: ``pytest benches/bench_embed.py``.

Importing the package, compared with a bare interpreter; `ensure_migrated` and `ensure_sound`, if all is well.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from buildkit_migrate import ensure_migrated, ensure_sound, migrate_root
from buildkit_migrate.bench.synthetic import generate
from buildkit_migrate.bench.synthetic_v2 import generate as generate_v2
from conftest import Report

TABLE = "Cost to a daemon at each start"


def start(code: str) -> float:
    """Seconds that a new interpreter takes to run this code, without site packages."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-S", "-c", code], check=True)
    return time.perf_counter() - began


def test_import(benchmark: BenchmarkFixture, report: Report) -> None:
    """Alternates with bare starts; the difference of the fastest ones counts."""
    source = Path(migrate_root.__code__.co_filename).parents[1]
    code = f"import sys; sys.path.insert(0, {str(source)!r}); import buildkit_migrate"
    bare: list[float] = []

    def alternate() -> None:
        bare.append(start("import sys"))

    benchmark.pedantic(start, args=(code,), setup=alternate, rounds=30)
    extra = benchmark.stats.stats.min - min(bare)
    report.add(TABLE, what="import, above a bare interpreter", microseconds=f"{extra * 1e6:.0f}")


@pytest.mark.parametrize("workers", [1, 4])
def test_ensure_migrated(workers: int, benchmark: BenchmarkFixture, report: Report) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "root"
        generate(root, "flat", 100)
        (worker,) = root.glob("runc-*")
        for number in range(1, workers):
            twin = root / f"runc-native{number}"
            twin.mkdir()
            for name in ("metadata.db", "metadata_v2.db"):
                (twin / name).write_bytes((worker / "metadata.db").read_bytes())
        migrate_root(root)
        assert benchmark(ensure_migrated, str(root)) == []
        report.add(
            TABLE,
            what=f"ensure_migrated, workers: {workers}",
            microseconds=f"{benchmark.stats.stats.min * 1e6:.0f}",
        )


@pytest.mark.parametrize("number", [100, 10_000])
def test_ensure_sound(number: int, benchmark: BenchmarkFixture, report: Report) -> None:
    """Five databases, whose number of records should make no difference."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "root"
        generate_v2(root, number)
        assert benchmark(ensure_sound, str(root)).sound
        report.add(
            TABLE,
            what=f"ensure_sound, records: {number:,}",
            microseconds=f"{benchmark.stats.stats.min * 1e6:.0f}",
        )
