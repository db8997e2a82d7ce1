"""``buildkit-migrate status``: how far a root is, and what comes next."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, Final

from buildkit_migrate.cli import options as shared
from buildkit_migrate.errors import UnusableTargetError

__all__ = ["DOCUMENT", "add_parser", "run"]

DOCUMENT: Final[Mapping[str, Any]] = {"root": None, "workers": []}
"""What the JSON document of an error has beside it: the same names as that of a result."""


def add_parser(commands: Any, epilog: str) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "status",
        help="tell how far a root is",
        description="Tell which stores and journals a root has, and what the next step would be: from the\n"
        "files alone, without asking a daemon, and without a change.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    shared.add_root(parser)
    shared.add_missing_ok(parser)
    shared.add_engine(parser, "the engine that a v2 store must have: bolt (default) is what BuildKit reads")
    shared.add_containerd(
        parser, "Taken, so that all commands can be given the same, and not used: nobody is asked."
    )
    shared.add_output(parser)


def run(options: argparse.Namespace) -> int:
    """Exit status: 0, or that with which `migrate` refuses what lies at the v2 path of a worker."""
    from buildkit_migrate.cli import output, render
    from buildkit_migrate.roots import find_root, root_status

    root = find_root(options.root, missing_ok=options.missing_ok)
    statuses = root_status(root.path, missing_ok=options.missing_ok, engine=options.to_engine)
    output.answer(
        options,
        lambda: render.results_as_dict(root.path, statuses),
        lambda: render.status_lines(root.path, statuses),
    )
    unusable = any(status.target is not None and status.target.fault for status in statuses)
    return UnusableTargetError.exit_code if unusable else 0
