"""A blocking connection to a running containerd, which makes many calls at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from typing import Any, TypeVar

from buildkit_migrate.containerd.client import Client
from buildkit_migrate.containerd.services import ConnectionOptions, refuse_event_loop
from buildkit_migrate.errors import Error
from buildkit_migrate.progress import Progress, Stage, silent

__all__ = ["Connection"]

Result = TypeVar("Result")
Item = TypeVar("Item")


class Connection:
    """A connection to a containerd, and the event loop for its calls; a context manager.

    Not for use inside a running event loop, as it blocks (use ``asyncio.to_thread``).
    """

    def __init__(self, options: ConnectionOptions, namespace: str, progress: Progress | None = None) -> None:
        """Raises EventLoopError, ContainerdUnavailableError, ContainerdCallError."""
        refuse_event_loop()
        self.options = options
        self._progress = progress or silent
        self.client = Client(
            options.address.removeprefix("unix://"),
            namespace,
            timeout=options.timeout,
            connect_timeout=options.connect_timeout,
        )
        self._runner = asyncio.Runner()
        try:
            self.run(self.client.open())
        except BaseException:
            self._runner.close()
            raise

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        try:
            refuse_event_loop()
        except BaseException:
            work.close()  # it will never be awaited
            raise
        return self._runner.run(work)

    def close(self) -> None:
        refuse_event_loop()
        try:
            self.run(self.client.close())
        finally:
            self._runner.close()

    def for_each(
        self, step: str, count: int, items: Iterable[Item], work: Callable[[Item], Awaitable[None]]
    ) -> None:
        """Like `concurrently`, from outside the event loop. ``step``, ``count``: as for `counting`."""
        self.run(self.concurrently(self.counting(step, count, items), work))

    def counting(self, step: str, count: int, items: Iterable[Item]) -> Iterator[Item]:
        """Iterates, and shows how far it is. ``step``: the same with a verb, such as "writing leases"."""
        stage = Stage(step, count, step.rpartition(" ")[2])
        self._progress(stage)
        return stage.over(items)

    async def concurrently(self, items: Iterable[Item], work: Callable[[Item], Awaitable[None]]) -> None:
        """Does ``work`` for all items in order, with as many at a time as the options allow.

        The first error ends it; when it returns, no call is in flight.
        """
        rest = iter(items)

        async def worker() -> None:
            for item in rest:
                await work(item)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.options.concurrency):
                    group.create_task(worker())
        except* Error as errors:
            raise errors.exceptions[0] from None
