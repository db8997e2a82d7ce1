"""BuildKit's filters of records, in the syntax of containerd's: what `buildctl du --filter` takes.

A filter is a list of selectors with commas between them, all of which must match: ``field`` (is there),
``field==value``, ``field!=value``, ``field~=regular expression``, ``field@=part``. Values with other
characters are quoted, in double quotes; regular expressions between slashes or bars, too. Of several filters
one must match.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

__all__ = ["FIELDS", "Field", "FilterError", "Matches", "parse"]

FIELDS: Final = (
    "id",
    "parents",
    "description",
    "inuse",
    "mutable",
    "immutable",
    "type",
    "shared",
    "private",
)
"""Fields that a record may have. A filter may name others, which no record has."""

Field = Callable[[str], str | None]
"""Gives the value of a field of a record, None if it is not there."""

Matches = Callable[[Field], bool]

_TOKEN: Final = re.compile(
    r"""(?P<space>\s+) | (?P<quoted>"(?:[^"\\\n]|\\.)*" | /(?:[^/\\\n]|\\.)*/ | \|(?:[^|\\\n]|\\.)*\|)
    | (?P<separator>[,.]) | (?P<operator>[=!~@]+) | (?P<field>[A-Za-z0-9_-]+) | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_VALUE: Final = re.compile(r"[^,\s]+")
_ESCAPE: Final = re.compile(r"\\(x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|[0-7]{3}|.)", re.DOTALL)
_ESCAPED: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


class FilterError(ValueError):
    """The text is not a filter. The message says where and why."""


def parse(filters: Iterable[str]) -> Matches:
    """Returns what tells whether any of these filters matches; without filters, all records match.

    Raises FilterError.
    """
    parsed = [_Parser(text).parse() for text in filters]
    return lambda field: not parsed or any(matches(field) for matches in parsed)


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def parse(self) -> Matches:
        if not self._text:
            return lambda field: True
        selectors = [self._selector()]
        while self._peek() == "separator":
            if self._take()[1] != ",":
                raise self._error("a comma is expected")
            selectors.append(self._selector())
        if self._peek():
            raise self._error("a comma is expected")
        return lambda field: all(matches(field) for matches in selectors)

    def _selector(self) -> Matches:
        name = self._field()
        while self._text[self._skipped() : self._skipped() + 1] == ".":
            self._take()
            self._field()  # no field of a record has others below it; the daemon looks at the first one only
        if self._peek() != "operator":
            return lambda field: field(name) is not None
        operator = self._take()[1]
        if operator not in _OPERATORS:
            raise self._error(f"{operator} is not an operator: there are ==, !=, ~= and @=")
        test = _OPERATORS[operator](self._value(regular=operator == "~="))
        return lambda field: test(field(name))

    def _field(self) -> str:
        kind, text = self._take()
        if kind == "quoted":
            return self._unquoted(text)
        if kind != "field":
            raise self._error("the name of a field is expected")
        return text

    def _value(self, *, regular: bool) -> str:
        if self._peek() == "quoted":
            if not regular and self._text[self._skipped()] != '"':
                raise self._error("only a regular expression may be between slashes or bars")
            return self._unquoted(self._take()[1])
        self._at = self._skipped()
        found = _VALUE.match(self._text, self._at)
        if found is None or found[0][0] in '"/|.':
            raise self._error("a value is expected (in quotes if it begins with a dot, slash or bar)")
        self._at = found.end()
        return found[0]

    def _unquoted(self, text: str) -> str:
        return _ESCAPE.sub(self._unescaped, text[1:-1])

    def _unescaped(self, escape: re.Match[str]) -> str:
        text = escape[1]
        if len(text) > 1:
            number = int(text, 8) if text[0].isdigit() else int(text[1:], 16)
            if number > 0x10FFFF:
                raise self._error("no such character")
            return chr(number)
        if text not in _ESCAPED and text not in '\\"/|':
            raise self._error(f"\\{text} means nothing")
        return _ESCAPED.get(text, text)

    def _skipped(self) -> int:
        """Offset of the next character that is not white space."""
        at = self._at
        while at < len(self._text) and self._text[at].isspace():
            at += 1
        return at

    def _peek(self) -> str:
        """The kind of the next token, "" at the end."""
        found = _TOKEN.match(self._text, self._skipped())
        return (found.lastgroup or "") if found else ""

    def _take(self) -> tuple[str, str]:
        found = _TOKEN.match(self._text, self._skipped())
        if found is None:
            raise self._error("something is missing at the end")
        self._at = found.end()
        return found.lastgroup or "", found[0]

    def _error(self, why: str) -> FilterError:
        return FilterError(f"{self._text!r} is not a filter: {why} (at character {self._at + 1})")


def _matching(pattern: str) -> Callable[[str | None], bool]:
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise FilterError(f"{pattern!r} is not a regular expression: {error}") from error
    return lambda value: compiled.search(value or "") is not None


_OPERATORS: Final[dict[str, Callable[[str], Callable[[str | None], bool]]]] = {
    "==": lambda wanted: lambda value: value == wanted,
    "!=": lambda wanted: lambda value: (value or "") != wanted,
    "~=": _matching,
    "@=": lambda wanted: lambda value: wanted in (value or ""),
}
