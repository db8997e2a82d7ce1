"""Runs of the command with a fault in one system call (see faulty.py), and which calls to choose."""

from __future__ import annotations

import errno
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

import ondisk
from buildkit_migrate import compact_root
from ondisk import OnDisk
from planting import break_free_list, grow

FAULTS = ("kill", "EIO", "ENOSPC", "EACCES", "EINTR")
_EARLY = "early "


def arguments(index: int, fault: str, command: str, root: OnDisk) -> list[str]:
    """Arguments of a process that runs a command with a fault at the call ``index``; -1: no fault.

    ``command``: its name, and options of its own; "early" before it: see faulty.py.
    """
    faulty = Path(__file__).parent / "faulty.py"
    return [
        sys.executable,
        str(faulty),
        str(index),
        fault,
        *command.removeprefix(_EARLY).split(),
        "--format",
        "json",
        str(root.root),
    ]


def run(index: int, fault: str, command: str, root: OnDisk) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "FAULTY_EARLY": "1"} if command.startswith(_EARLY) else None
    return subprocess.run(
        arguments(index, fault, command, root),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environ,
    )


@functools.cache
def calls(command: str, make: Callable[[Path], OnDisk] = ondisk.sample) -> tuple[str, ...]:
    """The system calls of an undisturbed run on the root that ``make`` makes in a directory, in order."""
    with tempfile.TemporaryDirectory() as directory:
        root = make(Path(directory))
        if command == "undo":
            root.migrate_here()
        elif command.removeprefix(_EARLY).startswith("compact"):
            prepare_compaction(root)
            if "--" in command:
                compact_root(root.root)
        result = run(-1, "none", command, root)
    assert result.returncode == 0
    return tuple(result.stderr.split())


def prepare_compaction(root: OnDisk) -> None:
    """Makes two databases of the sample root large, one of them with a free list that is broken."""
    root.migrate_here()
    grow(root.v2, 60)
    grow(root.containerd, 60)
    break_free_list(root.containerd)


def points(names: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Calls and faults to try: the worst two faults at each call, the others once for each kind of call."""
    for index, name in enumerate(names):
        for fault in FAULTS:
            if fault in FAULTS[:2] or names.index(name) == index:
                yield index, fault
        if name == "flock" and names.index(name) == index:
            yield index, "EWOULDBLOCK"


def decisive_points(names: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """A kill at each call that changes something, an error at each that changes a name, and of all others the
    first of each kind.
    """
    for index, fault in points(names):
        name = names[index]
        if (
            names.index(name) == index
            or (fault == "kill" and name not in ("flock", "mmap", "lseek", "fchmod"))
            or name in ("rename", "link", "mkdir", "rmdir")
        ):
            yield index, fault


def parametrize(
    metafunc: pytest.Metafunc,
    command: str,
    make: Callable[[Path], OnDisk] = ondisk.sample,
    points: Callable[[tuple[str, ...]], Iterator[tuple[int, str]]] = points,
) -> None:
    """Parametrizes a test that takes ``call`` and ``fault`` with all of them."""
    if "call" in metafunc.fixturenames:
        names = calls(command, make)
        ids = [f"call-{index}-{names[index]}-{fault}" for index, fault in points(names)]
        metafunc.parametrize(("call", "fault"), list(points(names)), ids=ids)


def parametrize_commands(
    metafunc: pytest.Metafunc, commands: Iterable[str], calls: Callable[[str], tuple[str, ...]]
) -> None:
    """Parametrizes a test that takes ``command``, too, with the decisive points of each command."""
    if "command" in metafunc.fixturenames:
        cases = [
            pytest.param(command, index, fault, id=f"{command}-call-{index}-{calls(command)[index]}-{fault}")
            for command in commands
            for index, fault in decisive_points(calls(command))
        ]
        metafunc.parametrize(("command", "call", "fault"), cases)


def check_status(result: subprocess.CompletedProcess[str], fault: str, name: str) -> None:
    """The run was killed or ended with a clean error; a failing unlock at the end does no harm."""
    assert "Traceback" not in result.stderr
    if fault == "kill":
        assert result.returncode == -9
    elif name == "flock" and result.returncode == 0:
        assert fault != "EWOULDBLOCK"
    else:
        error = json.loads(result.stdout)["error"]
        busy = fault == "EWOULDBLOCK"
        assert result.returncode == (4 if busy else 8), error
        assert error["type"] == ("BusyError" if busy else "StorageError")
        assert busy or os.strerror(getattr(errno, fault)) in error["message"]
