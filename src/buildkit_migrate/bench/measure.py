"""Times a stage in its own process, and measures its output and memory.

The process gets the stage and the root as arguments. It prints a line when everything is ready, works, and
prints another line. Its private memory is sampled from outside, as native code keeps the interpreter busy.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Final

from buildkit_migrate.bench.stages import STAGES
from buildkit_migrate.bench.synthetic import WORKER
from buildkit_migrate.errors import Error, StorageError

__all__ = ["Measured", "StageFailedError", "best", "measure"]

_SAMPLING: Final = 0.005  # seconds


@dataclass(frozen=True)
class Measured:
    """``read``: size of the databases that the stage reads, in bytes, even if it skips parts of them.

    ``written``: bytes passed to the system, without those of the journal, which is memory-mapped.
    ``private``: peak of anonymous memory in bytes, above what the process had at the start.
    """

    stage: str
    seconds: float
    read: int
    written: int
    private: int


class StageFailedError(Error):
    """The process of a stage ended early or reported an error."""


def measure(stage: str, root: Path, *, wrapper: Sequence[str] = ()) -> Measured:
    """Runs one of `STAGES` on a synthetic root, under the command ``wrapper`` if given."""
    # -P: don't import modules from the current directory.
    command = [*wrapper, sys.executable, "-P", "-m", __name__, stage, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:  # noqa: S603
        assert process.stdout is not None
        try:
            ready = _line(process.stdout, stage)
            peak = ready["private"]
            while not select.select([process.stdout], [], [], _SAMPLING)[0]:
                peak = max(peak, _private(ready["pid"]))
            done = _line(process.stdout, stage)
        except BaseException:
            process.terminate()
            raise
    return Measured(
        stage=stage,
        seconds=done["seconds"],
        read=sum((root / WORKER / name).stat().st_size for name in STAGES[stage].reads),
        written=done["written"],
        private=max(peak, done["private"]) - ready["private"],
    )


def best(rounds: Sequence[Measured]) -> Measured:
    """The fastest round, with the largest memory use of all rounds."""
    fastest = min(rounds, key=lambda measured: measured.seconds)
    return replace(fastest, private=max(measured.private for measured in rounds))


def _line(output: IO[bytes], stage: str) -> Any:
    line = output.readline()
    document: dict[str, Any] = json.loads(line) if line else {"error": "the process ended early"}
    if "error" in document:
        error = StageFailedError(f"{STAGES[stage].title}: {document['error']}")
        error.exit_code = document.get("exit_code", error.exit_code)
        raise error
    return document


def _private(pid: int | str) -> int:
    """Anonymous memory of a process in bytes, 0 if it has ended. Mapped files do not count."""
    try:
        return _field(f"/proc/{pid}/status", "RssAnon") << 10
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _written() -> int:
    return _field("/proc/self/io", "wchar")


def _field(path: str, name: str) -> int:
    """Reads a number from a file with lines "name: number"; 0 if the name is missing."""
    lines = Path(path).read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


def _work(stage: str, root: Path) -> None:
    with STAGES[stage].ready(root) as work:
        print(json.dumps({"pid": os.getpid(), "private": _private("self")}), flush=True)
        written = _written()
        began = time.perf_counter()
        kept = work()
        seconds = time.perf_counter() - began
        done = {"seconds": seconds, "written": _written() - written, "private": _private("self")}
        del kept
        print(json.dumps(done), flush=True)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches both processes; the parent reports it
    stage, root = sys.argv[1:]
    try:
        _work(stage, Path(root))
    except Exception as error:
        known = StorageError.exit_code if isinstance(error, OSError) else 1
        exit_code = getattr(error, "exit_code", known)
        print(json.dumps({"error": str(error) or type(error).__name__, "exit_code": exit_code}), flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
