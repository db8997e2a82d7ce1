"""Reports which workers were finished before an error or a signal ended the work on several."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from buildkit_migrate.errors import StorageError
from buildkit_migrate.migration.clean import Cleaned, CleanedOutcome
from buildkit_migrate.migration.report import Outcome, Report
from buildkit_migrate.migration.undo import Undone, UndoneOutcome

__all__ = ["reporting_finished"]

_FINISHED: Final = (Outcome.MIGRATED, UndoneOutcome.UNDONE, CleanedOutcome.CLEANED)


@contextlib.contextmanager
def reporting_finished(
    root: Path, results: Mapping[Any, Report | None] | Mapping[Any, Undone] | Mapping[Any, Cleaned]
) -> Iterator[None]:
    """Sets ``reports`` of any exception that ends the block early, including KeyboardInterrupt.

    ``results``: the workers' results so far; those that are finished become ``reports``. Raises StorageError
    instead of OSError.
    """
    try:
        yield
    except BaseException as error:
        ending = error
        if isinstance(error, OSError):
            ending = StorageError(f"{error.filename or root}: {error.strerror or error}")
        done = [one for one in results.values() if one is not None and one.outcome in _FINISHED]
        ending.reports = tuple(done)  # type: ignore[attr-defined]
        if ending is error:
            raise
        raise ending from error
