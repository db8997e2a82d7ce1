"""Whether changes of files will work, so that a dry run tells what would be refused. Nothing is written.

`ownership` predicts who may use a new file; here is what else the system will say.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from buildkit_migrate.errors import StorageError
from buildkit_migrate.files.access import Access
from buildkit_migrate.files.durable import aside_of
from buildkit_migrate.files.errors import is_directory, storage_errors
from buildkit_migrate.files.ownership import predict_access, predict_replaced_access, refuse_unwritable
from buildkit_migrate.text import named_text

__all__ = [
    "Space",
    "foresee_moved",
    "foresee_new",
    "foresee_replaced",
    "lacking_room",
    "space_for",
]

_GET_FLAGS: Final = 2 << 30 | struct.calcsize("l") << 16 | ord("f") << 8 | 1
"""FS_IOC_GETFLAGS, with the direction encoded as on x86 and ARM; others refuse it, which tells nothing."""
_FIXED: Final = 0x10 | 0x20
"""FS_IMMUTABLE_FL, FS_APPEND_FL: what `chattr +i` and `+a` set. Names of such files can't be changed."""


def foresee_new(path: Path, model: Path, mode: int) -> Access:
    """`predict_access` of a new file. Raises StorageError if it can't be created."""
    made = predict_access(path, model, mode)
    _refuse_blocked(path)
    return made


def foresee_replaced(path: Path) -> Access:
    """`predict_replaced_access`. Raises StorageError if the file can't be replaced."""
    made = predict_replaced_access(path)
    _refuse_blocked(path)
    _refuse_fixed(path)
    return made


def foresee_moved(*paths: Path) -> None:
    """Raises StorageError if one of these files, all of which exist, can't be renamed or deleted."""
    for path in paths:
        refuse_unwritable(path.parent)
        _refuse_fixed(path.parent)
        _refuse_fixed(path)


def _refuse_blocked(path: Path) -> None:
    _refuse_fixed(path.parent)
    aside = aside_of(path)
    if is_directory(aside, follow_symlinks=False):
        raise StorageError(
            f"{aside}: a directory is where the new file is written first", hint="move it out of the way"
        )


def _refuse_fixed(path: Path) -> None:
    flags = bytearray(struct.calcsize("l"))
    with contextlib.suppress(OSError):  # many file systems have no flags
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.ioctl(fd, _GET_FLAGS, flags)
        finally:
            os.close(fd)
    if int.from_bytes(flags[:4], "little") & _FIXED:
        raise StorageError(
            f"{path} is immutable or append-only", hint=f"chattr -i -a {path}, if that is not on purpose"
        )


@dataclass(frozen=True)
class Space:
    """Room for new files on one file system. ``directory``: one on it. In bytes."""

    directory: Path
    needed: int
    free: int

    @property
    def is_enough(self) -> bool:
        return self.needed <= self.free

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {**named_text("directory", self.directory), "needed": self.needed, "free": self.free}


def space_for(new: Iterable[tuple[Path, int]]) -> list[Space]:
    """``new``: directories and sizes of new files. Raises StorageError.

    A file system that does not tell its size, as some that are mounted over a network, is left out.
    """
    needed: dict[int, int] = defaultdict(int)
    places: dict[int, Path] = {}
    for directory, size in new:
        with storage_errors(directory):
            device = directory.stat().st_dev
        needed[device] += size
        places.setdefault(device, directory)
    found = []
    for device, directory in places.items():
        with storage_errors(directory):
            space = os.statvfs(directory)
        if space.f_blocks:
            found.append(Space(directory, needed[device], space.f_bavail * space.f_frsize))
    return found


def lacking_room(new: Iterable[tuple[Path, int]], what: str, hint: str) -> StorageError | None:
    """An error if new files do not fit beside the old ones, which stay. ``new``: as for `space_for`.

    Raises StorageError.
    """
    for space in space_for(new):
        if not space.is_enough:
            return StorageError(
                f"{space.directory}: no space left for {what}: {space.needed} bytes are needed for the new "
                f"files, {space.free} are free",
                hint=hint,
            )
    return None
