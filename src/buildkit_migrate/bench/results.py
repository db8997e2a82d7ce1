"""Measurements compared with their floor, and their table."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from buildkit_migrate._native import sha256
from buildkit_migrate.bench.floors import copy_seconds
from buildkit_migrate.bench.measure import Measured
from buildkit_migrate.bench.stages import STAGES
from buildkit_migrate.bench.synthetic import WORKER, Stats

__all__ = ["Result", "aligned", "machine", "set_against_floor", "table"]


@dataclass(frozen=True)
class Result:
    """A row of results. Sizes are in bytes.

    ``floor``: seconds that the hardware needs to read as many bytes, write as many with one fsync, and hash
    as many blocks, one after the other; None if there is nothing to compare. ``syncs``: calls of fsync and
    the like, None if not counted.
    """

    title: str
    records: int
    seconds: float
    floor: float | None
    read: int
    written: int
    private: int
    syncs: int | None = None

    @property
    def nanoseconds(self) -> float:
        """Time per record."""
        return self.seconds / self.records * 1e9

    @property
    def over_floor(self) -> float | None:
        return self.seconds / self.floor if self.floor else None

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {**asdict(self), "nanoseconds_per_record": self.nanoseconds, "over_floor": self.over_floor}


def set_against_floor(
    measured: Measured, root: Path, stats: Stats, block: float, syncs: int | None = None
) -> Result:
    """Combines a measurement with its floor, which is measured now, beside the root.

    ``block``: seconds for hashing one block on one processor; stages that hash may use all processors.
    """
    stage = STAGES[measured.stage]
    floor = None
    if measured.stage != "oracle":
        sources = [root / WORKER / name for name in stage.reads]
        floor = copy_seconds(sources, measured.written, root.parent)
        floor += stats.hash_blocks * block / len(os.sched_getaffinity(0)) if stage.hashes else 0
    return Result(
        title=stage.title,
        records=stats.records,
        seconds=measured.seconds,
        floor=floor,
        read=measured.read,
        written=measured.written,
        private=measured.private,
        syncs=syncs,
    )


def table(results: Iterable[Result]) -> list[str]:
    """A line of titles and a line per result. Columns without any values are left out."""
    titles = ["", "records", "seconds", "ns/record", "read MB", "written MB", "fsyncs", "memory B/record"]
    rows = [[*titles, "floor s", "x floor"]]
    for result in results:
        rows.append(
            [
                result.title,
                f"{result.records:,}",
                f"{result.seconds:.3f}",
                f"{result.nanoseconds:,.0f}",
                f"{result.read / 1e6:,.1f}",
                f"{result.written / 1e6:,.1f}",
                "" if result.syncs is None else f"{result.syncs}",
                f"{result.private / result.records:,.0f}",
                "" if result.floor is None else f"{result.floor:.3f}",
                "" if result.over_floor is None else f"{result.over_floor:.2f}",
            ]
        )
    known = [any(column[1:]) for column in zip(*rows, strict=True)]
    return aligned([list(itertools.compress(row, known)) for row in rows])


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligns columns: the first one to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def machine() -> str:
    """Processor, number of usable CPUs, and the active SHA-256 kernel."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    processor = next(names, os.uname().machine)
    return f"{processor}, {len(os.sched_getaffinity(0))} CPUs, SHA-256 by {sha256.active()}"
