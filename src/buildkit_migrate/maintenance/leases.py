"""Which leases nobody will ever release, and what they cost (spec buildkit-v2-stores, section 4).

for owners in owners_of(facts):
    for orphan in orphans_of_records(owners, unowned(owners, owners.namespace)):
        print(orphan.leases[0].id, orphan.bytes)
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection as Set
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from buildkit_migrate.bolt import Bucket
from buildkit_migrate.maintenance.collection import Collection, Held, expiring_leases
from buildkit_migrate.maintenance.disk import usage
from buildkit_migrate.maintenance.facts import Facts, WorkerFacts
from buildkit_migrate.maintenance.record_data import referred, there
from buildkit_migrate.schema.columns import Mask, equal_to, split_last, starting_with
from buildkit_migrate.schema.containerd import Leases, Namespace, namespaces
from buildkit_migrate.workspace.layout import CONTAINERD_WORKER, DOCKER_BUILDER

__all__ = [
    "VARIANTS",
    "Kind",
    "Lease",
    "Orphan",
    "Owners",
    "is_of_record",
    "of_builds",
    "orphans_of_builds",
    "orphans_of_records",
    "owners_of",
    "unowned",
    "weighed",
]

VARIANTS: Final = b"-variants"
_RECORD: Final = re.compile(rb"[0-9a-z]{25}|sha256:[0-9a-f]{64}")
_SHORT: Final = re.compile(rb"[0-9]+-[A-Za-z0-9_-]{4}")
_MIGRATION: Final = re.compile(rb"history_migration_[0-9a-z]{25}")
_BUILD: Final = b"ref_"


class Kind(enum.Enum):
    """Kinds of leases without an owner, told by their form."""

    RECORD = "of a record"
    VARIANTS = "of the variants of a record's blob"
    PASSING = "goes by itself, and is none that a daemon leaves"
    OTHER = "of somebody else"


@dataclass(frozen=True)
class Lease:
    """One that has no owner. ``snapshots`` and ``blobs``: how many of them only it and its like keep; what
    several of them keep counts for the first one. ``bytes``: what these take on disk.
    """

    id: bytes
    bytes: int
    snapshots: int
    blobs: int


@dataclass(frozen=True)
class Owners:
    """Who may own the leases of a namespace: all workers of a root that use it.

    ``reset``: a record store of theirs has no records.
    """

    file: Path
    root: Bucket
    namespace: Namespace
    workers: tuple[WorkerFacts, ...]

    @property
    def reset(self) -> WorkerFacts | None:
        return next((it for it in self.workers if it.records is not None and not len(it.records)), None)

    @property
    def now(self) -> int:
        """When the root was looked at, in nanoseconds since 1970."""
        return self.workers[0].now

    @property
    def history(self) -> Namespace | None:
        """Where builds have their leases since v0.12."""
        return self.workers[0].history_namespace

    @property
    def shared(self) -> bool:
        """Whether others, of whom nothing is known here, may have leases there."""
        return any(it.stores.kind == CONTAINERD_WORKER for it in self.workers)

    @property
    def of_docker(self) -> bool:
        """Whether leases hold layers of Docker's, which go when Docker itself deletes the lease."""
        return any(it.stores.kind == DOCKER_BUILDER for it in self.workers)


@dataclass(frozen=True)
class Orphan:
    """Leases of a record or build that is gone; a record has up to two. ``rule``: which tells of them."""

    rule: str
    owners: Owners
    namespace: Namespace
    leases: tuple[Lease, ...]

    @property
    def bytes(self) -> int:
        """What the next collection frees once they are deleted."""
        return sum(lease.bytes for lease in self.leases)


def owners_of(facts: Facts) -> Iterator[Owners]:
    """The namespaces that workers use, of stores that are open."""
    groups: dict[tuple[Path, bytes], list[WorkerFacts]] = {}
    for worker in facts.workers:
        if worker.stores.containerd.path is not None and worker.namespace is not None:
            groups.setdefault((worker.stores.containerd.path, worker.stores.namespace), []).append(worker)
    for (path, _), workers in groups.items():
        namespace, root = workers[0].namespace, workers[0].stores.containerd.root
        if namespace is not None and root is not None:
            yield Owners(path, root, namespace, tuple(workers))


def unowned(owners: Owners, namespace: Namespace) -> dict[Kind, list[int]]:
    """Rows of the leases that no record owns, but for those of builds and those that daemons leave.

    ``namespace``: that of the owners, or of their history.
    """
    leases = namespace.leases
    history = namespace is not owners.namespace
    passing = expiring_leases(leases)
    if not history:  # a start looks for temporary ones in the main namespace alone
        passing |= leases.marks.temporary
    flat = leases.marks.flat
    found: dict[Kind, list[int]] = {kind: [] for kind in Kind}
    for row in range(len(leases)) if history else _without_record(owners, leases):
        id = leases.keys[row] or b""
        kind = _kind_of(id, flat=row in flat, passing=row in passing, history=history)
        if kind is Kind.OTHER and _SHORT.fullmatch(id) and not leases.lists_anything(row):
            continue  # made to have containerd collect, by a daemon that was killed then
        if kind is not None:
            found[kind].append(row)
    return found


