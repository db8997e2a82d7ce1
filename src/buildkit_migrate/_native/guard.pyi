from typing import Any, NoReturn, Self, SupportsIndex

from typing_extensions import disjoint_base

@disjoint_base
class Guarded:
    """A native object.

    It refuses to be initialised twice, copied or pickled, or used before it is initialised (TypeError); and
    to be used while a call of it runs, in another thread or from a callback, or after a call failed halfway
    (RuntimeError).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn: ...

class GuardedIterator(Guarded):
    """An iterator that, once it has raised anything but StopIteration, doesn't go on."""

    def __iter__(self) -> Self: ...
    def __next__(self) -> Any: ...
