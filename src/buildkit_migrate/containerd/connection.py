"""A connection to a running containerd for those who are in no event loop, and many calls at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from typing import Any, Final, TypeVar

from buildkit_migrate.containerd.client import Client
from buildkit_migrate.containerd.services import ConnectionOptions, refuse_event_loop
from buildkit_migrate.errors import Error

__all__ = ["Connection"]

_TOLD_EVERY: Final = 100

Result = TypeVar("Result")
Item = TypeVar("Item")


class Connection:
    """A connection to a containerd and the event loop that its calls run in; a context manager.

    Not for use inside of a running event loop: it blocks (``asyncio.to_thread`` is for that).
    """

    def __init__(
        self, options: ConnectionOptions, namespace: str, progress: Callable[[str], object] | None = None
    ) -> None:
        """Raises EventLoopError, ContainerdUnavailableError, ContainerdCallError."""
        refuse_event_loop()
        self.options = options
        self._progress = progress or (lambda step: None)
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
        """As `concurrently`, for who is not in the event loop; tells how many of ``count`` are begun."""

        def told() -> Iterator[Item]:
            for number, item in enumerate(items):
                if number % _TOLD_EVERY == 0:
                    self._progress(f"{step}: {number} of {count}")
                yield item

        self.run(self.concurrently(told(), work))

    async def concurrently(self, items: Iterable[Item], work: Callable[[Item], Awaitable[None]]) -> None:
        """Does ``work`` for all items, as many at a time as the options say, begun in their order.

        The first error ends it; no call is in flight when it returns.
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
