"""Runs the command with a fault in one of the system calls that change something on disk.

Arguments: number of the call (from 0), fault, and the command's arguments. Faults: "kill" (SIGKILL before the
call), "stop" (SIGSTOP before the call), "end" (SIGTERM when the call is made, before its result is known), an
errno name (the call fails), "short" (each write writes half of what it was given). Writes the names of the
calls made to stderr.

$FAULTY_LINKS: an errno name; the file system has no hard links, and each call for one fails so.
$FAULTY_EARLY: not only large files are written by `compact` while they are checked, but all.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

CALLS = (
    "open",
    "write",
    "pwrite",
    "lseek",
    "fsync",
    "fchmod",
    "fchown",
    "setxattr",
    "removexattr",
    "rename",
    "replace",
    "link",
    "copy_file_range",
    "utime",
    "unlink",
    "mkdir",
    "rmdir",
    "ftruncate",
    "posix_fallocate",
)


def main() -> int:
    failing, fault, arguments = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    made: list[str] = []

    def faulty(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if name == "open" and not (len(args) > 1 and args[1] & os.O_CREAT):
                return call(*args, **kwargs)
            made.append(name)
            if len(made) - 1 == failing:
                if fault == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                if fault == "stop":
                    os.kill(os.getpid(), signal.SIGSTOP)
                elif fault == "end":
                    try:
                        call(*args, **kwargs)
                    finally:
                        os.kill(os.getpid(), signal.SIGTERM)
                else:
                    number = getattr(errno, fault)
                    raise OSError(number, os.strerror(number))
            if name == "link" and (no_links := os.environ.get("FAULTY_LINKS")):
                raise OSError(getattr(errno, no_links), os.strerror(getattr(errno, no_links)))
            if fault == "short" and name == "write":
                return call(args[0], args[1][: len(args[1]) // 2 or 1])
            return call(*args, **kwargs)

        return wrapper

    for module, names in ((os, CALLS), (mmap, ("mmap",)), (fcntl, ("flock",))):
        for name in names:
            setattr(module, name, faulty(name, getattr(module, name)))
    from buildkit_migrate.cli import main as command
    from buildkit_migrate.maintenance import compact

    if os.environ.get("FAULTY_EARLY"):
        vars(compact).update(_EARLY_BYTES=0, _EARLY_FILL=1.0)
    try:
        return command(arguments)
    finally:
        with contextlib.suppress(OSError):  # the terminal may be gone
            print(*made, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
