from collections.abc import Callable, Iterable
from typing import final

from buildkit_migrate._native.bolt import Bucket, Reader
from buildkit_migrate._native.guard import Guarded

@final
class Builder(Guarded):
    """Writes one bbolt file bottom-up, from front to back (spec bbolt-format, section 13).

    `sink` is called with blocks of bytes, in file order. The first block begins with two pages of zeros, to
    be overwritten with the meta pages that `finish` returns. A block's length is a multiple of the page size,
    and its address a multiple of 4096; it does not change until the sink's next call but one returns. Keys
    must be added in byte order within a bucket; otherwise ValueError is raised. `fill` is the share of a page
    to fill, 0.5 to 1.0. After a failure every later call raises the same error.
    """

    def __new__(
        cls, sink: Callable[[memoryview], object], page_size: int = 4096, fill: float = 0.9
    ) -> Builder: ...
    def open_bucket(self, key: bytes, sequence: int = 0) -> None:
        """Opens a bucket inside the current one; keys and buckets go into it until it is closed."""
    def put(self, key: bytes, value: bytes) -> None:
        """Adds a key and its value to the current bucket."""
    def close_bucket(self) -> None:
        """Closes the innermost open bucket."""
    def finish(self, transaction: int = 2, *, sequence: int = 0, free_list: bool = True) -> bytes:
        """Completes the file. Returns the bytes of pages 0 and 1, which belong at offset 0.

        `transaction`: the file's transaction number. It is 2 for a new file; a file that replaces another
        takes the number after the other's, so that the two can't be confused. `sequence`: of the root bucket.
        `free_list`: store one, though it is empty; bbolt can be told to work without.
        """

def rewrite(source: Bucket | None, builder: Builder, edits: Iterable[bytes]) -> int:
    """Copies the tree below `source` into `builder`, with edits. Returns how many edits changed something.

    `edits`: chunks of whole operations, sorted (see `buildkit_migrate.bolt.edits`). Errors of the iterator,
    and of the builder's sink, are passed on unchanged. After a failure the builder can't be used any more
    (RuntimeError).
    """

def same_content(left: Reader, right: Reader, edits: bytes = b"") -> bool:
    """Whether two databases hold the same: all buckets, keys, values and sequences.

    `edits`: a whole stream (see `buildkit_migrate.bolt.edits`); what it makes of `left` is compared with
    `right`. The readers must be two. Raises `errors.CorruptDatabaseError` at a damaged page of either,
    ValueError if the edits can't be made. Releases the GIL.
    """
