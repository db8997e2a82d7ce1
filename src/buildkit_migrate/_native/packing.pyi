from collections.abc import Iterable, Iterator
from typing import Final, final

from buildkit_migrate._native.bolt import Bucket, Reader
from buildkit_migrate._native.building import Builder
from buildkit_migrate._native.guard import Guarded

LONG_KEY: Final[int]
"""Length in bytes of LMDB keys that stand for a group of long keys; all other keys are shorter."""

@final
class Packer(Guarded):
    """Converts buckets of a bolt file into entries of an LMDB store (docs/format.md).

    A packer reads each page at most once: a second visit raises `errors.CorruptDatabaseError`, as any damage
    does.
    """

    def __new__(cls, reader: Reader) -> Packer: ...
    def batches(
        self, bucket: Bucket, tag: bytes, skip: frozenset[bytes] = frozenset()
    ) -> Iterator[list[tuple[bytes, bytes]]]:
        """Iterates over (key, value) entries for all keys of `bucket`, in order, in batches of a few MiB.

        `skip`: names of buckets to leave out. Raises `errors.StorageError` for a nested bucket of 2 GiB or
        more.
        """

def push(builder: Builder, name: bytes, node: bytes, path: str = "") -> None:
    """Adds a node to the open bucket of `builder`.

    Raises `errors.CorruptDatabaseError`, naming `path`, if it is malformed.
    """

def push_all(builder: Builder, pairs: Iterable[tuple[bytes, bytes]], tag: bytes, path: str = "") -> None:
    """Pushes entries of an LMDB store, up to the first with another tag. Raises the same errors as `push`."""

def unpack(node: bytes, key: bytes = b"", path: str = "") -> bytes | tuple[int, list[tuple[bytes, bytes]]]:
    """Decodes a node into a value, or the sequence number and items of a bucket.

    Raises `errors.CorruptDatabaseError`, naming `path` and `key`, if it is malformed.
    """

def unpack_items(items: bytes, key: bytes = b"", path: str = "") -> list[tuple[bytes, bytes]]:
    """Decodes a group into keys and nodes. Raises the same errors as `unpack`."""

def check_lmdb(data: object, path: str = "") -> None:
    """Checks all pages in use of an LMDB file in memory, because LMDB itself follows page numbers unchecked.

    Raises `errors.CorruptDatabaseError`.
    """
