"""The pictures of the benches: which there are, and charts of measured points. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from buildkit_migrate.bench.drawing import Chart, Series
from buildkit_migrate.bench.points import Point, Run
from buildkit_migrate.bench.results import Result
from buildkit_migrate.bench.stages import STAGES

__all__ = ["PICTURES", "Picture", "charts", "stage_points", "stages_chart"]


@dataclass(frozen=True)
class Picture:
    """``kind``, ``x``, ``y``, ``log``: see `drawing.Chart`.

    ``references``: endings of the names of series that others are compared with.
    """

    title: str
    kind: str
    x: str
    y: str
    log: bool = False
    references: tuple[str, ...] = ()


FLOOR: Final = "floor"

PICTURES: Final = {
    "cost": Picture("Cost of a migration", "lines", "records", "seconds", True, (FLOOR,)),
    "stages": Picture("Stages of an offline migration", "stack", "records", "microseconds for a record"),
    "kernels": Picture(
        "SHA-256, kernels alone", "lines", "messages side by side", "ns for a block", True, ("hashlib",)
    ),
    "live": Picture(
        "Calls to a running containerd", "lines", "calls in flight", "calls per second", True, ("ceiling",)
    ),
    "compact": Picture("Compaction of a database", "bars", "", "seconds", True, (FLOOR,)),
    "pages": Picture("Check of all pages of a database", "bars", "", "milliseconds", True, ("bbolt for Go",)),
    "care": Picture("check and du of a whole root", "bars", "", "seconds", references=(FLOOR,)),
}
"""By name, in the order of the page."""

_WHOLE: Final = {"migrate": "migration", "dry-run": "dry run", "oracle": "dry run in plain Python"}
_PARTS: Final = ("v1", "survey", "plan", "v2", "containerd")


def stage_points(stage: str, result: Result, run: Run) -> Iterator[Point]:
    """Points of a stage: of a part among the stages, of a whole in the picture of costs.

    ``stage``: one of `STAGES`.
    """
    if stage in _WHOLE:
        yield Point("cost", _WHOLE[stage], result.records, result.seconds, result.over_floor, run)
    if stage == "migrate" and result.floor is not None:
        yield Point("cost", f"migration: {FLOOR}", result.records, result.floor, None, run)
    if stage in _PARTS:
        series, at, per = STAGES[stage].title, f"{result.records:,}", 1e6 / result.records
        yield Point("stages", series, at, result.seconds * per, result.over_floor, run)
        if result.floor is not None:
            yield Point("stages", series, f"{at}\n{FLOOR}", result.floor * per, None, run)


def stages_chart(results: Mapping[str, Result], run: Run) -> Chart:
    """``results``: by stage, all of `STAGES`."""
    return _chart(
        "stages", [point for stage, one in results.items() for point in stage_points(stage, one, run)]
    )


def charts(points: Iterable[Point]) -> dict[str, Chart]:
    """The pictures that there are points of, by name, in the order of `PICTURES`."""
    points = list(points)
    drawn = {point.picture for point in points}
    return {name: _chart(name, points) for name in PICTURES if name in drawn}


def _chart(name: str, points: Iterable[Point]) -> Chart:
    picture = PICTURES[name]
    mine = [point for point in points if point.picture == name]
    values: dict[str, dict[float | str, float]] = {}
    for point in mine:
        values.setdefault(point.series, {})[point.at] = point.value
    runs = dict.fromkeys(point.run for point in mine)
    return Chart(
        kind=picture.kind,
        title=picture.title,
        x=picture.x,
        y=picture.y,
        series=[
            Series(series, at, reference=series.endswith(picture.references)) for series, at in values.items()
        ],
        log=picture.log,
        notes=[f"{run.command}  ({run.machine}; {run.date})" for run in runs],
    )
