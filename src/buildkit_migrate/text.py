"""Arbitrary bytes as text, for people and for JSON."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

__all__ = ["cut", "named_text", "printable", "relative_text", "shortened"]

_SHOWN: Final = 20
"""How many lines of a list are shown by default."""

_MAX_NAME: Final = 300
"""Maximum length of an id, key or path in a line."""


def named_text(name: str, value: bytes | str | Path | None) -> dict[str, str | None]:
    """``{name: text}``, plus ``{name}_b64`` with the exact bytes if they are not UTF-8."""
    if value is None:
        return {name: None}
    exact = value if isinstance(value, bytes) else str(value).encode(errors="surrogateescape")
    try:
        return {name: exact.decode()}
    except UnicodeDecodeError:
        return {name: exact.decode(errors="replace"), f"{name}_b64": base64.b64encode(exact).decode()}


def printable(value: bytes | str) -> str:
    """Makes text safe to print: bytes that are not UTF-8 and control characters are escaped.

    In a str, such as a path, such a byte is a lone surrogate.
    """
    text = value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    if "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode()


def cut(name: bytes) -> str:
    """An id, key or path that is safe to print, shortened to fit into a line."""
    text = printable(name)
    return text if len(text) <= _MAX_NAME else f"{text[:_MAX_NAME]}... ({len(name)} bytes)"


def shortened(lines: Sequence[str], verbose: bool) -> Iterator[str]:
    """The first lines of a list, and how many more there are; all lines if ``verbose``."""
    shown = len(lines) if verbose else _SHOWN
    yield from lines[:shown]
    if len(lines) > shown:
        yield f"... and {len(lines) - shown} more (-v shows all)"


def relative_text(path: Path, root: Path) -> str:
    """A path in a message about ``root``: relative to it if it is inside."""
    for top in (root, root.absolute()):
        if path.is_relative_to(top) and path != top:
            return printable(str(path.relative_to(top)))
    return printable(str(path))
