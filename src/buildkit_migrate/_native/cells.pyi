from array import array
from collections.abc import Iterable
from typing import final

from buildkit_migrate._native.bolt import Bucket, Column, Reader
from buildkit_migrate._native.columns import Mask
from buildkit_migrate._native.guard import Guarded

TEXT: int
INTEGER: int
FLAG: int
TEXTS: int
ANY: int

@final
class Cells(Guarded):
    """All values of the records in the bucket `_main`, None if there is none.

    `keys`: the keys that are known, each with its form (TEXT, INTEGER, FLAG, TEXTS, ANY) and whether its
    values are kept for the columns. Values that are in the form in which BuildKit writes them are checked
    here; all others are `odd`, and somebody else's to judge. Raises `errors.CorruptDatabaseError`.
    """

    def __init__(
        self, reader: Reader, main: Bucket | None, keys: Iterable[tuple[bytes, int, bool]]
    ) -> None: ...
    @property
    def ids(self) -> Column:
        """Of the records, in byte order."""
    @property
    def plain(self) -> Column:
        """Keys of `_main` that are not buckets."""
    def __len__(self) -> int: ...
    def odd(self) -> list[tuple[int, bytes, bytes | None]]:
        """(Row, key, value) of all values that are left to judge; the value is None for a bucket."""
    def want(self, row: int, index: bytes) -> None:
        """Adds an index that an odd value of a record has."""
    def compare(self, entries: Column) -> tuple[array[int], Mask]:
        """What is between the indexes of all values and the keys of `_index`: (missing, stray).

        `missing`: rows of records, type code "i", once for each value whose entry is not there. `stray`: mask
        of entries that are nobody's.
        """
    def stored(self, key: bytes) -> Column:
        """The values of a key as they are stored, but for cleared ones. Raises KeyError."""
    def texts(self, key: bytes, others: dict[int, bytes]) -> Column:
        """Decoded strings; None where there is none. `others`: row to string of odd values. KeyError."""
    def integers(self, key: bytes) -> tuple[array[int], Mask]:
        """Decoded numbers: (values, known), type code "q" and a mask; flags are 0 and 1. KeyError."""
    def lists(self, key: bytes) -> tuple[array[int], Column]:
        """Strings of decoded lists: (rows, strings), with the row of each (type code "i"). KeyError."""
