from collections.abc import Sequence
from typing import final

from buildkit_migrate._native.columns import Mask
from buildkit_migrate._native.guard import Guarded

@final
class Graph(Guarded):
    """A directed graph of nodes 0, 1, ... `size` - 1. A base added to rows distinguishes several tables."""

    def __init__(self, size: int) -> None: ...
    @property
    def size(self) -> int:
        """Number of nodes."""
    def add(
        self,
        sources: Sequence[int] | None,
        targets: Sequence[int] | None,
        *,
        source_base: int = 0,
        target_base: int = 0,
    ) -> None:
        """Adds an edge from each of `sources` to the corresponding one of `targets`.

        None, for one of them, stands for 0, 1, 2, ... Pairs with a negative row (NOT_FOUND, ABSENT) are left
        out. Raises IndexError for a node that does not exist, ValueError for columns of different lengths;
        then no edge is added.
        """
    def reached(self, start: Mask) -> Mask:
        """`start` and all nodes that can be reached from there."""
    def cyclic(self) -> Mask:
        """All nodes that can be reached from themselves, through one or more edges."""
