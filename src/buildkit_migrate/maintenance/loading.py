"""What a daemon makes of the records when it starts (spec buildkit-v2-stores, section 3; v0.10 to v0.32).

It loads each record, its parents first, and *drops* what it can't load: the values, the leases and, at the
next collection, the data. In whole columns: what fails by itself is known at once, and all that stands on it
is reached over the graph of parents.

loading = worker.loading  # a WorkerFacts; None if a store that it needs is not there
for row in loading.dropped:
    failure = loading.failure(row)  # what failed, and of which ancestor
"""

from __future__ import annotations

import enum
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

from buildkit_migrate.schema.columns import (
    ABSENT,
    NOT_FOUND,
    Index,
    Mask,
    between,
    count_rows,
    equal_to,
    present,
)
from buildkit_migrate.schema.containerd import REMOTE, Snapshots
from buildkit_migrate.schema.graph import Graph
from buildkit_migrate.schema.records import Records

__all__ = ["BASE", "DIFF", "LAYER", "MERGE", "REFERENCES", "Cause", "Failure", "Found", "Loading"]

BASE, LAYER, MERGE, DIFF = range(4)
"""Kinds of records."""

REFERENCES: Final = frozenset(
    {
        b"cache.equalMutable",
        b"cache.lowerDiffParent",
        b"cache.mergeParents",
        b"cache.parent",
        b"cache.snapshot",
        b"cache.upperDiffParent",
    }
)
"""Keys of what a `Loading` has as rows."""

_MOST: Final = 2**31 - 1


class Cause(enum.Enum):
    """Why a record itself can't be loaded."""

    PARENT = "names a parent that does not exist"
    DELETED = "is marked as deleted"
    SNAPSHOT = "is mutable and its snapshot does not exist"
    PAIR = "shares the data of a record that does not load, and has no snapshot of its own"
    LAZY = "is lazy: neither its blob nor its snapshot is here"
    CYCLE = "is its own ancestor"


class Failure(NamedTuple):
    """``row``: the record that can't be loaded by itself; the first one on the way that the daemon takes."""

    cause: Cause
    row: int


@dataclass(frozen=True)
class Found:
    """The snapshots of a worker. ``index``: finds their rows by key. ``there``: those that containerd and
    the snapshotter know. ``remote``: those whose data the snapshotter fetches when it is used.
    """

    index: Index
    there: Mask
    remote: Mask

    @classmethod
    def of(cls, snapshots: Snapshots, stat: array[int] | None) -> Found:
        """``stat``: rows that the snapshotter has of them; None: all that containerd lists exist."""
        every = ~Mask(len(snapshots))
        there = every if stat is None else between(stat, 0, _MOST)
        return cls(snapshots.index, there, there & snapshots.labelled(REMOTE))


