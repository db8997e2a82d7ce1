"""Checks of blob files and snapshot directories, which are not trusted.

Spec containerd-metadata-db, section 1. These paths may hold anything. So only regular files are opened, and
they are hashed only if they have the size that containerd knows: a FIFO would block the reader, and a device
or sparse file might never end.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from buildkit_migrate.files.errors import storage_errors
from buildkit_migrate.migration.findings import Difference, DifferenceKind
from buildkit_migrate.model import Blob
from buildkit_migrate.progress import BYTES, Progress, Stage, counting

__all__ = ["DIRECTORIES", "blob_differences", "directory_differences"]

DIRECTORIES: Final[Mapping[str, tuple[str, ...]]] = {
    "fuse-overlayfs": ("", "fs"),
    "native": ("",),
    "overlayfs": ("", "fs"),
    "stargz": ("", "fs"),
}
"""Snapshotters that keep each snapshot in a directory ``snapshots/<id>``, and what must exist in it."""

_OF_ACTIVE: Final[Mapping[str, tuple[str, ...]]] = {
    "fuse-overlayfs": ("work",),
    "overlayfs": ("work",),
    "stargz": ("work",),
}
"""What a snapshot that is not committed also needs, to be mounted."""

_DIGEST: Final = re.compile(rb"(sha256|sha384|sha512):([0-9a-f]+)")

_CHUNK: Final = 1 << 20

_KINDS: Final = {
    stat.S_IFDIR: b"directory",
    stat.S_IFLNK: b"symbolic link",
    stat.S_IFIFO: b"FIFO",
    stat.S_IFSOCK: b"socket",
    stat.S_IFCHR: b"character device",
    stat.S_IFBLK: b"block device",
    stat.S_IFREG: b"regular file",
}
_LOOP: Final = b"symbolic link that leads in a circle"
_DANGLING: Final = b"symbolic link that leads nowhere"

_MISSING: Final = (errno.ENOENT, errno.ENOTDIR)
_OURS: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors of our own process, which say nothing about the file."""


@dataclass(frozen=True)
class _Found:
    """What is at a path. ``kind``: b"" if nothing; ``refusal``: why it can't be examined."""

    kind: bytes = b""
    size: int = 0
    refusal: bytes = b""


def blob_differences(
    directory: Path, blobs: Mapping[bytes, Blob], progress: Progress
) -> Iterator[Difference]:
    """Files of these blobs that are missing or have the wrong content, in order of digests.

    ``directory``: of the content store, which contains ``blobs``. A symbolic link to a good file is good, as
    containerd follows it. Raises StorageError if the system is out of memory or descriptors.
    """
    stage = Stage(f"hashing {len(blobs):,} blobs", sum(blob.size or 0 for blob in blobs.values()), BYTES)
    progress(stage)
    for digest in sorted(blobs):
        match = _DIGEST.fullmatch(digest)
        if match is None:
            yield Difference(DifferenceKind.BLOB_FILE_MISSING, digest)
            continue
        algorithm, name = match[1].decode(), match[2].decode()
        path = directory / "blobs" / algorithm / name
        difference = _blob_difference(path, digest, blobs[digest].size, stage)
        if difference is not None:
            yield difference


def _blob_difference(path: Path, digest: bytes, size: int | None, stage: Stage) -> Difference | None:
    found = _look(path, follow=True)
    if found.refusal:
        return Difference(DifferenceKind.BLOB_FILE_UNREADABLE, digest, found=found.refusal)
    if not found.kind or found.kind == _DANGLING:
        return Difference(DifferenceKind.BLOB_FILE_MISSING, digest, found=found.kind or None)
    if found.kind != _KINDS[stat.S_IFREG]:
        return Difference(DifferenceKind.BLOB_FILE_KIND, digest, found=found.kind)
    if size is not None and found.size != size:
        return Difference(
            DifferenceKind.BLOB_FILE_SIZE, digest, expected=b"%d" % size, found=b"%d" % found.size
        )
    try:
        hashed = _hash(path, digest.partition(b":")[0].decode(), found.size, stage)
    except OSError as error:
        return Difference(DifferenceKind.BLOB_FILE_UNREADABLE, digest, found=_refusal(error, path))
    if hashed != digest:
        return Difference(DifferenceKind.BLOB_FILE_DIFFERS, digest, expected=digest, found=hashed)
    return None


def _hash(path: Path, algorithm: str, size: int, stage: Stage) -> bytes:
    """Digest of a regular file. If it has grown, reads only slightly more than ``size`` bytes."""
    digest = hashlib.new(algorithm)
    # O_NONBLOCK: does not block if a FIFO has replaced the file meanwhile.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb", 0) as file:
        rest = size + 1
        while rest > 0 and (chunk := file.read(_CHUNK)):
            digest.update(chunk)
            stage.advance(len(chunk))
            rest -= len(chunk)
    return f"{algorithm}:{digest.hexdigest()}".encode()


def directory_differences(
    directory: Path,
    snapshotter: str,
    ids: Mapping[bytes, int],
    active: Container[bytes],
    progress: Progress,
) -> Iterator[Difference]:
    """Snapshots whose directory is missing or not a directory, in order of names.

    ``directory``: the snapshotter's, which contains ``snapshots``. ``snapshotter``: one of `DIRECTORIES`.
    ``ids``: the snapshotter's number for each snapshot. ``active``: those that records can still write to.
    Raises StorageError like `blob_differences`.
    """
    about = f"looking at {len(ids):,} snapshot directories"
    for name in counting(progress, about, sorted(ids), "directories"):
        of_active = _OF_ACTIVE.get(snapshotter, ()) if name in active else ()
        for below in (*DIRECTORIES[snapshotter], *of_active):
            path = Path("snapshots", str(ids[name]), below)
            difference = _directory_difference(directory, path, name)
            if difference is not None:
                yield difference
                break  # anything below it is missing as well


def _directory_difference(directory: Path, path: Path, name: bytes) -> Difference | None:
    found = _look(directory / path, follow=False)
    key = os.fsencode(path)
    if found.refusal:
        return Difference(DifferenceKind.SNAPSHOT_FILES_UNREADABLE, name, key, found=found.refusal)
    if not found.kind:
        return Difference(DifferenceKind.SNAPSHOT_FILES_MISSING, name, key)
    if found.kind != _KINDS[stat.S_IFDIR]:
        return Difference(DifferenceKind.SNAPSHOT_FILES_KIND, name, key, found=found.kind)
    return None


def _look(path: Path, *, follow: bool) -> _Found:
    """Examines a path without opening it. Raises StorageError if the system can't do that for us."""
    try:
        info = path.stat(follow_symlinks=follow)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return _Found(_LOOP)
        if error.errno in _MISSING:
            return _Found(_DANGLING if follow and _look(path, follow=False).kind else b"")
        return _Found(refusal=_refusal(error, path))
    kind = stat.S_IFMT(info.st_mode)
    return _Found(_KINDS.get(kind, b"something else"), info.st_size)


def _refusal(error: OSError, path: Path) -> bytes:
    if error.errno in _OURS:
        with storage_errors(path):
            raise error
    return (error.strerror or str(error)).encode()
