"""``buildkit-migrate clean``: what a finished migration left for an undo, removed."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from buildkit_migrate.cli import options as shared
from buildkit_migrate.cli import targets
from buildkit_migrate.cli.exit_statuses import worst

if TYPE_CHECKING:
    from buildkit_migrate.model import Progress
    from buildkit_migrate.workspace.layout import Root

__all__ = ["DOCUMENT", "add_parser", "run"]

DOCUMENT: Final[Mapping[str, Any]] = {"root": None, "workers": []}
"""What the JSON document of an error has beside it: the same names as that of a result."""


def add_parser(commands: Any, epilog: str) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "clean",
        help="remove what only an undo needs",
        description="Remove what a finished migration left for an undo: old databases of containerd,\n"
        "journals, v2 stores that were moved aside, and temporary files. metadata.db stays. After that\n"
        "there is no undo. Nothing is removed unless the migration or undo of all workers is finished\n"
        "and their files are sound. Of containerd workers the old database goes with --offline only.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    shared.add_root(parser)
    parser.add_argument("--dry-run", action="store_true", help="print what would be removed; remove nothing")
    shared.add_containerd(parser)
    shared.add_output(parser)


def run(options: argparse.Namespace) -> int:
    """Exit status: 0, or that of a refusal if a dry run shows that there will be one."""
    from buildkit_migrate.api import clean_root
    from buildkit_migrate.cli import render

    place = shared.containerd_arguments(options)
    del place["containerd"]  # a running one is not asked

    def work(root: Root, progress: Progress | None) -> targets.Result:
        results = clean_root(root.path, **place, dry_run=options.dry_run, progress=progress)
        return targets.Result(
            lambda: render.results_as_dict(root.path, results),
            lambda: render.cleaned_lines(root.path, results),
            worst(result.exit_code for result in results),
            done="" if options.dry_run else "the files are removed",
        )

    return targets.on_one(options, work)
