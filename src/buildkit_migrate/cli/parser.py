"""The parser of the command line: errors with what was probably meant, and the help to read."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Sequence
from typing import Any, Final, NoReturn

from buildkit_migrate.cli import output
from buildkit_migrate.cli.failures import UsageError

__all__ = ["EXAMPLES", "Parser", "parse"]

EXAMPLES: Final = {
    "migrate": (
        ("migrate --dry-run", "what would be done to the root of this host"),
        ("migrate /path/to/root", "migrate another one"),
    ),
    "verify": (("verify", "after a migration, before the new daemon's first start"),),
    "status": (("status", "all roots on this host, and how far each is"),),
    "undo": (("undo --dry-run", "what would be taken back, and what that would lose"),),
    "clean": (("clean --dry-run", "what would be deleted, and its size"),),
    "du": (
        ("du -f type==exec.cachemount", "all cache mounts"),
        ("du --disk", "what all the bytes of the root are for"),
    ),
    "check": (
        ("check", "all rules, on the root of this host"),
        ("check --explain C23", "what a rule is about"),
    ),
    "repair": (
        ("repair --dry-run", "what can be put right without a loss, and what more could be done"),
        ("repair --drop", "also give up what the daemon stumbles over"),
        ("repair --salvage cache.db --output new.db", "what can be read of a file with damaged pages"),
    ),
    "compact": (
        ("compact --dry-run", "what each database would shrink to"),
        ("compact --min-free 25%", "those of which a quarter is free"),
    ),
    "convert": (("convert metadata_v2.db cache.lmdb", "the engine of the first is detected"),),
    "bench": (("bench --records 100000", "a larger cache than usual"),),
}
"""Arguments, and what for, per command."""


class Parser(argparse.ArgumentParser):
    """Raises UsageError where argparse would exit."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=self.advice())

    def advice(self, wrong: str = "", known: Iterable[str] = ()) -> str:
        """What to do after a usage error; names what is most like ``wrong`` among what is ``known``."""
        see = f"see {self.prog} --help"
        close = difflib.get_close_matches(wrong, list(known), n=1)
        return f"did you mean {close[0]}? Else {see}" if close else see

    @property
    def known_options(self) -> list[str]:
        return [name for action in self._actions for name in action.option_strings]

    def unknown(self, arguments: Sequence[str]) -> UsageError:
        """The error about arguments that nobody takes."""
        wrong = arguments[0].partition("=")[0]
        hint = self.advice(wrong, self.known_options) if wrong.startswith("-") else self.advice()
        return UsageError(f"unrecognized arguments: {' '.join(arguments)}", hint=hint)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            wrong, choices = str(value), [str(choice) for choice in action.choices or ()]
            if isinstance(action, argparse._SubParsersAction) and "/" in wrong:
                hint = f"a command comes first, such as {self.prog} migrate {wrong}; see {self.prog} --help"
            else:
                hint = self.advice(wrong, choices)
            name = action.metavar or "/".join(action.option_strings)
            message = f"argument {name}: {wrong!r} is not one of {', '.join(choices)}"
            raise UsageError(message, hint=hint) from error

    def _print_message(self, message: str, file: object = None) -> None:
        """Prints the help."""
        output.emit([message.rstrip("\n")])


def parse(parser: Parser, given: Sequence[str], options: argparse.Namespace) -> None:
    """Parses into ``options``, which has the command even if its arguments are wrong. Raises UsageError."""
    (commands,) = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
    early = given[0].partition("=")[0] if given and given[0].startswith("-") else ""
    try:
        _, unknown = parser.parse_known_args(given, options)
    except UsageError:
        # argparse would only say that there is no command, although one may come later.
        if not early or early in parser.known_options or getattr(options, "command", None):
            raise
        unknown = [early]
    if unknown:
        command = getattr(options, "command", None)
        its: Iterable[Parser] = [commands.choices[command]] if command else commands.choices.values()
        having = [one for one in its if early in one.known_options]
        if having and unknown[0].partition("=")[0] == early:
            hint = f"the command comes first: {having[0].prog} {early}"
            raise UsageError(f"{early} stands before the command", hint=hint)
        raise (commands.choices[command] if command else parser).unknown(unknown)
