"""Where the bytes of a state directory are: one table whose rows add up to what ``du -s`` says."""

from __future__ import annotations

import contextlib
import enum
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from buildkit_migrate._native.bolt import count_check
from buildkit_migrate.errors import CorruptDatabaseError, StorageError
from buildkit_migrate.files.errors import storage_errors
from buildkit_migrate.maintenance.collection import Collection, Objects
from buildkit_migrate.maintenance.disk import number_of
from buildkit_migrate.maintenance.facts import Facts, WorkerFacts
from buildkit_migrate.maintenance.leases import Kind, Owners, of_builds, owners_of, unowned
from buildkit_migrate.maintenance.loading import Loading
from buildkit_migrate.progress import Progress, Stage
from buildkit_migrate.schema.columns import Mask
from buildkit_migrate.schema.containerd import VARIANT, Namespace, namespaces
from buildkit_migrate.schema.graph import Graph
from buildkit_migrate.text import named_text, printable
from buildkit_migrate.workspace.stores import DOCKER_BUILDER, Store

__all__ = ["DatabaseBytes", "Share", "StateBytes", "state_bytes"]

_BLOCK: Final = 512  # bytes

_KEPT: Final = re.compile(r"\.before-(v2|compact|repair)(?![a-z])")
"""In names of files and directories that are kept beside what replaced them."""


class Share(enum.Enum):
    """What bytes are used for, in the order of the table."""

    SNAPSHOTS = "snapshots of records"
    BLOBS = "blobs of records"
    IMAGES = "manifests and other blobs in use"
    HISTORY = "logs and attestations of builds"
    LIVE = "databases, in use"
    FREE = "databases, free pages"
    PASSING = "freed by the next start and collection"
    LEAKED = "leaked: held by leases that nobody owns"
    ORPHANS = "directories and files that no database names"
    BACKUPS = ".bak files of stores that were moved aside"
    KEPT = "originals kept by migrate, compact and repair"
    OTHER_WORKERS = "directories that are no workers in use"
    UNKNOWN = "not known, as a database can't be read"
    REST = "all else"


class DatabaseBytes(NamedTuple):
    """``free``: about what a compaction gives back; None for a damaged database."""

    path: Path
    size: int
    free: int | None


@dataclass
class StateBytes:
    """Bytes that the files below ``root`` take. Files with several names count once, links are not followed.

    ``unread``: what could not be looked into; it is missing from the table.
    """

    root: Path
    shares: dict[Share, int] = field(default_factory=lambda: dict.fromkeys(Share, 0))
    databases: list[DatabaseBytes] = field(default_factory=list)
    unread: list[StorageError] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.shares.values())

    def as_dict(self) -> dict[str, Any]:
        return {
            "shares": [
                {"name": share.name.lower(), "meaning": share.value, "bytes": size}
                for share, size in self.shares.items()
            ],
            "total": self.total,
            "databases": [
                {**named_text("path", one.path), "bytes": one.size, "free": one.free}
                for one in self.databases
            ],
            "unread": [printable(error.message) for error in self.unread],
        }


Chooser = Callable[[str], Share]
"""What a name in a certain directory is."""


def state_bytes(facts: Facts, loadings: dict[WorkerFacts, Loading], progress: Progress) -> StateBytes:
    """Walks all of the root. ``loadings``: of the workers whose records are known."""
    found = StateBytes(facts.stores.root.path)
    # Absolute paths are all spelled alike.
    choosers = {str(path.absolute()): choose for path, choose in _choosers(facts, loadings)}
    stores = [*facts.stores.all, *(worker.stores.old for worker in facts.workers)]
    databases = {
        str(store.path.absolute()): store for store in stores if store is not None and store.path is not None
    }
    shown = _Shown(found, facts, progress)
    seen: set[tuple[int, int]] = set()
    homes = _homes(facts, databases)
    waiting = [(str(found.root.absolute()), Share.REST)]
    with storage_errors(found.root):
        found.shares[Share.REST] += found.root.stat().st_blocks * _BLOCK
    while waiting:
        place, share = waiting.pop()
        choose = choosers.get(place)
        for entry, stats in _entries(place, found):
            shown.count(entry.path)
            if not stat.S_ISDIR(stats.st_mode) and stats.st_nlink > 1:
                if (stats.st_dev, stats.st_ino) in seen:
                    continue
                seen.add((stats.st_dev, stats.st_ino))
            size = stats.st_blocks * _BLOCK
            if entry.path in databases:
                _add_database(found, databases[entry.path], size)
                continue
            own = choose(entry.name) if choose is not None else share
            if place in homes and _KEPT.search(entry.name):
                own = Share.KEPT
            found.shares[own] += size
            if stat.S_ISDIR(stats.st_mode):
                waiting.append((entry.path, own))
    found.databases.sort()
    return found