class Loading:
    """Rows are those of the records.

    ``parent``, ``lower``, ``upper``, ``merge_rows`` and ``merge_parents`` (rows, and those of their parents,
    in order): as the kind has them, all others ABSENT. ``target``: of ``cache.equalMutable``. ``snapshot``:
    row of the record's snapshot, whose key is its id if it has none. ``kind``: BASE, LAYER, MERGE or DIFF,
    type code "b". ``mutable``: of those that load, what du calls so.

    ``cyclic``: members of cycles; with any of them the daemon does not come up. ``circular``: these, and
    those of cycles that it never goes round, as another parent fails before. ``lazy``: blobs and snapshots
    are elsewhere. ``dropped``: what does not load, for whatever reason. ``alive``: the others. Of the dropped
    ones ``waiting`` are those that a running daemon has, as only it knows how to fetch what they lack, and
    ``zombie`` those that stay in memory till the start after the next.
    """

    def __init__(self, records: Records, found: Found | None, blobs: Index | None) -> None:
        """``found``, ``blobs``: None if that is not known; then all of them are taken to be there."""
        self.records = records
        self._read_references()
        count = len(records)
        self._missing_parent = (
            between(self.parent, NOT_FOUND, NOT_FOUND)
            | between(self.lower, NOT_FOUND, NOT_FOUND)
            | between(self.upper, NOT_FOUND, NOT_FOUND)
            | Mask(count, self._where(NOT_FOUND, NOT_FOUND))
        )
        self.snapshot = array("i", [ABSENT]) * count
        has_snapshot = has_own = ~Mask(count)
        remote = Mask(count)
        if found is not None:
            keys = records.text(b"cache.snapshot")
            own = found.index.rows(records.ids)
            named = found.index.rows(keys)
            for row in ~present(keys) | equal_to(keys, b""):
                named[row] = own[row]
            self.snapshot = named
            has_snapshot, has_own, remote = (
                found.there.take(named),
                found.there.take(own),
                found.remote.take(named),
            )
        self.lazy = self._lazy(remote, blobs)
        self._deleted = records.flag(b"cache.deleted")
        self._without_own = self._unfinished - has_own
        self._without_snapshot = ~has_snapshot
        self._settle()

    def _read_references(self) -> None:
        records = self.records
        count = len(records)
        self.parent = records.rows_of(records.text(b"cache.parent"))
        layers = ~between(self.parent, ABSENT, ABSENT)
        lists = records.lists(b"cache.mergeParents")
        listed = [place for place, row in enumerate(lists.rows) if row not in layers]
        self.merge_rows = array("i", (lists.rows[place] for place in listed))
        self.merge_parents = records.index.rows([lists.values[place] for place in listed])
        merges = Mask(count, self.merge_rows)
        self.lower = records.rows_of(records.text(b"cache.lowerDiffParent"))
        self.upper = records.rows_of(records.text(b"cache.upperDiffParent"))
        for column in (self.lower, self.upper):
            for row in layers & ~between(column, ABSENT, ABSENT):
                column[row] = ABSENT
        diffs = ~(between(self.lower, ABSENT, ABSENT) & between(self.upper, ABSENT, ABSENT)) - merges
        self.target = records.rows_of(records.text(b"cache.equalMutable"))
        kind = array("b", bytes(count))
        for rows, name in ((layers, LAYER), (merges, MERGE), (diffs, DIFF)):
            for row in rows:
                kind[row] = name
        self.kind = kind
        # v0.10.0 and v0.10.1 wrote merges and diffs without the flag.
        self._unfinished = ~records.flag(b"snapshot.committed") - merges - diffs

    def _lazy(self, remote: Mask, blobs: Index | None) -> Mask:
        digests = self.records.text(b"cache.blob")
        gone = remote
        if blobs is not None:
            gone = remote | between(blobs.rows(digests), NOT_FOUND, NOT_FOUND)
        has_blob = present(digests) - equal_to(digests, b"")
        return self.records.flag(b"cache.blobonly") & has_blob & gone

    def _settle(self) -> None:
        count = len(self.records)
        alone = between(self.target, ABSENT, ABSENT)
        lonely = between(self.target, NOT_FOUND, NOT_FOUND)
        paired = ~(alone | lonely)
        by_itself = self._deleted | self._without_own
        # A record whose mutable one is not found goes on alone, if it can.
        helpless = by_itself | self._without_snapshot
        missing = self._missing_parent | (alone & by_itself) | (lonely & helpless)
        failed = self.failing(missing, paired & (helpless | self.lazy))
        gone = failed
        lazy = (self.lazy & (alone | lonely)) - failed
        # One that fails for a lazy ancestor fails its partner, too, unless that has its turn when the record
        # is cleared already. Zombies are found all the same.
        worst = failed | self.failing(lazy, paired)
        cleared = Mask(count, (row for row in paired & worst if self.target[row] < row))
        alone_then = cleared - self._zombies(lazy, worst).take(self.target) - helpless - self.lazy
        failed |= self.failing(lazy, paired - alone_then)
        self.circular = self._family(self.target).cyclic()
        self.cyclic = self._cycles(failed)
        self.dropped = failed | self.failing(self.cyclic, paired)
        self.waiting = self.dropped - gone - self.failing(self.cyclic, paired)
        self.alive = ~self.dropped
        self.zombie = self._zombies(lazy - self.cyclic, self.dropped)
        self.paired = self.alive & self.alive.take(self.target)
        self.mutable = self._unfinished - self.paired

    def _zombies(self, lazy: Mask, dropped: Mask) -> Mask:
        """Lazy records whose parents load: they are taken into memory before the blob is looked for."""
        rows = (row for row in lazy if not any(parent in dropped for parent in self.parents_of(row)))
        return Mask(lazy.size, rows)

    def failing(self, causes: Mask, partners: Mask) -> Mask:
        """``causes``, what descends from them, and ``partners`` of mutable ones among these."""
        if not causes:
            return causes
        return self._family(self._targets_of(partners)).reached(causes)

    def _targets_of(self, rows: Mask) -> array[int]:
        targets = array("i", [ABSENT]) * len(self.records)
        for row in rows:
            targets[row] = self.target[row]
        return targets

    def _family(self, targets: array[int]) -> Graph:
        """Edges from parents to children, and from ``targets`` to their partners."""
        graph = Graph(len(self.records))
        for parents in (self.parent, self.lower, self.upper, targets):
            graph.add(parents, None)
        graph.add(self.merge_parents, self.merge_rows)
        return graph

    def _cycles(self, failed: Mask) -> Mask:
        """Leaves out records with an earlier parent that fails before the daemon gets there."""
        members = self.circular
        if not members:
            return members
        surely = failed - members
        graph = Graph(len(self.records))
        for row in members:
            for reference in self.parents_of(row):
                if reference < 0 or reference in surely:
                    break
                graph.add([row], [reference])
            else:
                graph.add([row], [self.target[row]])
        return graph.cyclic()

    @cached_property
    def pair(self) -> array[int]:
        """Of each record of a pair that loads the row of the other one, else ABSENT; type code "i".

        If several immutable records share one mutable, theirs is the mutable one and its the last of them.
        """
        partners = self._targets_of(self.paired)
        for row in self.paired:
            partners[self.target[row]] = row
        return partners

    @cached_property
    def referred(self) -> Mask:
        """Records that loaded ones have as a parent; a mutable parent stands for its immutable partner."""
        return self.referred_by(self.alive)

    def referred_by(self, children: Mask) -> Mask:
        """Records that ``children`` have as a parent, like `referred`."""
        found = Mask(len(self.records))
        others = ~children
        for column in (self.parent, self.lower, self.upper):
            of_children = array("i", column)
            for row in others:
                of_children[row] = ABSENT
            found |= between(count_rows(of_children, found.size), 1, _MOST)
        for row, parent in zip(self.merge_rows, self.merge_parents, strict=True):
            if row in children and parent >= 0:
                found.add(parent)
        mutable = found & self._unfinished - between(self.pair, ABSENT, ABSENT)
        return found - mutable | Mask(found.size, (self.pair[row] for row in mutable))

    def shown_parents_of(self, row: int) -> list[int]:
        """Like `parents_of`, as du shows them: without missing ones, and mutable ones as their partners."""
        pair, paired = self.pair, self.paired
        return [
            pair[parent] if pair[parent] >= 0 and parent not in paired else parent
            for parent in self.parents_of(row)
            if parent >= 0
        ]

    def parents_of(self, row: int) -> list[int]:
        """Rows of a record's parents in order; NOT_FOUND for those that do not exist."""
        kind = self.kind[row]
        if kind <= LAYER:
            return [self.parent[row]] if kind == LAYER else []
        merged = [self.merge_parents[place] for place in self._merged(row)]
        return [*merged, *(parent for parent in (self.lower[row], self.upper[row]) if parent != ABSENT)]

    def _merged(self, row: int) -> range:
        return range(bisect_left(self.merge_rows, row), bisect_right(self.merge_rows, row))

    def _where(self, low: int, high: int) -> Iterator[int]:
        """Rows with a merged parent whose row is within these bounds."""
        for place in between(self.merge_parents, low, high):
            yield self.merge_rows[place]

    def failure(self, row: int) -> Failure:
        """Why a record is dropped. Raises ValueError for one that loads."""
        if row not in self.dropped:
            raise ValueError("the record loads")
        passed: set[int] = set()
        while row not in passed:
            passed.add(row)
            if row in self.cyclic:
                break
            failing = None
            for parent in self.parents_of(row):
                if parent < 0:
                    return Failure(Cause.PARENT, row)
                if parent in self.dropped:
                    failing = parent
                    break
            if failing is not None:
                row = failing
                continue
            target = self.target[row]
            if target != ABSENT and row in self._without_snapshot:
                if target == NOT_FOUND:
                    return Failure(Cause.PAIR, row)
            elif (cause := self._own_cause(row)) is not None:
                return Failure(cause, row)
            row = target
        return Failure(Cause.CYCLE, row)

    def _own_cause(self, row: int) -> Cause | None:
        if row in self._deleted:
            return Cause.DELETED
        if row in self._without_own:
            return Cause.SNAPSHOT
        return Cause.LAZY if row in self.lazy else None
