"""``buildkit-migrate migrate``: the whole migration of a root, or a dry run of it."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

from buildkit_migrate.errors import BrokenRecordsError

__all__ = ["add_parser", "run"]


_NAMESPACE: Final = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")
"""What containerd takes for a namespace, of at most 76 characters (spec containerd-services, section 1)."""


def _namespace(name: str) -> str:
    if len(name) > 76 or not _NAMESPACE.fullmatch(name):
        raise argparse.ArgumentTypeError(f"{name!r} can't be the name of a containerd namespace")
    return name


def add_parser(commands: Any, epilog: str) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "migrate",
        help="migrate a stopped BuildKit's cache from v1 to v2",
        description="Migrate the v1 cache of a stopped BuildKit to v2. Running it again is safe.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    root = add(
        "root",
        metavar="ROOT",
        nargs="?",
        help="BuildKit's state directory, or one worker directory in it (default: /var/lib/buildkit, then "
        "$XDG_DATA_HOME/buildkit or ~/.local/share/buildkit)",
    )
    add("--dry-run", action="store_true", help="print what would be done; change nothing")
    add("-v", "--verbose", action="store_true", help="print a line per record")
    add(
        "--on-broken",
        choices=("fail", "drop"),
        default="fail",
        help="records that can't be migrated: refuse and change nothing (default), or leave them and their "
        "descendants out",
    )
    add(
        "--to-engine",
        choices=("bolt", "lmdb"),
        default="bolt",
        help="what the v2 store is written as: bolt (default) is what BuildKit reads, lmdb is for programs "
        "that embed the store",
    )
    containerd = add(
        "--containerd-root",
        metavar="DIR",
        help="root of the stopped containerd, for containerd-<snapshotter> workers",
    )
    add(
        "--namespace",
        metavar="NAME",
        type=_namespace,
        default=os.environ.get("CONTAINERD_NAMESPACE") or "buildkit",
        help="containerd namespace of containerd workers (default: $CONTAINERD_NAMESPACE, else buildkit)",
    )
    add("--format", choices=("text", "json"), default="text", help="form of the result on stdout")
    add("--debug", action="store_true", help="show the traceback of an error")
    for argument in (root, containerd):
        argument.complete = {"bash": "_shtab_compgen_dirs", "zsh": "_files -/", "tcsh": "d"}  # type: ignore[attr-defined]


def run(options: argparse.Namespace) -> int:
    """Exit status: 0, or that of a refusal if a dry run shows that the migration would be refused."""
    from buildkit_migrate.cli import render
    from buildkit_migrate.roots import find_root, migrate_root

    root = find_root(options.root)
    with _progress() as progress:
        reports = migrate_root(
            root.path,
            containerd_root=options.containerd_root,
            namespace=options.namespace,
            on_broken=options.on_broken,
            dry_run=options.dry_run,
            engine=options.to_engine,
            progress=progress,
        )
    if options.format == "json":
        render.emit_json(render.reports_as_dict(root.path, reports, options.dry_run, options.verbose))
    else:
        render.emit(render.report_lines(root.path, reports, options.verbose))
    refused = options.dry_run and options.on_broken == "fail" and any(report.problems for report in reports)
    if refused:
        print(
            "buildkit-migrate: a migration of this root will be refused because of its broken records; "
            f"{BrokenRecordsError.hint}",
            file=sys.stderr,
        )
    return BrokenRecordsError.exit_code if refused else 0


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], object] | None]:
    """A status line on stderr if that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status("starting") as status:
        yield lambda step: status.update(escape(step))
