from collections.abc import Iterable
from typing import final

from buildkit_migrate._native.building import Builder
from buildkit_migrate._native.guard import Guarded

@final
class Damaged(Guarded):
    """A bbolt file in memory whose pages need not be sound, nor all there.

    `data` must not change while this exists. `path` is only used in error messages. `gaps`: ranges of bytes,
    (start, end), that could not be read, in ascending order and apart from each other. Raises
    `errors.CorruptDatabaseError` if no root page can be read.
    """

    def __new__(cls, data: object, path: str = "", gaps: Iterable[tuple[int, int]] = ()) -> Damaged: ...
    @property
    def page_size(self) -> int:
        """Page size in bytes."""
    @property
    def transaction(self) -> int:
        """Number of the transaction whose state is read."""
    @property
    def sequence(self) -> int:
        """Sequence of the root bucket."""
    @property
    def other_meta(self) -> str:
        """Why a meta page is invalid; "" if both are valid."""
    @property
    def is_newest(self) -> bool:
        """Whether this is the newest state of which the file knows."""
    @property
    def is_verified(self) -> bool:
        """Whether the meta page of this state is valid."""
    def salvage(
        self, builder: Builder, most: int
    ) -> tuple[
        int, int, list[tuple[tuple[bytes, ...], int, bytes | None, bytes | None, str]], int, int | None
    ]:
        """Copies what can be read into `builder`: (buckets, keys, losses, number of losses, unreached).

        Losses, at most `most` of them: (path of the bucket, page number or -1, first key or None, key after
        the last one or None, broken rule). Unreached: number of pages that are neither in use nor free, None
        if the free list can't be read. Releases the GIL. Errors of the builder's sink are passed on.
        """
