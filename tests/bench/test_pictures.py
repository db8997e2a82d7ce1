"""Pictures of the benches: points, charts, SVG, and those of the documentation."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

import page
import pages
from buildkit_migrate import cli
from buildkit_migrate.bench import compare
from buildkit_migrate.bench.drawing import Chart, Series, draw
from buildkit_migrate.bench.pictures import charts, stage_points, stages_chart
from buildkit_migrate.bench.points import Point, Run, changes, combined, read, text
from buildkit_migrate.bench.results import Result
from buildkit_migrate.bench.stages import STAGES

RUN = Run("pytest benches", "a processor, 2 CPUs", "2026-01-02")
POINT = Point("cost", "migration", 1000, 0.5, 2.0, RUN)
RESULT = Result("reading", 1000, 0.5, 0.25, 3_000_000, 0, 40_000)
SHOWN = pages.REPOSITORY / "docs" / "pictures"

needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="matplotlib (extra bench) is not installed"
)


def test_points_survive_json(tmp_path: Path) -> None:
    points = [
        POINT,
        replace(POINT, at="metadata_v2", ratio=None),
        replace(POINT, series="other", run=replace(RUN, date="2026-01-03")),
    ]
    (tmp_path / "results.json").write_text(text(points))
    assert read(tmp_path / "results.json") == points


@pytest.mark.parametrize("content", ["{}", '{"schema": 0, "runs": [], "points": []}', "no JSON"])
def test_other_files_are_no_results(content: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(ValueError):
        read(tmp_path / "results.json")


def test_new_points_replace_old_ones_at_their_place() -> None:
    old = [POINT, replace(POINT, at=100), replace(POINT, picture="live")]
    new = [replace(POINT, value=0.4), replace(POINT, at=10)]
    assert combined(old, new) == [new[0], old[1], old[2], new[1]]


def test_a_picture_shows_one_machine() -> None:
    other = replace(RUN, machine="another processor")
    old = [replace(POINT, at=100), replace(POINT, picture="live")]
    assert combined(old, [replace(POINT, run=other)]) == [old[1], replace(POINT, run=other)]


def test_ratios_are_compared_and_not_seconds() -> None:
    floor = replace(POINT, series="floor", ratio=None)
    now = [replace(POINT, value=5.0, ratio=2.5), replace(floor, value=9.0), replace(POINT, at=10)]
    (change,) = changes([POINT, floor], now)
    assert (change.before, change.now) == (2.0, 2.5)
    assert change.line() == "cost: migration, 1,000: 2.00 -> 2.50 times what it is compared with"


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_is_drawn_with_its_floor(stage: str) -> None:
    points = list(stage_points(stage, RESULT, RUN))
    assert {point.picture for point in points} <= {"cost", "stages"}
    assert points[0].ratio == 2.0
    assert points[0].value in (0.5, 500.0)  # seconds in all, or microseconds a record
    if stage in ("dry-run", "oracle"):
        assert len(points) == 1
    else:
        assert (points[1].value * 2, points[1].ratio) == (points[0].value, None)


def test_stages_are_stacked_in_the_order_of_a_migration() -> None:
    chart = stages_chart(dict.fromkeys(STAGES, RESULT), RUN)
    assert [series.name for series in chart.series] == [stage.title for stage in list(STAGES.values())[:5]]
    assert all(list(series.values) == ["1,000", "1,000\nfloor"] for series in chart.series)
    assert chart.notes == ["pytest benches  (a processor, 2 CPUs; 2026-01-02)"]


def test_pictures_are_made_of_what_was_measured() -> None:
    points = [
        replace(POINT, picture="kernels", series="hashlib"),
        POINT,
        replace(POINT, series="migration: floor"),
    ]
    found = charts(points)
    assert list(found) == ["cost", "kernels"]
    assert found["cost"].series == [
        Series("migration", {1000: 0.5}),
        Series("migration: floor", {1000: 0.5}, reference=True),
    ]
    assert found["kernels"].series[0].reference


@needs_matplotlib
@pytest.mark.parametrize("kind", ["lines", "bars", "stack"])
def test_a_drawing_is_small_and_always_the_same(kind: str) -> None:
    places: list[float | str] = [1.0, 10.0, 1e6] if kind == "lines" else ["full", "little", "a & b"]
    values = dict(zip(places, (0.1, 2.0, 3000.0), strict=True))
    series = [Series("migration", values), Series("floor", values, reference=True)]
    chart = Chart(kind, "Cost <of> all", "records", "seconds", series, True, ["pytest " + "benches " * 40])
    drawn = draw(chart)
    assert drawn == draw(chart)
    assert len(drawn) < 100_000
    assert b"Cost &lt;of&gt; all" in drawn
    assert b"dc:date" not in drawn


@needs_matplotlib
def test_a_report_adds_to_what_is_there(tmp_path: Path) -> None:
    page.write_report(tmp_path / "new", [POINT])
    page.write_report(tmp_path / "new", [replace(POINT, picture="live", series="a <b>", ratio=None)])
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        "cost.svg", "live.svg", "index.html", "results.json"
    }  # fmt: skip
    html = (tmp_path / "new" / "index.html").read_text()
    assert "<tr><td>migration<td>1000<td>0.5<td>2.00\n" in html
    assert "<tr><td>a &lt;b&gt;<td>1000<td>0.5<td>\n" in html


def test_svg_without_matplotlib_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(compare, "compare", lambda *_: pytest.fail("it was measured"))
    assert cli.main(["bench", "--format", "svg"]) == 2
    assert "buildkit-migrate[bench]" in capsys.readouterr().err


@needs_matplotlib
def test_svg_shows_the_stages(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    results = dict.fromkeys(STAGES, RESULT)
    stats = type("Stats", (), {"records": 1000})
    done = type("Comparison", (), {"results": results, "machine": RUN.machine, "stats": stats})
    monkeypatch.setattr(compare, "compare", lambda *_: done)
    assert cli.main(["bench", "--format", "svg"]) == 0
    drawn = capsysbinary.readouterr().out
    assert drawn.startswith(b"<?xml")
    assert b"buildkit-migrate bench --records 1000  (a processor, 2 CPUs; " in drawn


def test_pictures_of_the_documentation_are_those_of_its_results() -> None:
    """Each tells its command, machine and date, and is light enough for a README."""
    found = charts(read(SHOWN / "results.json"))
    assert {path.stem for path in SHOWN.glob("*.svg")} == set(found)
    performance = (pages.REPOSITORY / "docs" / "performance.md").read_text()
    for name, chart in found.items():
        drawn = (SHOWN / f"{name}.svg").read_text()
        assert len(drawn) < 100_000
        assert f"](pictures/{name}.svg)" in performance
        for note in chart.notes:
            assert note.split()[0] in drawn
            assert note[-12:-1] in drawn
