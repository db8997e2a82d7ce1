from collections.abc import Sequence
from typing import Final, final

from buildkit_migrate._native.guard import Guarded

STATES: Final[tuple[str, ...]]
"""What a record can end as (buildkit-metadata, section 4, pass 4).

"empty": no diffID or no blob, both ids are b"". "given": the values in the store stand. "base": has no
parent, its chainID is its diffID. "computed": both ids are digests. "no-parent": needs its parent, and
there is no such record. "cycle": is its own ancestor. "blocked": needs a parent that has no result.
"skipped": left out. The ids of the last four are b"".
"""

@final
class Batch(Guarded):
    """Records packed once, for runs of the engine alone. The columns hold one value per record.

    ``parents``: index of the parent, -1 for none, -2 for one that has no record. ``diff_ids``, ``blobs``: b""
    if absent; any bytes are hashed as they stand. ``given``: (chainID, blobChainID) that are in the store
    already. ``skip``: true for records to leave out. ``kernel``: a name from ``sha256.kernels()``.

    Raises ValueError for columns of different lengths, Error for a kernel that can't be used.
    """

    def __init__(
        self,
        parents: Sequence[int],
        diff_ids: Sequence[bytes],
        blobs: Sequence[bytes],
        given: Sequence[tuple[bytes, bytes]] | None = None,
        skip: Sequence[bool] | None = None,
        kernel: str | None = None,
    ) -> None: ...
    def run(self, threads: int = 1) -> None:
        """Compute all ids, without the GIL, on up to so many threads; few records are done on one.

        ValueError for a parent that is no index, -1 or -2.
        """

    def __len__(self) -> int: ...
    def states(self) -> bytes:
        """A byte for each record, its place in STATES, as the last run left it."""

    def ids(self, record: int) -> tuple[bytes, bytes]:
        """(chainID, blobChainID) of a record, as the last run left them. IndexError if there is none."""

    def results(self) -> list[tuple[str, bytes, bytes]]:
        """(state, chainID, blobChainID) of each record, as the last run left them."""

def chain_ids(
    parents: Sequence[int],
    diff_ids: Sequence[bytes],
    blobs: Sequence[bytes],
    given: Sequence[tuple[bytes, bytes]] | None = None,
    skip: Sequence[bool] | None = None,
    kernel: str | None = None,
    threads: int = 1,
) -> list[tuple[str, bytes, bytes]]:
    """(state, chainID, blobChainID) of each record; see Batch and its run for the arguments."""
