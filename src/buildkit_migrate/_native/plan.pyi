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
    """All that a migration will do (spec buildkit-metadata, sections 4 and 5); equal to `oracle.plan`.

    `upstream_exact`: without the sizes of blobs, which upstream does not write. Records are numbered in the
    order of their ids; what takes a number raises IndexError.
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
    def faults(self) -> list[tuple[bytes, int, bytes]]:
        """Id, code of what is wrong, and the key, target, blob or parent that it is about ("" if none).

        One for each record that is dropped or REPAIRED, sorted by id.
        """
    def oddities(self) -> list[tuple[bytes, int]]:
        """Id and code of all that is odd about records that are kept, sorted by id."""
    def is_dropped(self, index: int) -> bool:
        """Whether the record can't be migrated; then it has nothing of what follows but its id."""
    def is_committed(self, index: int) -> bool:
        """Whether its snapshot is marked as committed."""
    def writes_chain(self, index: int) -> bool:
        """Whether it gets new chain ids, and the entries of the index for them."""
    def texts(self, index: int) -> tuple[bytes, bytes, bytes, bytes, bytes, bytes]:
        """Its id, parent, blob, diffID, chainID and blobChainID after the migration; "" where it has none."""
    def puts(self, index: int) -> dict[bytes, bytes]:
        """The keys that it gets, each with its exact value."""
    def lease(self, index: int) -> tuple[bool, bool, frozenset[tuple[str, bytes]]]:
        """Whether its lease is created, whether it is kept from expiring, and the resources that it gets."""
    def leases(self) -> Iterator[tuple[bytes, bool, frozenset[tuple[str, bytes]]]]:
        """Lease id, whether to create it, resources to add; leases with nothing to do are left out."""
    def kept_leases(self) -> Iterator[bytes]:
        """Ids of leases that exist and lose the gc.expire label, sorted. `leases` has them, too."""
    def unlabel_snapshots(self) -> Iterator[bytes]:
        """Names of snapshots that lose the gc.root label, sorted."""
    def unlabel_blobs(self) -> Iterator[bytes]:
        """Digests of blobs that lose the gc.root label, sorted."""
    def store_edits(self) -> Iterator[bytes]:
        """Edits of the root bucket of the v1 store that make it the v2 store, in chunks for `rewrite`.

        Raises `errors.CorruptDatabaseError`, as they need the store's index.
        """
    def containerd_edits(self, created: bytes, flat: bytes) -> Iterator[bytes]:
        """Edits of the root bucket of containerd's database (spec containerd-metadata-db, section 6).

        `created`: the time that leases get as theirs, as containerd stores it; `flat`: the same time as the
        text of a label. Nothing if nothing is to be done.
        """
