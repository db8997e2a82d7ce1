from collections.abc import Iterator, Sequence
from typing import Final, final

from buildkit_migrate._native.guard import Guarded

@final
class Column(Guarded):
    """A read-only sequence of byte strings in memory that another object owns. Absent entries are None."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> bytes | None: ...
    def __iter__(self) -> Iterator[bytes | None]: ...

@final
class Reader(Guarded):
    """A bbolt file in memory. Opening checks the meta pages; other pages are checked when first read.

    `data` must not change while the reader, or anything made from it, exists. `previous`: read the state
    before the newest transaction. `path` is only used in error messages. Raises `errors.CorruptDatabaseError`
    (spec bbolt-format, section 14). Long reads handle signals from time to time, and raise what the handlers
    raise.
    """

    def __new__(cls, data: object, path: str = "", previous: bool = False) -> Reader: ...
    @property
    def path(self) -> str: ...
    @property
    def page_size(self) -> int:
        """Page size in bytes."""
    @property
    def high_water(self) -> int:
        """Number of the first page after the pages in use."""
    @property
    def transaction(self) -> int:
        """Number of the transaction whose state is read."""
    @property
    def pages_read(self) -> int:
        """How many pages were read so far, those read twice counted twice. May be asked by any thread."""
    @property
    def freelist(self) -> int | None:
        """Page number of the stored free list, None if there is none."""
    @property
    def other_meta(self) -> str:
        """Why the other meta page is invalid; "" if it is valid."""
    @property
    def root(self) -> Bucket:
        """The root bucket."""

@final
class Bucket(Guarded):
    """A bucket of the file of `reader`. The constructor returns the root bucket.

    Methods raise `errors.CorruptDatabaseError` when they meet a damaged page.
    """

    def __new__(cls, reader: Reader) -> Bucket: ...
    @property
    def reader(self) -> Reader: ...
    @property
    def sequence(self) -> int:
        """The bucket's sequence number, a counter that bbolt keeps for users."""
    def get(self, key: bytes) -> bytes | None:
        """The value under `key`; None if the key is missing or a bucket."""
    def bucket(self, *path: bytes) -> Bucket | None:
        """The bucket at `path` below this one; None if any step is missing or not a bucket."""
    def items(self, start: bytes = b"") -> Iterator[tuple[bytes, bytes | Bucket]]:
        """Iterates over keys from `start` on, in byte order, each with its value or bucket."""

def scan(bucket: Bucket, paths: Sequence[tuple[bytes, ...]]) -> tuple[Column, list[Column]]:
    """Reads a bucket as a table.

    Returns the names of its child buckets (the rows) and a column for each path.
    """

def items(bucket: Bucket) -> tuple[Column, Column]:
    """Keys and values of a bucket as columns; values are None for buckets."""

def check(reader: Reader) -> list[tuple[int, str]]:
    """Returns every broken rule as (page number or -1, text); empty if the file is sound.

    Releases the GIL.
    """

IN_META: Final[int]
IN_FREE_LIST: Final[int]
"""The list itself: the trees may be whole."""
IN_TREE: Final[int]
USED_AND_FREE: Final[int]
"""A page that is in use and named by the list."""
LEAKED: Final[int]
"""A page that nothing names."""

def count_check(reader: Reader) -> tuple[list[tuple[int, int, str]], list[int], int, int]:
    """Like `check`, but with counts: (findings, findings per part, pages in use, content).

    Findings: (part, page number or -1, text), where the part is IN_META and so on. The numbers per part
    include findings that are left out of the list. Pages in use: those of the trees and the free list.
    Content: how many bytes of the trees' pages are headers, keys and values.
    """

TOO_SHORT: Final[str]
TRUNCATED: Final[str]
WRONG_PAGE_TYPE: Final[str]
"""Values of `CorruptDatabaseError.rule`: this can't be a database; it ends before its pages in use do; a page
is not of the type that is expected there."""
