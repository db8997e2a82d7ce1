"""Plain-Python forms of survey and plan.

The oracle computes with them, and native plans can be converted to them: two plans are equal when these
objects are equal. They are for people and tests; migrating a million records never builds them.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from buildkit_migrate.text import cut, named_text

__all__ = [
    "Before",
    "Blob",
    "Caution",
    "Kind",
    "PlainPlan",
    "PlainRecords",
    "PlainState",
    "PlainSurvey",
    "Problem",
    "Reason",
    "RecordPlan",
    "Resource",
    "Snapshot",
]

PlainRecords = Mapping[bytes, Mapping[bytes, bytes | None]]
"""Record id to metadata; metadata maps keys to value bytes, or to None for a nested bucket."""

Resource = tuple[str, bytes]
"""Type (``content`` or ``snapshots/<snapshotter>``) and id of a resource that a lease holds."""


class Kind(enum.IntEnum):
    """Kind of a snapshot, as the snapshotter's database stores it."""

    UNKNOWN = 0
    VIEW = 1
    ACTIVE = 2
    COMMITTED = 3


class Reason(enum.StrEnum):
    """Why a record can't be migrated as it is."""

    BAD_ID = "id-not-utf8"
    UNDECODABLE = "undecodable-value"
    KEY_IS_BUCKET = "key-is-bucket"
    CYCLE = "cycle"
    NO_TARGET = "no-equal-mutable-target"
    REPAIRED = "equal-mutable-target-gone"
    """Not dropped: the record's own committed snapshot exists, so it is migrated as an ordinary record."""
    NO_SNAPSHOT = "no-snapshot"
    BAD_DIGEST = "blob-not-a-digest"
    KEY_TOO_LONG = "index-key-too-long"
    """An index key made of the record's chain id would exceed the 32768 bytes that bbolt allows."""
    NO_PARENT = "no-parent"
    DESCENDANT = "descends-from-dropped"


class Caution(enum.StrEnum):
    """A finding that belongs in the report but does not stop a migration."""

    EMPTY_BLOB_MAPPING = "empty-blob-mapping"
    PARENT_WITHOUT_RECORD = "parent-without-record"
    NO_BLOB_SIZE = "no-blob-size"
    """containerd does not know the blob's size, so BuildKit v0.8 and later can't export it."""


@dataclass(frozen=True)
class Snapshot:
    kind: Kind
    parent: bytes = b""
    root_label: bool = False


@dataclass(frozen=True)
class Blob:
    """A blob of the content store. ``size``: in bytes, above 0; None if containerd does not know it."""

    root_label: bool = False
    size: int | None = None


@dataclass
class PlainSurvey:
    """State of the containerd services. ``blobs``: by digest."""

    snapshotter: str
    snapshots: dict[bytes, Snapshot] = field(default_factory=dict)
    blobs: dict[bytes, Blob] = field(default_factory=dict)
    leases: dict[bytes, set[Resource]] = field(default_factory=dict)
    expiring_leases: dict[bytes, bytes] = field(default_factory=dict)
    """Lease id to the value of its gc.expire label, for leases that have one."""


@dataclass
class PlainState(PlainSurvey):
    """A survey plus what only verification needs.

    ``flat_leases``: leases with the gc.flat label. ``undated_leases``: leases whose creation time is missing
    or unreadable.
    """

    flat_leases: set[bytes] = field(default_factory=set)
    undated_leases: set[bytes] = field(default_factory=set)


@dataclass(frozen=True)
class Problem:
    record: bytes
    reason: Reason
    detail: bytes = b""
    """The key, target, parent, blob or dropped ancestor that the reason is about."""

    def as_dict(self) -> dict[str, str | None]:
        """For JSON."""
        return {
            **named_text("record", self.record),
            "reason": str(self.reason),
            **named_text("detail", self.detail or None),
        }

    def line(self) -> str:
        """For a person."""
        detail = f" ({cut(self.detail)})" if self.detail else ""
        return f"{cut(self.record)}: {self.reason}{detail}"


@dataclass(frozen=True)
class RecordPlan:
    """What happens to one migrated record.

    ``puts``: metadata key to exact value bytes. ``index``: complete new index keys. ``create_lease``: the
    lease does not exist yet. ``keep_lease``: it exists, and its expiry must be removed. ``add_resources``:
    resources missing from the lease.
    """

    puts: dict[bytes, bytes]
    index: frozenset[bytes]
    create_lease: bool
    add_resources: frozenset[Resource]
    keep_lease: bool = False


@dataclass
class PlainPlan:
    records: dict[bytes, RecordPlan] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    """At most one per record, sorted by record id."""
    cautions: set[tuple[bytes, Caution]] = field(default_factory=set)
    unlabel_snapshots: set[bytes] = field(default_factory=set)
    unlabel_blobs: set[bytes] = field(default_factory=set)


@dataclass(frozen=True)
class Before:
    """The state that a migration replaces, for undo.

    ``leases``: existing leases named like records, id to resources. ``snapshots``, ``blobs``: name or digest
    to the value of the gc.root label to be removed. ``expiring``: leases whose gc.expire label is to be
    removed, id to all labels.
    """

    leases: Mapping[bytes, frozenset[Resource]] = field(default_factory=dict)
    snapshots: Mapping[bytes, bytes] = field(default_factory=dict)
    blobs: Mapping[bytes, bytes] = field(default_factory=dict)
    expiring: Mapping[bytes, Mapping[bytes, bytes]] = field(default_factory=dict)
