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
    """A set of rows of a table with `size` rows. `&`, `|`, `^`, `-`, `~` return new masks.

    `len` is the number of rows in the set; iteration is in ascending order. Combining masks of different
    sizes raises ValueError.
    """

    def __init__(self, size: int, rows: Iterable[int] = ()) -> None: ...
    @property
    def size(self) -> int:
        """Number of rows of the table."""
    def add(self, row: int) -> None:
        """Adds a row. Raises IndexError if the table does not have it."""
    def __contains__(self, row: int, /) -> bool: ...
    def __iter__(self) -> Iterator[int]: ...
    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...
    def __eq__(self, other: object, /) -> bool: ...
    __hash__ = None  # type: ignore[assignment]
    def __and__(self, other: Mask, /) -> Mask: ...
    def __or__(self, other: Mask, /) -> Mask: ...
    def __xor__(self, other: Mask, /) -> Mask: ...
    def __sub__(self, other: Mask, /) -> Mask: ...
    def __invert__(self) -> Mask: ...
    def take(self, rows: Sequence[int]) -> Mask:
        """The mask of another table: its rows that refer to a row in this set.

        `rows`: the row that each row refers to, or a negative number. Raises IndexError for a row that
        this table does not have.
        """

@final
class Index(Guarded):
    """Finds rows of a column by their entries; the first of several equal ones."""

    def __init__(self, column: _Texts) -> None: ...
    def row(self, key: bytes) -> int:
        """The row of an entry, or NOT_FOUND (-1)."""
    def rows(self, column: _Texts) -> array[int]:
        """The row of each entry as an array of type code "i"; NOT_FOUND (-1), or ABSENT (-2) for None."""

def column(values: Iterable[bytes | None]) -> Column:
    """A column with copies of byte strings; entries may be None. Raises TypeError for anything else."""

def present(column: _Texts) -> Mask:
    """Rows whose entry is not None."""

def equal(left: _Texts, right: _Texts) -> Mask:
    """Rows that have the same entry in both columns. Raises ValueError if they differ in length."""

def equal_to(column: _Texts, value: bytes) -> Mask:
    """Rows with this entry."""

def starting_with(column: _Texts, prefix: bytes) -> Mask:
    """Rows with an entry that starts with `prefix`."""

def between(numbers: Sequence[int], low: int, high: int) -> Mask:
    """Rows with a number from `low` to `high`, inclusive.

    `numbers`: row numbers, kinds or other integers; arrays of type codes "i", "q" and "b" are fastest.
    """

def take(column: _Texts, rows: Sequence[int]) -> Column:
    """The entries of `rows`, in that order; None for NOT_FOUND and ABSENT. Raises IndexError."""

def split_last(column: _Texts, separator: bytes) -> tuple[Column, Column]:
    """The parts before and after the last `separator` of each entry; both None if it has none.

    Raises ValueError for an empty separator.
    """

def repeated(numbers: Sequence[int]) -> Mask:
    """Rows with a number that an earlier row has already."""

def count_rows(rows: Sequence[int], size: int) -> array[int]:
    """How often each row from 0 to `size` - 1 occurs: an array of type code "i".

    Raises IndexError for a row that does not exist, ValueError for a size that no table has.
    """

def lengths(column: _Texts) -> array[int]:
    """Length of each entry in bytes, 0 for None: an array of type code "q"."""

def give_back() -> None:
    """Memory of large columns goes back to the system when it is freed, in this process from now on."""
