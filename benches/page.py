"""What ``pytest benches --report DIR`` writes: results.json, a picture (SVG) of each kind, index.html."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

from buildkit_migrate.bench.drawing import Chart, draw
from buildkit_migrate.bench.pictures import charts
from buildkit_migrate.bench.points import Point, combined, read, text

RESULTS = "results.json"

_HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>buildkit-migrate: benches</title>
<style>
body { font-family: sans-serif; margin: 2em; max-width: 60em }
img { max-width: 100% }
td, th { text-align: right; padding: 0 1em 0 0; font-size: 85% }
td:first-child, th:first-child { text-align: left }
</style>
<h1>buildkit-migrate: benches</h1>
<p>"Times" is the ratio to a floor or baseline measured in the same run; greater is slower.
All values as JSON: <a href="results.json">results.json</a>.</p>
"""


def write_report(directory: Path, new: Iterable[Point]) -> None:
    """Adds points to those that are there, and draws all pictures again."""
    directory.mkdir(parents=True, exist_ok=True)
    results = directory / RESULTS
    points = combined(read(results) if results.exists() else [], new)
    found = charts(points)
    for name, chart in found.items():
        (directory / f"{name}.svg").write_bytes(draw(chart))
    results.write_text(text(points))
    (directory / "index.html").write_text(page(found, points))


def page(found: dict[str, Chart], points: list[Point]) -> str:
    """Each picture, and below it its values."""
    return _HEAD + "".join(
        part
        for name, chart in found.items()
        for part in _section(name, chart, [point for point in points if point.picture == name])
    )


def _section(name: str, chart: Chart, points: Iterable[Point]) -> Iterator[str]:
    yield f'<h2 id="{name}">{escape(chart.title)}</h2>\n<img src="{name}.svg" alt="{escape(chart.title)}">\n'
    yield f"<table>\n<tr><th><th>{escape(chart.x)}<th>{escape(chart.y)}<th>times\n"
    for point in points:
        ratio = "" if point.ratio is None else f"{point.ratio:.2f}"
        at = escape(str(point.at))
        yield f"<tr><td>{escape(point.series)}<td>{at}<td>{point.value:,.4g}<td>{ratio}\n"
    yield "</table>\n"
