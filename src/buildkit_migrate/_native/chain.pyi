from collections.abc import Iterator, Sequence
from typing import Final, Protocol, final

from buildkit_migrate._native.columns import Mask
from buildkit_migrate._native.guard import Guarded

class _Texts(Protocol):
    def __len__(self) -> int: ...
    def __getitem__(self, row: int, /) -> bytes | None: ...
    def __iter__(self) -> Iterator[bytes | None]: ...

STATES: Final[tuple[str, ...]]
"""Result states of a record (buildkit-metadata, section 4, pass 4).

"empty": no diffID or no blob; both ids are b"". "given": the values in the store are kept. "base": no parent;
the chainID is the diffID. "computed": both ids are digests. "no-parent": needs its parent, which has no
record. "cycle": is its own ancestor. "blocked": needs a parent that has no result. "skipped": left out. In
the last four states the ids are b"".
"""

@final
class Batch(Guarded):
    """Input of the chain engine, packed once for any number of runs. Each column holds one value per record.

    ``parents``: index of the parent; -1 for none, -2 for a parent that has no record. ``diff_ids``,
    ``blobs``: b"" if absent; hashed as they are. ``given``: (chainID, blobChainID) already in the store.
    ``skip``: true for records to leave out. ``kernel``: a name from ``sha256.kernels()``.

    Raises ValueError if the columns differ in length, Error if the kernel can't be used.
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
        """Computes all ids, without the GIL, on at most this many threads; small batches use only one.

        Raises ValueError if a parent is neither an index nor -1 nor -2.
        """

    def __len__(self) -> int: ...
    def states(self) -> bytes:
        """One byte per record: its index in STATES, as of the last run."""

    def ids(self, record: int) -> tuple[bytes, bytes]:
        """(chainID, blobChainID) of a record, as of the last run. Raises IndexError."""

    def results(self) -> list[tuple[str, bytes, bytes]]:
        """(state, chainID, blobChainID) of each record, as of the last run."""

def chain_ids(
    parents: Sequence[int],
    diff_ids: Sequence[bytes],
    blobs: Sequence[bytes],
    given: Sequence[tuple[bytes, bytes]] | None = None,
    skip: Sequence[bool] | None = None,
    kernel: str | None = None,
    threads: int = 1,
) -> list[tuple[str, bytes, bytes]]:
    """Computes (state, chainID, blobChainID) of each record. See Batch and Batch.run for the arguments."""

def following(
    layers: Mask,
    parents: Sequence[int],
    diff_ids: _Texts,
    blobs: _Texts,
    chains: _Texts,
    blob_chains: _Texts,
) -> Mask:
    """Those of `layers` whose stored ids, where they have any, follow from what their parents have stored.

    `parents`: row of each record's parent (type code "i"), negative for none. Nothing follows from a
    parent that lacks one of the ids. `chains`, `blob_chains`: the stored ids. Raises ValueError if columns
    differ in length, IndexError for a parent that does not exist.
    """
