"""Who else has a file open that this process has locked, and is about to replace, or has just replaced.

A daemon that starts opens its databases first, and then waits for their locks. If a file gets another name
meanwhile, the daemon goes on with what it has opened, and all that it writes is lost. Once a file has lost
its name nobody can open it any more, so it is enough to look before the locks go.

The kernel knows all who have a file open, and refuses a lease on it if there are any (fcntl(2), F_SETLEASE).
Their names are in /proc: for root those of all processes, but never those outside of one's own PID namespace.
Where leases are impossible (NFS, a file of another owner), nobody is found but those in /proc.
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

__all__ = ["others_with", "refuse_others"]

_UNSEEN = "a process that can't be seen from here"


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
    return _UNSEEN if alone is False and not is_explained else ""


def _has_lease(fd: int) -> bool | None:
    """Whether a lease is granted: nobody else has the file open. None if there are no leases on it."""
    try:
        # Should anybody open the file just now, the kernel sends a signal: one that does nothing.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except BlockingIOError:
        return False
    except OSError:
        return None
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return True


def _own() -> str:
    """Number of this process in the PID namespace of /proc."""
    return Path("/proc/self").readlink().name


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
                    yield _told_of(process, descriptor.name)


def _told_of(process: str, number: str) -> str:
    with contextlib.suppress(OSError):
        return Path("/proc", process, "fdinfo", number).read_text()
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
