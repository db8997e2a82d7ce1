"""Runs of the command with chosen streams, such as a terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

COMMAND = (sys.executable, "-m", "buildkit_migrate")


def run_into(
    stdout: int | None, stderr: int | None, *arguments: str, command: Sequence[str] = COMMAND
) -> subprocess.CompletedProcess[bytes]:
    """Runs the command with these descriptors as its streams; None is a pipe that is read."""
    return subprocess.run(
        [*command, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if stdout is None else stdout,
        stderr=subprocess.PIPE if stderr is None else stderr,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "500"},
        timeout=120,
        check=False,
    )


def on_a_terminal(*arguments: str, command: Sequence[str] = COMMAND) -> tuple[int, bytes, bytes]:
    """Exit status, what a terminal as stderr was sent, and stdout."""
    terminal, child_side = os.openpty()
    parts: list[bytes] = []

    def read() -> None:
        try:
            while part := os.read(terminal, 1 << 16):
                parts.append(part)
        except OSError:  # the end of a pseudo-terminal
            pass

    reader = threading.Thread(target=read)
    reader.start()
    result = run_into(None, child_side, *arguments, command=command)
    os.close(child_side)
    reader.join()
    os.close(terminal)
    return result.returncode, b"".join(parts), result.stdout


def ending_message(number: signal.Signals) -> str:
    """All of stderr after a signal: no complaints of Python or gRPC."""
    return (
        f"buildkit-migrate: error: ended by {number.name}\n"
        "buildkit-migrate: hint: running the command again finishes the job\n"
    )