def _homes(facts: Facts, databases: Iterable[str]) -> frozenset[str]:
    """Directories in which originals are kept: never one of somebody's data."""
    states = (facts.stores.root.state, *(worker.stores.path for worker in facts.workers))
    return frozenset((*(str(path.absolute()) for path in states), *map(os.path.dirname, databases)))


class _Shown:
    """Progress of the walk, measured by snapshot directories, which contain most of the files."""

    def __init__(self, found: StateBytes, facts: Facts, progress: Progress) -> None:
        self._numbers: set[str] = set()
        for worker in facts.workers:
            if worker.directories is not None:
                top = worker.directories.path.absolute()
                self._numbers |= {str(top / name) for name in worker.directories.names}
        self._stage = Stage(f"walking {found.root}", len(self._numbers), "snapshots")
        progress(self._stage)

    def count(self, path: str) -> None:
        if path in self._numbers:
            self._numbers.discard(path)
            self._stage.advance()


def _entries(place: str, found: StateBytes) -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
    """Files that vanish meanwhile are left out."""
    try:
        with storage_errors(Path(place)), os.scandir(place) as entries:
            for entry in entries:
                try:
                    yield entry, entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
    except StorageError as error:
        if not error.missing:
            found.unread.append(error)


def _add_database(found: StateBytes, store: Store, size: int) -> None:
    """A file may have pages that were never written, and so takes less than it is long."""
    assert store.path is not None
    used = None
    if store.database is not None and store.database.size:
        findings, _, pages, _ = count_check(store.database.reader)
        if not findings:
            used = min(pages * store.database.reader.page_size, size)
    found.shares[Share.LIVE] += size if used is None else used
    found.shares[Share.FREE] += 0 if used is None else size - used
    found.databases.append(DatabaseBytes(store.path, size, None if used is None else size - used))


# --- What names mean


def _choosers(facts: Facts, loadings: dict[WorkerFacts, Loading]) -> Iterator[tuple[Path, Chooser]]:
    """For directories whose entries are used for different things."""
    root = facts.stores.root
    workers = {worker.stores.path.name for worker in facts.workers}
    strangers = {one.path.name for one in root.skipped}

    def in_state(name: str) -> Share:
        if name.endswith(".bak"):
            return Share.BACKUPS
        stranger = name in strangers or (name.startswith(("runc-", "containerd-")) and name not in workers)
        return Share.OTHER_WORKERS if stranger else Share.REST

    def in_worker(name: str) -> Share:
        return Share.BACKUPS if name.endswith(".bak") else Share.REST

    yield root.state, in_state
    lost = _leaked(facts)
    for worker in facts.workers:
        if worker.stores.path != root.state:
            yield worker.stores.path, in_worker
        loading = loadings.get(worker)
        try:
            snapshots, blobs = _of_snapshots(worker, loading, lost), _of_blobs(worker, loading, lost)
        except CorruptDatabaseError:
            snapshots = blobs = _unknown
        if worker.stores.directories is not None:
            yield worker.stores.directories, snapshots
        if worker.stores.content is not None:
            yield worker.stores.content / "blobs" / "sha256", blobs


def _unknown(name: str) -> Share:
    return Share.UNKNOWN


@dataclass(frozen=True)
class _Held:
    """What the next start and collection leave in a namespace; what only leases without an owner hold."""

    kept: Objects
    leaked_blobs: Mask
    leaked_snapshots: dict[bytes, Mask]


_Lost = dict[tuple[Path, bytes], _Held]


def _leaked(facts: Facts) -> _Lost:
    """Leaves out namespaces that can't be read."""
    found: _Lost = {}
    builds = _builds(facts)
    for owners in owners_of(facts):
        history = owners.workers[0].history_namespace
        for namespace in (owners.namespace, *([history] if history is not None else [])):
            with contextlib.suppress(CorruptDatabaseError):
                found[owners.file, namespace.name] = _held(owners, namespace, builds)
    return found


def _builds(facts: Facts) -> frozenset[bytes] | None:
    """Builds in the history; None if that can't be read."""
    try:
        records = [build for history in facts.histories.values() for build in history.builds]
    except CorruptDatabaseError:
        return None
    return (
        frozenset(name for build in records for name in (build.ref, build.key)) if facts.histories else None
    )


