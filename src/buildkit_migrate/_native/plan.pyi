from collections.abc import Iterator
from typing import final

from buildkit_migrate._native.facts import Records, Survey
from buildkit_migrate._native.guard import Guarded

REPAIRED: int
BAD_ID: int
UNDECODABLE: int
KEY_IS_BUCKET: int
EQUAL_MUTABLE_CYCLE: int
NO_TARGET: int
NO_SNAPSHOT: int
BAD_DIGEST: int
KEY_TOO_LONG: int
NO_PARENT: int
PARENT_CYCLE: int
TARGET_DROPPED: int
PARENT_DROPPED: int

EMPTY_BLOB_MAPPING: int
NO_BLOB_SIZE: int
PARENT_WITHOUT_RECORD: int

@final
class Plan(Guarded):
    """Everything that a migration will do (spec buildkit-metadata, sections 4 and 5); equal to `oracle.plan`.

    `upstream_exact`: omit the sizes of blobs, which upstream does not write. Records are numbered in the
    order of their ids; methods that take a number raise IndexError.
    """

    def __new__(cls, records: Records, survey: Survey, *, upstream_exact: bool = False) -> Plan: ...
    @property
    def records(self) -> Records: ...
    @property
    def survey(self) -> Survey: ...
    @property
    def counts(self) -> dict[str, int]:
        """Counts for the report.

        All records: records, snapshots_needed (records without an equal-mutable target), snapshots_found
        (those of them with a snapshot), kept, dropped.

        Of the kept records: committed, blobs (that get blob keys), blob_sizes (that get the size), chains
        (that get new chain ids), leases_to_create, leases_to_keep (that lose the gc.expire label),
        resources_to_add.

        gc.root labels: unlabel_snapshots (views included), unlabel_blobs and views lose the label;
        labels_left_snapshots and labels_left_blobs keep it.
        """
    def faults(self) -> list[tuple[bytes, int, bytes]]:
        """(Id, fault code, key or target or blob or parent concerned; "" if none), sorted by id.

        One for each record that is dropped or REPAIRED.
        """
    def oddities(self) -> list[tuple[bytes, int]]:
        """(Id, oddity code) of the kept records, sorted by id."""
    def is_dropped(self, index: int) -> bool:
        """Whether the record can't be migrated.

        The methods below return empty results for it, except for its id.
        """
    def is_committed(self, index: int) -> bool:
        """Whether the record's snapshot is marked as committed."""
    def writes_chain(self, index: int) -> bool:
        """Whether the record gets new chain ids and index entries for them."""
    def texts(self, index: int) -> tuple[bytes, bytes, bytes, bytes, bytes, bytes]:
        """Id, parent, blob, diffID, chainID and blobChainID after the migration; "" where there is none."""
    def puts(self, index: int) -> dict[bytes, bytes]:
        """The metadata keys that the record gets, with exact values."""
    def lease(self, index: int) -> tuple[bool, bool, frozenset[tuple[str, bytes]]]:
        """(Whether to create the record's lease, whether to stop it from expiring, resources to add)."""
    def leases(self) -> Iterator[tuple[bytes, bool, frozenset[tuple[str, bytes]]]]:
        """(Lease id, whether to create it, resources to add) of all leases that need work."""
    def kept_leases(self) -> Iterator[bytes]:
        """Ids of existing leases that lose the gc.expire label, sorted. `leases` includes them."""
    def unlabel_snapshots(self) -> Iterator[bytes]:
        """Names of snapshots that lose the gc.root label, sorted."""
    def unlabel_blobs(self) -> Iterator[bytes]:
        """Digests of blobs that lose the gc.root label, sorted."""
    def store_edits(self) -> Iterator[bytes]:
        """Edits of the v1 store's root bucket that turn it into the v2 store, in chunks for `rewrite`.

        Raises `errors.CorruptDatabaseError`, as the store's index must be read.
        """
    def containerd_edits(self, created: bytes, flat: bytes) -> Iterator[bytes]:
        """Edits of the root bucket of containerd's database (spec containerd-metadata-db, section 6).

        `created`: creation time of new leases, in containerd's binary form; `flat`: the same time as text,
        for a label. Yields nothing if there is nothing to do.
        """
