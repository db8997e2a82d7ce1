"""Signals that end the command: as Ctrl-C does, so that temporary files go and no task complains."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Final

__all__ = ["Ending", "ending_cleanly"]

_INTERRUPT: Final = frozenset({signal.SIGINT})


class Ending:
    """``number``: of the signal that ends the command, 0 if none does. ``is_over``: too late for one."""

    def __init__(self) -> None:
        self.number = 0
        self.is_over = False

    @property
    def status(self) -> int:
        """The exit status that a shell would show for it."""
        return 128 + self.number

    def begin(self, number: int, frame: object) -> None:
        """Handles a signal. Only the first one counts: the others must not interrupt the cleaning up."""
        if self.number or self.is_over:
            return
        self.number = number
        # An event loop ends all its tasks at SIGINT; an exit out of one of them would leave the others.
        signal.raise_signal(signal.SIGINT)
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPT)
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPT)


@contextlib.contextmanager
def ending_cleanly() -> Iterator[Ending]:
    """Meanwhile SIGTERM, and SIGHUP unless it is ignored, raise KeyboardInterrupt, or end an event loop."""
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
    """Where SIGINT is ignored, as in the background of a script, it is blocked instead.

    So Ctrl-C still does nothing, but an event loop, and `Ending.begin`, find the handler that they need.
    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.SIG_IGN:
        signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPT)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)  # if it is to be ignored, one that waits is dropped
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
