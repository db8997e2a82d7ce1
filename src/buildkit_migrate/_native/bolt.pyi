from collections.abc import Callable, Iterable, Iterator, Sequence
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
    reads many pages handles signals now and then, and raises what their handlers raise.
    """

    def __new__(cls, data: object, path: str = "", previous: bool = False) -> Reader: ...
    @property
    def path(self) -> str: ...
    @property
    def page_size(self) -> int: ...
    @property
    def high_water(self) -> int:
        """Pages in use end here (page number)."""
    @property
    def transaction(self) -> int: ...
    @property
    def freelist(self) -> int | None:
        """Page number of the stored free list, None if there is none."""
    @property
    def other_meta(self) -> str:
        """Why the meta page that is not in use is invalid; "" if it is valid."""
    @property
    def root(self) -> Bucket: ...

@final
class Bucket(Guarded):
    """A bucket of a `Reader`; made from it, the root bucket.

    Raises `errors.CorruptDatabaseError` on any damaged page it meets.
    """

    def __new__(cls, reader: Reader) -> Bucket: ...
    @property
    def reader(self) -> Reader: ...
    @property
    def sequence(self) -> int: ...
    def get(self, key: bytes) -> bytes | None:
        """The value under `key`; None if there is none or if it is a bucket."""
    def bucket(self, *path: bytes) -> Bucket | None:
        """The bucket at `path` below this one; None if any step is missing or no bucket."""
    def items(self, start: bytes = b"") -> Iterator[tuple[bytes, bytes | Bucket]]:
        """Keys in byte order from `start` on, each with its value or bucket."""

@final
class Builder(Guarded):
    """Writes one bbolt file bottom-up and front to back (spec bbolt-format, section 13).

    `sink` is called with blocks of bytes, in order; the first block begins with two pages of zeros, the
    place of the meta pages that `finish` returns. The length of a block is a multiple of the page size, its
    address one of 4096; it stays as it is until the sink returns from the call with the next one. Keys come
    in byte order within a bucket; a violation raises ValueError. `fill` is the share of a page that is
    filled, 0.5 to 1.0. Once a call has failed, each later one raises the same.
    """

    def __new__(
        cls, sink: Callable[[memoryview], object], page_size: int = 4096, fill: float = 0.9
    ) -> Builder: ...
    def open_bucket(self, key: bytes, sequence: int = 0) -> None: ...
    def put(self, key: bytes, value: bytes) -> None: ...
    def close_bucket(self) -> None: ...
    def finish(self, transaction: int = 2) -> bytes:
        """Ends the file; returns the bytes of pages 0 and 1, which belong at offset 0.

        `transaction`: the number of the current one; a new file has 2, one that replaces another that of the
        other and one more, so that nobody takes the one for the other.
        """

def rewrite(source: Bucket | None, builder: Builder, edits: Iterable[bytes]) -> int:
    """Copies the tree below `source` into `builder` with `edits` applied; returns the number of edits that
    changed something.

    `edits`: chunks of whole operations, sorted (see `buildkit_migrate.bolt.edits`). What they raise, and what
    the sink of `builder` raises, comes out unchanged. If it fails, the builder is of no more use
    (RuntimeError).
    """

def scan(bucket: Bucket, paths: Sequence[tuple[bytes, ...]]) -> tuple[Column, list[Column]]:
    """Walks the rows (child buckets) of `bucket`: their names, and for each path the values found there."""

def check(reader: Reader) -> list[tuple[int, str]]:
    """Every broken rule as (page number or -1, text); empty if the file is sound. Runs without the GIL."""
