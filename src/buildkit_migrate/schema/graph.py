"""What refers to what, over rows: what is reached, and what goes round in circles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from buildkit_migrate.schema.columns import Mask

__all__ = ["Graph"]


class Graph:
    """Nodes 0, 1, ... ``size`` - 1, and directed edges. Rows of several tables are told apart by a base."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._targets: list[list[int]] = [[] for _ in range(size)]

    def add(
        self,
        sources: Sequence[int] | None,
        targets: Sequence[int] | None,
        *,
        source_base: int = 0,
        target_base: int = 0,
    ) -> None:
        """An edge from each of ``sources`` to the one of ``targets`` at the same place.

        None: the places themselves, 0, 1, 2, ... Pairs with a negative row (NOT_FOUND, ABSENT) are left out.
        Raises IndexError for a node that there is not, ValueError for columns that differ in length.
        """
        count = len(sources if sources is not None else targets if targets is not None else ())
        pairs: Iterable[tuple[int, int]] = zip(
            range(count) if sources is None else sources,
            range(count) if targets is None else targets,
            strict=True,
        )
        for source, target in pairs:
            if source < 0 or target < 0:
                continue
            if max(source + source_base, target + target_base) >= self.size:
                raise IndexError("node out of range")
            self._targets[source + source_base].append(target + target_base)

    def reached(self, start: Mask) -> Mask:
        """``start``, and all that edges lead to from there."""
        found = Mask(self.size, start)
        waiting = list(start)
        while waiting:
            for target in self._targets[waiting.pop()]:
                if target not in found:
                    found.add(target)
                    waiting.append(target)
        return found

    def cyclic(self) -> Mask:
        """All nodes from which edges lead back to them."""
        found = Mask(self.size)
        number = [0] * self.size
        low = [0] * self.size
        counter = 0
        for root in range(self.size):
            if number[root]:
                continue
            # Tarjan's algorithm, without recursion: chains may be long.
            stack: list[int] = []
            path = [(root, 0)]
            while path:
                node, at = path.pop()
                if at == 0:
                    counter += 1
                    number[node] = low[node] = counter
                    stack.append(node)
                else:
                    low[node] = min(low[node], low[self._targets[node][at - 1]])
                while at < len(self._targets[node]):
                    target = self._targets[node][at]
                    at += 1
                    if not number[target]:
                        path.append((node, at))
                        path.append((target, 0))
                        break
                    low[node] = min(low[node], low[target])
                else:
                    if low[node] == number[node]:
                        members = [stack.pop()]
                        while members[-1] != node:
                            members.append(stack.pop())
                        for member in members:
                            low[member] = self.size + 1
                            if len(members) > 1 or member in self._targets[member]:
                                found.add(member)
        return found
