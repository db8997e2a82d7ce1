"""What a synthetic v2 root is about: its records, their snapshots and blobs, before anything is written."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

from buildkit_migrate.bench.parts import SHAPES, digests, identities, stored_time, text_time, tree
from buildkit_migrate.chain import chain_ids

__all__ = ["World", "blob_size", "log_size", "make_world", "snapshot_size"]

MUTABLE_SHARE: Final = 0.2
PAIR_SHARE: Final = 0.15
MERGE_SHARE: Final = 0.03
DIFF_SHARE: Final = 0.02
BLOB_SHARE: Final = 0.85  # of layers whose parent has one
RECORDS_OF_A_BUILD: Final = 100


@dataclass
class World:
    """A cache before it is written. Records are layers, mutables, pairs, merges and diffs, in this order; the
    i-th pair belongs to the i-th mutable one.

    ``parents``: -1 for none. ``snapshots``: the records with one of their own, in the order of their numbers.
    """

    layers: range
    mutable: range
    pairs: range
    merges: range
    diffs: range
    ids: list[bytes]
    parents: list[int]
    blobs: dict[int, bytes]
    diff_ids: dict[int, bytes]
    chains: dict[int, tuple[bytes, bytes]]
    nanoseconds: list[int]
    worker: bytes
    keys: list[bytes]
    builds: list[bytes]
    logs: list[bytes]
    rnd: random.Random
    several: dict[int, list[int]] = field(default_factory=dict)
    """Parents of merges, and (lower, upper) of diffs."""
    snapshots: list[int] = field(default_factory=list)
    number: dict[int, int] = field(default_factory=dict)
    """Number of the snapshot's directory."""

    def name(self, i: int) -> bytes:
        """The snapshotter's name of the snapshot. Preparing and committing took a number each."""
        return b"buildkit/%d/%b" % (2 * self.number[i], self.ids[i])

    def time(self, i: int) -> bytes:
        return stored_time(i, self.nanoseconds[i])

    def text(self, i: int) -> bytes:
        return text_time(i, self.nanoseconds[i])

    def base(self, i: int) -> int:
        """The record whose snapshot is the parent of this record's snapshot."""
        return self.several[i][0] if i in self.merges else self.parents[i] if i not in self.diffs else -1


def make_world(shape: str, records: int, seed: int) -> World:
    """Equal arguments make equal worlds. Raises ValueError for an unknown shape."""
    if shape not in SHAPES:
        raise ValueError(f"no such shape: {shape}")
    rnd = random.Random(f"v2 {shape} {records} {seed}")
    sizes = [int(records * share) for share in (MUTABLE_SHARE, PAIR_SHARE, MERGE_SHARE, DIFF_SHARE)]
    ranges = []
    at = 0
    for size in (records - sum(sizes), *sizes):
        ranges.append(range(at, at + size))
        at += size
    layers, mutable, pairs, merges, diffs = ranges
    parents, _ = tree(shape, len(layers), rnd)
    parents += [rnd.randrange(len(layers)) if rnd.random() < 0.7 else -1 for _ in mutable]
    parents += [parents[mutable[i]] for i in range(len(pairs))]
    parents += [-1] * (len(merges) + len(diffs))
    fresh = digests(2 * len(layers), rnd)
    blobs, diff_ids = {}, {}
    for i in layers:
        if (parents[i] < 0 or parents[i] in blobs) and rnd.random() < BLOB_SHARE:
            blobs[i], diff_ids[i] = next(fresh), next(fresh)
    empty = b""
    chains = chain_ids(
        parents[: len(layers)],
        [diff_ids.get(i, empty) for i in layers],
        [blobs.get(i, empty) for i in layers],
    )
    world = World(
        layers,
        mutable,
        pairs,
        merges,
        diffs,
        identities(records, rnd),
        parents,
        blobs,
        diff_ids,
        {i: chains[i] for i in blobs},
        # The last digit is never 0, as Go would drop it from a time's text.
        [10 * rnd.randrange(99_999_999) + 3 for _ in range(records)],
        identities(1, rnd)[0],
        identities(len(layers), rnd),
        identities(records // RECORDS_OF_A_BUILD, rnd),
        list(digests(records // RECORDS_OF_A_BUILD, rnd)),
        rnd,
    )
    for i in (*merges, *diffs):
        world.several[i] = rnd.sample(layers, 2 if i in diffs else rnd.randint(2, 4))
    used = [i for i in (*merges, *diffs) if i % 2]
    world.snapshots = [*layers, *mutable, *used]
    world.number = {i: place for place, i in enumerate(world.snapshots, 1)}
    return world


def snapshot_size(i: int) -> int:
    """Bytes that the snapshot of this record takes."""
    return 4096 * (1 + i * 7919 % 25_001)


def blob_size(i: int) -> int:
    """Bytes of the blob of this record."""
    return 91 + i * 7919 % 33_000_001


def log_size(i: int) -> int:
    """Bytes of the log of this build."""
    return 500 + i % 9000
