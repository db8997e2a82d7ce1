"""The command ``buildkit-migrate``: arguments, errors, exit codes. Each subcommand has its own module."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn

from buildkit_migrate import errors
from buildkit_migrate.cli import output, targets
from buildkit_migrate.cli.exit_statuses import epilog
from buildkit_migrate.cli.failures import InterruptedByUserError, UsageError
from buildkit_migrate.cli.parser import EXAMPLES, Parser, parse
from buildkit_migrate.cli.signals import Ending, ending_cleanly

__all__ = ["main"]

_COMMANDS: Final = (
    "migrate",
    "verify",
    "status",
    "undo",
    "clean",
    "du",
    "check",
    "repair",
    "compact",
    "convert",
    "bench",
)


class _PrintVersion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *rest: object) -> NoReturn:
        from buildkit_migrate import __version__

        output.emit([f"{parser.prog} {__version__}"])
        parser.exit()


class _PrintCompletion(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> NoReturn:
        import shtab

        output.emit([shtab.complete(parser, values)])
        parser.exit()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status. ``arguments``: by default those of the process."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    _replace_closed_streams()
    with ending_cleanly() as ending:
        try:
            status = _run(given, ending)
        except BaseException:
            if not ending.number:
                raise
        if not ending.number:
            return status
    sys.exit(ending.status)


def _replace_closed_streams() -> None:
    """Opens /dev/null for streams that the caller closed, before a database gets their descriptors."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115, PTH123


def _run(given: list[str], ending: Ending) -> int:
    options = argparse.Namespace()
    try:
        parse(_make_parser(), given, options)
        with _reporting_bus_errors(given, options):
            status: int = _module(options.command).run(options)
    except KeyboardInterrupt as error:
        return _fail(InterruptedByUserError.of(error, ending.number), given, options)
    except Exception as error:
        return _fail(error, given, options)
    return status


@contextlib.contextmanager
def _reporting_bus_errors(given: Sequence[str], options: argparse.Namespace) -> Iterator[None]:
    """Within the block, SIGBUS ends the process with a message and an exit status.

    Databases are memory-mapped; one that is truncated meanwhile can't be read beyond its new end. Locks keep
    daemons away, but not a ``cp`` or ``truncate``.
    """
    from buildkit_migrate._native import bus_error
    from buildkit_migrate.cli import render

    error = errors.CorruptDatabaseError(
        "truncated by another process, or unreadable on disk, while it was being read",
        path="a database file",
        hint="make sure that nothing else uses the root, and run the command again",
    )
    document = output.json_text(_document(error, given, options)) if wants_json(given) else b""
    lines = "".join(f"{line}\n" for line in render.error_lines(error, verbose=False))
    bus_error.install(lines.encode(), document, error.exit_code)
    try:
        yield
    finally:
        bus_error.remove()


def _make_parser() -> Parser:
    parser = Parser(
        prog="buildkit-migrate",
        description="Migrate a BuildKit v1 build cache (metadata.db) to v2 (metadata_v2.db), and take care\n"
        "of v2 caches. The daemon must be stopped; COMMAND --help has the options of a command.",
        epilog=_epilog(""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_PrintVersion, nargs=0, help="print the version and exit")
    parser.add_argument(
        "--print-completion",
        action=_PrintCompletion,
        choices=("bash", "zsh", "fish", "tcsh"),
        help="print a completion script for this shell and exit",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in _COMMANDS:
        _module(name).add_parser(commands, epilog=_epilog(name))
    return parser


def _epilog(command: str) -> str:
    """What the help of a command (of all, for "") ends with: examples, and the exit statuses it can have."""
    examples = EXAMPLES.get(command, ())
    width = max((len(arguments) for arguments, _ in examples), default=0)
    lines = [f"  buildkit-migrate {arguments:{width}}   # {purpose}" for arguments, purpose in examples]
    return "\n".join(["examples:", *lines, "", epilog(command)] if lines else [epilog(command)])


def _module(name: str) -> Any:
    from importlib import import_module

    return import_module(f"buildkit_migrate.cli.{name}")


def _fail(error: Exception, given: Sequence[str], options: argparse.Namespace) -> int:
    """Reports an error on stderr and, if JSON was requested, as the only document on stdout."""
    from buildkit_migrate.cli import render

    known = render.known_error(error)
    if isinstance(known, UsageError) and not known.hint:
        known.hint = f"see buildkit-migrate {getattr(options, 'command', None) or ''}".rstrip() + " --help"
    if "--debug" in given:
        output.tell(output.traceback_lines(error))
    if wants_json(given) and not getattr(options, "answered", False):
        # If stdout can't be written, the original error counts.
        with contextlib.suppress(errors.StorageError):
            output.emit_json(_document(known, given, options))
    output.tell(render.error_lines(known, verbose="-v" in given or "--verbose" in given))
    return known.exit_code


def _document(error: errors.Error, given: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    """The JSON document of an error, with the fields of the command's other documents.

    For several roots, it has those that were finished by then.
    """
    names: Mapping[str, Any] = _module(given[0]).DOCUMENT if given and given[0] in _COMMANDS else {}
    if "--all" in given or targets.is_for_all(options):
        names = targets.DOCUMENT
    found = {**names, **getattr(options, "so_far", {})}
    return {"schema": output.SCHEMA, **found, "error": error.as_dict()}


def wants_json(given: Sequence[str]) -> bool:
    """Whether JSON is requested, even if the command line is otherwise wrong."""
    return "--format=json" in given or any(
        option == "--format" and value == "json" for option, value in itertools.pairwise(given)
    )
