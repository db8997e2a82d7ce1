"""``buildkit-migrate migrate``: the whole migration of a root, or a dry run of it."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

from buildkit_migrate.containerd.services import ConnectionOptions
from buildkit_migrate.errors import BrokenRecordsError

__all__ = ["add_parser", "run"]


_NAMESPACE: Final = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")
"""What containerd takes for a namespace, of at most 76 characters (spec containerd-services, section 1)."""


_CONTAINERD_ROOT: Final = "/var/lib/containerd"


def _address(address: str) -> str:
    if "://" in address and not address.startswith("unix://"):
        raise argparse.ArgumentTypeError(f"{address!r} is no unix socket")
    return address


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no reasonable number of seconds")
    return seconds


def _concurrency(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 1024:
        raise argparse.ArgumentTypeError("must be from 1 to 1024")
    return number


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
    workers = parser.add_argument_group(
        "containerd workers",
        "Directories named containerd-<snapshotter> need the containerd that BuildKit used.",
    )
    add = workers.add_argument
    address = add(
        "-a",
        "--address",
        metavar="SOCKET",
        type=_address,
        default=os.environ.get("CONTAINERD_ADDRESS") or ConnectionOptions.address,
        help="socket of the running containerd (default: $CONTAINERD_ADDRESS, else "
        f"{ConnectionOptions.address})",
    )
    add(
        "-n",
        "--namespace",
        metavar="NAME",
        type=_namespace,
        default=os.environ.get("CONTAINERD_NAMESPACE") or "buildkit",
        help="BuildKit's namespace in it (default: $CONTAINERD_NAMESPACE, else buildkit)",
    )
    add(
        "--snapshotter",
        metavar="NAME",
        default=os.environ.get("CONTAINERD_SNAPSHOTTER") or None,
        help="(default: $CONTAINERD_SNAPSHOTTER, else the one in the directory's name)",
    )
    add(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=ConnectionOptions.timeout,
        help="for one call (default: %(default)g)",
    )
    add(
        "--connect-timeout",
        metavar="SECONDS",
        type=_seconds,
        default=ConnectionOptions.connect_timeout,
        help="that containerd may be away, at first or while it is restarted (default: %(default)g)",
    )
    add(
        "--concurrency",
        metavar="N",
        type=_concurrency,
        default=ConnectionOptions.concurrency,
        help="calls in flight (default: %(default)d)",
    )
    add(
        "--offline",
        action="store_true",
        help="containerd is stopped, too: work on its files",
    )
    containerd_root = add(
        "--containerd-root",
        metavar="DIR",
        help=f"root of the stopped containerd; means --offline (default: {_CONTAINERD_ROOT})",
    )
    add = parser.add_argument
    add("--format", choices=("text", "json"), default="text", help="form of the result on stdout")
    add("--debug", action="store_true", help="show the traceback of an error")
    address.complete = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}  # type: ignore[attr-defined]
    for argument in (root, containerd_root):
        argument.complete = {"bash": "_shtab_compgen_dirs", "zsh": "_files -/", "tcsh": "d"}  # type: ignore[attr-defined]


def run(options: argparse.Namespace) -> int:
    """Exit status: 0, or that of a refusal if a dry run shows that the migration would be refused."""
    from buildkit_migrate.cli import render
    from buildkit_migrate.roots import find_root, migrate_root

    root = find_root(options.root)
    with _progress() as progress:
        reports = migrate_root(
            root.path,
            containerd=ConnectionOptions(
                options.address, options.timeout, options.connect_timeout, options.concurrency
            ),
            containerd_root=options.containerd_root or (_CONTAINERD_ROOT if options.offline else None),
            namespace=options.namespace,
            snapshotter=options.snapshotter,
            on_broken=options.on_broken,
            dry_run=options.dry_run,
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
