from array import array
from collections.abc import Iterator
from typing import Protocol

from buildkit_migrate._native.columns import Mask

class _Texts(Protocol):
    def __len__(self) -> int: ...
    def __getitem__(self, row: int, /) -> bytes | None: ...
    def __iter__(self) -> Iterator[bytes | None]: ...

def integers(column: _Texts, signed: bool) -> tuple[array[int], Mask]:
    """Of base-128 groups: (values, known). Unsigned ones above 2^63 - 1 are that.

    Values: an array of type code "q", 0 where there is none that decodes, which the mask `known` tells.
    """

def times(column: _Texts) -> tuple[array[int], Mask, Mask]:
    """In nanoseconds since 1970, or the nearest that fits: (values, known, broken).

    Values: an array of type code "q", 0 where there is none that decodes. `known` has the rows with one that
    does, `broken` those with anything else.
    """

def small(column: _Texts, last: int) -> array[int]:
    """Of single bytes up to `last` (at most 127): an array of type code "b", 0 where there is no such."""

def links(column: _Texts) -> tuple[array[int], array[int], Mask]:
    """Of keys of a snapshotter's `parents`: (ids of parents, of children, broken).

    Ids: arrays of type code "q", 0 where the key is `broken`.
    """
