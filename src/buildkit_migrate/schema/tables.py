"""Tables of a bolt file: buckets whose children are rows, and what lies below them."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Final, NamedTuple

from buildkit_migrate.bolt import Bucket
from buildkit_migrate.schema.columns import Integers, Mask, Texts
from buildkit_migrate.values import numbers, times

__all__ = ["Entries", "Times", "below", "buckets_in", "integers", "read_times", "rows_in"]

_YEAR_1: Final = 62_135_596_800  # seconds before 1970


class Entries(NamedTuple):
    """The items of a bucket that each row of a table may have, as a table of its own.

    ``rows``: the row that an item belongs to, ascending; type code "i". ``values``: b"" for a bucket.
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


def rows_in(bucket: Bucket | None) -> Iterator[tuple[bytes, Bucket]]:
    """The child buckets; none for None."""
    for name, row in bucket.items() if bucket is not None else ():
        if isinstance(row, Bucket):
            yield name, row


def buckets_in(bucket: Bucket | None) -> list[bytes]:
    """Their names."""
    return [name for name, _ in rows_in(bucket)]


def below(bucket: Bucket | None, *path: bytes, prefix: bytes = b"") -> Entries:
    """The items at ``path`` in each row of ``bucket``, with keys that start with ``prefix``."""
    rows = array("i")
    keys: list[bytes] = []
    values: list[bytes] = []
    for row, (_, entry) in enumerate(rows_in(bucket)):
        inner = entry.bucket(*path)
        for key, value in inner.items(prefix) if inner is not None else ():
            if not key.startswith(prefix):
                break
            rows.append(row)
            keys.append(key)
            values.append(value if isinstance(value, bytes) else b"")
    return Entries(rows, keys, values)


def integers(column: Texts, *, signed: bool = True) -> Integers:
    """Numbers as containerd stores them; unsigned ones above 2^63 - 1 are that. Broken ones are not known."""
    read = numbers.signed if signed else numbers.unsigned
    found = [read(stored) for stored in column]
    values = array("q", (min(number or 0, 2**63 - 1) for number in found))
    return Integers(values, Mask(len(found), (row for row, number in enumerate(found) if number is not None)))


def read_times(column: Texts) -> Times:
    values = array("q")
    known, broken = Mask(len(column)), Mask(len(column))
    for row, stored in enumerate(column):
        value = 0
        if stored is not None and times.is_readable_time(stored):
            known.add(row)
            seconds = int.from_bytes(stored[1:9], "big", signed=True) - _YEAR_1
            value = seconds * 1_000_000_000 + int.from_bytes(stored[9:13], "big", signed=True)
        elif stored is not None:
            broken.add(row)
        values.append(max(-(2**63), min(value, 2**63 - 1)))
    return Times(values, known, broken)
