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
    """All values of the records in the bucket `_main`; `main` is None if the bucket does not exist.

    `keys`: the known keys, each with its form (TEXT, INTEGER, FLAG, TEXTS, ANY) and whether its values are
    kept for the columns. Values in exactly the form that BuildKit writes are checked here; all others are
    `odd`, and the caller must check them. `unchecked`: values are only kept, as an earlier walk has checked
    them; none is odd, and none has an index. Raises `errors.CorruptDatabaseError`.
    """

    def __init__(
        self,
        reader: Reader,
        main: Bucket | None,
        keys: Iterable[tuple[bytes, int, bool]],
        *,
        unchecked: bool = False,
    ) -> None: ...
    @property
    def ids(self) -> Column:
        """Ids of the records, in byte order."""
    @property
    def plain(self) -> Column:
        """Keys of `_main` that are not buckets."""
    def __len__(self) -> int: ...
    def odd(self) -> list[tuple[int, bytes, bytes | None]]:
        """(Row, key, value) of all values that the caller must check; the value is None for a bucket."""
    def want(self, row: int, index: bytes) -> None:
        """Adds the index that an odd value of a record has."""
    def compare(self, entries: Column) -> tuple[array[int], Mask]:
        """Compares the indexes of all values with `entries`, the keys of `_index`: (missing, stray).

        `missing`: rows of records (type code "i"), once for each value whose entry is missing. `stray`: mask
        of entries that belong to no value.
        """
    def drop(self, keys: Iterable[bytes]) -> None:
        """Gives back the memory of the values of these keys, which are not kept any more. Raises KeyError."""
    def stored(self, key: bytes) -> Column:
        """The values of a key of form ANY as stored, except cleared ones. Raises KeyError."""
    def has(self, key: bytes) -> Mask:
        """Rows with a value of a key that is not cleared, of its form or not. Raises KeyError."""
    def texts(self, key: bytes, others: dict[int, bytes]) -> Column:
        """Decoded strings of a key of form TEXT, or None. `others`: strings of odd values by row.

        Raises KeyError.
        """
    def integers(self, key: bytes) -> tuple[array[int], Mask]:
        """Decoded numbers: (values, known), type code "q" and a mask; flags are 0 or 1.

        Raises KeyError, as for a key of another form than INTEGER and FLAG.
        """
    def lists(self, key: bytes) -> tuple[array[int], Column]:
        """Strings of decoded lists: (rows, strings), each with its row (type code "i").

        Raises KeyError, as for a key of another form than TEXTS.
        """
