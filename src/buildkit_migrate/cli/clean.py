"""``buildkit-migrate clean``: deletes what a finished migration keeps for undo."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from buildkit_migrate.cli import options as shared
from buildkit_migrate.cli import targets
from buildkit_migrate.cli.exit_statuses import worst

if TYPE_CHECKING:
    from buildkit_migrate.progress import Progress
    from buildkit_migrate.workspace.layout import Root

__all__ = ["DOCUMENT", "add_parser", "run"]

DOCUMENT: Final[Mapping[str, Any]] = {"root": None, "workers": []}
"""Fields of the JSON document of an error: the same names as in a result."""


def add_parser(commands: Any, epilog: str) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "clean",
        help="delete what is only needed for undo",
        description="Delete what a finished migration keeps for undo, which is impossible afterwards: old\n"
        "databases of containerd (of containerd workers only with --offline), journals, v2 stores that were\n"
        "moved aside, and temporary files. metadata.db stays, and nothing is deleted unless the migration\n"
        "or undo of all workers is finished and their files are sound. What compact and repair\n"
        "keep stays, too: their --discard-kept deletes it.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    shared.add_root(parser)
    parser.add_argument("--dry-run", action="store_true", help="print what would be deleted; delete nothing")
    shared.add_containerd(parser)
    shared.add_storage_driver(parser)
    shared.add_progress(parser)
    shared.add_output(parser)


def run(options: argparse.Namespace) -> int:
    """Returns 0, or the exit status of a refusal if a dry run predicts one."""
    from buildkit_migrate.api import clean_root
    from buildkit_migrate.cli import render, repair
    from buildkit_migrate.maintenance.compact_root import files_kept
    from buildkit_migrate.maintenance.repair_root import repairs_kept

    place = shared.containerd_arguments(options)
    del place["containerd"]  # a running containerd is not needed

    def work(root: Root, progress: Progress | None) -> targets.Result:
        kept = files_kept(root.path, containerd_root=place["containerd_root"])
        results = clean_root(
            root.path,
            **place,
            storage_driver=shared.storage_driver(options),
            dry_run=options.dry_run,
            progress=progress,
        )
        repairs = repairs_kept(root.path)
        return targets.Result(
            lambda: render.results_as_dict(root.path, results),
            lambda: render.cleaned_lines(root.path, results),
            worst(result.exit_code for result in results),
            [*render.kept_lines(kept, in_full=False), *repair.originals_lines(repairs)],
            done="" if options.dry_run else "the files are removed",
        )

    return targets.on_one(options, work)
