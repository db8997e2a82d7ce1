from collections.abc import Callable, Iterable
from typing import final

from buildkit_migrate._native.bolt import Bucket
from buildkit_migrate._native.guard import Guarded

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
    def open_bucket(self, key: bytes, sequence: int = 0) -> None:
        """Begins a bucket in the one that is open; keys and buckets go into it until it is closed."""
    def put(self, key: bytes, value: bytes) -> None:
        """Adds a key with its value to the open bucket."""
    def close_bucket(self) -> None:
        """Ends the innermost open bucket."""
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
