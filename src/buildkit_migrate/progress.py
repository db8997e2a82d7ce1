"""What a long operation tells about itself while it works.

An operation calls a function with each of its steps. A step whose end is known is a `Stage`: it counts, and
whoever shows it looks at the count when it likes. So nothing is called for each record or page, and native
code that runs for seconds without coming back can be watched, too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final, Protocol, Self, TypeVar

__all__ = ["BYTES", "Progress", "Stage", "counting", "reading", "silent"]

Progress = Callable[[str], object]
"""Called with the next step: its description, which is a `Stage` if it can be told how far it is."""

BYTES: Final = "bytes"
"""The unit of stages that is shown as kB, MB and so on."""

Item = TypeVar("Item")


def silent(step: str) -> None:
    """The `Progress` of an operation that nobody watches."""


class Stage(str):
    """A step, and how much of it is done. Only the thread that works counts; any other one may look."""

    __slots__ = ("_counter", "_done", "total", "unit")

    def __new__(cls, text: str, total: int, unit: str, counter: Callable[[], int] | None = None) -> Self:
        """``total``: what is to be done, in ``unit``, a plural. ``counter``: what of it is done by now.

        Without ``counter``, `advance` or `over` count.
        """
        stage = super().__new__(cls, text)
        stage.total = total
        stage.unit = unit
        stage._counter = counter
        stage._done = 0
        return stage

    total: int
    unit: str
    _counter: Callable[[], int] | None
    _done: int

    @property
    def done(self) -> int:
        """What is done by now, at most `total`."""
        done = self._done if self._counter is None else self._counter()
        return min(done, self.total)

    def advance(self, count: int = 1) -> None:
        self._done += count

    def over(self, items: Iterable[Item]) -> Iterator[Item]:
        """Iterates, and counts the items that are done with."""
        for item in items:
            yield item
            self._done += 1


def counting(progress: Progress, text: str, items: Collection[Item], unit: str) -> Iterator[Item]:
    """Tells a stage that is over when all items are done with, and iterates over them."""
    stage = Stage(text, len(items), unit)
    progress(stage)
    return stage.over(items)


class PagesRead(Protocol):
    """A `Reader` of a database."""

    @property
    def page_size(self) -> int: ...
    @property
    def high_water(self) -> int: ...
    @property
    def pages_read(self) -> int: ...


def reading(text: str, *readers: PagesRead) -> Stage:
    """A stage that is over when each of these readers has read all of its pages once more."""
    before = [reader.pages_read for reader in readers]

    def read() -> int:
        return sum(
            min(reader.pages_read - start, reader.high_water) * reader.page_size
            for reader, start in zip(readers, before, strict=True)
        )

    return Stage(text, sum(reader.high_water * reader.page_size for reader in readers), BYTES, read)
