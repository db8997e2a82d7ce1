"""Plain-Python forms of survey and plan.

The reference model computes with them, the fast path can be shown as them: two plans are equal when these
objects are equal. They are made for people and tests; a migration of a million records never builds them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

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
    "Progress",
    "Reason",
    "RecordPlan",
    "Resource",
    "Snapshot",
]

Progress = Callable[[str], object]
"""Called with what is done next."""

PlainRecords = Mapping[bytes, Mapping[bytes, bytes | None]]
"""Record id to (metadata key to value bytes; None stands for a nested bucket under that key)."""

Resource = tuple[str, bytes]
"""Type (``content`` or ``snapshots/<snapshotter>``) and id of a lease resource."""


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
    """Not dropped: the record's own committed snapshot exists, so it becomes an ordinary record."""
    NO_SNAPSHOT = "no-snapshot"
    BAD_DIGEST = "blob-not-a-digest"
    KEY_TOO_LONG = "index-key-too-long"
    """bbolt keys have at most 32768 bytes; an index key of the record's chain ids would have more."""
    NO_PARENT = "no-parent"
    DESCENDANT = "descends-from-dropped"


class Caution(enum.StrEnum):
    """What is worth a line in the report but does not stop a migration."""

    EMPTY_BLOB_MAPPING = "empty-blob-mapping"
    PARENT_WITHOUT_RECORD = "parent-without-record"
    NO_BLOB_SIZE = "no-blob-size"
    """containerd does not say how large the blob is; BuildKit v0.8 and later can't export it."""


@dataclass(frozen=True)
class Snapshot:
    kind: Kind
    parent: bytes = b""
    root_label: bool = False


@dataclass(frozen=True)
class Blob:
    """``size``: in bytes, more than 0; None if containerd does not say."""

    root_label: bool = False
    size: int | None = None


@dataclass
class PlainSurvey:
    """What the containerd services say. ``blobs``: by digest."""

    snapshotter: str
    snapshots: dict[bytes, Snapshot] = field(default_factory=dict)
    blobs: dict[bytes, Blob] = field(default_factory=dict)
    leases: dict[bytes, set[Resource]] = field(default_factory=dict)
    expiring_leases: dict[bytes, bytes] = field(default_factory=dict)
    """Value of the gc.expire label of those that have one."""


@dataclass
class PlainState(PlainSurvey):
    """A survey with what only a verification asks for.

    ``flat_leases``: those with the gc.flat label; ``undated_leases``: those whose time of creation is missing
    or can't be read.
    """

    flat_leases: set[bytes] = field(default_factory=set)
    undated_leases: set[bytes] = field(default_factory=set)


@dataclass(frozen=True)
class Problem:
    record: bytes
    reason: Reason
    detail: bytes = b""
    """The key, target, parent, blob or dropped ancestor that the reason is about."""


@dataclass(frozen=True)
class RecordPlan:
    """One kept record. ``puts``: metadata key to exact value bytes; ``index``: new index keys, whole.

    ``create_lease``: the lease does not exist yet. ``keep_lease``: it exists, and must not expire any more.
    ``add_resources``: those that the lease lacks.
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
    """One per record at most, sorted by record id."""
    cautions: set[tuple[bytes, Caution]] = field(default_factory=set)
    unlabel_snapshots: set[bytes] = field(default_factory=set)
    unlabel_blobs: set[bytes] = field(default_factory=set)


@dataclass(frozen=True)
class Before:
    """What a migration replaces: leases named like records that were there, and the labels that go.

    ``leases``: id to resources. ``snapshots``, ``blobs``: name or digest to the value of the gc.root label.
    ``expiring``: id to all labels of those leases that have the gc.expire label, which goes.
    """

    leases: Mapping[bytes, frozenset[Resource]] = field(default_factory=dict)
    snapshots: Mapping[bytes, bytes] = field(default_factory=dict)
    blobs: Mapping[bytes, bytes] = field(default_factory=dict)
    expiring: Mapping[bytes, Mapping[bytes, bytes]] = field(default_factory=dict)
