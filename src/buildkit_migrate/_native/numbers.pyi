from array import array
from collections.abc import Iterator, Sequence
from typing import Protocol

from buildkit_migrate._native.columns import Mask

class _Texts(Protocol):
    def __len__(self) -> int: ...
    def __getitem__(self, row: int, /) -> bytes | None: ...
    def __iter__(self) -> Iterator[bytes | None]: ...

def integers(column: _Texts, signed: bool) -> tuple[array[int], Mask]:
    """Decodes base-128 numbers: (values, known). Unsigned ones above 2^63 - 1 become 2^63 - 1.

    Values: an array of type code "q". The mask `known` has the rows that could be decoded; others are 0.
    """

def times(column: _Texts) -> tuple[array[int], Mask, Mask]:
    """Decodes times: (values, known, broken).

    Values: an array of type code "q", in nanoseconds since 1970 or the nearest number that fits. `known` has
    the rows that could be decoded, `broken` those with anything else. Values that are not known are 0.
    """

def small(column: _Texts, last: int) -> array[int]:
    """Decodes single bytes up to `last` (at most 127): an array of type code "b", 0 for anything else."""

def links(column: _Texts) -> tuple[array[int], array[int], Mask]:
    """Decodes keys of a snapshotter's bucket `parents`: (ids of parents, ids of children, broken).

    Ids: arrays of type code "q", 0 where the key is `broken`.
    """

def counters(column: _Texts) -> array[int]:
    """The numbers in names of snapshots, `<namespace>/<number>/<key>`: an array of type code "q".

    0 where there is none, 2^63 - 1 where it is larger.
    """

# Arrays of type code "i" (row numbers) or "q":

def gather(numbers: array[int], rows: Sequence[int]) -> array[int]:
    """The numbers at `rows`, in that order and of the same type; NOT_FOUND and ABSENT stay what they are.

    Raises IndexError for a row that there is not.
    """

def chosen(numbers: array[int], mask: Mask) -> array[int]:
    """The numbers at the rows of the mask, ascending by row, of the same type.

    Raises ValueError if there are more or fewer numbers than rows.
    """

def same(left: array[int], right: array[int]) -> Mask:
    """Rows with the same number in both. Raises ValueError for arrays of different lengths or types."""

def paired(
    left: Sequence[int], right: Sequence[int], other_left: Sequence[int], other_right: Sequence[int]
) -> Mask:
    """Rows whose pair of row numbers also occurs in some row of the other two arrays.

    Pairs with a negative number never do. Raises ValueError if the arrays of a pair differ in length.
    """
