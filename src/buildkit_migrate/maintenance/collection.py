"""containerd's garbage collection, computed from its database (spec buildkit-v2-stores, section 4).

collection = Collection(namespace, now=time.time_ns())
kept = collection.kept()  # what the next collection leaves
leaked = kept - collection.kept(without=orphans)  # what is freed once these leases are gone, too
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

from buildkit_migrate.schema.columns import Mask, Texts, chosen, present, starting_with
from buildkit_migrate.schema.containerd import (
    GC_ROOT,
    Blobs,
    Containers,
    Images,
    Ingests,
    Leases,
    Namespace,
    Sandboxes,
    Snapshots,
)
from buildkit_migrate.schema.graph import Graph
from buildkit_migrate.schema.tables import Entries
from buildkit_migrate.values.times import nanoseconds

__all__ = ["Collection", "Held", "Objects", "expired_leases", "expiring_leases"]

_EXPIRE: Final = b"containerd.io/gc.expire"
_CONTENT: Final = b"containerd.io/gc.ref.content"
_IMAGE: Final = b"containerd.io/gc.ref.image"
_SNAPSHOT: Final = b"containerd.io/gc.ref.snapshot."

_Table = Blobs | Images | Ingests | Containers | Sandboxes | Snapshots


def expires(times: Texts) -> Mask:
    """Objects that expire some day. containerd ignores a label that can't be read as a time.

    ``times``: what labels `gc.expire` say.
    """
    return Mask(len(times), (row for row in present(times) if nanoseconds(times[row] or b"") is not None))


def expired(times: Texts, now: int) -> Mask:
    """Objects that have expired. ``now``: nanoseconds since 1970."""
    return Mask(len(times), (row for row in expires(times) if (nanoseconds(times[row] or b"") or 0) < now))


def expiring_leases(leases: Leases) -> Mask:
    """As `expires`."""
    return Mask(len(leases), chosen(leases.marks.ending, expires(leases.marks.times)))


def expired_leases(leases: Leases, now: int) -> Mask:
    """As `expired`."""
    return Mask(len(leases), chosen(leases.marks.ending, expired(leases.marks.times, now)))


@dataclass(frozen=True)
class Objects:
    """A set of objects of a namespace, as rows of its tables. ``snapshots``: by snapshotter."""

    blobs: Mask
    ingests: Mask
    images: Mask
    snapshots: Mapping[bytes, Mask]

    def __sub__(self, other: Objects) -> Objects:
        return Objects(
            self.blobs - other.blobs,
            self.ingests - other.ingests,
            self.images - other.images,
            {name: mask - other.snapshots[name] for name, mask in self.snapshots.items()},
        )


class Held(NamedTuple):
    """Rows of what a lease alone keeps. ``snapshots``: by snapshotter."""

    blobs: list[int]
    snapshots: dict[bytes, list[int]]


class _Edges(NamedTuple):
    """Edges between nodes, except pairs with a negative one. ``always``: also followed from flat nodes."""

    sources: Sequence[int]
    targets: Sequence[int]
    always: bool = False


class Collection:
    """Of one namespace. An object is kept if something reaches it in either of two ways: *full*, over all
    that it names, or *flat*, over the parents of snapshots and the targets of images alone.

    Leases, ``gc.root`` labels, images, containers, sandboxes and running ingests are where it starts.
    """

    def __init__(self, namespace: Namespace, now: int) -> None:
        """``now``: nanoseconds since 1970."""
        self.namespace = namespace
        self.now = now
        self.snapshots = {name: namespace.snapshots(name) for name in namespace.snapshotters}
        self._size = 0
        self._base: dict[int, int] = {}
        for table in self._tables():
            self._base[id(table)] = self._size
            self._size += len(table)

    def _tables(self) -> list[_Table]:
        of = self.namespace
        return [of.blobs, of.ingests, of.images, of.containers, of.sandboxes, *self.snapshots.values()]

    @cached_property
    def _expired(self) -> Mask:
        return expired_leases(self.namespace.leases, self.now)

    def kept(self, without: Mask | None = None) -> Objects:
        """What a collection leaves. ``without``: as if these leases were not there."""
        leases = ~self._expired
        if without is not None:
            leases -= without
        return self._objects(self._reached(leases))

    def kept_without_roots(self) -> Objects:
        """What a collection would leave if ``gc.root`` labels meant nothing."""
        return self._objects(self._reached(~self._expired, labelled=False))

    def held_only_by(self, leases: Mask) -> dict[int, Held]:
        """For each of these leases, expired ones too, what only they keep.

        What several of them keep is the first one's. Together it is what is freed once all of them are gone.
        """
        every = ~self._expired
        only = self._reached(every | leases) - self._reached(every - leases)
        following: dict[int, list[int]] = {}
        for edges in self._edges:
            for source, target in zip(edges.sources, edges.targets, strict=True):
                if source in only and target in only:
                    following.setdefault(source, []).append(target)
        listed: dict[int, list[int]] = {row: [] for row in leases}
        for lease, node in zip(*self._listed, strict=True):
            if lease in listed and node in only:
                listed[lease].append(node)
        given = Mask(self._size)
        return {row: self._held(_walk(nodes, following, given)) for row, nodes in listed.items()}

    def _held(self, nodes: list[int]) -> Held:
        snapshots = {name: self._rows(nodes, table) for name, table in self.snapshots.items()}
        return Held(self._rows(nodes, self.namespace.blobs), snapshots)

    def _rows(self, nodes: list[int], table: _Table) -> list[int]:
        base = self._base[id(table)]
        return sorted(node - base for node in nodes if base <= node < base + len(table))

    def _objects(self, nodes: Mask) -> Objects:
        def rows(table: _Table) -> Mask:
            base = self._base[id(table)]
            return nodes.take(range(base, base + len(table)))

        of = self.namespace
        snapshots = {name: rows(table) for name, table in self.snapshots.items()}
        return Objects(rows(of.blobs), rows(of.ingests), rows(of.images), snapshots)

    def _reached(self, leases: Mask, *, labelled: bool = True) -> Mask:
        flat = self.namespace.leases.marks.flat
        start = self._unleased(labelled)
        start_flat = Mask(self._size)
        for lease, node in zip(*self._listed, strict=True):
            if lease in leases and node >= 0:
                (start_flat if lease in flat else start).add(node)
        return self._graph.reached(start) | self._flat_graph.reached(start_flat)

    def _unleased(self, labelled: bool) -> Mask:
        """Where a collection starts, apart from leases. ``labelled``: ``gc.root`` labels count."""
        of = self.namespace
        start = Mask(self._size)
        for node in (*self._all(of.containers), *self._all(of.sandboxes)):
            start.add(node)
        for row in ~expired(of.images.label(_EXPIRE), self.now):
            start.add(self._base[id(of.images)] + row)
        ends = of.ingests.expires
        for row in ends.known:
            if ends.values[row] > self.now:
                start.add(self._base[id(of.ingests)] + row)
        if labelled:
            tables: list[_Table] = [of.blobs, *self.snapshots.values()]
            for table in tables:
                for place in starting_with(table.labels.keys, GC_ROOT):
                    start.add(self._base[id(table)] + table.labels.rows[place])
        return start

    @cached_property
    def _listed(self) -> tuple[array[int], array[int]]:
        """Leases and what they list; the node is negative if the object does not exist."""
        rows, nodes = array("i"), array("i")
        leases = self.namespace.leases
        tables: list[tuple[Entries, _Table]] = [
            (leases.content, self.namespace.blobs),
            (leases.ingests, self.namespace.ingests),
            (leases.images, self.namespace.images),
            *((leases.snapshots(name), table) for name, table in self.snapshots.items()),
        ]
        for entries, table in tables:
            rows += array("i", entries.rows)
            nodes += self._nodes(entries.keys, table)
        return rows, nodes

    def _nodes(self, keys: Texts, table: _Table) -> array[int]:
        base = self._base[id(table)]
        return array("i", (row + base if row >= 0 else row for row in table.index.rows(keys)))

    def _all(self, table: _Table) -> range:
        base = self._base[id(table)]
        return range(base, base + len(table))

    @cached_property
    def _edges(self) -> list[_Edges]:
        of = self.namespace
        edges = [
            _Edges(self._all(of.images), self._nodes(of.images.digest, of.blobs), always=True),
            _Edges(self._all(of.ingests), self._nodes(of.ingests.expected, of.blobs)),
            self._of_containers(),
        ]
        for snapshots in self.snapshots.values():
            parents = self._nodes(snapshots.parent, snapshots)
            edges.append(_Edges(self._all(snapshots), parents, always=True))
        for table in self._tables():
            if not isinstance(table, Ingests):
                edges.append(self._of_labels(table))
        return edges

    def _of_containers(self) -> _Edges:
        containers = self.namespace.containers
        targets = array("i")
        for name, key in zip(containers.snapshotter, containers.snapshot, strict=True):
            targets.append(self._snapshot(name or b"", key or b""))
        return _Edges(self._all(containers), targets)

    def _snapshot(self, snapshotter: bytes, key: bytes) -> int:
        table = self.snapshots.get(snapshotter)
        return self._node(table, key) if table is not None else -1

    def _node(self, table: _Table, key: bytes) -> int:
        row = table.index.row(key)
        return row + self._base[id(table)] if row >= 0 else -1

    def _of_labels(self, table: _Table) -> _Edges:
        sources, targets = array("i"), array("i")
        labels = table.labels
        for place in starting_with(labels.keys, b"containerd.io/gc.ref."):
            sources.append(labels.rows[place] + self._base[id(table)])
            targets.append(self._named(labels.keys[place] or b"", labels.values[place] or b""))
        return _Edges(sources, targets)

    def _named(self, label: bytes, value: bytes) -> int:
        """What a label refers to; negative if that does not exist, or the label means something else."""
        if label.startswith(_SNAPSHOT):
            return self._snapshot(label.removeprefix(_SNAPSHOT).partition(b"/")[0], value)
        for prefix, table in ((_CONTENT, self.namespace.blobs), (_IMAGE, self.namespace.images)):
            if label.startswith(prefix) and label[len(prefix) : len(prefix) + 1] in (b"", b".", b"/"):
                return self._node(table, value)
        return -1

    @cached_property
    def _graph(self) -> Graph:
        return self._graph_of(self._edges)

    @cached_property
    def _flat_graph(self) -> Graph:
        return self._graph_of([edges for edges in self._edges if edges.always])

    def _graph_of(self, edges: list[_Edges]) -> Graph:
        graph = Graph(self._size)
        for sources, targets, _ in edges:
            graph.add(sources, targets)
        return graph


def _walk(start: list[int], following: Mapping[int, list[int]], given: Mask) -> list[int]:
    """What is reached from ``start`` and is not in ``given`` yet; adds it to ``given``."""
    found = []
    waiting = list(start)
    while waiting:
        node = waiting.pop()
        if node not in given:
            given.add(node)
            found.append(node)
            waiting += following.get(node, ())
    return found
