"""Bucket names and keys of BuildKit's metadata store (spec buildkit-metadata, sections 1 and 2)."""

from __future__ import annotations

from typing import Final

__all__ = [
    "BLOB",
    "BLOB_CHAIN_ID",
    "BLOB_CHAIN_ID_INDEX",
    "BLOB_MAPPING",
    "BLOB_SIZE",
    "CHAIN_ID",
    "CHAIN_ID_INDEX",
    "COMMITTED",
    "CREATED_AT",
    "DIFF_ID",
    "EQUAL_MUTABLE",
    "EXTERNAL_BUCKET",
    "INDEX_BUCKET",
    "MAIN_BUCKET",
    "MAX_KEY",
    "MEDIA_TYPE",
    "MEDIA_TYPE_DOCKER_GZIP",
    "PARENT",
    "SNAPSHOT",
    "WRITTEN",
    "WRITTEN_BY_UPSTREAM",
    "index_key",
    "is_of_v1",
    "record_of_index_key",
]

MAIN_BUCKET: Final = b"_main"
INDEX_BUCKET: Final = b"_index"
EXTERNAL_BUCKET: Final = b"_external"

MAX_KEY: Final = 32768
"""Maximum length of a bbolt key in bytes (spec bbolt-format, section 4)."""

# Written by v1 and read by the migration (section 2.1).
EQUAL_MUTABLE: Final = b"cache.equalMutable"
BLOB_MAPPING: Final = b"blobmapping.blob"

CREATED_AT: Final = b"cache.createdAt"

# Added by the migration (section 2.2).
COMMITTED: Final = b"snapshot.committed"
PARENT: Final = b"cache.parent"
SNAPSHOT: Final = b"cache.snapshot"
DIFF_ID: Final = b"cache.diffID"
BLOB: Final = b"cache.blob"
MEDIA_TYPE: Final = b"cache.mediatype"
CHAIN_ID: Final = b"cache.chainID"
BLOB_CHAIN_ID: Final = b"cache.blobChainID"

BLOB_SIZE: Final = b"cache.blobsize"
"""Not written by upstream's migration; without it BuildKit v0.8 and later can't export the blob."""

WRITTEN_BY_UPSTREAM: Final = frozenset(
    {COMMITTED, PARENT, SNAPSHOT, DIFF_ID, BLOB, MEDIA_TYPE, CHAIN_ID, BLOB_CHAIN_ID}
)
WRITTEN: Final = WRITTEN_BY_UPSTREAM | {BLOB_SIZE}
"""The keys that a migration adds to records."""

_V1_KEYS: Final = frozenset(
    {
        EQUAL_MUTABLE,
        BLOB_MAPPING,
        b"snapshot.size",
        b"cache.cachePolicy",
        b"cache.createdAt",
        b"cache.deleted",
        b"cache.description",
        b"cache.lastUsedAt",
        b"cache.layerType",
        b"cache.recordType",
        b"cache.usageCount",
        b"etag",
        b"git-remote",
        b"git-snapshot",
        b"http.checksum",
        b"http.modtime",
    }
)
_V1_PREFIXES: Final = (b"local.sharedKey:", b"cache-dir:")

CHAIN_ID_INDEX: Final = b"chainid:"
BLOB_CHAIN_ID_INDEX: Final = b"blobchainid:"
"""Prefix of an index; the value of the key follows."""

MEDIA_TYPE_DOCKER_GZIP: Final = b"application/vnd.docker.image.rootfs.diff.tar.gzip"
"""Media type of every migrated blob, even of OCI layers (section 4, pass 3)."""

_SEPARATOR: Final = b"::"


def is_of_v1(key: bytes) -> bool:
    """Whether daemons that use v1 stores read this key of a record."""
    return key in _V1_KEYS or key.startswith(_V1_PREFIXES)


def index_key(index: bytes, record: bytes) -> bytes:
    """Key in the ``_index`` bucket that leads from ``index`` to the record id ``record``."""
    return index + _SEPARATOR + record


def record_of_index_key(key: bytes) -> bytes | None:
    """Record id in a key of ``_index``, None if there is none.

    The key is split at the last ``::``: an index may contain ``::``, a record id never does (section 1).
    """
    _, separator, record = key.rpartition(_SEPARATOR)
    return record if separator else None
