"""``buildkit-migrate verify``: compares a migrated root with its v1 stores, computing everything again."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from buildkit_migrate.cli import options as shared
from buildkit_migrate.cli import targets
from buildkit_migrate.errors import DifferencesError

if TYPE_CHECKING:
    from buildkit_migrate.progress import Progress
    from buildkit_migrate.workspace.layout import Root

__all__ = ["DOCUMENT", "add_parser", "run"]

DOCUMENT: Final[Mapping[str, Any]] = {"root": None, "workers": []}
"""Fields of the JSON document of an error: the same names as in a result."""


def add_parser(commands: Any, epilog: str) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "verify",
        help="compare a freshly migrated root with its v1 stores",
        description="Compare the v2 cache of a stopped BuildKit, and containerd's leases and labels, with\n"
        "what the v1 cache requires, computed without the migration's own code. Only for a root that\n"
        "no daemon has used since it was migrated; nothing is written.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    shared.add_root(parser)
    targets.add_all(parser)
    shared.add_missing_ok(parser)
    add = parser.add_argument
    add(
        "--content",
        action="store_true",
        help="also hash the blob files and check that snapshot directories exist",
    )
    add(
        "-v",
        "--verbose",
        action="store_true",
        help="print the v1 records that were rightly left out or repaired",
    )
    shared.add_containerd(parser)
    shared.add_storage_driver(parser)
    shared.add_skip_unreachable(parser)
    shared.add_progress(parser)
    shared.add_output(parser)


def run(options: argparse.Namespace) -> int:
    """Returns 0, or the exit status of differences if there are any, or a worker is not migrated."""
    from buildkit_migrate.api import verify_root
    from buildkit_migrate.cli import render

    def work(root: Root, progress: Progress | None) -> targets.Result:
        verifications = verify_root(
            root.path,
            **shared.containerd_arguments(options),
            storage_driver=shared.storage_driver(options),
            content=options.content,
            missing_ok=options.missing_ok,
            skip_unreachable=options.skip_unreachable,
            progress=progress,
        )
        return targets.Result(
            lambda: render.results_as_dict(root.path, verifications),
            lambda: render.verification_lines(root.path, verifications, options.verbose),
            0 if all(one.is_good for one in verifications) else DifferencesError.exit_code,
        )

    return targets.on_chosen(options, work)
