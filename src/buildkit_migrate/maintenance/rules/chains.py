"""The rule about chain ids: they are what diff ids, blobs and parents give (C22).

Of layers the engine computes them, from the ids that the parent has in the store. A merge takes the ids of
its first parent and goes on with each layer of the others; a diff those of its own blob, or if it has none
those of its upper. A layer on a merge or diff may also have been computed as if that had no ids, which it did
not have yet. Where nothing of that is what is stored all is computed anew from the base: if only the parent's
ids are wrong, the record's own may be right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from buildkit_migrate._native.chain import following
from buildkit_migrate.maintenance.facts import WorkerFacts
from buildkit_migrate.maintenance.finding import Finding, Severity
from buildkit_migrate.maintenance.loading import BASE, DIFF, LAYER, MERGE, Loading
from buildkit_migrate.maintenance.rule import Part, worker_rule
from buildkit_migrate.maintenance.rules.wording import path_of, quoted, subject
from buildkit_migrate.schema.columns import NOT_FOUND, Mask, Texts, between, equal_to, present
from buildkit_migrate.schema.records import Records
from buildkit_migrate.values import keys

__all__ = ["RULES", "to_be_cleared"]

Ids = tuple[bytes, bytes]
"""Chain id and blob chain id, or diff id and blob of a layer; b"" where there is none."""

_IDS: Final = (keys.CHAIN_ID, keys.BLOB_CHAIN_ID)
_NONE: Final[Ids] = (b"", b"")
_MOST_WAYS: Final = 8
"""Ids that one record can rightly have, as there may be several merges below it."""


@worker_rule("C22", needs=(Part.RECORDS,))
def chain_ids_recompute(facts: WorkerFacts) -> Iterator[Finding]:
    records, loading = facts.records, facts.references
    assert records is not None and loading is not None
    chains = _Chains(records, loading, Mask(len(records)))
    for row in chains.wrong(facts.odd):
        names = [
            f"{key.decode()} is {quoted(is_there)}, its layers give {quoted(right) or 'none'}"
            for key, is_there, right in zip(_IDS, chains.stored(row), chains.anew(row)[0], strict=True)
            if is_there not in (b"", right)
        ]
        path = path_of(facts.stores.records)
        yield Finding("C22", Severity.CONTENT, path, subject(records.ids[row]), "; ".join(names))


def to_be_cleared(facts: WorkerFacts) -> dict[int, list[int]]:
    """For each record that the rule reports the rows whose ids have to be cleared, its own first.

    These are the layers on it, and whatever else has ids that follow from cleared ones. What is above several
    of those records is in the list of one of them.
    """
    records, loading = facts.records, facts.references
    assert records is not None and loading is not None
    found: dict[int, list[int]] = {}
    owner: dict[int, int] = {}
    layers: dict[int, list[int]] = {}
    while wrong := list(_Chains(records, loading, Mask(len(records), owner)).wrong(facts.odd)):
        if not owner:
            found = {row: [row] for row in wrong}
            for row in between(loading.parent, 0, len(records)):
                layers.setdefault(loading.parent[row], []).append(row)
        for row in wrong:
            root = row if row in found else _owner(loading, row, owner)
            waiting = [row]
            for built in waiting:
                if built not in owner:
                    owner[built] = root
                    if built != root:
                        found[root].append(built)
                    waiting += layers.get(built, ())
    return found


def _owner(loading: Loading, row: int, owner: Mapping[int, int]) -> int:
    """That of the nearest ancestor which has one."""
    near, seen = [row], {row}
    for ancestor in near:
        if ancestor in owner:
            break
        above = [it for it in loading.parents_of(ancestor) if it >= 0 and it not in seen]
        near += above
        seen.update(above)
    return owner[ancestor]


class _Chains:
    """The ids of records as they are stored, and as they should be. Rows are those of the records.

    ``cleared``: taken to have none.
    """

    def __init__(self, records: Records, loading: Loading, cleared: Mask) -> None:
        self._loading = loading
        self._columns = tuple(_without(records.text(key), cleared) for key in _IDS)
        self._layers = tuple(map(records.text, (keys.DIFF_ID, keys.BLOB)))
        self._anew: dict[int, list[Ids]] = {}

    def stored(self, row: int) -> Ids:
        return _pair(self._columns, row)

    def wrong(self, odd: Mask) -> Iterator[int]:
        """Records whose ids are not what they should be, but for those where that follows from another."""
        loading = self._loading
        has_ids = _named(self._columns[0]) | _named(self._columns[1])
        told = has_ids - odd - loading.circular - odd.take(loading.parent)
        layered = between(loading.kind, BASE, LAYER)
        layers = told & layered - between(loading.parent, NOT_FOUND, NOT_FOUND)
        unsure = odd | loading.circular
        for row in self._differing(layers):
            if not self._is_one_of(row, self.anew(row)):
                unsure.add(row)
                yield row
        for row in told - layered:
            if self._is_one_of(row, self._ways(row, self._stored_ways)) or not self._is_known(row, unsure):
                continue
            if not self._is_one_of(row, self.anew(row)):
                yield row

    def _is_known(self, row: int, unsure: Mask) -> bool:
        """Whether all layers that a merge or diff is made of are there, and none is ``unsure``."""
        parents = self._loading.parents_of(row)
        if any(parent < 0 or parent in unsure for parent in parents):
            return False
        layers = [layer for parent in parents for layer in self._layers_of(parent)]
        return not any(
            layer in unsure
            or not all(_pair(self._layers, layer))
            or self._loading.parent[layer] == NOT_FOUND
            or self._loading.parent[layer] in unsure
            for layer in layers
        )

    def _differing(self, layers: Mask) -> Iterator[int]:
        """Layers whose ids do not follow from those that their parents have in the store."""
        usual = following(layers, self._loading.parent, *self._layers, *self._columns)
        for row in layers - usual:
            if not self._is_one_of(row, self._ways(row, self._stored_ways)):
                yield row

    def _is_one_of(self, row: int, ways: list[Ids]) -> bool:
        """Whether the stored ids are right. Absent ones are: they are computed when needed."""
        stored = self.stored(row)
        return any(
            all(is_there in (b"", right) for is_there, right in zip(stored, ids, strict=True)) for ids in ways
        )

    def _stored_ways(self, row: int) -> list[Ids]:
        return [self.stored(row)]

    def anew(self, row: int) -> list[Ids]:
        """What the ids can be, without a look at those of others; the usual ones first."""
        waiting = [row]
        while waiting:
            row = waiting[-1]
            needed = [it for it in self._needed(row) if it not in self._anew]
            if needed:
                waiting += needed
            else:
                self._anew[row] = self._ways(row, self._anew.__getitem__)
                waiting.pop()
        return self._anew[row]

    def _needed(self, row: int) -> list[int]:
        """The record whose ids this one's are computed from, if there is one."""
        loading = self._loading
        above = loading.parent[row]
        if loading.kind[row] == MERGE:
            above = loading.parents_of(row)[0]
        elif loading.kind[row] == DIFF:
            above = NOT_FOUND if _pair(self._layers, row)[1] else loading.upper[row]
        return [above] if above >= 0 and row not in loading.circular else []

    def _ways(self, row: int, ways_of: Callable[[int], list[Ids]]) -> list[Ids]:
        """The ids that follow from those of that record."""
        loading = self._loading
        if row in loading.circular:
            return [self.stored(row)]
        above = self._needed(row)
        ways: list[Ids | None] = [*ways_of(above[0])] if above else [None]
        if loading.kind[row] == DIFF:
            layers = [] if above else [row]
        elif loading.kind[row] == MERGE:
            layers = [layer for parent in loading.parents_of(row)[1:] for layer in self._layers_of(parent)]
        else:
            layers = [row]
            if above and loading.kind[above[0]] in (MERGE, DIFF):
                ways.append(_NONE)
        for layer in layers:
            ways = [_with_layer(ids, _pair(self._layers, layer)) for ids in ways]
        return list(dict.fromkeys(ids or _NONE for ids in ways))[:_MOST_WAYS]

    def _layers_of(self, row: int) -> list[int]:
        """The records whose blobs, on top of each other, are what it is; in order."""
        loading = self._loading
        found: list[int] = []
        waiting = [row]
        while waiting:
            row = waiting.pop()
            if row < 0 or row in loading.circular:
                continue
            kind = loading.kind[row]
            if kind == MERGE:
                waiting += loading.parents_of(row)  # from the last one on, as the list is turned round
                continue
            found.append(loading.upper[row] if kind == DIFF and self._is_its_upper(row) else row)
            if kind == LAYER:
                waiting.append(loading.parent[row])
        return found[::-1]

    def _is_its_upper(self, row: int) -> bool:
        """Whether a diff is the last layer of its upper record, and so takes the blob of that."""
        lower, upper = self._loading.lower[row], self._loading.upper[row]
        if upper < 0:
            return False
        kind = self._loading.kind[upper]
        return kind == BASE if lower < 0 else kind == LAYER and self._loading.parent[upper] == lower


def _without(column: Texts, cleared: Mask) -> Texts:
    if not cleared:
        return column
    return [None if row in cleared else id for row, id in enumerate(column)]


def _named(column: Texts) -> Mask:
    return present(column) - equal_to(column, b"")


def _pair(columns: tuple[Texts, ...], row: int) -> Ids:
    return (columns[0][row] or b"", columns[1][row] or b"") if row >= 0 else _NONE


def _with_layer(ids: Ids | None, layer: Ids) -> Ids:
    """The ids of a layer on top of a record with ``ids``; None for a first layer."""
    diff_id, blob = layer
    if not diff_id or not blob:
        return _NONE
    own = _hashed(blob, diff_id)
    return (diff_id, own) if ids is None else (_hashed(ids[0], diff_id), _hashed(ids[1], own))


def _hashed(left: bytes, right: bytes) -> bytes:
    return b"sha256:" + hashlib.sha256(left + b" " + right).hexdigest().encode()


RULES = (chain_ids_recompute,)
