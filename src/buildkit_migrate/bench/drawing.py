"""Charts as SVG, drawn by matplotlib (extra ``bench``), the same bytes for the same chart."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Chart", "Series", "draw"]

_COLOURS: Final = ("#1f77b4", "#d95f02", "#1b9e77", "#7b4fa3", "#b8860b", "#c2185b", "#4d4d4d", "#17becf")
_REFERENCE: Final = "#8a8a8a"
_BACKGROUND: Final = "#ffffff"  # so that text can be read on dark pages, too
_NOTE_WIDTH: Final = 150  # characters
_STYLE: Final[Any] = {  # matplotlib types the names of all its settings
    "font.family": "sans-serif",
    "font.size": 10.0,
    "svg.fonttype": "none",  # text stays text: small, and no font is copied
    "svg.hashsalt": "buildkit-migrate",
}


@dataclass(frozen=True)
class Series:
    """Values of one kind, by their place. ``reference``: what others are compared with."""

    name: str
    values: dict[float | str, float]
    reference: bool = False


@dataclass(frozen=True)
class Chart:
    """``kind``: "lines" over numbers, "bars" side by side, or "stack" of bars upon each other.

    ``notes``: lines below the chart.
    """

    kind: str
    title: str
    x: str
    y: str
    series: Sequence[Series]
    log: bool
    notes: Sequence[str]


def draw(chart: Chart) -> bytes:
    """The chart as SVG. Raises ImportError without matplotlib."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        notes = [line for note in chart.notes for line in wrap(note, _NOTE_WIDTH)]
        height = 4.6 + 0.16 * len(notes)
        figure = Figure(figsize=(8, height), facecolor=_BACKGROUND)
        axes = figure.add_subplot()
        _DRAWN[chart.kind](axes, chart)
        axes.set_title(chart.title, loc="left", fontsize=12)
        axes.set_xlabel(chart.x)
        axes.set_ylabel(chart.y)
        if chart.log:
            _log_scale(axes, chart)
        axes.grid(visible=True, axis="y", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        for line, note in enumerate(reversed(notes)):
            figure.text(0.01, (0.08 + 0.16 * line) / height, note, fontsize=7, color="#555555")
        figure.tight_layout(rect=(0, (0.1 + 0.16 * len(notes)) / height, 0.97, 1))
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Title": chart.title})
        return file.getvalue()


def _log_scale(axes: Axes, chart: Chart) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.set_yscale("log")
    least = min(value for series in chart.series for value in series.values.values())
    axes.set_ylim(bottom=10 ** math.floor(math.log10(least)))  # bars have no zero to start from
    plain = FuncFormatter(lambda value, _: f"{value:,.6g}")
    axes.yaxis.set_major_formatter(plain)
    low, high = axes.get_ylim()
    axes.yaxis.set_minor_formatter(plain if high < 10 * low else NullFormatter())


def _lines(axes: Axes, chart: Chart) -> None:
    axes.set_xscale("log")
    places: set[float] = set()
    for series, colour in _coloured(chart.series):
        points = sorted((float(at), value) for at, value in series.values.items())
        places.update(at for at, _ in points)
        axes.plot(
            [at for at, _ in points],
            [value for _, value in points],
            color=colour,
            label=series.name,
            linestyle="--" if series.reference else "-",
            linewidth=1.4,
            marker="." if series.reference else "o",
            markersize=5,
        )
    ticks = sorted(places)
    axes.set_xticks(ticks, [f"{at:,.0f}" for at in ticks])
    axes.set_xticks([], minor=True)
    if not chart.log:
        axes.set_ylim(bottom=0)


def _bars(axes: Axes, chart: Chart) -> None:
    places = _places(chart)
    width = 0.8 / max(1, len(chart.series))
    for number, (series, colour) in enumerate(_coloured(chart.series)):
        middle = (number - (len(chart.series) - 1) / 2) * width
        drawn = axes.bar(
            [place + middle for place, at in enumerate(places) if at in series.values],
            [series.values[at] for at in places if at in series.values],
            width,
            color=colour,
            label=series.name,
        )
        axes.bar_label(drawn, fmt="{:,.3g}", fontsize=7, padding=1)
    axes.set_xticks(range(len(places)), [str(at) for at in places], fontsize=8)


def _stack(axes: Axes, chart: Chart) -> None:
    places = _places(chart)
    below = [0.0] * len(places)
    for series, colour in _coloured(chart.series):
        heights = [series.values.get(at, 0.0) for at in places]
        axes.bar(range(len(places)), heights, 0.6, bottom=below, color=colour, label=series.name)
        below = [one + more for one, more in zip(below, heights, strict=True)]
    for place, total in enumerate(below):
        axes.annotate(f"{total:,.3g}", (place, total), ha="center", va="bottom", fontsize=8)
    axes.set_xticks(range(len(places)), [str(at) for at in places], fontsize=8)


_DRAWN: Final = {"lines": _lines, "bars": _bars, "stack": _stack}


def _places(chart: Chart) -> list[float | str]:
    return list(dict.fromkeys(at for series in chart.series for at in series.values))


def _coloured(all_series: Sequence[Series]) -> list[tuple[Series, str]]:
    colours = iter(_COLOURS * len(all_series))
    return [(series, _REFERENCE if series.reference else next(colours)) for series in all_series]
