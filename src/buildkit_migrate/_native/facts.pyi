from collections.abc import Callable, Iterable, Iterator
from typing import final

from buildkit_migrate._native.bolt import Reader
from buildkit_migrate._native.guard import Guarded

ANY_VALUE: int
STRING: int
MAPPING: int

@final
class Records(Guarded):
    """The records of the v1 store in `reader`, as columns over its file; none if there is no `_main`.

    Few values are not written as BuildKit writes them; `decode` is called for each of those, with its form
    (ANY_VALUE, STRING or MAPPING) and its bytes. It returns the texts that the plan needs of it: none, the
    string, or Blobsum and DiffID; nothing at all if the mapping is empty; and None if the value does not
    decode, which is a problem of the plan, not an error. What it raises comes out.

    Raises `errors.CorruptDatabaseError`.
    """

    def __new__(cls, reader: Reader, decode: Callable[[int, bytes], tuple[bytes, ...] | None]) -> Records: ...
    def __len__(self) -> int: ...
    @property
    def reader(self) -> Reader: ...
    def ids(self) -> Iterator[bytes]:
        """All ids, in byte order."""

@final
class Survey(Guarded):
    """What the containerd services say, in any order.

    `snapshots`: name, kind (as `model.Kind`), parent ("" if none), whether it has the gc.root label; `blobs`:
    digest, whether it has the label, and its bytes (from 1 to 2**63 - 1; None if containerd does not say);
    `leases`: id and resources, None for all that its record wants. Of two entries with one name, the last
    counts. `expiring`: ids of leases with the gc.expire label.
    """

    def __init__(
        self,
        snapshotter: str,
        snapshots: Iterable[tuple[bytes, int, bytes, bool]],
        blobs: Iterable[tuple[bytes, bool, int | None]],
        leases: Iterable[tuple[bytes, Iterable[tuple[str, bytes]] | None]],
        namespace: str = "buildkit",
        expiring: Iterable[bytes] = (),
    ) -> None: ...
    @staticmethod
    def offline(metadata: Reader, snapshots: Reader | None, namespace: str, snapshotter: str) -> Survey:
        """Read containerd's database and the snapshotter's own (spec containerd-metadata-db, section 5).

        A snapshot that the snapshotter's database does not have is left out, as containerd does. Raises
        `errors.CorruptDatabaseError`.
        """
    @property
    def snapshotter(self) -> str:
        """Its name."""
    @property
    def namespace(self) -> str:
        """Name of the namespace."""
