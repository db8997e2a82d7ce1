"""The bench command and its measurements."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from buildkit_migrate import cli
from buildkit_migrate.bench import compare, measure, stages
from buildkit_migrate.bench.floors import copy_seconds, kernel_seconds, one_copy_seconds
from buildkit_migrate.bench.results import Result, table
from buildkit_migrate.bench.synthetic import DATABASES, WORKER, generate
from ondisk import run

RECORDS = 300


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "root"
    generate(path, "forest", RECORDS)
    return path


def test_bench_prints_a_table(tmp_path: Path) -> None:
    result = run("bench", "--records", f"{RECORDS}", "--progress", "none", TMPDIR=str(tmp_path))
    assert (result.returncode, result.stderr) == (0, "")
    for stage in stages.STAGES.values():
        assert any(line.startswith(stage.title) for line in result.stdout.splitlines())
    assert "times as fast as the same in plain Python" in result.stdout
    assert not list(tmp_path.iterdir())


def test_bench_prints_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(compare, "ORACLE_RECORDS", 200)
    assert cli.main(["bench", "--records", f"{RECORDS}", "--format", "json"]) == 0
    document = json.loads(capsysbinary.readouterr().out)
    assert document["records"] == RECORDS
    results = document["results"]
    assert list(results) == list(stages.STAGES)
    assert results["oracle"]["records"] == 200  # a smaller root, as it is slow
    assert all(result["records"] == RECORDS for name, result in results.items() if name != "oracle")
    assert all(result["over_floor"] > 0 for name, result in results.items() if name != "oracle")
    assert results["migrate"]["written"] > results["v2"]["written"] > results["dry-run"]["written"] == 0
    assert document["oracle_over_dry_run"] == pytest.approx(
        results["oracle"]["nanoseconds_per_record"] / results["dry-run"]["nanoseconds_per_record"]
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("records", ["99", "10000001", "many"])
def test_impossible_number_of_records_is_refused(records: str) -> None:
    result = run("bench", "--records", records)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_too_little_disk_space_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**6))
    assert cli.main(["bench"]) == 8
    assert "0.3 GB of disk" in capsys.readouterr().err


def test_unwritable_directory_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/proc/self")
    assert cli.main(["bench"]) == 8
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("stage", stages.STAGES)
def test_stage_leaves_its_root_unchanged(stage: str, root: Path) -> None:
    before = {path: path.stat() for path in root.parent.rglob("*")}
    measured = measure.measure(stage, root)
    assert measured.seconds > 0
    assert measured.read == sum(before[root / WORKER / name].st_size for name in stages.STAGES[stage].reads)
    after = {path: path.stat() for path in root.parent.rglob("*")}
    assert set(after) == set(before)
    for path in before:
        if path.is_file():
            assert (after[path].st_ino, after[path].st_size) == (before[path].st_ino, before[path].st_size)


def test_bytes_written_by_a_stage_are_counted(root: Path) -> None:
    with stages.STAGES["migrate"].ready(root) as work:
        work()
        (copy,) = root.parent.glob("root.*")
        files = [copy / "root" / WORKER / name for name in ("metadata_v2.db", "containerdmeta.db")]
        size = sum(path.stat().st_size for path in files)
    assert size <= measure.measure("migrate", root).written <= size + 2**16


def test_failing_stage_is_named(root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(root, tmp_path / "root")
    (tmp_path / "root" / WORKER / DATABASES[0]).write_bytes(b"no database" * 1000)
    with pytest.raises(measure.StageFailedError, match=DATABASES[0]) as failure:
        measure.measure("plan", tmp_path / "root")
    assert failure.value.exit_code == 5
    assert capfd.readouterr() == ("", "")


def test_modules_of_the_current_directory_are_not_run(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "select.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    assert measure.measure("plan", root).seconds > 0


def test_rounds_give_the_best_time_and_the_most_memory() -> None:
    rounds = [
        measure.Measured("plan", seconds, 0, 0, private) for seconds, private in ((2, 7), (1, 5), (3, 6))
    ]
    assert measure.best(rounds) == measure.Measured("plan", 1, 0, 0, 7)


def test_table_leaves_out_empty_columns() -> None:
    result = Result("reading", 1000, 0.5, 0.25, 3_000_000, 0, 40_000, 2)
    titles, row = table([result])
    assert titles.split()[0] == "records"
    assert row.split() == ["reading", "1,000", "0.500", "500,000", "3.0", "0.0", "2", "40", "0.250", "2.00"]
    titles, row = table([replace(result, syncs=None, floor=None)])
    assert "fsyncs" not in titles
    assert row.split() == ["reading", "1,000", "0.500", "500,000", "3.0", "0.0", "40"]


def test_floors_are_measured_and_leave_nothing_behind(tmp_path: Path) -> None:
    assert 1e-10 < kernel_seconds() < 1e-5
    (tmp_path / "source").write_bytes(bytes(3 << 20))
    for direct in (False, True):
        assert one_copy_seconds([tmp_path / "source"], 5_000_001, tmp_path, direct=direct) > 0
        assert [path.name for path in tmp_path.iterdir()] == ["source"]
    assert 0 < copy_seconds([tmp_path / "source"], 5 << 20, tmp_path) < float("inf")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
