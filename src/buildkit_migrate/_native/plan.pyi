from collections.abc import Iterable, Iterator
from typing import NamedTuple, final

from buildkit_migrate._native.bolt import Reader
from buildkit_migrate._native.guard import Guarded
from buildkit_migrate.model import Caution, PlainPlan, Problem, Resource

class PlannedRecord(NamedTuple):
    """One record after the migration, "" where it has no such value. Of a dropped one, only `id` counts."""

    id: bytes
    dropped: bool
    committed: bool
    parent: bytes
    snapshot: bytes
    blob: bytes
    diff_id: bytes
    chain_id: bytes
    blob_chain_id: bytes

@final
class Records(Guarded):
    """The records of the v1 store in `reader`, as columns over its file; none if there is no `_main`.

    Raises `errors.CorruptDatabaseError`. Values that don't decode are problems of the plan, not errors.
    """

    def __new__(cls, reader: Reader) -> Records: ...
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
        leases: Iterable[tuple[bytes, Iterable[Resource] | None]],
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
    def snapshotter(self) -> str: ...
    @property
    def namespace(self) -> str: ...

@final
class Plan(Guarded):
    """All that a migration will do (spec buildkit-metadata, sections 4 and 5); equal to `reference.plan`.

    `upstream_exact`: without the sizes of blobs, which upstream does not write.
    """

    def __new__(cls, records: Records, survey: Survey, *, upstream_exact: bool = False) -> Plan: ...
    @property
    def records(self) -> Records: ...
    @property
    def survey(self) -> Survey: ...
    @property
    def counts(self) -> dict[str, int]:
        """How many there are of each.

        records; snapshots_needed (by records without an equal-mutable one), snapshots_found (of these); kept,
        dropped; of those kept: committed, blobs (that get blob keys), blob_sizes (with the size), chains
        (that get new chain ids), leases_to_create, leases_to_keep (that lose the gc.expire label),
        resources_to_add; unlabel_snapshots (views included), unlabel_blobs, views (that lose the label);
        labels_left_snapshots, labels_left_blobs (that keep it).
        """
    @property
    def problems(self) -> list[Problem]:
        """One per record at most, sorted by record id."""
    @property
    def cautions(self) -> set[tuple[bytes, Caution]]: ...
    def record(self, index: int) -> PlannedRecord:
        """The record at `index`, in the order of ids. Raises IndexError."""
    def plain(self) -> PlainPlan: ...
    def leases(self) -> Iterator[tuple[bytes, bool, frozenset[Resource]]]:
        """Lease id, whether to create it, resources to add; leases with nothing to do are left out."""
    def kept_leases(self) -> Iterator[bytes]:
        """Ids of leases that exist and lose the gc.expire label, sorted. `leases` has them, too."""
    def unlabel_snapshots(self) -> Iterator[bytes]:
        """Names of snapshots that lose the gc.root label, sorted."""
    def unlabel_blobs(self) -> Iterator[bytes]:
        """Digests of blobs that lose the gc.root label, sorted."""
    def store_edits(self) -> Iterator[bytes]:
        """Edits of the root bucket of the v1 store that make it the v2 store, in chunks for `bolt.rewrite`.

        Raises `errors.CorruptDatabaseError`, as they need the store's index.
        """
    def containerd_edits(self, now_ns: int) -> Iterator[bytes]:
        """Edits of the root bucket of containerd's database (spec containerd-metadata-db, section 6).

        `now_ns`: the time that is written, in nanoseconds since 1970. Nothing if nothing is to be done.
        """
