"""Options shared by commands, and their meaning."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from typing import Any, Final

from buildkit_migrate.choices import ENGINES, PROGRESS
from buildkit_migrate.cli.failures import UsageError
from buildkit_migrate.containerd.services import LONGEST_TIMEOUT, ConnectionOptions
from buildkit_migrate.settings import DEFAULT, DEFAULT_NAMESPACE, Setting

__all__ = [
    "FILES",
    "add_containerd",
    "add_engine",
    "add_missing_ok",
    "add_output",
    "add_progress",
    "add_root",
    "add_skip_unreachable",
    "add_storage_driver",
    "containerd_arguments",
    "containerd_root",
    "not_empty",
    "storage_driver",
    "whole_number",
]

_NAMESPACE: Final = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")
"""Valid namespaces of containerd, with at most 76 characters (spec containerd-services, section 1)."""


_DRIVER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

_CONTAINERD_ROOT: Final = "/var/lib/containerd"

# How shells complete arguments.
_DIRECTORIES: Final = {
    "bash": "_shtab_compgen_dirs",
    "zsh": "_files -/",
    "tcsh": "d",
    "fish": "(__fish_complete_directories)",
}
FILES: Final = {
    "bash": "_shtab_compgen_files",
    "zsh": "_files",
    "tcsh": "f",
    "fish": "(__fish_complete_path (commandline -ct))",
}


def not_empty(text: str) -> str:
    """Type of arguments that must not be empty: that is a mistake, and as a path it would mean ``.``."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty: is a variable not set?")
    return text


def _address(address: str) -> str:
    if "://" in not_empty(address) and not address.startswith("unix://"):
        raise argparse.ArgumentTypeError(f"{address!r} is not a Unix socket: give its path, or unix://PATH")
    return address


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < LONGEST_TIMEOUT:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time: give seconds, more than 0 and less than {LONGEST_TIMEOUT:.0f}"
        )
    return seconds


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Returns the type of an option that takes a number within these bounds."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
        return number

    return parse


def _driver(name: str) -> str:
    if not _DRIVER.fullmatch(not_empty(name)):
        raise argparse.ArgumentTypeError(f"{name!r} can't be the name of a storage driver, such as overlay2")
    return name


def _namespace(name: str) -> str:
    if len(not_empty(name)) > 76 or not _NAMESPACE.fullmatch(name):
        raise argparse.ArgumentTypeError(
            f"{name!r} can't be the name of a containerd namespace: it has letters and digits, with single "
            "., _ or - between them, and 76 characters at most"
        )
    return name


def add_root(parser: argparse.ArgumentParser, more: str = "") -> None:
    """Adds ROOT. ``more``: what else it may be, at the end of the help."""
    root = parser.add_argument(
        "root",
        metavar="ROOT",
        nargs="?",
        type=not_empty,
        help="BuildKit's state directory, one worker directory in it, or Docker's data root (default: "
        "/var/lib/buildkit, then $XDG_DATA_HOME/buildkit or ~/.local/share/buildkit, else the only one "
        f"elsewhere, such as a volume of docker buildx){more}",
    )
    root.complete = FILES if more else _DIRECTORIES  # type: ignore[attr-defined]


def add_missing_ok(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--missing-ok", action="store_true", help="treat a ROOT that does not exist as empty: exit status 0"
    )


