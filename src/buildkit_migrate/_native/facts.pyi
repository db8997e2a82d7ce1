from collections.abc import Callable, Iterable, Iterator
from typing import final

from buildkit_migrate._native.bolt import Reader
from buildkit_migrate._native.guard import Guarded

ANY_VALUE: int
STRING: int
MAPPING: int

@final
class Records(Guarded):
    """The records of the v1 store in `reader`, as columns over its file; empty if there is no `_main` bucket.

    `decode` is called for the few values that are not written exactly as BuildKit writes them, with the form
    (ANY_VALUE, STRING or MAPPING) and the bytes. It returns the texts that the plan needs: none, the string,
    or Blobsum and DiffID; an empty tuple for an empty mapping; None if the value can't be decoded, which the
    plan reports as a fault. Its exceptions are passed on.

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
    """State of the containerd services, in any order.

    `snapshots`: name, kind (as `model.Kind`), parent ("" if none), whether it has the gc.root label. `blobs`:
    digest, whether it has the label, size in bytes (1 to 2**63 - 1; None if containerd does not know it).
    `leases`: id and resources; None for all resources that its record needs. Of entries with the same name,
    the last counts. `expiring`: ids of leases with the gc.expire label.
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
        """Reads containerd's database and the snapshotter's (spec containerd-metadata-db, section 5).

        Snapshots that are missing in the snapshotter's database are skipped, as containerd does. Raises
        `errors.CorruptDatabaseError`.
        """
    @property
    def snapshotter(self) -> str:
        """Name of the snapshotter."""
    @property
    def namespace(self) -> str:
        """Name of the namespace."""
