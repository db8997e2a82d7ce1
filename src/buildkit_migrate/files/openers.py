"""Who else has a file open that this process has locked, and is about to replace, or has just replaced.

A daemon that starts opens its databases first, and then waits for their locks. If a file gets another name
meanwhile, the daemon goes on with what it has opened, and all that it writes is lost. Once a file has lost
its name nobody can open it any more, so it is enough to look before the locks go.

The kernel knows all who have a file open, and refuses a lease on it if there are any (fcntl(2), F_SETLEASE).
Their names are in /proc: for root those of all processes, but never those outside of one's own PID namespace.
Where leases are impossible (a file of another owner), or are refused for other reasons as well (NFS and other
file systems of a network, Linux before 5.3), nobody is found but those in /proc.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from buildkit_migrate.errors import BusyError
from buildkit_migrate.files.holders import own_lock
from buildkit_migrate.files.mounts import file_system

__all__ = ["others_with", "refuse_others"]

_UNSEEN = "a process that can't be seen from here"

_SINCE = (5, 3)
"""Before this version of Linux a second name of the file is enough for no lease."""
_LOCAL = frozenset({"ext2", "ext3", "ext4", "xfs", "f2fs", "tmpfs"})
"""File systems that refuse a lease only on a file that is open."""


def refuse_others(path: Path) -> None:
    """Raises BusyError if another process could write to this file, which this one has locked.

    Does nothing for a file that this process has not locked, or that is not there.
    """
    held = own_lock(path)
    if held is not None and (found := others_with(held)):
        raise BusyError(f"{path} was opened by {found} just now")


def others_with(fd: int) -> str:
    """Names and numbers of other processes that could write to a file locked here; "" if none could."""
    alone = _has_lease(fd)
    if alone:
        return ""
    file, own = os.fstat(fd), _own()
    writing, is_explained = [], False
    for process in _processes():
        for opened in _descriptors(process, file):
            if process == own:
                # Copies of this descriptor have its lock. Others are of readers here, or of what they mapped.
                is_explained |= "FLOCK" not in opened
            elif _is_harmless(opened):
                is_explained = True
            elif process not in writing:
                writing.append(process)
    if writing:
        return ", ".join(f"{_name(process)} (process {process})" for process in writing)
    if alone is None or is_explained or any(_has_mapped(process, file) for process in _processes()):
        return ""
    # Meanwhile a reader here may have gone, such as one that waited for the collection of garbage.
    return _UNSEEN if _has_lease(fd) is False else ""


def _has_lease(fd: int) -> bool | None:
    """Whether a lease is granted: nobody else has the file open. None if that can't be told."""
    try:
        # Should anybody open the file just now, the kernel sends a signal: one that does nothing.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except BlockingIOError:
        return False if _is_told_by_leases(os.fstat(fd)) else None
    except OSError:
        return None
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return True


def _is_told_by_leases(file: os.stat_result) -> bool:
    """Whether no lease means that somebody has the file open."""
    version = os.uname().release.split(".")[:2]
    if not all(part.isdecimal() for part in version) or tuple(map(int, version)) < _SINCE:
        return False
    return file_system(file.st_dev) in _LOCAL


def _own() -> str:
    """Number of this process in the PID namespace of /proc; "" if that is of another one, or missing."""
    with contextlib.suppress(OSError):
        return Path("/proc/self").readlink().name
    return ""


def _has_mapped(process: str, file: os.stat_result) -> bool:
    """Whether a process has mapped the file, perhaps without a descriptor: no daemon writes so."""
    wanted = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x} {file.st_ino} "
    with contextlib.suppress(OSError):
        return wanted in Path("/proc", process, "maps").read_text(errors="replace")
    return False


def _processes() -> Iterator[str]:
    with contextlib.suppress(OSError):
        yield from (place.name for place in Path("/proc").iterdir() if place.name.isdecimal())


def _descriptors(process: str, file: os.stat_result) -> Iterator[str]:
    """What the system says of each descriptor that a process has of this file; "" if it does not say."""
    with contextlib.suppress(OSError):  # it has ended, or may not be looked at
        for descriptor in Path("/proc", process, "fd").iterdir():
            with contextlib.suppress(OSError):
                is_named = os.fspath(descriptor.readlink()).startswith("/")  # not a socket, pipe and the like
                if is_named and os.path.samestat(descriptor.stat(), file):
                    told = _told_of(process, descriptor.name)
                    if told is not None:
                        yield told


def _told_of(process: str, number: str) -> str | None:
    """None if it was closed meanwhile."""
    try:
        return Path("/proc", process, "fdinfo", number).read_text()
    except FileNotFoundError:
        return None
    except OSError:
        return ""


def _is_harmless(opened: str) -> bool:
    """Whether nothing is written with a descriptor: it is for reading, or was opened by this program.

    That opens databases so that opening never waits, which no daemon does. It does not wait for locks either,
    and what it has mapped may outlive its locks. ``opened``: its line "flags:" has the flags, in octal.
    """
    flags = next((line.split()[1] for line in opened.splitlines() if line.startswith("flags:")), "2")
    return int(flags, 8) & os.O_ACCMODE == os.O_RDONLY or int(flags, 8) & os.O_NONBLOCK != 0


def _name(process: str) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/comm").read_text(errors="replace").rstrip("\n")
    return "a process that has ended"
