"""Whole columns at once: sets of rows, look-ups, numbers.

A table has rows 0, 1, 2, ...; a *column* has an entry for each of them, None where a row has none. *Rows* is
an array (type code "i") of row numbers of another table, one for each row of this one: NOT_FOUND where that
has no such row, ABSENT where there was nothing to look for. Where a column is asked for, any sequence of
byte strings and None will do, at the price of a copy.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol

from buildkit_migrate._native.columns import (
    Index,
    Mask,
    between,
    column,
    count_rows,
    equal,
    equal_to,
    give_back,
    lengths,
    present,
    repeated,
    split_last,
    starting_with,
    take,
)
from buildkit_migrate._native.numbers import chosen, gather, paired, same

__all__ = [
    "ABSENT",
    "NOT_FOUND",
    "Index",
    "Integers",
    "Mask",
    "Texts",
    "between",
    "chosen",
    "column",
    "count_rows",
    "equal",
    "equal_to",
    "gather",
    "give_back",
    "lengths",
    "paired",
    "present",
    "repeated",
    "same",
    "split_last",
    "starting_with",
    "take",
]

NOT_FOUND: Final = -1
ABSENT: Final = -2


class Texts(Protocol):
    """A column of byte strings."""

    def __len__(self) -> int: ...
    def __getitem__(self, row: int, /) -> bytes | None: ...
    def __iter__(self) -> Iterator[bytes | None]: ...


class Integers(NamedTuple):
    """A column of numbers. ``values``: array of type code "q", 0 where ``known`` has no such row."""

    values: array[int]
    known: Mask
