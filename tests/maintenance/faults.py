"""Faults for a healthy v2 root, each planted by an edit of its files, and what `check` says then.

healthy = Healthy(healed(tmp_path))
healthy.lose_snapshot(healthy.last_layer())
assert found(healthy.root) == {("C23", "B", ...)}
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from buildkit_migrate.bolt.edits import Edits
from buildkit_migrate.maintenance.check import check_stores
from buildkit_migrate.maintenance.facts import Facts, WorkerFacts
from buildkit_migrate.maintenance.finding import Finding
from buildkit_migrate.schema.columns import Mask
from buildkit_migrate.schema.snapshots import VIEW
from buildkit_migrate.values.numbers import stored_unsigned
from planting import below, edit
from v2_roots import V2Root

__all__ = ["FLAT", "TIME", "Healthy", "Record", "check", "found", "link"]

FLAT = b"containerd.io/gc.flat"
TIME = b"\x01\0\0\0\x0e\xe2\x97\xa4\xe8\x24\x45\xca\xdd\xff\xff"


def check(root: V2Root, *, content: bool = False) -> tuple[Finding, ...]:
    with root.open() as stores:
        return check_stores(stores, content=content).findings


def found(root: V2Root, *, content: bool = False) -> set[tuple[str, str, str]]:
    """Rule, severity and subject of each finding; none is there twice."""
    findings = [(it.rule, str(it.severity), it.subject) for it in check(root, content=content)]
    assert len(findings) == len(set(findings))
    return set(findings)


@dataclass(frozen=True)
class Record:
    """One of the healthy root. ``number``: of its directory; ``name``: the snapshotter's of its snapshot."""

    id: bytes
    key: bytes
    digest: bytes | None
    name: bytes = b""
    parent: bytes | None = None
    number: int = 0
    size_known: bool = True
    partner: bytes | None = None

    @property
    def text(self) -> str:
        return self.id.decode()


