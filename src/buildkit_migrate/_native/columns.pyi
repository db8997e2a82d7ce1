from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, final

from buildkit_migrate._native.bolt import Column
from buildkit_migrate._native.guard import Guarded

class _Texts(Protocol):
    def __len__(self) -> int: ...
    def __getitem__(self, row: int, /) -> bytes | None: ...
    def __iter__(self) -> Iterator[bytes | None]: ...

@final
class Mask(Guarded):
    """A set of rows of a table of `size` rows. `&`, `|`, `^`, `-`, `~` give new ones; iteration is in order.

    `len` is the number of rows in it. Masks of tables of different sizes don't go together (ValueError).
    """

    def __init__(self, size: int, rows: Iterable[int] = ()) -> None: ...
    @property
    def size(self) -> int:
        """Rows of the table."""
    def add(self, row: int) -> None:
        """Raises IndexError for a row that the table does not have."""
    def __contains__(self, row: int) -> bool: ...
    def __iter__(self) -> Iterator[int]: ...
    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...
    def __eq__(self, other: object) -> bool: ...
    __hash__ = None  # type: ignore[assignment]
    def __and__(self, other: Mask) -> Mask: ...
    def __or__(self, other: Mask) -> Mask: ...
    def __xor__(self, other: Mask) -> Mask: ...
    def __sub__(self, other: Mask) -> Mask: ...
    def __invert__(self) -> Mask: ...
    def take(self, rows: Sequence[int]) -> Mask:
        """Of another table whose rows refer to rows of this one: those that refer to a row in this set.

        Raises IndexError for a row that this table does not have; negative ones refer to nothing.
        """

@final
class Index(Guarded):
    """Finds the rows of a column by their entries; of equal ones the first."""

    def __init__(self, column: _Texts) -> None: ...
    def row(self, key: bytes) -> int:
        """NOT_FOUND (-1) if there is none."""
    def rows(self, column: _Texts) -> array[int]:
        """For each entry of a column its row: an array of type code "i"; NOT_FOUND (-1), ABSENT (-2)."""

def column(values: Iterable[bytes | None]) -> Column:
    """A column of byte strings, or None, that are copied. Raises TypeError for anything else."""

def present(column: _Texts) -> Mask:
    """Rows that have an entry."""

def equal(left: _Texts, right: _Texts) -> Mask:
    """Rows that have the same entry in both columns. Raises ValueError if they differ in length."""

def equal_to(column: _Texts, value: bytes) -> Mask:
    """Rows with this entry."""

def starting_with(column: _Texts, prefix: bytes) -> Mask:
    """Rows with an entry that starts so."""

def between(numbers: Sequence[int], low: int, high: int) -> Mask:
    """Rows with a number from `low` to `high`, both included.

    `numbers`: row numbers, kinds or other integers; arrays of type codes "i", "q" and "b" at full speed.
    """

def take(column: _Texts, rows: Sequence[int]) -> Column:
    """The entries of these rows, in this order; None for NOT_FOUND and ABSENT. Raises IndexError."""

def split_last(column: _Texts, separator: bytes) -> tuple[Column, Column]:
    """What is before and after the last `separator` of each entry; both None where there is none.

    Raises ValueError for an empty separator.
    """

def paired(left: _Texts, right: _Texts, other_left: _Texts, other_right: _Texts) -> Mask:
    """Rows whose two entries some row has in the other two columns.

    Raises ValueError if the columns of a pair differ in length.
    """

def repeated(numbers: Sequence[int]) -> Mask:
    """Rows with a number that an earlier row has, too."""

def count_rows(rows: Sequence[int], size: int) -> array[int]:
    """How often each of `size` rows is named: an array of type code "i". Raises IndexError."""

def lengths(column: _Texts) -> array[int]:
    """Bytes of each entry, 0 where there is none: an array of type code "q"."""
