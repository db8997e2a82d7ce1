from collections.abc import Sequence
from typing import final

from buildkit_migrate._native.columns import Mask
from buildkit_migrate._native.guard import Guarded

@final
class Graph(Guarded):
    """Nodes 0, 1, ... `size` - 1, and directed edges. Rows of several tables are told apart by a base."""

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
        """An edge from each of `sources` to the one of `targets` at the same place.

        None: the places themselves, 0, 1, 2, ... Pairs with a negative row (NOT_FOUND, ABSENT) are left out.
        Raises IndexError for a node that there is not, ValueError for columns that differ in length.
        """
    def reached(self, start: Mask) -> Mask:
        """`start`, and all that edges lead to from there."""
    def cyclic(self) -> Mask:
        """All nodes from which edges lead back to them."""
