"""Signals that end the command cleanly, as Ctrl-C does: temporary files are deleted, no task complains."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Final

__all__ = ["Ending", "ending_cleanly"]

_INTERRUPT: Final = frozenset({signal.SIGINT})


class Ending:
    """``number``: of the signal that ends the command, 0 if none. ``is_over``: signals are too late."""

    def __init__(self) -> None:
        self.number = 0
        self.is_over = False

    @property
    def status(self) -> int:
        """The exit status that a shell would show."""
        return 128 + self.number

    def begin(self, number: int, frame: object) -> None:
        """Handles a signal. Only the first one counts; others must not interrupt the cleanup."""
        if self.number or self.is_over:
            return
        self.number = number
        # At SIGINT an event loop ends all its tasks; an exit from one task would leave the others running.
        signal.raise_signal(signal.SIGINT)
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPT)
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPT)


@contextlib.contextmanager
def ending_cleanly() -> Iterator[Ending]:
    """Within the block, SIGTERM and (unless ignored) SIGHUP raise KeyboardInterrupt or end the event loop."""
    ending = Ending()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    if before[signal.SIGHUP] is signal.SIG_IGN:  # nohup
        del before[signal.SIGHUP]
    with _deliverable_interrupts():
        for number in before:
            signal.signal(number, ending.begin)
        try:
            yield ending
        finally:
            ending.is_over = True
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def _deliverable_interrupts() -> Iterator[None]:
    """If SIGINT is ignored, as in background jobs of scripts, blocks it instead.

    Ctrl-C still does nothing then, but event loops and `Ending.begin` find the handler that they need.
    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.SIG_IGN:
        signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPT)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)  # if it is ignored, a pending one is dropped
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
