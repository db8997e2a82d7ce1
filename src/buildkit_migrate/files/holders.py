"""Who holds the lock on a file, for messages. Nothing here fails or blocks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

__all__ = ["forget", "holder_of", "own_lock", "remember"]

_OWN: Final[dict[int, os.stat_result]] = {}
"""Files locked by this process, by descriptor. Shared by threads: each operation on it is atomic."""

_MOST: Final = 1 << 20
"""How many bytes of the kernel's lock list are read."""


def remember(fd: int) -> None:
    """Records that a lock was taken on this descriptor."""
    _OWN[fd] = os.fstat(fd)


def forget(fd: int) -> None:
    """Records that the lock on this descriptor is about to be released."""
    _OWN.pop(fd, None)


def own_lock(path: Path) -> int | None:
    """Descriptor by which this process has locked the file at a path; None if it has not."""
    try:
        wanted = path.lstat()
    except OSError:
        return None
    return next((fd for fd, own in list(_OWN.items()) if os.path.samestat(own, wanted)), None)


def holder_of(fd: int) -> str:
    """Who holds the lock on this file: "this process", or another process's name and number if known.

    The kernel does not list processes of other PID namespaces.
    """
    wanted = os.fstat(fd)
    if any(os.path.samestat(own, wanted) for own in list(_OWN.values())):
        return "this process"
    try:
        number = _locker(wanted)
        name = Path(f"/proc/{number}/comm").read_text(errors="replace").rstrip("\n") if number else ""
    except (OSError, ValueError):
        name = ""
    return f"{name} (process {number})" if name else "another process"


def _locker(file: os.stat_result) -> int:
    """Number of a process that holds a flock on the file, 0 if none is listed."""
    place = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    with open("/proc/locks", "rb") as locks:  # noqa: PTH123
        listed = locks.read(_MOST).decode("ascii", "replace")
    for line in listed.splitlines():
        # "1: FLOCK  ADVISORY  WRITE 1234 fe:00:2146537 0 EOF"; a process that waits has "->" before "FLOCK"
        fields = line.split()
        if len(fields) >= 6 and fields[1] == "FLOCK" and fields[5] == place:
            return int(fields[4])
    return 0
