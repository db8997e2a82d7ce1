"""What a verification finds: plain objects, and the form in which values are shown in them."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from buildkit_migrate.bolt.tree import Tree
from buildkit_migrate.model import Problem
from buildkit_migrate.text import cut, named_text, printable

__all__ = ["Difference", "DifferenceKind", "Findings", "shown"]

_BUCKET: Final = b"(bucket)"
"""Stands for a nested bucket where a difference shows values."""

_MAX_TEXT: Final = 160
_MAX_BINARY: Final = 16
"""Of a longer value a difference shows so many characters, or so many bytes as hexadecimal digits."""


class DifferenceKind(enum.StrEnum):
    """What is wrong, and with what: the subject of the difference."""

    DAMAGED = "damaged-file"
    """Subject: the file; key: the page."""
    WRONG_PLACE = "wrong-place"
    """Store and containerd don't belong together, so that next to nothing was kept, and what containerd has
    for the records of another store may be lost. Subject: the snapshotter.
    """

    RECORD_MISSING = "record-missing"
    RECORD_UNEXPECTED = "record-unexpected"
    """Subject: the record; found: why it can't be migrated, nothing if v1 does not have it."""
    VALUE_MISSING = "value-missing"
    VALUE_DIFFERS = "value-differs"
    VALUE_UNEXPECTED = "value-unexpected"
    """Subject: the record; key: the metadata key."""
    INDEX_MISSING = "index-entry-missing"
    INDEX_DANGLING = "index-entry-dangling"
    """It is not in v1, or of a record that is left out, and no value of a record is behind it."""
    INDEX_UNEXPECTED = "index-entry-unexpected"
    """A value is behind it that the migration does not write. Subject, as above: the whole index key."""
    EXTERNAL_DIFFERS = "external-data-differs"
    """Subject: the record; key: the name of the data."""
    OTHER_DIFFERS = "other-data-differs"
    """Of the store, outside of records and indexes. Subject: the path, joined by slashes."""

    LEASE_MISSING = "lease-missing"
    LEASE_NOT_FLAT = "lease-without-gc.flat"
    LEASE_EXPIRED = "lease-expired"
    LEASE_EXPIRES = "lease-with-gc.expire"
    """Subject: the lease; found: when."""
    LEASE_UNDATED = "lease-createdat"
    """There is none, or it is no time. Subject: the lease."""
    RESOURCE_MISSING = "lease-resource-missing"
    """Subject: the lease; key: the type of the resource; expected: its id."""
    LABEL_ON_SNAPSHOT = "gc.root-on-snapshot"
    LABEL_ON_VIEW = "gc.root-on-view"
    LABEL_ON_BLOB = "gc.root-on-blob"
    SNAPSHOT_MISSING = "snapshot-missing"
    """Subject: the snapshot; key: the record or snapshot that needs it."""
    SNAPSHOT_KIND = "snapshot-kind"
    """The snapshot is committed and the record is not, or the other way round: the subject is both. Or its
    kind (the key) is none that its children, or anybody, could use: subject is its name in the snapshotter.
    """
    BLOB_MISSING = "blob-missing"
    """Subject: the digest; key: a record that needs it."""

    VERSION = "containerd-version"
    """``v1/version`` is missing or no number."""
    SNAPSHOT_NAME = "snapshot-name"
    """The name that it has in the snapshotter is that of another. Subject: the snapshot."""
    SNAPSHOT_PARENT = "snapshot-parent"
    """In the snapshotter it has another parent. Subject: the snapshot; expected, found: names there."""
    SNAPSHOT_CHILD = "snapshot-child-missing"
    """It does not name a child that it has. Subject: the snapshot; key: the child."""
    SNAPSHOT_ID = "snapshot-id"
    """Subject: name in the snapshotter; key: the other that has the same number."""
    SNAPSHOT_LINK = "snapshot-parents-entry"
    """The entry in ``v1/parents`` is missing or wrong. Subject: name in the snapshotter."""
    SNAPSHOT_TIME = "snapshot-time"
    """A time that can't be read, so that containerd fails where it lists snapshots. Subject: the snapshot, or
    its name in the snapshotter; key: which time.
    """
    SNAPSHOT_USAGE = "snapshot-usage"
    """It is committed, and how much it takes is missing or no number. Subject: name in the snapshotter; key:
    which number.
    """
    BLOB_TIME = "blob-time"
    """As of snapshots. Subject: the digest; key: which time."""
    SEQUENCE = "sequence"
    """Of a bucket, as the next id or name would be one that is in use, or it was changed. Subject: path."""
    REST_MISSING = "containerd-entry-missing"
    REST_DIFFERS = "containerd-entry-differs"
    REST_UNEXPECTED = "containerd-entry-unexpected"
    """In containerd's database, compared with the original. Subject: the path, joined by slashes."""
    REST_TIME = "containerd-time"
    """What must be a time of the migration is none. Subject: the path."""

    BLOB_FILE_MISSING = "blob-file-missing"
    BLOB_FILE_KIND = "blob-file-kind"
    """It is not a regular file."""
    BLOB_FILE_SIZE = "blob-file-size"
    BLOB_FILE_DIFFERS = "blob-file-differs"
    BLOB_FILE_UNREADABLE = "blob-file-unreadable"
    """Subject: the digest; found: the kind, size, digest of the file, or what the system says."""
    SNAPSHOT_FILES_MISSING = "snapshot-files-missing"
    SNAPSHOT_FILES_KIND = "snapshot-files-kind"
    """It is not a directory."""
    SNAPSHOT_FILES_UNREADABLE = "snapshot-files-unreadable"
    """Subject: the snapshot; key: the directory, below that of the snapshotter; found: as for blobs."""


