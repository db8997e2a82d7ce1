"""What is on disk beside the databases: directories of snapshots, files of blobs. Each is listed once."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple

from buildkit_migrate.errors import StorageError
from buildkit_migrate.files.errors import is_directory, is_link, look, storage_errors
from buildkit_migrate.schema.columns import Index, Integers, Mask, Texts, between, gather, same

__all__ = ["Content", "SnapshotDirectories", "Usage", "ingest_name", "usage"]

_BLOCK: Final = 512  # bytes
_READ: Final = 1 << 20  # bytes


class Usage(NamedTuple):
    """``bytes``: allocated on disk. ``inodes``: the top one included; each counts once, as do its bytes."""

    bytes: int
    inodes: int


def usage(path: Path) -> Usage | None:
    """The usage of a file or a whole directory; None if it does not exist.

    What vanishes meanwhile does not count. Raises StorageError if it can't be read.
    """
    seen: set[tuple[int, int]] = set()
    size = 0
    waiting = [os.fspath(path)]
    while waiting:
        place = waiting.pop()
        with storage_errors(Path(place)), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found = os.lstat(place)
            if stat.S_ISDIR(found.st_mode):
                waiting += (entry.path for entry in _entries(place))
            if (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                size += found.st_blocks * _BLOCK
    return Usage(size, len(seen)) if seen else None


def _entries(path: str | Path) -> list[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        return list(entries)


_NOWHERE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def _what(look: Callable[[str], os.stat_result], path: str) -> os.stat_result | None:
    """What a path leads to; None if it leads nowhere, as with links in a circle. Raises StorageError.

    For hundreds of thousands of them: without a Path. ``look``: `os.stat` or `os.lstat`.
    """
    try:
        return look(path)
    except OSError as error:
        if error.errno in _NOWHERE:
            return None
        with storage_errors(Path(path)):
            raise


def _listed(path: Path) -> list[os.DirEntry[str]]:
    """Entries sorted by name; none if the directory does not exist. Raises StorageError."""
    with storage_errors(path), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(_entries(path), key=lambda entry: entry.name)
    return []


def directories_in(path: Path) -> list[str]:
    """Names of the directories in a directory that may be missing. Raises StorageError."""
    return [entry.name for entry in _listed(path) if is_directory(Path(entry.path), follow_symlinks=False)]


def mount_points() -> list[Path]:
    """Where something is mounted, as far as this process sees it; none if the system does not tell."""
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return []
    # Space, tab, line feed and backslash are written as three octal digits.
    points = (
        re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), line.split()[4]) for line in lines
    )
    return [Path(os.fsdecode(point)) for point in points]


def has_mounts(place: Path, points: Iterable[Path]) -> bool:
    """Whether anything is mounted there or below. ``points``: `mount_points`."""
    place = place.resolve()
    return any(point == place or place in point.parents for point in points)


def why_immovable(path: Path, into: Path, points: Collection[Path]) -> str:
    """Why a directory can't be moved as a whole to a place in the directory ``into``; "" if it can be.

    For people, without a subject. ``points``: `mount_points`. Raises StorageError.
    """
    info, above, target = (look(place, follow_symlinks=False) for place in (path, path.parent, into))
    if info is None or not stat.S_ISDIR(info.st_mode):
        return "it is not a directory"
    if has_mounts(path, points):
        return "something is mounted there or below; unmount it first"
    if above is None or not stat.S_ISDIR(above.st_mode):
        return f"{path.parent} is a link; delete the directory yourself"
    is_mount = into != path.parent and path.parent.resolve() in points
    if target is None or target.st_dev != info.st_dev or is_mount:
        return f"{path.parent} is in another file system than {into}; delete the directory yourself"
    return ""


def refuse_mounts(path: Path, what: str) -> None:
    """Raises StorageError if anything is mounted at a directory or below. ``what``: what it can't be."""
    if has_mounts(path, mount_points()):
        raise StorageError(
            f"{path} can't be {what}: something is mounted there or below", hint="unmount it first"
        )


def _is_directory(path: str) -> bool:
    info = _what(os.lstat, path)
    return info is not None and stat.S_ISDIR(info.st_mode)


