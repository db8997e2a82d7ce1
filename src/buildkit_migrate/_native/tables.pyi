from array import array
from collections.abc import Iterable

from buildkit_migrate._native.bolt import Bucket, Column

def read(
    bucket: Bucket,
    values: Iterable[tuple[bytes, ...]],
    lists: Iterable[tuple[tuple[bytes, ...], bytes]],
    *,
    keys_only: bool = False,
) -> tuple[Column, list[Column], list[tuple[array[int], Column, Column]]]:
    """Reads a bucket as a table: (names, columns, lists).

    Names: of its child buckets, the rows. `values`: paths within a row, for each of which there is a column;
    None where there is no such value. `lists`: pairs of a path and a prefix, for each of which there is
    (rows, keys, values): the items there whose keys start with the prefix, an array of type code "i" with the
    row of each, ascending, and two columns; values are None for buckets. `keys_only`: the columns of their
    values are empty. Raises ValueError for an empty path of a value, `errors.CorruptDatabaseError`.
    """
