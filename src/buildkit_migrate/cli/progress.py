"""What people see while a command works: a bar on a terminal, a line now and then elsewhere.

A thread draws, as native code may not come back for seconds. It does nothing for the first second, so that
short commands load nothing for it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO, cast

from buildkit_migrate.progress import BYTES, Progress, Stage
from buildkit_migrate.text import printable

if TYPE_CHECKING:
    from rich.progress import TaskID

__all__ = ["figures", "fitted", "showing"]

_QUIET: Final = 1.0  # seconds before anything is drawn
_FRAME: Final = 0.2  # seconds between two pictures of a bar
_LINE: Final = 10.0  # seconds between two lines

_LEAST_TEXT: Final = 30  # columns for what is done, rather than for figures

_DUMB: Final = ("", "dumb", "unknown")
"""Terminals that can't go back to the begin of a line."""

_SIGNALS: Final = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


@dataclass(frozen=True)
class Step:
    """What is done now. ``began``: when, as `time.monotonic` tells it."""

    text: str = "starting"
    began: float = field(default_factory=time.monotonic)

    @property
    def stage(self) -> Stage | None:
        """None if it can't be told how far it is."""
        return self.text if isinstance(self.text, Stage) and self.text.total else None


class _Drawing(Protocol):
    def draw(self, step: Step) -> None: ...
    def close(self) -> None: ...


@contextlib.contextmanager
def showing(stream: TextIO, choice: str) -> Iterator[Progress | None]:
    """Shows the steps of the block on ``stream``. ``choice``: one of `choices.PROGRESS`."""
    if choice == "none":
        yield None
        return
    shown = _Shown(stream, choice)
    shown.start()
    try:
        yield shown.tell
    finally:
        shown.stop()


class _Shown:
    def __init__(self, stream: TextIO, choice: str) -> None:
        self._stream = cast("TextIO", _Terminal(stream))
        self._is_asked = choice == "bar"
        is_able = stream.isatty() and os.environ.get("TERM", "") not in _DUMB
        self._is_bar = self._is_asked or (choice == "auto" and is_able)
        self._step = Step()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def tell(self, text: str) -> None:
        self._step = Step(text)

    def start(self) -> None:
        with contextlib.suppress(RuntimeError):  # there may be no threads to be had
            self._thread.start()

    def stop(self) -> None:
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        # The main thread handles them; a call that it waits in must be the one that is interrupted.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        if not self._is_asked and self._is_over.wait(_QUIET if self._is_bar else _LINE):
            return
        drawing: _Drawing = _Bar(self._stream) if self._is_bar else _Lines(self._stream)
        try:
            drawing.draw(self._step)
            while not self._is_over.wait(_FRAME if self._is_bar else _LINE):
                drawing.draw(self._step)
            if self._is_asked:  # however short it was
                drawing.draw(self._step)
        finally:
            drawing.close()


class _Lines:
    """Text for a log."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def draw(self, step: Step) -> None:
        told = ", ".join(part for part in figures(step, time.monotonic()) if part)
        self._stream.write(f"buildkit-migrate: {printable(step.text)}: {told}\n")
        self._stream.flush()

    def close(self) -> None:
        pass


class _Bar:
    """One line of a terminal, which is empty again at the end. The cursor is never hidden."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress
        from rich.table import Column

        self._console = console = Console(file=stream, force_terminal=True)
        self._column = BarColumn(complete_style="green", finished_style="green", pulse_style="green")
        # So there is nothing to be restored if the process is killed.
        console.show_cursor = lambda show=True: False  # type: ignore[method-assign]
        self._bar: RichProgress = RichProgress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            self._column,
            TextColumn("{task.fields[told]}", markup=False, table_column=Column(no_wrap=True)),
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task: TaskID = self._bar.add_task("", total=None, told="")
        self._bar.start()

    def draw(self, step: Step) -> None:
        far, rate, left = figures(step, time.monotonic())
        text, width = printable(step.text), self._console.width
        self._column.bar_width = bar = max(8, min(40, width // 5))
        wanted = min(len(text), _LEAST_TEXT)
        told = ""
        for parts in ((far, rate, left), (far, left), (far.partition(" ")[0], left)):
            told = "  ".join(part for part in parts if part)
            if (room := width - bar - len(told) - 3) >= wanted:
                break
        values: dict[str, Any] = {"description": fitted(text, room), "told": told}
        if (stage := step.stage) is not None:
            values |= {"total": stage.total, "completed": stage.done}
        else:
            values |= {"total": None, "completed": 0}
        self._bar.update(self._task, **values)
        self._bar.refresh()

    def close(self) -> None:
        self._bar.stop()


def figures(step: Step, now: float) -> tuple[str, str, str]:
    """How far a step is, how fast, and how long it will take; if it can't be told, how long it has taken."""
    passed = now - step.began
    if (stage := step.stage) is None:
        return "", "", _time(passed) if passed >= _QUIET else ""
    done = stage.done
    total = _size(stage.total) if stage.unit == BYTES else f"{stage.total:,} {stage.unit}"
    far = f"{done / stage.total:.0%} of {total}"
    if not done or passed < _QUIET:
        return far, "", ""
    rate = done / passed
    speed = f"{_size(rate)}/s" if stage.unit == BYTES else f"{rate:,.0f}/s" if rate >= 1 else ""
    return far, speed, f"{_time((stage.total - done) / rate)} left"


def _size(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if size >= 10 or unit == "bytes" else f"{size:.1f} {unit}"


def _time(seconds: float) -> str:
    whole = round(seconds)
    minutes, hours = whole // 60, whole // 3600
    return f"{hours}:{minutes % 60:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def fitted(text: str, width: int) -> str:
    """A text in at most so many columns; what is left out is in the middle, as paths differ at their ends."""
    if len(text) <= width:
        return text
    if width < 2:
        return text[: max(width, 0)]
    start = (width - 1) // 3
    return f"{text[:start]}…{text[start + 1 - width :]}"


class _Terminal:
    """A stream that ignores write errors: the work continues if its terminal was closed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()