@dataclass(frozen=True)
class Difference:
    """Between what must be there and what is. ``expected``, ``found``: None for nothing, or if not asked."""

    kind: DifferenceKind
    subject: bytes
    key: bytes = b""
    expected: bytes | None = None
    found: bytes | None = None

    def as_dict(self) -> dict[str, str | None]:
        """For JSON."""
        return {
            "kind": str(self.kind),
            **named_text("subject", self.subject),
            **named_text("key", self.key or None),
            **named_text("expected", self.expected),
            **named_text("found", self.found),
        }

    def line(self) -> str:
        """For a person."""
        key = f" {cut(self.key)}" if self.key else ""
        line = f"{self.kind}: {cut(self.subject)}{key}"
        values = {"expected": self.expected, "found": self.found}
        parts = [f"{name} {printable(value)}" for name, value in values.items() if value is not None]
        return f"{line} ({', '.join(parts)})" if parts else line


@dataclass(frozen=True)
class Findings:
    """``records``: how many must be in v2, ``total``: how many v1 has; ``problems``: of those that are left
    out or repaired; ``unchecked``: what could not be looked at, each for a person. ``upstream_exact``:
    whether v2 is one without sizes of blobs, as upstream writes it; None if not asked.
    """

    records: int
    problems: tuple[Problem, ...]
    differences: tuple[Difference, ...]
    total: int = 0
    unchecked: tuple[str, ...] = ()
    upstream_exact: bool | None = None

    @property
    def left_out(self) -> int:
        """Records of v1 that can't be migrated and so are not in v2."""
        return self.total - self.records


def shown(value: bytes | Tree | None) -> bytes | None:
    """A value as a difference shows it: text as it is, what is long or binary shortened, with its size."""
    if value is None:
        return None
    if not isinstance(value, bytes):
        return _BUCKET
    text = _text(value)
    if text is not None:
        cut = text[:_MAX_TEXT].encode()
        return value if cut == value else cut + b"... (%d bytes)" % len(value)
    more = b"" if len(value) <= _MAX_BINARY else b"..."
    return b"0x%b%b (%d bytes)" % (value[:_MAX_BINARY].hex().encode(), more, len(value))


def _text(value: bytes) -> str | None:
    """None if it is binary: not UTF-8, or with characters that can't be printed."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() else None
