"""Measured points of pictures: kept as JSON, combined, and compared with those of an earlier run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

__all__ = ["SLOWER", "Change", "Point", "Run", "changes", "combined", "read", "text"]

SCHEMA: Final = 1

SLOWER: Final = 1.15
"""A ratio that grew by more than this is told: rounds of one run differ by some percent."""


@dataclass(frozen=True)
class Run:
    """What points come from. ``machine``: as `results.machine` tells it. ``date``: ISO 8601."""

    command: str
    machine: str
    date: str


@dataclass(frozen=True)
class Point:
    """One point of a picture.

    ``at``: its place on the first axis, a number or a name. ``value``: on the second axis, in the unit of the
    picture. ``ratio``: to the floor or baseline measured in the same run, greater is slower; None if this is
    such a baseline itself.
    """

    picture: str
    series: str
    at: float | str
    value: float
    ratio: float | None
    run: Run

    @property
    def place(self) -> tuple[str, str, float | str]:
        """Two points at the same place tell the same, measured twice."""
        return self.picture, self.series, self.at


@dataclass(frozen=True)
class Change:
    """A ratio then and now."""

    point: Point
    before: float
    now: float

    def line(self) -> str:
        what = f"{self.point.picture}: {self.point.series}, {_number(self.point.at)}"
        return f"{what}: {self.before:.2f} -> {self.now:.2f} times what it is compared with"


def text(points: Iterable[Point]) -> str:
    """The JSON form; each run is noted once."""
    points = list(points)
    runs = list(dict.fromkeys(point.run for point in points))
    document = {
        "schema": SCHEMA,
        "runs": [asdict(run) for run in runs],
        "points": [{**asdict(point), "run": runs.index(point.run)} for point in points],
    }
    return json.dumps(document, indent=1) + "\n"


def read(path: Path) -> list[Point]:
    """Reads what `text` gave. Raises OSError, ValueError."""
    document: dict[str, Any] = json.loads(path.read_text())
    if document.get("schema") != SCHEMA:
        raise ValueError(f"{path}: not results of benches, or of another version")
    runs = [Run(**run) for run in document["runs"]]
    return [Point(**{**point, "run": runs[point["run"]]}) for point in document["points"]]


def combined(old: Iterable[Point], new: Iterable[Point]) -> list[Point]:
    """The new points, and the old ones that they don't replace, in the order of the old.

    A picture shows one machine: where new ones are from another, its old points go.
    """
    new = list(new)
    machines = {point.picture: point.run.machine for point in new}
    kept = [point for point in old if machines.get(point.picture, point.run.machine) == point.run.machine]
    return list({point.place: point for point in (*kept, *new)}.values())


def changes(old: Iterable[Point], new: Iterable[Point]) -> Iterator[Change]:
    """All ratios that both have, in the order of the new ones.

    Times are not compared: they differ from machine to machine, and with what else that does.
    """
    before = {point.place: point.ratio for point in old}
    for point in new:
        ratio = before.get(point.place)
        if ratio and point.ratio:
            yield Change(point, ratio, point.ratio)


def _number(at: float | str) -> str:
    return at if isinstance(at, str) else f"{at:,g}" if at < 1000 else f"{at:,.0f}"
