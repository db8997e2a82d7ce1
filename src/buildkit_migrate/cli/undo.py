"""``buildkit-migrate undo``: a migrated root, or one that is half way, back to v1."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from buildkit_migrate.cli import options as shared
from buildkit_migrate.cli import targets

if TYPE_CHECKING:
    from buildkit_migrate.layout import Root
    from buildkit_migrate.migration.migrate import Progress

__all__ = ["DOCUMENT", "add_parser", "run"]

DOCUMENT: Final[Mapping[str, Any]] = {"root": None, "workers": []}
"""What the JSON document of an error has beside it: the same names as that of a result."""


def add_parser(commands: Any, epilog: str) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "undo",
        help="go back to v1",
        description="Take a migration back, be it finished or interrupted: labels are restored, then leases\n"
        "deleted, and the v2 store is moved aside (never deleted). Running it again is safe.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    shared.add_root(parser)
    parser.add_argument(
        "--force",
        action="store_true",
        help="even if a store or containerd was used since; what was cached since is lost for v1",
    )
    shared.add_containerd(parser)
    shared.add_output(parser)


def run(options: argparse.Namespace) -> int:
    """Exit status: 0."""
    from buildkit_migrate.cli import render
    from buildkit_migrate.roots import undo_root

    def work(root: Root, progress: Progress | None) -> targets.Result:
        results = undo_root(
            root.path,
            **shared.containerd_arguments(options),
            force=options.force,
            progress=progress,
        )
        return targets.Result(
            lambda: render.results_as_dict(root.path, results),
            lambda: render.undone_lines(root.path, results),
            done="the root is back at v1",
        )

    return targets.on_one(options, work)
