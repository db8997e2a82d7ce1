"""``buildkit-migrate undo``: takes a migrated or partly migrated root back to v1."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from buildkit_migrate.cli import options as shared
from buildkit_migrate.cli import targets
from buildkit_migrate.errors import UndoRefusedError

if TYPE_CHECKING:
    from buildkit_migrate.migration.undo import Undone
    from buildkit_migrate.model import Progress
    from buildkit_migrate.workspace.layout import Root

__all__ = ["DOCUMENT", "add_parser", "run"]

DOCUMENT: Final[Mapping[str, Any]] = {"root": None, "workers": []}
"""Fields of the JSON document of an error: the same names as in a result."""


def add_parser(commands: Any, epilog: str) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "undo",
        help="go back to v1",
        description="Take back a finished or interrupted migration: labels are restored, then leases are\n"
        "deleted, and the v2 store is moved aside (never deleted). Running it again is safe.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    shared.add_root(parser)
    parser.add_argument(
        "--force",
        action="store_true",
        help="even if the v2 store or containerd was used since; what was cached since then is lost to v1",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print what would be done, what would be lost, and why it would be refused; change nothing",
    )
    shared.add_containerd(parser)
    shared.add_storage_driver(parser)
    shared.add_output(parser)


def run(options: argparse.Namespace) -> int:
    """Returns 0, or the exit status of a refusal if a dry run predicts one."""
    from buildkit_migrate.api import undo_root
    from buildkit_migrate.cli import render

    def work(root: Root, progress: Progress | None) -> targets.Result:
        results = undo_root(
            root.path,
            **shared.containerd_arguments(options),
            storage_driver=shared.storage_driver(options),
            force=options.force,
            dry_run=options.dry_run,
            progress=progress,
        )
        return targets.Result(
            lambda: render.results_as_dict(root.path, results),
            lambda: render.undone_lines(root.path, results),
            _refusal(results, options.force) if options.dry_run else 0,
            done="" if options.dry_run else "the root is back at v1",
        )

    return targets.on_one(options, work)


def _refusal(results: Sequence[Undone], force: bool) -> int:
    """The exit status if the whole undo is refused, otherwise 0."""
    obstacles = [result.exit_code for result in results if result.obstacle is not None]
    if obstacles:
        return obstacles[0]
    losses = any(result.losses for result in results)
    return UndoRefusedError.exit_code if losses and not force else 0
