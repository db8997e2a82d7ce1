"""The short benchmark for users: a synthetic root, its migration stage by stage, and the oracle."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from buildkit_migrate.bench.floors import block_seconds
from buildkit_migrate.bench.measure import best, measure
from buildkit_migrate.bench.results import Result, machine, set_against_floor
from buildkit_migrate.bench.stages import STAGES
from buildkit_migrate.bench.synthetic import Stats, generate
from buildkit_migrate.errors import StorageError
from buildkit_migrate.files.errors import storage_errors
from buildkit_migrate.progress import Progress

__all__ = ["ORACLE_RECORDS", "Comparison", "compare"]

ORACLE_RECORDS: Final = 20_000
"""Maximum for the oracle, which takes some 0.3 ms and 5 kB of memory per record."""

_SHAPE: Final = "forest"
_ROUNDS: Final = 3
_ROOM: Final = 32_000
"""Disk space per record in bytes: the root, the output of a migration, and the copy made for the floor."""


@dataclass(frozen=True)
class Comparison:
    """``results``: one per stage, in the order of `STAGES`. ``block``: seconds for hashing a block."""

    machine: str
    stats: Stats
    block: float
    results: dict[str, Result]

    @property
    def oracle_over_dry_run(self) -> float:
        """How many times as long as a dry run the oracle takes per record."""
        return self.results["oracle"].nanoseconds / self.results["dry-run"].nanoseconds

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "machine": self.machine,
            "shape": _SHAPE,
            "records": self.stats.records,
            "hash_blocks": self.stats.hash_blocks,
            "nanoseconds_per_block": self.block * 1e9,
            "results": {stage: result.as_dict() for stage, result in self.results.items()},
            "oracle_over_dry_run": self.oracle_over_dry_run,
        }


def compare(records: int, progress: Progress) -> Comparison:
    """Runs the benchmark in a temporary directory, which is deleted.

    Raises StorageError, StageFailedError.
    """
    where = machine()
    with _temporary_directory(records) as directory:
        progress(f"creating a cache of {records:,} records")
        root = directory / "root"
        stats = _generate(root, records)
        small, small_stats = root, stats
        if records > ORACLE_RECORDS:
            small = directory / "small"
            small_stats = _generate(small, ORACLE_RECORDS)
        block = block_seconds()
        results = {}
        for name, stage in STAGES.items():
            progress(stage.title)
            if name == "oracle":
                results[name] = set_against_floor(measure(name, small), small, small_stats, block)
                continue
            fastest = best([measure(name, root) for _ in range(_ROUNDS)])
            with storage_errors(directory):
                results[name] = set_against_floor(fastest, root, stats, block)
        return Comparison(where, stats, block, results)


def _generate(root: Path, records: int) -> Stats:
    with storage_errors(root):
        return generate(root, _SHAPE, records)


@contextmanager
def _temporary_directory(records: int) -> Iterator[Path]:
    with ExitStack() as held:
        with storage_errors(Path(tempfile.tempdir or os.environ.get("TMPDIR", "temporary directory"))):
            made = held.enter_context(tempfile.TemporaryDirectory(prefix="buildkit-migrate-bench-"))
            room = shutil.disk_usage(made).free
        if room < records * _ROOM:
            raise StorageError(
                f"{made}: {records:,} records need {records * _ROOM / 1e9:.1f} GB of disk, "
                f"but {room / 1e9:.1f} GB are free",
                hint="set $TMPDIR to a directory with more room, or use fewer records",
            )
        yield Path(made)