def _held(owners: Owners, namespace: Namespace, builds: frozenset[bytes] | None) -> _Held:
    rows = unowned(owners, namespace)
    orphans = [] if owners.reset is not None else [*rows[Kind.RECORD], *rows[Kind.VARIANTS]]
    if builds is not None:
        orphans += of_builds(namespace, builds)
    collection = Collection(namespace, owners.workers[0].now)
    blobs = Mask(len(namespace.blobs))
    snapshots = {name: Mask(len(table)) for name, table in collection.snapshots.items()}
    for held in collection.held_only_by(Mask(len(namespace.leases), orphans)).values():
        blobs |= Mask(blobs.size, held.blobs)
        for name, of_name in held.snapshots.items():
            snapshots[name] |= Mask(snapshots[name].size, of_name)
    passing = owners.workers[0].passing if namespace is owners.namespace else None
    return _Held(collection.kept(passing), blobs, snapshots)


def _of_snapshots(worker: WorkerFacts, loading: Loading | None, lost: _Lost) -> Chooser:
    """Uses of snapshot directories, by number."""
    if worker.backend is None or worker.snapshots is None or worker.stores.kind == DOCKER_BUILDER:
        return _unknown
    backend, snapshots = worker.backend, worker.snapshots
    file = worker.stores.containerd.path
    held = lost.get((file, worker.stores.namespace)) if file is not None else None
    if held is None:
        return _unknown
    of_records = Mask(len(snapshots))
    if loading is not None:
        used = loading.alive | loading.waiting
        of_records = Mask(
            len(snapshots), (loading.snapshot[row] for row in used if loading.snapshot[row] >= 0)
        )
        graph = Graph(len(snapshots))
        graph.add(None, snapshots.index.rows(snapshots.parent))
        of_records = graph.reached(of_records)
    kept = held.kept.snapshots.get(worker.stores.snapshotter)
    leaked = held.leaked_snapshots.get(worker.stores.snapshotter)
    shares = dict.fromkeys(backend.id.values, Share.PASSING)
    own = []
    for row, stat_row in enumerate(backend.index.rows(snapshots.name)):
        if stat_row < 0:
            continue
        own.append(stat_row)
        if leaked is not None and row in leaked:
            share = Share.LEAKED
        elif row in of_records:
            share = Share.SNAPSHOTS
        else:
            share = Share.REST if kept is not None and row in kept else Share.PASSING
        shares[backend.id.values[stat_row]] = share
    for stat_row in ~worker.unnamed - Mask(len(backend), own):  # of other namespaces
        shares[backend.id.values[stat_row]] = Share.REST

    def choose(name: str) -> Share:
        number = number_of(name)
        return Share.ORPHANS if number is None else shares.get(number, Share.ORPHANS)

    return choose


def _of_blobs(worker: WorkerFacts, loading: Loading | None, lost: _Lost) -> Chooser:
    """Uses of blob files, by digest."""
    root, file = worker.stores.containerd.root, worker.stores.containerd.path
    if root is None or file is None or worker.namespace is None:
        return _unknown
    if (file, worker.stores.namespace) not in lost:
        return _unknown
    shares: dict[bytes, Share] = {}
    for name in namespaces(root):
        namespace = Namespace(root, name)
        held = lost.get((file, name))
        history = name.endswith(b"_history")
        for row, digest in enumerate(namespace.blobs.keys):
            share = Share.HISTORY if history else Share.IMAGES
            if held is not None and row in held.leaked_blobs:
                share = Share.LEAKED
            elif held is not None and row not in held.kept.blobs:
                share = Share.PASSING
            _raise(shares, digest or b"", share)
        _raise_all(shares, namespace.ingests.expected, Share.IMAGES)
    if loading is not None:
        used = loading.alive | loading.waiting
        digests = loading.records.text(b"cache.blob")
        own = [digests[row] for row in used]
        _raise_all(shares, (digest for digest in own if digest in shares), Share.BLOBS)
        _raise_all(shares, _variants(worker.namespace, own), Share.BLOBS)
    return lambda name: shares.get(f"sha256:{name}".encode(errors="surrogateescape"), Share.ORPHANS)


_RANK: Final = (Share.PASSING, Share.LEAKED, Share.IMAGES, Share.HISTORY, Share.BLOBS)
"""Of several uses of a blob, the last one counts."""


def _raise(shares: dict[bytes, Share], digest: bytes, share: Share) -> None:
    if digest not in shares or _RANK.index(share) > _RANK.index(shares[digest]):
        shares[digest] = share


def _raise_all(shares: dict[bytes, Share], digests: Iterable[bytes | None], share: Share) -> None:
    for digest in digests:
        if digest:
            _raise(shares, digest, share)


def _variants(namespace: Namespace, digests: list[bytes | None]) -> Iterator[bytes]:
    """Other compressions of blobs."""
    blobs = namespace.blobs
    links = blobs.below(b"labels", prefix=VARIANT)
    graph = Graph(len(blobs))
    graph.add(links.rows, blobs.index.rows(links.values))
    start = Mask(len(blobs), (row for row in blobs.index.rows(digests) if row >= 0))
    return (blobs.keys[row] or b"" for row in graph.reached(start))