class Healthy:
    """A root that was healthy, looked at before the first edit."""

    def __init__(self, root: V2Root) -> None:
        self.root = root
        with root.open() as stores:
            every = Facts(stores)
            facts = every.workers[0]
            self._look(facts)
            self.builds = {build.key for history in every.histories.values() for build in history.builds}
            self.namespace = facts.stores.namespace
            self.content = facts.stores.content
            self.snapshotter = facts.stores.snapshotter
            self.sequence = facts.backend.sequence

    def _look(self, facts: WorkerFacts) -> None:
        data, backend, snapshots = facts.data, facts.backend, facts.snapshots
        assert data is not None and backend is not None and snapshots is not None
        sizes = data.records.integer(b"snapshot.size")

        def record(row: int) -> Record:
            stat = data.stat[row]
            pair = data.loading.pair[row]
            return Record(
                id=data.records.ids[row] or b"",
                key=data.keys[row] or b"",
                digest=data.digests[row] or None,
                name=(backend.names[stat] or b"") if stat >= 0 else b"",
                parent=backend.parent[stat] if stat >= 0 else None,
                number=backend.id.values[stat] if stat >= 0 else 0,
                size_known=row in sizes.known and sizes.values[row] >= 0,
                partner=data.records.ids[pair] if pair >= 0 else None,
            )

        parents = set(backend.parent)
        layers = data.immutable & data.layered - data.blob_only - data.loading.referred
        parented = Mask(
            len(data.records), (row for row, parent in enumerate(data.loading.parent) if parent >= 0)
        )
        every = {row: record(row) for row in data.owners}
        self.ids = set(data.records.ids)
        self.last = [
            every[row]
            for row in layers & parented
            if every[row].key == every[row].id and every[row].name and every[row].name not in parents
        ]
        """Layers that nothing stands on."""
        self.middle = [
            every[row]
            for row in data.immutable & data.layered & parented - data.blob_only
            if every[row].key == every[row].id and every[row].name in parents and row in data.loading.referred
        ]
        self.pulled = [
            every[row]
            for row in data.immutable & data.layered - data.blob_only
            if every[row].key.startswith(b"sha256:") and every[row].name in parents
        ]
        self.mounts = [every[row] for row in data.loading.mutable if row in data.owners and every[row].name]
        """Mutable records."""
        self.merges = [every[row] for row in data.immutable - data.layered]
        self.child_of = dict(zip(backend.names, backend.parent, strict=True))
        self.numbers = dict(zip(backend.names, backend.id.values, strict=True))
        self.kinds = dict(zip(backend.names, backend.kind, strict=True))
        self.blobs = dict(zip(facts.namespace.blobs.keys, facts.namespace.blobs.size.values, strict=True))
        self.leases = set(facts.namespace.leases.keys)
        self.logs = set(facts.history_namespace.blobs.keys) - set(self.blobs)
        """Blobs of the history alone."""
        self.children: dict[bytes, list[bytes]] = {name: [] for name in self.numbers}
        for name, parent in self.child_of.items():
            if parent is not None:
                self.children[parent].append(name)

    def record(self, id: bytes) -> Record:
        """Any record, of which only the id is known."""
        return Record(id, id, None)

    def snapshot(self, name: bytes) -> Record:
        """Any snapshot, as if it were a record's."""
        key = name.split(b"/", 2)[2]
        return Record(key, key, None, name, self.child_of[name], self.numbers[name])

    def lose_views(self, record: Record) -> None:
        """Those that stand on it, which nothing holds any more."""
        for name in self.children[record.name]:
            if self.kinds[name] == VIEW:
                self.lose_snapshot(self.snapshot(name))

    def above(self, record: Record) -> list[bytes]:
        """The snapshotter's names of a record's snapshot and all that stand on it."""
        names = [record.name]
        for name in names:
            names += self.children[name]
        return names

    # --- Edits

    def in_containerd(self, edits: Edits, namespace: bytes | None = None) -> None:
        edit(self.root.containerd, below((b"v1", namespace or self.namespace), edits))

    def in_snapshots(self, edits: Edits) -> None:
        edit(self.root.snapshots, below((b"v1",), edits))

    def in_record(self, id: bytes, edits: Edits) -> None:
        edit(self.root.records, below((b"_main", id), edits))

    @staticmethod
    def stored(number: int) -> bytes:
        """As the snapshotter stores a number."""
        return stored_unsigned(number)

    def directory(self, record: Record) -> Path:
        return self.root.directories / str(record.number)

    def known_snapshot(self, key: bytes, edits: Edits | None) -> None:
        """Edits what containerd knows of a snapshot; None removes it."""
        self.in_containerd(below((b"snapshots", self.snapshotter), {key: edits}))

    def lose_in_containerd(self, record: Record) -> None:
        self.known_snapshot(record.key, None)

    def lose_in_snapshotter(self, record: Record) -> None:
        edits: dict[bytes, Edits | None] = {b"snapshots": {record.name: None}}
        if record.parent is not None:
            edits[b"parents"] = {link(self.numbers[record.parent], record.number): None}
        self.in_snapshots(edits)

    def lose_snapshot(self, record: Record, *, directory: bool = True) -> None:
        """All of it, as if a collection had removed it; what stands on it stays."""
        self.lose_in_containerd(record)
        self.lose_in_snapshotter(record)
        if directory:
            shutil.rmtree(self.directory(record))

    def lease(self, id: bytes, edits: Edits | None, namespace: bytes | None = None) -> None:
        self.in_containerd({b"leases": {id: edits}}, namespace)

    def blob(self, digest: bytes, edits: Edits | None) -> None:
        self.in_containerd(below((b"content", b"blob"), {digest: edits}))

    def blob_file(self, digest: bytes) -> Path:
        algorithm, _, hex = digest.decode().partition(":")
        return self.content / "blobs" / algorithm / hex

    def drop_record(self, record: Record) -> None:
        """The record alone, and its index entries, as a daemon clears it."""
        with self.root.open() as stores:
            facts = Facts(stores).workers[0]
            assert facts.entries is not None
            stale = [
                key
                for key, id in zip(facts.entries.keys, facts.entries.record, strict=True)
                if id == record.id and key is not None
            ]
        edit(
            self.root.records,
            {b"_main": {record.id: None}, b"_index": dict.fromkeys(stale), b"_external": {record.id: None}},
        )


def link(parent: int, child: int) -> bytes:
    """The key of a pair in the snapshotter's table of children."""
    return stored_unsigned(parent) + b"\0" + stored_unsigned(child)
