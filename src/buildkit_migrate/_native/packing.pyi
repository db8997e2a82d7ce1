from collections.abc import Iterable, Iterator
from typing import Final, final

from buildkit_migrate._native.bolt import Bucket, Reader
from buildkit_migrate._native.building import Builder
from buildkit_migrate._native.guard import Guarded

LONG_KEY: Final[int]
"""Bytes of an LMDB key that stands for a group of long ones; other keys are shorter."""

@final
class Packer(Guarded):
    """Turns buckets of a bolt file into entries of an LMDB store (docs/format.md).

    A packer reads each page once: a second visit raises `errors.CorruptDatabaseError`, as any damage does.
    """

    def __new__(cls, reader: Reader) -> Packer: ...
    def batches(
        self, bucket: Bucket, tag: bytes, skip: frozenset[bytes] = frozenset()
    ) -> Iterator[list[tuple[bytes, bytes]]]:
        """(Key, value) of all keys of `bucket` but the buckets in `skip`, in order, some MiB at a time.

        Raises `errors.StorageError` for a bucket of 2 GiB or more.
        """

def push(builder: Builder, name: bytes, node: bytes, path: str = "") -> None:
    """Puts a node into the bucket that is open in `builder`.

    Raises `errors.CorruptDatabaseError`, which names `path`, if it is malformed.
    """

def push_all(builder: Builder, pairs: Iterable[tuple[bytes, bytes]], tag: bytes, path: str = "") -> None:
    """Pushes entries of an LMDB store up to the first with another tag. Raises as `push` does."""

def unpack(node: bytes, key: bytes = b"", path: str = "") -> bytes | tuple[int, list[tuple[bytes, bytes]]]:
    """The value that a node is, or sequence and items of the bucket.

    Raises `errors.CorruptDatabaseError`, which names `path` and `key`, if it is malformed.
    """

def unpack_items(items: bytes, key: bytes = b"", path: str = "") -> list[tuple[bytes, bytes]]:
    """The items of a group: keys and nodes. Raises as `unpack` does."""

def check_lmdb(data: object, path: str = "") -> None:
    """Walks all pages in use of an LMDB file in memory.

    LMDB itself follows what it finds without looking. Raises `errors.CorruptDatabaseError`.
    """
