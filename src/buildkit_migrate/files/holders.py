"""Who holds the lock on a file, for messages: nothing here fails or waits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

__all__ = ["forget", "holder_of", "note"]

_OWN: Final[dict[int, os.stat_result]] = {}
"""The files that this process has locked, by descriptor. (Each call on it is atomic: threads share it.)"""

_MOST: Final = 1 << 20
"""Bytes of the kernel's list that are looked at."""


def note(fd: int) -> None:
    """A lock was taken with this descriptor."""
    _OWN[fd] = os.fstat(fd)


def forget(fd: int) -> None:
    """It is about to be given up."""
    _OWN.pop(fd, None)


def holder_of(fd: int) -> str:
    """Whoever keeps this file from being locked: "this process", or another's name and number if it is known.

    The kernel names no process of another container's namespace.
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
    """Number of a process that has a flock on the file, 0 if none is listed."""
    place = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    with open("/proc/locks", "rb") as locks:  # noqa: PTH123
        listed = locks.read(_MOST).decode("ascii", "replace")
    for line in listed.splitlines():
        # "1: FLOCK  ADVISORY  WRITE 1234 fe:00:2146537 0 EOF"; who waits has "->" for "FLOCK"
        fields = line.split()
        if len(fields) >= 6 and fields[1] == "FLOCK" and fields[5] == place:
            return int(fields[4])
    return 0
