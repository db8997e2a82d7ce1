"""Repairs of snapshots: parents, counters, `work` directories, sizes of merges (C42, C43, C44, C50)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from buildkit_migrate.bolt.edits import Edits
from buildkit_migrate.files.errors import exists
from buildkit_migrate.maintenance.facts import WorkerFacts
from buildkit_migrate.maintenance.mend import (
    EditStore,
    MakeDirectory,
    Mend,
    Repair,
    RepairClass,
    worker_repair,
)
from buildkit_migrate.maintenance.record_data import key_in, there
from buildkit_migrate.maintenance.rule import Part
from buildkit_migrate.maintenance.rules.snapshotter import (
    INODES_LABEL,
    SIZE_LABEL,
    counters_wanted,
    links_by_name,
    without_work,
    wrong_usage_labels,
)
from buildkit_migrate.maintenance.rules.wording import path_of, subject
from buildkit_migrate.schema.columns import Mask, between, equal, present, repeated, take
from buildkit_migrate.schema.containerd import Snapshots
from buildkit_migrate.schema.snapshots import ACTIVE, COMMITTED, Backend
from buildkit_migrate.text import cut
from buildkit_migrate.values.numbers import stored_unsigned

__all__ = ["REPAIRS"]

_BOTH: Final = (Part.CONTAINERD, Part.SNAPSHOTS)

Pair = tuple[int, int]
"""Numbers of parent and child."""


@worker_repair("C42", needs=_BOTH)
def parents(facts: WorkerFacts) -> Iterator[Mend]:
    """What one of three says of a parent is put right where the two others agree.

    The three are containerd, the snapshotter's entry, and its table of children. containerd's stays as it is.
    """
    snapshots, backend = facts.snapshots, facts.backend
    if snapshots is None or backend is None or repeated(backend.id.values):
        return
    stat = backend.index.rows(snapshots.name)
    above = snapshots.index.rows(snapshots.parent)
    names = take(snapshots.name, above)
    wanted = backend.index.rows(names)
    is_at = take(backend.parent, stat)
    known, committed = backend.id.known, between(backend.kind, COMMITTED, COMMITTED)
    sure = known.take(stat) & (known & committed).take(wanted)
    listed = links_by_name(backend)
    ids = backend.id.values
    for row in sure - equal(names, is_at):
        pair = ids[wanted[row]], ids[stat[row]]
        if listed.get(snapshots.name[row]) == {pair} and not _goes_round(snapshots, row):
            edits: Edits = {b"snapshots": {snapshots.name[row] or b"": {b"parent": names[row] or b""}}}
            yield _of_parents(facts, row, f"puts back its parent {cut(names[row] or b'')}", edits)
    right = _pairs(backend)
    base = known.take(stat) - present(snapshots.parent) - present(is_at)
    for row in (sure & equal(names, is_at)) | base:
        pairs = {(ids[wanted[row]], ids[stat[row]])} if row in sure else set()
        found = listed.get(snapshots.name[row], set())
        links: dict[bytes, bytes | None] = {_key(*pair): None for pair in found - pairs - right}
        links |= {_key(*pair): snapshots.name[row] for pair in pairs - found}
        if links:
            does = "puts its entry in the table of children right"
            yield _of_parents(facts, row, does, {b"parents": links})


def _pairs(backend: Backend) -> set[Pair]:
    """What the table of children should have, as the entries of the snapshots say."""
    ids = backend.id.values
    rows = backend.index.rows(backend.parent)
    return {(ids[rows[row]], ids[row]) for row in there(rows)}


def _goes_round(snapshots: Snapshots, row: int) -> bool:
    """Whether a snapshot is its own ancestor, for containerd."""
    seen: set[int] = set()
    while row >= 0 and row not in seen:
        seen.add(row)
        row = snapshots.index.row(snapshots.parent[row] or b"")
    return row >= 0


def _key(parent: int, child: int) -> bytes:
    return stored_unsigned(parent) + b"\0" + stored_unsigned(child)


def _of_parents(facts: WorkerFacts, row: int, does: str, edits: Edits) -> Mend:
    assert facts.snapshots is not None
    store = facts.stores.snapshots
    about = subject(facts.snapshots.keys[row])
    return Mend("C42", RepairClass.PROTECT, path_of(store), about, does, (EditStore(store, {b"v1": edits}),))


@worker_repair("C43", needs=_BOTH)
def sequences(facts: WorkerFacts) -> Iterator[Mend]:
    """Counters are raised to what is in use, which only skips numbers."""
    if facts.snapshots is None or facts.backend is None:
        return
    own, of_containerd = counters_wanted(facts)
    namespace, snapshotter = facts.stores.namespace, facts.stores.snapshotter
    for store, path, is_at, wanted in (
        (facts.stores.snapshots, (b"v1", b"snapshots"), facts.backend.sequence, own),
        (
            facts.stores.containerd,
            (b"v1", namespace, b"snapshots", snapshotter),
            facts.snapshots.sequence,
            of_containerd,
        ),
    ):
        if is_at < wanted:
            change = EditStore(store, {}, sequences={path: wanted})
            does = f"raises the counter from {is_at} to {wanted}"
            about = subject(b"/".join(path))
            yield Mend("C43", RepairClass.PROTECT, path_of(store), about, does, (change,))


@worker_repair("C44", needs=(*_BOTH, Part.DIRECTORIES))
def work(facts: WorkerFacts) -> Iterator[Mend]:
    """An active snapshot gets the empty directory that it is mounted with."""
    backend, found = facts.backend, facts.directories
    if backend is None or found is None:
        return
    ids = backend.id
    others = between(backend.kind, ACTIVE, ACTIVE) & ids.known & facts.ours
    lacking = without_work(facts)
    like = next(
        (
            path
            for row in (others - Mask(len(backend), lacking) if lacking else ())
            if exists(path := found.path / str(ids.values[row]) / "work")
        ),
        None,
    )
    for row in lacking:
        place = found.path / str(ids.values[row])
        if not exists(place / "work", follow_symlinks=False):
            change = MakeDirectory(place / "work", like or place)
            about = subject(key_in(backend.names[row] or b""))
            does = "makes its empty directory `work`"
            yield Mend("C44", RepairClass.PROTECT, found.path, about, does, (change,))


@worker_repair("C50", needs=_BOTH)
def merge_usage(facts: WorkerFacts) -> Iterator[Mend]:
    """Labels with the usage of a merge that are no numbers are deleted; without a size none is left.

    A daemon that finds one of the two takes the usage from the labels, with 0 for the other.
    """
    snapshots, store = facts.snapshots, facts.stores.containerd
    if snapshots is None:
        return
    for row, wrong in wrong_usage_labels(snapshots).items():
        key = snapshots.keys[row] or b""
        names = {*wrong, INODES_LABEL} if SIZE_LABEL in wrong else {*wrong}
        does = "deletes the label" + ("s with its usage" if len(names) > 1 else f" {cut(*names)}")
        snapshot: Edits = {key: {b"labels": dict.fromkeys(sorted(names))}}
        of_snapshotter: Edits = {b"snapshots": {facts.stores.snapshotter: snapshot}}
        change = EditStore(store, {b"v1": {facts.stores.namespace: of_snapshotter}})
        yield Mend("C50", RepairClass.PROTECT, path_of(store), subject(key), does, (change,))


REPAIRS: Final[tuple[Repair[WorkerFacts], ...]] = (parents, sequences, work, merge_usage)
