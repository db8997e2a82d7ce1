"""Errors of the command line alone."""

from __future__ import annotations

import signal

from buildkit_migrate import errors

__all__ = ["InterruptedByUserError", "UsageError"]


class UsageError(errors.Error):
    """Wrong command line."""

    exit_code = 2


class InterruptedByUserError(errors.Error):
    """A signal ended the command."""

    exit_code = 130
    hint = "running the command again finishes the job"

    @classmethod
    def of(cls, error: KeyboardInterrupt, number: int) -> InterruptedByUserError:
        """``number``: that of the signal, 0 for Ctrl-C."""
        known = cls(f"ended by {signal.Signals(number).name}" if number else "interrupted")
        if number:
            known.exit_code = 128 + number
        known.reports = errors.finished_before(error)
        return known