def add_containerd(
    parser: argparse.ArgumentParser,
    description: str = "Directories named containerd-<snapshotter> need the containerd that BuildKit used.",
) -> None:
    workers = parser.add_argument_group("containerd workers", description)
    add = workers.add_argument
    address = add(
        "-a",
        "--address",
        metavar="SOCKET",
        type=_address,
        help="socket of the running containerd (default: $CONTAINERD_ADDRESS, else "
        f"{ConnectionOptions.address})",
    )
    add(
        "-n",
        "--namespace",
        metavar="NAME",
        type=_namespace,
        help="BuildKit's namespace in it (default: $CONTAINERD_NAMESPACE, else buildkit)",
    )
    add(
        "--snapshotter",
        metavar="NAME",
        type=not_empty,
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
        help="how long to wait for containerd at first or during a restart (default: %(default)g)",
    )
    add(
        "--concurrency",
        metavar="N",
        type=whole_number(1, 1024),
        default=ConnectionOptions.concurrency,
        help="calls in flight (default: %(default)d)",
    )
    add(
        "--offline",
        action="store_true",
        help="containerd is stopped, too: use its files",
    )
    root = add(
        "--containerd-root",
        metavar="DIR",
        type=not_empty,
        help=f"root of the stopped containerd; implies --offline (default: {_CONTAINERD_ROOT})",
    )
    snapshots = add(
        "--snapshotter-root",
        metavar="DIR",
        type=not_empty,
        help="directory with the snapshotter's metadata.db, if not at its usual place; for a single worker "
        "that is processed offline: an OCI worker, or with --offline",
    )
    snapshots.complete = _DIRECTORIES  # type: ignore[attr-defined]
    address.complete = FILES  # type: ignore[attr-defined]
    root.complete = _DIRECTORIES  # type: ignore[attr-defined]


def add_storage_driver(parser: argparse.ArgumentParser) -> None:
    parser.add_argument_group("Docker Engine's builder").add_argument(
        "--storage-driver",
        metavar="NAME",
        type=_driver,
        help="storage driver that Docker used when the builder's records were written (default: the one that "
        "has their layers)",
    )


def add_engine(parser: argparse.ArgumentParser, meaning: str) -> None:
    parser.add_argument("--to-engine", choices=ENGINES, default="bolt", help=meaning)


def add_skip_unreachable(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--skip-unreachable",
        action="store_true",
        help="skip containerd workers whose containerd can't be reached, and continue with the "
        "others; exit status 0",
    )


def add_output(parser: argparse.ArgumentParser, *more: str) -> None:
    """``more``: formats of this command alone."""
    add = parser.add_argument
    formats = ("text", "json", *more)
    add("--format", choices=formats, default="text", help="format of the result on stdout")
    add("--debug", action="store_true", help="show the traceback of an error")


def add_progress(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--progress",
        choices=PROGRESS,
        default="auto",
        help="what stderr shows of the work: a bar, a plain line every 10 seconds, or nothing; auto is a bar "
        "on a terminal, after a second, and lines elsewhere (default: %(default)s)",
    )


def containerd_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Converts the options of `add_containerd` to arguments of the functions for roots. Raises UsageError."""
    address = _chosen(options, "address", _address) or Setting(ConnectionOptions.address, DEFAULT)
    return {
        "containerd": ConnectionOptions(
            address.value, options.timeout, options.connect_timeout, options.concurrency, address.origin
        ),
        "containerd_root": containerd_root(options),
        "namespace": _chosen(options, "namespace", _namespace) or DEFAULT_NAMESPACE,
        "snapshotter": _chosen(options, "snapshotter", not_empty),
        "snapshotter_root": options.snapshotter_root
        and Setting(options.snapshotter_root, "--snapshotter-root"),
    }


def storage_driver(options: argparse.Namespace) -> Setting | None:
    """The value of the option of `add_storage_driver`."""
    given = options.storage_driver
    return None if given is None else Setting(given, "--storage-driver")


def containerd_root(options: argparse.Namespace) -> Setting | None:
    """The root of a stopped containerd; None if it runs."""
    if options.containerd_root:
        return Setting(options.containerd_root, "--containerd-root")
    return Setting(_CONTAINERD_ROOT, DEFAULT) if options.offline else None


def _chosen(options: argparse.Namespace, name: str, check: Callable[[str], str]) -> Setting | None:
    """The option's value, or else that of containerd's variable; None if neither is given."""
    given = getattr(options, name)
    if given is not None:
        return Setting(given, f"--{name}")
    variable = f"CONTAINERD_{name.upper()}"
    value = os.environ.get(variable)
    if not value:
        return None
    try:
        return Setting(check(value), f"${variable}")
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"${variable}: {error}") from error
