from collections.abc import Iterator, Sequence
from typing import final

from buildkit_migrate._native.guard import Guarded

@final
class Column(Guarded):
    """Byte strings that lie in memory owned by somebody else; absent entries are None. Read-only."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> bytes | None: ...
    def __iter__(self) -> Iterator[bytes | None]: ...

@final
class Reader(Guarded):
    """A bbolt file in memory. Opening checks the meta pages; every other page is checked when it is read.

    `data` must stay as it is while the reader or anything made from it lives. `previous`: as it was before
    the newest transaction. Raises `errors.CorruptDatabaseError` (spec bbolt-format, section 14). Whatever
    reads many pages handles signals now and then, and raises what their handlers raise. `path` only names the
    file in errors.
    """

    def __new__(cls, data: object, path: str = "", previous: bool = False) -> Reader: ...
    @property
    def path(self) -> str: ...
    @property
    def page_size(self) -> int:
        """Bytes of a page."""
    @property
    def high_water(self) -> int:
        """Pages in use end here (page number)."""
    @property
    def transaction(self) -> int:
        """Number of the transaction that the file is read at."""
    @property
    def freelist(self) -> int | None:
        """Page number of the stored free list, None if there is none."""
    @property
    def other_meta(self) -> str:
        """Why the meta page that is not in use is invalid; "" if it is valid."""
    @property
    def root(self) -> Bucket:
        """The root bucket."""

@final
class Bucket(Guarded):
    """A bucket of a file, whose `Reader` is `reader`; made from that, the root bucket.

    Raises `errors.CorruptDatabaseError` on any damaged page it meets.
    """

    def __new__(cls, reader: Reader) -> Bucket: ...
    @property
    def reader(self) -> Reader: ...
    @property
    def sequence(self) -> int:
        """The number that bbolt counts up for the bucket's user."""
    def get(self, key: bytes) -> bytes | None:
        """The value under `key`; None if there is none or if it is a bucket."""
    def bucket(self, *path: bytes) -> Bucket | None:
        """The bucket at `path` below this one; None if any step is missing or no bucket."""
    def items(self, start: bytes = b"") -> Iterator[tuple[bytes, bytes | Bucket]]:
        """Keys in byte order from `start` on, each with its value or bucket."""

def scan(bucket: Bucket, paths: Sequence[tuple[bytes, ...]]) -> tuple[Column, list[Column]]:
    """Walks the rows (child buckets) of `bucket`: their names, and for each path the values found there."""

def check(reader: Reader) -> list[tuple[int, str]]:
    """Every broken rule as (page number or -1, text); empty if the file is sound. Runs without the GIL."""
