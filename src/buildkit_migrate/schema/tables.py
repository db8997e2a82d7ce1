"""Tables of a bolt file: buckets whose children are rows, and what lies below them."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Collection
from typing import NamedTuple

from buildkit_migrate._native import numbers
from buildkit_migrate._native.tables import read
from buildkit_migrate.bolt import Bucket
from buildkit_migrate.schema.columns import Integers, Mask, Texts, column

__all__ = ["Entries", "Times", "below", "buckets_in", "integers", "names_in", "read_table", "read_times"]

Path = tuple[bytes, ...]


class Entries(NamedTuple):
    """The items of a bucket that each row of a table may have, as a table of its own.

    ``rows``: the row that an item belongs to, ascending; type code "i". ``values``: None for a bucket; empty
    if only the keys were read.
    """

    rows: array[int]
    keys: Texts
    values: Texts

    def of(self, row: int) -> range:
        """Where the items of a row of the outer table are in this one."""
        return range(bisect_left(self.rows, row), bisect_right(self.rows, row))

    def __bool__(self) -> bool:
        return len(self.rows) > 0


class Times(NamedTuple):
    """A column of times as containerd stores them.

    ``values``: in nanoseconds since 1970, type code "q"; what does not fit is the nearest that does.
    ``known``: rows with one that decodes. ``broken``: rows with something else.
    """

    values: array[int]
    known: Mask
    broken: Mask


def names_in(bucket: Bucket | None) -> Texts:
    """Names of the child buckets, as a column; none for None."""
    return read(bucket, (), ())[0] if bucket is not None else column(())


def buckets_in(bucket: Bucket | None) -> list[bytes]:
    """The same as a list, for when there are few."""
    return [name for name in names_in(bucket) if name is not None]


def below(bucket: Bucket | None, *path: bytes, prefix: bytes = b"") -> Entries:
    """The items at ``path`` in each row of ``bucket``, with keys that start with ``prefix``."""
    return read_table(bucket, (), [(path, prefix)])[2][0]


def read_table(
    bucket: Bucket | None,
    values: Collection[Path],
    lists: Collection[tuple[Path, bytes]],
    *,
    keys_only: bool = False,
) -> tuple[Texts, list[Texts], list[Entries]]:
    """All of this in one walk: names of rows, columns of values at paths within a row, and items at paths,
    with keys that start with a prefix. ``keys_only``: without the values of these items. A table without rows
    for None.
    """
    if bucket is None:
        none = Entries(array("i"), column(()), column(()))
        return column(()), [column(()) for _ in values], [none for _ in lists]
    names, columns, found = read(bucket, values, lists, keys_only=keys_only)
    return names, list(columns), [Entries(*entries) for entries in found]


def integers(column: Texts, *, signed: bool = True) -> Integers:
    """Numbers as containerd stores them; unsigned ones become 2^63 - 1 at most. Broken ones are not known."""
    return Integers(*numbers.integers(column, signed))


def read_times(column: Texts) -> Times:
    """Times as containerd stores them."""
    return Times(*numbers.times(column))
