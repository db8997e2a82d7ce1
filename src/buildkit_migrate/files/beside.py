"""Something that a second thread does meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["beside"]

Result = TypeVar("Result")


@contextlib.contextmanager
def beside(work: Callable[[], Result]) -> Iterator[Callable[[], Result]]:
    """Calls ``work`` while the block runs; before it, if no thread can be started.

    Yields a function that waits for the result, and raises what ``work`` raised. The end of the block waits
    for the thread.
    """
    with ThreadPoolExecutor(1) as thread:
        try:
            future = thread.submit(work)
        except RuntimeError:
            future = Future()
            try:
                future.set_result(work())
            except Exception as error:
                future.set_exception(error)
        yield future.result