class SnapshotDirectories:
    """The directories of a snapshotter: ``<number>/fs`` and ``<number>/work``, of native ``<number>`` itself.

    Methods raise StorageError where something can't be read.
    """

    def __init__(self, path: Path, *, plain: bool) -> None:
        """``plain``: without ``fs`` and ``work``, as native has them."""
        self.path = path
        self.plain = plain
        self.counted = 0
        """Files that `usage` has looked at so far."""

    @cached_property
    def names(self) -> list[str]:
        """All entries, whether they belong to snapshots or not."""
        return [entry.name for entry in _listed(self.path)]

    @cached_property
    def numbers(self) -> frozenset[int]:
        """Those with the names of snapshot directories."""
        return frozenset(number for name in self.names if (number := number_of(name)) is not None)

    def without(self, numbers: Sequence[int], inner: str | None = None) -> Mask:
        """Rows whose number has no directory, or none called ``inner`` in it."""
        there = self.numbers
        beside = f"{self.path}{os.sep}"
        below = f"{os.sep}{inner}" if inner is not None else ""
        return Mask(
            len(numbers),
            (
                row
                for row, number in enumerate(numbers)
                if number not in there or not _is_directory(f"{beside}{number}{below}")
            ),
        )

    def data(self, number: int) -> Path:
        """Where the files of a snapshot are."""
        return self.path / str(number) if self.plain else self.path / str(number) / "fs"

    def usage(self, number: int) -> Usage | None:
        """The usage of the files of a snapshot; None if they do not exist."""
        found = usage(self.data(number))
        self.counted += found.inodes if found is not None else 0
        return found


def number_of(name: str) -> int | None:
    """The number that is the directory's name; None for other names."""
    return int(name) if name.isascii() and name.isdecimal() and (name == "0" or name[0] != "0") else None


class Content:
    """The content store at ``path``: blobs and what is being written. Raises StorageError as above."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blobs = path / "blobs"
        self.ingests = path / "ingest"
        self.hashed = 0
        """Bytes that `digest_of` has read so far."""

    @cached_property
    def _files(self) -> list[tuple[bytes, int]]:
        found = []
        for algorithm in _listed(self.blobs):
            for entry in _listed(Path(algorithm.path)):
                info = _what(os.stat, entry.path)
                size = info.st_size if info is not None and stat.S_ISREG(info.st_mode) else -1
                found.append((os.fsencode(f"{algorithm.name}:{entry.name}"), size))
        return found

    @cached_property
    def digests(self) -> Texts:
        """Digests of the files, from their names."""
        return [digest for digest, _ in self._files]

    @cached_property
    def index(self) -> Index:
        """Finds files by digest."""
        return Index(self.digests)

    @cached_property
    def sizes(self) -> array[int]:
        """Size of each file in bytes, -1 if it is not a regular file; type code "q"."""
        return array("q", (size for _, size in self._files))

    @cached_property
    def ingest_names(self) -> list[str]:
        return [entry.name for entry in _listed(self.ingests)]

    def whole(self, digests: Texts, sizes: Integers) -> Mask:
        """Rows of blobs whose files are there and have these sizes."""
        numbers = sizes.known & between(sizes.values, 0, 2**63 - 1)
        return numbers & same(gather(self.sizes, self.index.rows(digests)), sizes.values)

    def taken(self, place: int) -> int:
        """Bytes that are freed with this path: those of the file, or of everything in the directory."""
        path = self.file(self.digests[place] or b"")
        if self.sizes[place] >= 0 and not is_link(path):
            return self.sizes[place]
        measured = usage(path)
        return measured.bytes if measured is not None else 0

    def file(self, digest: bytes) -> Path:
        algorithm, _, hex = os.fsdecode(digest).partition(":")
        return self.blobs / algorithm / hex

    def digest_of(self, digest: bytes) -> bytes | None:
        """The digest of the content of a blob's file; None without such a file or such an algorithm."""
        path = self.file(digest)
        algorithm = digest.partition(b":")[0].decode(errors="replace")
        if algorithm not in ("sha256", "sha384", "sha512"):
            return None
        new: Callable[[], hashlib._Hash] = getattr(hashlib, algorithm)
        summed = new()
        with storage_errors(path):
            try:
                with path.open("rb") as file:
                    for block in _blocks(file.read):
                        summed.update(block)
                        self.hashed += len(block)
            except FileNotFoundError:
                return None
        return f"{algorithm}:{summed.hexdigest()}".encode()


def _blocks(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while block := read(_READ):
        yield block


def ingest_name(ref: bytes) -> str:
    """The directory in ``ingest/`` of something that is being written; ``ref``: containerd's name of it."""
    return hashlib.sha256(ref).hexdigest()
