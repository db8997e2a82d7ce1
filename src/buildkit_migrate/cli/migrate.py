"""``buildkit-migrate migrate``: migrates a root, or does a dry run."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from buildkit_migrate.choices import ON_BROKEN
from buildkit_migrate.cli import options as common
from buildkit_migrate.cli import targets
from buildkit_migrate.cli.failures import UsageError
from buildkit_migrate.errors import BrokenRecordsError

if TYPE_CHECKING:
    from buildkit_migrate.progress import Progress
    from buildkit_migrate.workspace.layout import Root

__all__ = ["DOCUMENT", "add_parser", "run"]

DOCUMENT: Final[Mapping[str, Any]] = {"root": None, "dry_run": None, "workers": []}
"""Fields of the JSON document of an error: the same names as in a result."""

_REFUSED: Final = (
    "buildkit-migrate: a migration of this root will be refused because of its broken records",
    f"buildkit-migrate: hint: {BrokenRecordsError.hint}",
)


def add_parser(commands: Any, epilog: str) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "migrate",
        help="migrate a stopped BuildKit's cache from v1 to v2",
        description="Migrate the v1 cache of a stopped BuildKit to v2. Running it again is safe.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    common.add_root(parser)
    targets.add_all(parser)
    common.add_missing_ok(parser)
    add = parser.add_argument
    add("--dry-run", action="store_true", help="print what would be done; change nothing")
    add(
        "--verify",
        action="store_true",
        help="compute the new store a second time, in plain Python, and compare before anything is changed",
    )
    add("-v", "--verbose", action="store_true", help="print a line per record")
    add(
        "--on-broken",
        choices=ON_BROKEN,
        default="fail",
        help="if records can't be migrated: refuse and change nothing (default), or leave them and their "
        "descendants out",
    )
    common.add_engine(
        parser,
        "engine of the v2 store: bolt (default) is what BuildKit reads, lmdb is for programs that "
        "embed the store",
    )
    add(
        "--upstream-exact",
        action="store_true",
        help="write exactly the bytes of BuildKit's own migration, which omits the sizes of blobs: "
        "BuildKit v0.8 and later can't export images with these layers",
    )
    add(
        "--previous-transaction",
        action="store_true",
        help="for a v1 store whose newest transaction is torn: migrate the state before it",
    )
    common.add_containerd(parser)
    common.add_storage_driver(parser)
    common.add_skip_unreachable(parser)
    common.add_progress(parser)
    common.add_output(parser)


def run(options: argparse.Namespace) -> int:
    """Returns 0, or the exit status of a refusal if a dry run predicts one."""
    from buildkit_migrate.api import migrate_root
    from buildkit_migrate.cli import render

    if options.verify and options.to_engine != "bolt":
        raise UsageError("--verify is for bolt stores; verify an LMDB store with buildkit-migrate verify")

    def work(root: Root, progress: Progress | None) -> targets.Result:
        reports = migrate_root(
            root,
            **common.containerd_arguments(options),
            storage_driver=common.storage_driver(options),
            on_broken=options.on_broken,
            dry_run=options.dry_run,
            verify=options.verify,
            engine=options.to_engine,
            upstream_exact=options.upstream_exact,
            previous_transaction=options.previous_transaction,
            missing_ok=options.missing_ok,
            skip_unreachable=options.skip_unreachable,
            progress=progress,
        )
        refused = options.dry_run and options.on_broken == "fail" and any(one.problems for one in reports)
        return targets.Result(
            lambda: render.reports_as_dict(root.path, reports, options.dry_run, options.verbose),
            lambda: render.report_lines(root.path, reports, options.verbose),
            BrokenRecordsError.exit_code if refused else 0,
            _REFUSED if refused else (),
            done="" if options.dry_run else "the migration is done",
        )

    return targets.on_chosen(options, work)
