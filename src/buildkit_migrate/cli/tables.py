"""Tables as a terminal shows them; elsewhere each command has its own plain text."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence

__all__ = ["MOST_ROWS", "drawn", "on_terminal"]

MOST_ROWS = 10_000
"""A longer table is plain on a terminal, too: it is not looked at as a whole, and drawing it takes long."""


def on_terminal() -> bool:
    """Whether stdout is a terminal that can show more than plain text."""
    return sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def drawn(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of a table. ``columns``: titles; those that begin with ">" are of numbers.

    Cells must be printable. What is too long is folded, not cut.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for title in columns:
        table.add_column(title.lstrip(">"), justify="right" if title[:1] == ">" else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    lines = io.StringIO()
    width = Console(file=sys.stdout).width
    Console(file=lines, force_terminal=True, width=width, highlight=False).print(table)
    yield from (line.rstrip() for line in lines.getvalue().splitlines() if line.strip())
