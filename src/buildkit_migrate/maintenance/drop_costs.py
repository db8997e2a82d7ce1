"""What it costs to drop records: how many go, of which kinds, and how much space they take in du."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from typing import Final

from buildkit_migrate.maintenance.dropping import with_descendants
from buildkit_migrate.maintenance.facts import WorkerFacts
from buildkit_migrate.maintenance.loading import BASE, DIFF, LAYER, MERGE
from buildkit_migrate.maintenance.usage import Sizes
from buildkit_migrate.schema.columns import Mask
from buildkit_migrate.values import keys

__all__ = ["DropCosts"]

_KINDS: Final = {BASE: "layer", LAYER: "layer", MERGE: "merge", DIFF: "diff"}
_MUTABLE: Final = "mutable record"
_COPY: Final = "copy of a mutable record"
_PLURALS: Final = {_COPY: "copies of mutable records"}


class DropCosts:
    """Of records that are dropped one after the other: what several of them take along counts once."""

    def __init__(self, facts: WorkerFacts, rows: Iterable[int]) -> None:
        """``rows``: all that will be asked for."""
        assert facts.records is not None and facts.references is not None
        self._facts = facts
        self._loading = facts.references
        self._all = with_descendants(facts, Mask(len(facts.records), rows))
        self._counted = Mask(len(facts.records))

    def of(self, rows: Iterable[int]) -> str:
        """What is lost with these records, beyond what was told before; a sentence without its end."""
        own = [row for row in dict.fromkeys(rows) if row not in self._counted]
        gone = self._with_descendants(own)
        if not gone:
            return "nothing more than what was counted for another record before"
        others = gone[len(own) :]
        built = f", and with it {self._count(others)}" if others else ""
        size = sum(max(self._sizes[row], 0) for row in gone if self._loading.target[row] < 0)
        return f"{self._count(own)}{built}: {size} bytes, which builds make anew"

    def _with_descendants(self, rows: list[int]) -> list[int]:
        """These rows first; all are counted now."""
        found = list(rows)
        for row in found:
            self._counted.add(row)
        for row in found:  # which grows
            for child in self._children.get(row, ()):
                if child not in self._counted:
                    self._counted.add(child)
                    found.append(child)
        return found

    def _count(self, rows: list[int]) -> str:
        kinds = Counter(map(self._kind, rows))
        *most, last = (
            f"{number} {kind if number == 1 else _PLURALS.get(kind, f'{kind}s')}"
            for kind, number in sorted(kinds.items())
        )
        return f"{', '.join(most)} and {last}" if most else last

    def _kind(self, row: int) -> str:
        kind = self._loading.kind[row]
        if kind in (BASE, LAYER) and self._loading.target[row] >= 0:
            return _COPY
        if kind in (BASE, LAYER) and row not in self._committed:
            return _MUTABLE
        return _KINDS[kind]

    @cached_property
    def _committed(self) -> Mask:
        return self._loading.records.flag(keys.COMMITTED)

    @cached_property
    def _children(self) -> dict[int, list[int]]:
        """Among all that go: what each one takes along."""
        found: dict[int, list[int]] = {}
        for row in self._all:
            for reference in (*self._loading.parents_of(row), self._loading.target[row]):
                if reference in self._all:
                    found.setdefault(reference, []).append(row)
        return found

    @cached_property
    def _sizes(self) -> list[int]:
        sizes = Sizes(self._facts, self._loading)
        sizes.measure(self._all, lambda step: None)
        return list(sizes.values)
