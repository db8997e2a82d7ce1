from array import array
from collections.abc import Iterator
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
