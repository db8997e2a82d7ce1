from typing import Any, NoReturn, Self, SupportsIndex

from typing_extensions import disjoint_base

@disjoint_base
class Guarded:
    """Base class of native objects.

    Raises TypeError on an attempt to initialise an object twice, copy or pickle it, or use it before it is
    initialised; RuntimeError on use during another call (in another thread or from a callback), or after a
    call failed halfway.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn: ...

class GuardedIterator(Guarded):
    """An iterator that stays failed once it has raised anything but StopIteration."""

    def __iter__(self) -> Self: ...
    def __next__(self) -> Any: ...
