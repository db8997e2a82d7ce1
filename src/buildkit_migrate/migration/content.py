"""Blob files of containerd's content store, hashed again (spec containerd-metadata-db, section 1)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from buildkit_migrate.migration.verify import Difference, DifferenceKind
from buildkit_migrate.storage import storage_errors

__all__ = ["content_differences"]

_DIGEST: Final = re.compile(rb"(sha256|sha384|sha512):([0-9a-f]+)")


def content_differences(
    directory: Path, digests: Iterable[bytes], progress: Callable[[str], object]
) -> Iterator[Difference]:
    """Files of these digests that are missing or have another content, in order of the digests.

    ``directory``: of the content store, with ``blobs`` in it. Raises StorageError if a file can't be read.
    """
    ordered = sorted(digests)
    for number, digest in enumerate(ordered, 1):
        progress(f"hashing blob {number} of {len(ordered)}")
        found = _hash(directory, digest)
        if found is None:
            yield Difference(DifferenceKind.BLOB_FILE_MISSING, digest)
        elif found != digest:
            yield Difference(DifferenceKind.BLOB_FILE_DIFFERS, digest, expected=digest, found=found)


def _hash(directory: Path, digest: bytes) -> bytes | None:
    """Digest of what is in the file of this digest, None if there is no such file."""
    match = _DIGEST.fullmatch(digest)
    if match is None:
        return None
    algorithm, name = match[1].decode(), match[2].decode()
    path = directory / "blobs" / algorithm / name
    with storage_errors(path):
        try:
            with path.open("rb") as file:
                return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}".encode()
        except FileNotFoundError:
            return None