def orphans_of_records(owners: Owners, rows: Mapping[Kind, list[int]]) -> Iterator[Orphan]:
    """Those among the unowned leases of the namespace (``rows``); of a record both of its leases at once."""
    orphaned = sorted(rows[Kind.RECORD] + rows[Kind.VARIANTS])
    by_id = {lease.id: lease for lease in weighed(owners, owners.namespace, orphaned)}
    for id in tuple(by_id):
        if id in by_id:
            leases = [by_id.pop(id)]
            if second := by_id.pop(id + VARIANTS, None):
                leases.append(second)
            rule = "C33" if id.endswith(VARIANTS) else "C32"
            yield Orphan(rule, owners, owners.namespace, tuple(leases))


def orphans_of_builds(facts: Facts) -> Iterator[Orphan]:
    """Leases of builds that are in no history, and those in a namespace where nobody looks for them."""
    known: set[bytes] = set()
    for history in facts.histories.values():
        known.update(build.key for build in history.builds)
        known.update(history.undecodable)
    settled = any(history.version == b"2" for history in facts.histories.values())
    for owners in owners_of(facts):
        namespaces = [("C35", owners.namespace, frozenset() if settled else known)]
        if owners.history is not None:
            namespaces.append(("C34", owners.history, known))
        for rule, namespace, of_others in namespaces:
            for lease in weighed(owners, namespace, of_builds(namespace, of_others)):
                yield Orphan(rule, owners, namespace, (lease,))


def of_builds(namespace: Namespace, known: Set[bytes]) -> list[int]:
    """Rows of the leases of builds that are not ``known``, except leases that end by themselves."""
    leases = namespace.leases
    keys, ends = leases.keys, expiring_leases(leases)
    return [
        row
        for row in starting_with(keys, _BUILD)
        if row not in ends and (keys[row] or b"").removeprefix(_BUILD) not in known
    ]


def is_of_record(leases: Leases, id: bytes) -> bool:
    """Whether there is a lease of this id in the form of a record's."""
    row = leases.index.row(id)
    marks = leases.marks
    passing = row in marks.temporary or row in expiring_leases(leases)
    return row >= 0 and _kind_of(id, flat=row in marks.flat, passing=passing, history=False) is Kind.RECORD


def weighed(owners: Owners, namespace: Namespace, rows: list[int]) -> list[Lease]:
    """These leases with their costs."""
    if not rows:
        return []
    keys = namespace.leases.keys
    held = Collection(namespace, owners.now).held_only_by(Mask(len(keys), rows))
    costs = _Costs(owners, namespace)
    return [
        Lease(
            keys[row] or b"",
            costs.bytes_of(held[row]),
            sum(map(len, held[row].snapshots.values())),
            len(held[row].blobs),
        )
        for row in rows
    ]


def _without_record(owners: Owners, leases: Leases) -> Mask:
    """Leases that are not a record's own."""
    before, after = split_last(leases.keys, b"-")
    second = equal_to(after, VARIANTS.removeprefix(b"-"))
    owned = Mask(len(leases))
    for worker in owners.workers:
        if worker.records is not None:
            rows = leases.index.rows(worker.records.ids)
            owned |= referred(rows, len(leases))
            owned |= second & there(worker.records.index.rows(before))
    return ~owned


def _kind_of(id: bytes, *, flat: bool, passing: bool, history: bool) -> Kind | None:
    """The kind of a lease; None for those that daemons leave."""
    if passing:
        usual = _SHORT.fullmatch(id) or _MIGRATION.fullmatch(id) or id.endswith(b"-view")
        return None if usual or (flat and _RECORD.fullmatch(id)) else Kind.PASSING
    if id.startswith(_BUILD):
        return None
    if not history and flat and _RECORD.fullmatch(id):
        return Kind.RECORD
    if not history and id.endswith(VARIANTS) and _RECORD.fullmatch(id.removesuffix(VARIANTS)):
        return Kind.VARIANTS
    return Kind.OTHER


class _Costs:
    """What deleting objects of a namespace frees on disk."""

    def __init__(self, owners: Owners, namespace: Namespace) -> None:
        self._namespace = namespace
        self._workers: Mapping[bytes, WorkerFacts] = {it.stores.snapshotter: it for it in owners.workers}
        self._others = [
            Namespace(owners.root, name) for name in namespaces(owners.root) if name != namespace.name
        ]

    def bytes_of(self, held: Held) -> int:
        blobs = self._namespace.blobs
        return sum(
            blobs.size.values[row]
            for row in held.blobs
            if not any(it.blobs.index.row(blobs.keys[row] or b"") >= 0 for it in self._others)
        ) + sum(self._snapshot(name, row) for name, rows in held.snapshots.items() for row in rows)

    def _snapshot(self, snapshotter: bytes, row: int) -> int:
        worker = self._workers.get(snapshotter)
        if worker is None or worker.backend is None or worker.snapshots is None:
            return 0
        backend = worker.backend
        stat = backend.index.row(worker.snapshots.name[row] or b"")
        if stat < 0:
            return 0
        if stat in backend.size.known:
            return backend.size.values[stat]
        if worker.directories is None or stat not in backend.id.known:
            return 0
        measured = usage(worker.directories.data(backend.id.values[stat]))
        return measured.bytes if measured is not None else 0
