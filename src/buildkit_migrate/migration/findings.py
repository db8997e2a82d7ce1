"""Findings of a verification as plain objects, and how values are displayed in them."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from buildkit_migrate.bolt.tree import Tree
from buildkit_migrate.model import Problem
from buildkit_migrate.text import cut, named_text, printable

__all__ = ["Difference", "DifferenceKind", "Findings", "shown"]

_BUCKET: Final = b"(bucket)"
"""Displayed in place of a nested bucket."""

_MAX_TEXT: Final = 160
_MAX_BINARY: Final = 16
"""How many characters of a long text, or bytes of a long binary value, are displayed."""


class DifferenceKind(enum.StrEnum):
    """Kind of a difference, and what its fields mean."""

    DAMAGED = "damaged-file"
    """Subject: the file; key: the page."""
    WRONG_PLACE = "wrong-place"
    """Store and containerd don't belong together. Subject: the snapshotter.

    Almost nothing was kept, and what containerd holds for the records of another store may be lost.
    """

    RECORD_MISSING = "record-missing"
    RECORD_UNEXPECTED = "record-unexpected"
    """Subject: the record; found: why it can't be migrated, or nothing if v1 does not have it."""
    VALUE_MISSING = "value-missing"
    VALUE_DIFFERS = "value-differs"
    VALUE_UNEXPECTED = "value-unexpected"
    """Subject: the record; key: the metadata key."""
    INDEX_MISSING = "index-entry-missing"
    INDEX_DANGLING = "index-entry-dangling"
    """Not in v1, or of a record that is left out, and no value of a record has this index."""
    INDEX_UNEXPECTED = "index-entry-unexpected"
    """A value has this index, but the migration does not write it. Subject, as above: the whole index key."""
    EXTERNAL_DIFFERS = "external-data-differs"
    """Subject: the record; key: the name of the data."""
    OTHER_DIFFERS = "other-data-differs"
    """In the store, outside records and indexes. Subject: the path, joined by slashes."""

    LEASE_MISSING = "lease-missing"
    LEASE_NOT_FLAT = "lease-without-gc.flat"
    LEASE_EXPIRED = "lease-expired"
    LEASE_EXPIRES = "lease-with-gc.expire"
    """Subject: the lease; found: when."""
    LEASE_UNDATED = "lease-createdat"
    """The creation time is missing or invalid. Subject: the lease."""
    RESOURCE_MISSING = "lease-resource-missing"
    """Subject: the lease; key: the type of the resource; expected: its id."""
    LABEL_ON_SNAPSHOT = "gc.root-on-snapshot"
    LABEL_ON_VIEW = "gc.root-on-view"
    LABEL_ON_BLOB = "gc.root-on-blob"
    SNAPSHOT_MISSING = "snapshot-missing"
    """Subject: the snapshot; key: the record or snapshot that needs it."""
    SNAPSHOT_KIND = "snapshot-kind"
    """The snapshot is committed and the record is not, or vice versa: the subject is both.

    Or the snapshot has a kind (the key) that its children, or nobody, can use: the subject is its name in the
    snapshotter.
    """
    BLOB_MISSING = "blob-missing"
    """Subject: the digest; key: a record that needs it."""

    VERSION = "containerd-version"
    """``v1/version`` is missing or not a number."""
    SNAPSHOT_NAME = "snapshot-name"
    """It has another snapshot's name in the snapshotter. Subject: the snapshot."""
    SNAPSHOT_PARENT = "snapshot-parent"
    """It has another parent in the snapshotter. Subject: the snapshot; expected, found: names there."""
    SNAPSHOT_CHILD = "snapshot-child-missing"
    """It does not list one of its children. Subject: the snapshot; key: the child."""
    SNAPSHOT_ID = "snapshot-id"
    """Subject: name in the snapshotter; key: the other snapshot with the same number."""
    SNAPSHOT_LINK = "snapshot-parents-entry"
    """The entry in ``v1/parents`` is missing or wrong. Subject: name in the snapshotter."""
    SNAPSHOT_TIME = "snapshot-time"
    """A time can't be read, so containerd fails to list snapshots.

    Subject: the snapshot, or its name in the snapshotter; key: which time.
    """
    SNAPSHOT_USAGE = "snapshot-usage"
    """It is committed, but its disk usage is missing or not a number.

    Subject: name in the snapshotter; key: which number.
    """
    BLOB_TIME = "blob-time"
    """Like snapshot times. Subject: the digest; key: which time."""
    SEQUENCE = "sequence"
    """A bucket's sequence would next produce an id or name in use, or it was changed. Subject: path."""
    REST_MISSING = "containerd-entry-missing"
    REST_DIFFERS = "containerd-entry-differs"
    REST_UNEXPECTED = "containerd-entry-unexpected"
    """In containerd's database, compared with the original. Subject: the path, joined by slashes."""
    REST_TIME = "containerd-time"
    """A time written by the migration is invalid. Subject: the path."""

    BLOB_FILE_MISSING = "blob-file-missing"
    BLOB_FILE_KIND = "blob-file-kind"
    """It is not a regular file."""
    BLOB_FILE_SIZE = "blob-file-size"
    BLOB_FILE_DIFFERS = "blob-file-differs"
    BLOB_FILE_UNREADABLE = "blob-file-unreadable"
    """Subject: the digest; found: kind, size or digest of the file, or the error."""
    SNAPSHOT_FILES_MISSING = "snapshot-files-missing"
    SNAPSHOT_FILES_KIND = "snapshot-files-kind"
    """It is not a directory."""
    SNAPSHOT_FILES_UNREADABLE = "snapshot-files-unreadable"
    """Subject: the snapshot; key: the directory, relative to the snapshotter's; found: as for blobs."""


@dataclass(frozen=True)
class Difference:
    """A difference between what must exist and what does.

    ``expected``, ``found``: None for nothing, or if not applicable.
    """

    kind: DifferenceKind
    subject: bytes
    key: bytes = b""
    expected: bytes | None = None
    found: bytes | None = None

    def as_dict(self) -> dict[str, str | None]:
        """The JSON form."""
        return {
            "kind": str(self.kind),
            **named_text("subject", self.subject),
            **named_text("key", self.key or None),
            **named_text("expected", self.expected),
            **named_text("found", self.found),
        }

    def line(self) -> str:
        """A line for people."""
        key = f" {cut(self.key)}" if self.key else ""
        line = f"{self.kind}: {cut(self.subject)}{key}"
        values = {"expected": self.expected, "found": self.found}
        parts = [f"{name} {printable(value)}" for name, value in values.items() if value is not None]
        return f"{line} ({', '.join(parts)})" if parts else line


@dataclass(frozen=True)
class Findings:
    """Result of a verification. ``records``: how many must be in v2; ``total``: how many v1 has.

    ``problems``: of records that are left out or repaired. ``unchecked``: what could not be checked, for
    people. ``upstream_exact``: whether v2 has no sizes of blobs, as upstream writes it; None if not
    determined.
    """

    records: int
    problems: tuple[Problem, ...]
    differences: tuple[Difference, ...]
    total: int = 0
    unchecked: tuple[str, ...] = ()
    upstream_exact: bool | None = None

    @property
    def left_out(self) -> int:
        """Number of v1 records that can't be migrated, and so are not in v2."""
        return self.total - self.records


def shown(value: bytes | Tree | None) -> bytes | None:
    """Formats a value for display: text as it is; long or binary values are shortened, with their size."""
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
    """The value as text, None if it is binary: not UTF-8, or with unprintable characters."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() else None
