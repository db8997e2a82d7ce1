"""A process that opens a file as a daemon does that starts: for writing, and then it waits for the lock."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

__all__ = ["coming_at_the_rename", "opened_by_another"]

_PROGRAM = """
import os, sys
os.open(sys.argv[1], int(sys.argv[2]))
print(flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def opened_by_another(path: Path, flags: int) -> Iterator[int]:
    """The number of a process that has the file open during the block."""
    command = [sys.executable, "-S", "-c", _PROGRAM, str(path), str(flags)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.communicate()


@contextlib.contextmanager
def coming_at_the_rename(path: Path, flags: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Such a process comes right before ``path`` gets another file, or another name. Gives its number."""
    real: Callable[..., Path] = Path.rename
    found: list[int] = []
    with contextlib.ExitStack() as held:

        def rename(self: Path, target: Path) -> Path:
            if path in (self, target) and not found:
                found.append(held.enter_context(opened_by_another(path, flags)))
            return real(self, target)

        monkeypatch.setattr(Path, "rename", rename)
        yield found
        monkeypatch.undo()
