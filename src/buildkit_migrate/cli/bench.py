"""``buildkit-migrate bench``: where the time of a migration goes, on this machine."""

from __future__ import annotations

import argparse
from typing import Any

from buildkit_migrate.cli import options as shared

__all__ = ["add_parser", "run"]


def add_parser(commands: Any, epilog: str) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "bench",
        help="time each stage of a migration on a synthetic cache",
        description="Make a synthetic v1 cache in a temporary directory (below $TMPDIR, 32 kB a record),\n"
        "time each stage of its offline migration and the plain-Python reference model, and\n"
        "set them against what the hardware takes for hashing and copying as much.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--records",
        metavar="N",
        type=shared.whole_number(100, 10_000_000),
        default=10_000,
        help="size of the cache; 0.7 kB of memory are used for each (default: %(default)d)",
    )
    shared.add_output(parser)


def run(options: argparse.Namespace) -> int:
    from buildkit_migrate.bench.compare import compare
    from buildkit_migrate.cli import render

    with shared.progress() as progress:
        comparison = compare(options.records, progress or (lambda step: None))
    if options.format == "json":
        render.emit_json(comparison.as_dict())
    else:
        render.emit(render.comparison_lines(comparison))
    return 0
