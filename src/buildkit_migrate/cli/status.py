"""``buildkit-migrate status``: shows the progress of a root, and the next step."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from buildkit_migrate.cli import options as shared
from buildkit_migrate.cli import targets
from buildkit_migrate.errors import UnusableTargetError

if TYPE_CHECKING:
    from buildkit_migrate.progress import Progress
    from buildkit_migrate.workspace.layout import Root

__all__ = ["DOCUMENT", "add_parser", "run"]

DOCUMENT: Final[Mapping[str, Any]] = {
    "root": None,
    "workers": [],
    "kept": [],
    "kept_bytes": None,
    "repairs": [],
}
"""Fields of the JSON document of an error: the same names as in a result."""


def add_parser(commands: Any, epilog: str) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "status",
        help="show the progress of a root",
        description="Show which stores and journals a root has, and what the next step would be, from the\n"
        "files alone, without asking a daemon or changing anything. Without ROOT, list all roots found\n"
        "on this host, one line each.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    shared.add_root(parser)
    targets.add_all(parser)
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="describe each worker instead of one line per root"
    )
    shared.add_missing_ok(parser)
    shared.add_engine(parser, "the engine that a v2 store must have: bolt (default) is what BuildKit reads")
    shared.add_containerd(
        parser,
        "--containerd-root and --offline tell where a stopped containerd's files are now, by default where\n"
        "they were when the root was migrated. The others are accepted so that all commands take the same\n"
        "options, but not used.",
    )
    shared.add_output(parser)
    parser.set_defaults(lists_all=True, progress="none")


def run(options: argparse.Namespace) -> int:
    """Returns 0, or the exit status with which `migrate` would refuse what is at the v2 path of a worker."""
    from buildkit_migrate.api import root_status
    from buildkit_migrate.cli import render, repair
    from buildkit_migrate.maintenance.compact_root import files_kept
    from buildkit_migrate.maintenance.repair_root import repairs_kept

    list_all = targets.is_for_all(options)
    in_full = not list_all or options.verbose

    def work(root: Root, progress: Progress | None) -> targets.Result:
        statuses = root_status(
            root.path,
            containerd_root=shared.containerd_root(options),
            missing_ok=options.missing_ok,
            engine=options.to_engine,
        )
        kept = files_kept(
            root.path, containerd_root=shared.containerd_root(options), missing_ok=options.missing_ok
        )
        repairs = repairs_kept(root.path, missing_ok=options.missing_ok)
        unusable = any(status.target is not None and status.target.fault for status in statuses)
        return targets.Result(
            lambda: {
                **render.results_as_dict(root.path, statuses),
                **render.kept_as_dict(kept),
                "repairs": repairs.as_dict()["repairs"],
            },
            lambda: (
                *(render.status_lines if in_full else render.short_status_lines)(root.path, statuses),
                *render.kept_lines(kept, in_full),
                *repair.status_lines(repairs, in_full),
            ),
            UnusableTargetError.exit_code if unusable else 0,
        )

    return targets.on_all(options, work, summary=False) if list_all else targets.on_one(options, work)
