"""``buildkit-migrate bench``: how long each stage of a migration takes on this machine."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from buildkit_migrate.cli import options as shared
from buildkit_migrate.cli.failures import UsageError
from buildkit_migrate.progress import silent

if TYPE_CHECKING:
    from buildkit_migrate.bench.compare import Comparison

__all__ = ["DOCUMENT", "add_parser", "run"]

DOCUMENT: Final[Mapping[str, Any]] = {
    "machine": None,
    "shape": None,
    "records": None,
    "hash_blocks": None,
    "nanoseconds_per_block": None,
    "results": {},
    "oracle_over_dry_run": None,
}
"""Fields of the JSON document of an error: the same names as in a result."""


def add_parser(commands: Any, epilog: str) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "bench",
        help="time each stage of a migration on a synthetic cache",
        description="Time each stage of the offline migration of a synthetic v1 cache, made in a temporary\n"
        "directory (below $TMPDIR, 32 kB a record). They are compared with the same planning in plain\n"
        "Python, and with the time that the hardware needs to hash and copy as much. --format svg draws\n"
        "the stages; it needs matplotlib (buildkit-migrate[bench]).",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--records",
        metavar="N",
        type=shared.whole_number(100, 10_000_000),
        default=10_000,
        help="size of the cache; takes 0.7 kB of memory per record (default: %(default)d)",
    )
    shared.add_progress(parser)
    shared.add_output(parser, "svg")


def run(options: argparse.Namespace) -> int:
    from buildkit_migrate.bench.compare import compare
    from buildkit_migrate.cli import output, render

    if options.format == "svg" and importlib.util.find_spec("matplotlib") is None:
        raise UsageError(
            "--format svg needs matplotlib",
            hint="pip install 'buildkit-migrate[bench]', or use --format json",
        )
    with output.progress(options.progress) as progress:
        comparison = compare(options.records, progress or silent)
    if options.format == "svg":
        output.emit_bytes(_drawn(comparison))
    else:
        output.answer(options, comparison.as_dict, lambda: render.comparison_lines(comparison))
    return 0


def _drawn(comparison: Comparison) -> bytes:
    from buildkit_migrate.bench.drawing import draw
    from buildkit_migrate.bench.pictures import stages_chart
    from buildkit_migrate.bench.points import Run

    command = f"buildkit-migrate bench --records {comparison.stats.records}"
    run = Run(command, comparison.machine, f"{datetime.now(UTC):%Y-%m-%d}")
    return draw(stages_chart(comparison.results, run))
