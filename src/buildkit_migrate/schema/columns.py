"""Whole columns at once: sets of rows, look-ups, numbers.

A table has rows 0, 1, 2, ...; a *column* has an entry for each of them, None where a row has none. *Rows* is
an array of row numbers of another table, one for each row of this one: NOT_FOUND where that has no such row,
ABSENT where there was nothing to look for.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol, Self

__all__ = [
    "ABSENT",
    "NOT_FOUND",
    "Index",
    "Integers",
    "Mask",
    "Rows",
    "Texts",
    "between",
    "count_rows",
    "equal",
    "equal_to",
    "lengths",
    "paired",
    "present",
    "repeated",
    "split_last",
    "starting_with",
    "take",
]

NOT_FOUND: Final = -1
ABSENT: Final = -2

Rows = array  # "array[int]" with type code "i"


class Texts(Protocol):
    """A column of byte strings."""

    def __len__(self) -> int: ...
    def __getitem__(self, row: int, /) -> bytes | None: ...
    def __iter__(self) -> Iterator[bytes | None]: ...


class Mask:
    """A set of rows of a table of ``size`` rows. `&`, `|`, `-`, `^` and `~` give new ones; iteration is in
    order. ``len`` is the number of rows in it.
    """

    def __init__(self, size: int, rows: Iterable[int] = ()) -> None:
        """Raises IndexError for a row that the table does not have."""
        self.size = size
        self._bytes = bytearray(size)
        for row in rows:
            self.add(row)

    @classmethod
    def _of(cls, flags: bytes | bytearray) -> Self:
        mask = cls(0)
        mask.size = len(flags)
        mask._bytes = bytearray(flags)
        return mask

    def add(self, row: int) -> None:
        if not 0 <= row < self.size:
            raise IndexError("row out of range")
        self._bytes[row] = 1

    def __contains__(self, row: int) -> bool:
        return 0 <= row < self.size and self._bytes[row] == 1

    def __iter__(self) -> Iterator[int]:
        at = self._bytes.find(1)
        while at >= 0:
            yield at
            at = self._bytes.find(1, at + 1)

    def __len__(self) -> int:
        return self._bytes.count(1)

    def __bool__(self) -> bool:
        return 1 in self._bytes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and self._bytes == other._bytes

    __hash__ = None  # type: ignore[assignment]

    def __and__(self, other: Mask) -> Mask:
        return self._with(other, int.__and__)

    def __or__(self, other: Mask) -> Mask:
        return self._with(other, int.__or__)

    def __xor__(self, other: Mask) -> Mask:
        return self._with(other, int.__xor__)

    def __sub__(self, other: Mask) -> Mask:
        return self & ~other

    def __invert__(self) -> Mask:
        return Mask._of(self._bytes.translate(bytes([1, 0]) * 128))

    def _with(self, other: Mask, operation: Callable[[int, int], int]) -> Mask:
        if self.size != other.size:
            raise ValueError("masks of tables of different sizes")
        result = operation(int.from_bytes(self._bytes, "little"), int.from_bytes(other._bytes, "little"))
        return Mask._of(result.to_bytes(self.size, "little"))

    def take(self, rows: Sequence[int]) -> Mask:
        """Of another table, whose rows refer to rows of this one: those that refer to a row in this set."""
        flags = self._bytes
        return Mask._of(bytes(flags[row] if row >= 0 else 0 for row in rows))


class Integers(NamedTuple):
    """A column of numbers. ``values``: array of type code "q", 0 where ``known`` has no such row."""

    values: array[int]
    known: Mask


class Index:
    """Finds the rows of a column by their entries; of equal ones the first."""

    def __init__(self, column: Texts) -> None:
        self._rows: dict[bytes, int] = {}
        for row, entry in enumerate(column):
            if entry is not None:
                self._rows.setdefault(entry, row)

    def row(self, key: bytes) -> int:
        """NOT_FOUND if there is none."""
        return self._rows.get(key, NOT_FOUND)

    def rows(self, column: Texts) -> array[int]:
        """For each entry of a column its row; NOT_FOUND, ABSENT."""
        get = self._rows.get
        return array("i", (ABSENT if entry is None else get(entry, NOT_FOUND) for entry in column))


def present(column: Texts) -> Mask:
    """Rows that have an entry."""
    return Mask._of(bytes(entry is not None for entry in column))


def equal(left: Texts, right: Texts) -> Mask:
    """Rows that have the same entry in both columns. Raises ValueError if they differ in length."""
    return Mask._of(bytes(a is not None and a == b for a, b in zip(left, right, strict=True)))


def equal_to(column: Texts, value: bytes) -> Mask:
    """Rows with this entry."""
    return Mask._of(bytes(entry == value for entry in column))


def starting_with(column: Texts, prefix: bytes) -> Mask:
    """Rows with an entry that starts so."""
    return Mask._of(bytes(entry is not None and entry.startswith(prefix) for entry in column))


def between(numbers: Sequence[int], low: int, high: int) -> Mask:
    """Rows with a number from ``low`` to ``high``, both included; of row numbers or of `Integers.values`."""
    return Mask._of(bytes(low <= number <= high for number in numbers))


def take(column: Texts, rows: Sequence[int]) -> Texts:
    """The entries of these rows, in this order; None for NOT_FOUND and ABSENT."""
    return [column[row] if row >= 0 else None for row in rows]


def split_last(column: Texts, separator: bytes) -> tuple[Texts, Texts]:
    """What is before and after the last ``separator`` of each entry; both None where there is none."""
    before: list[bytes | None] = []
    after: list[bytes | None] = []
    for entry in column:
        head, found, tail = entry.rpartition(separator) if entry is not None else (b"", b"", b"")
        before.append(head if found else None)
        after.append(tail if found else None)
    return before, after


def count_rows(rows: Sequence[int], size: int) -> array[int]:
    """How often each of ``size`` rows is named; type code "i"."""
    counts = array("i", bytes(4 * size))
    for row in rows:
        if row >= 0:
            counts[row] += 1
    return counts


def repeated(numbers: Sequence[int]) -> Mask:
    """Rows with a number that an earlier row has, too."""
    seen: set[int] = set()
    found = Mask(len(numbers))
    for row, number in enumerate(numbers):
        if number in seen:
            found.add(row)
        seen.add(number)
    return found


def paired(left: Texts, right: Texts, other_left: Texts, other_right: Texts) -> Mask:
    """Rows whose two entries some row has in the other two columns."""
    pairs = set(zip(other_left, other_right, strict=True))
    return Mask._of(bytes(pair in pairs and None not in pair for pair in zip(left, right, strict=True)))


def lengths(column: Texts) -> array[int]:
    """Bytes of each entry, 0 where there is none; type code "q"."""
    return array("q", (len(entry or b"") for entry in column))
