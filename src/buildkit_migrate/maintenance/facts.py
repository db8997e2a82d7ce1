"""What the rules and `du` look at: views over all stores of a root that could be opened."""

from __future__ import annotations

import time
from array import array
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

from buildkit_migrate.bolt import Bucket, scan
from buildkit_migrate.containerd.docker import SnapshotRow, needed_by, snapshot_rows, snapshots_named
from buildkit_migrate.containerd.driver_store import DriverStore
from buildkit_migrate.maintenance.collection import expired_leases
from buildkit_migrate.maintenance.disk import Content, SnapshotDirectories
from buildkit_migrate.maintenance.leaving import Leaving
from buildkit_migrate.maintenance.loading import REFERENCES, Found, Loading
from buildkit_migrate.maintenance.odd import odd_records
from buildkit_migrate.maintenance.record_data import RecordData, referred, there
from buildkit_migrate.model import Kind, Snapshot
from buildkit_migrate.schema.columns import ABSENT, Mask, take
from buildkit_migrate.schema.containerd import Namespace, Snapshots, namespaces
from buildkit_migrate.schema.history import History
from buildkit_migrate.schema.records import External, IndexEntries, Records
from buildkit_migrate.schema.snapshots import Backend
from buildkit_migrate.schema.solver import SolverCache
from buildkit_migrate.values.keys import MAIN_BUCKET
from buildkit_migrate.workspace.docker import data_root, storage_driver
from buildkit_migrate.workspace.stores import DOCKER_BUILDER, Store, Stores, WorkerStores

__all__ = ["Facts", "WorkerFacts"]


class WorkerFacts:
    """Views of one worker. A view is None if its store is missing, damaged or unknown.

    ``unsound``: stores with damaged pages, which must not be read.
    """

    def __init__(self, stores: WorkerStores, unsound: frozenset[Store] = frozenset()) -> None:
        self.stores = stores
        self._unsound = unsound
        self.now = time.time_ns()
        """When the root was looked at, in nanoseconds since 1970; leases expire."""

    def read(self) -> None:
        """Reads what most rules look at; two databases at once, as each has a reader of its own."""
        with ThreadPoolExecutor(1) as beside:
            others = beside.submit(lambda: (self.records, self.backend))
            if self.namespace is not None:
                _ = self.namespace.leases, self.namespace.blobs, self.snapshots
            others.result()

    def forget(self, *views: str) -> None:
        """Gives back the memory of views, which are read anew if they are asked for again."""
        for view in views:
            self.__dict__.pop(view, None)

    @cached_property
    def records(self) -> Records | None:
        root = self.root_of(self.stores.records)
        return None if root is None else Records(root)

    @cached_property
    def entries(self) -> IndexEntries | None:
        root = self.root_of(self.stores.records)
        return None if root is None else IndexEntries(root)

    @cached_property
    def external(self) -> External | None:
        root = self.root_of(self.stores.records)
        return None if root is None else External(root)

    @cached_property
    def namespace(self) -> Namespace | None:
        """The worker's namespace in containerd's metadata database."""
        root = self.root_of(self.stores.containerd)
        return None if root is None else Namespace(root, self.stores.namespace, self.stores.snapshotter)

    @cached_property
    def history_namespace(self) -> Namespace | None:
        """Where the leases and blobs of builds are since v0.12."""
        root = self.root_of(self.stores.containerd)
        return None if root is None else Namespace(root, self.stores.namespace + b"_history")

    @cached_property
    def snapshots(self) -> Snapshots | None:
        """What containerd knows of the worker's snapshotter. Docker's builder has none there."""
        if self.namespace is None or self.stores.kind == DOCKER_BUILDER:
            return None
        return self.namespace.snapshots(self.stores.snapshotter)

    @cached_property
    def backend(self) -> Backend | None:
        """The snapshotter's own database. None for Docker's builder, which has another layout."""
        root = self.root_of(self.stores.snapshots)
        return None if root is None or self.stores.kind == DOCKER_BUILDER else Backend(root)

    @cached_property
    def driver(self) -> DriverStore:
        """Docker's storage driver. Raises ContainerdStateError if nothing tells which."""
        root = self.root_of(self.stores.snapshots)
        assert root is not None
        data, given = data_root(self.stores.path), self.stores.storage_driver
        return DriverStore(data, storage_driver(data, given, needed_by(root, self._record_names)))

    @property
    def _record_names(self) -> list[bytes]:
        """Ids of the records, or of those of v1."""
        stores = (self.stores.records, self.stores.old)
        root = next(filter(None, (self.root_of(it) for it in stores if it is not None)), None)
        main = root.bucket(MAIN_BUCKET) if root is not None else None
        return [name for name in scan(main, [])[0] if name] if main is not None else []

    @cached_property
    def docker_snapshots(self) -> dict[bytes, Snapshot]:
        """The snapshots of Docker's builder that records name. Raises StorageError."""
        if self.data is None:
            return {}
        named = {key for column in (self.data.keys, self.data.records.ids) for key in column if key}
        return self._docker_snapshots(named)

    @cached_property
    def docker_parents(self) -> dict[bytes, Snapshot]:
        """Those that they stand on, named by records or not."""
        known = self.docker_snapshots
        named = {it.parent for it in known.values() if it.parent}
        return {key: it for key, it in known.items() if key in named} | self._docker_snapshots(
            named - known.keys()
        )

    def _docker_snapshots(self, names: set[bytes]) -> dict[bytes, Snapshot]:
        root = self.root_of(self.stores.snapshots)
        if root is None or not names:
            return {}
        found = snapshots_named(root, self.driver, sorted(names))
        return {key: Snapshot(Kind(kind), parent) for key, kind, parent, _ in found}

    @cached_property
    def docker_rows(self) -> dict[bytes, SnapshotRow]:
        """All that ``snapshots.db`` has."""
        root = self.root_of(self.stores.snapshots)
        return {} if root is None else {row.id: row for row in snapshot_rows(root)}

    @cached_property
    def stat(self) -> array[int] | None:
        """For each snapshot that containerd knows its row in the snapshotter's database. None if unknown."""
        if self.snapshots is None or self.backend is None:
            return None
        return self.backend.index.rows(self.snapshots.name)

    @cached_property
    def listed_snapshots(self) -> array[int]:
        """Rows of the snapshots that leases list, for each entry of those; ABSENT if none are known."""
        if self.namespace is None:
            return array("i")
        listed = self.namespace.leases.snapshots(self.stores.snapshotter)
        if self.snapshots is None:
            return array("i", [ABSENT]) * len(listed.keys)
        return self.snapshots.index.rows(listed.keys)

    @cached_property
    def listed_blobs(self) -> array[int]:
        """Rows of the blobs that leases list, for each entry of those."""
        if self.namespace is None:
            return array("i")
        return self.namespace.blobs.index.rows(self.namespace.leases.content.keys)

    @cached_property
    def loading(self) -> Loading | None:
        """What a daemon makes of the records when it starts. None if any of the three stores is missing."""
        if self.records is None or self.namespace is None or self.snapshots is None or self.backend is None:
            return None
        loading = Loading(self.records, Found.of(self.snapshots, self.stat), self.namespace.blobs.index)
        self.records.forget(REFERENCES)
        return loading

    @cached_property
    def references(self) -> Loading | None:
        """What records refer to: `loading`, or the same as if all snapshots and blobs existed."""
        if self.records is None:
            return None
        return self.loading or Loading(self.records, None, None)

    @cached_property
    def odd(self) -> Mask:
        """Records whose values or id do not say what they are. Nothing else about them is reported."""
        return odd_records(self.records) if self.records is not None else Mask(0)

    @cached_property
    def data(self) -> RecordData | None:
        """Where the data of records is. Without the snapshotter's store, all that containerd lists exists."""
        if self.records is None or self.namespace is None:
            return None
        blobs = self.namespace.blobs.index
        loading = self.loading
        if loading is None:
            found = Found.of(self.snapshots, None) if self.snapshots is not None else None
            loading = Loading(self.records, found, blobs)
        return RecordData(loading, blobs, self.snapshots, self.backend, self.stat)

    @cached_property
    def passing(self) -> Mask:
        """Leases that the next start or collection deletes because they are temporary or expired."""
        if self.namespace is None:
            return Mask(0)
        leases = self.namespace.leases
        return leases.marks.temporary | expired_leases(leases, self.now)

    @cached_property
    def leaving(self) -> Leaving | None:
        """What is removed without anybody's doing. None if the records or containerd's store are missing."""
        if self.data is None or self.namespace is None:
            return None
        spaces = [it for it in (self.namespace, self.history_namespace) if it is not None]
        return Leaving(self.data, spaces, self.stores.snapshotter, self.passing, self.now)

    @cached_property
    def leaving_stats(self) -> Mask:
        """Snapshots of the snapshotter's that are removed so."""
        if self.backend is None or self.snapshots is None or self.leaving is None:
            return Mask(len(self.backend or ()))
        names = take(self.snapshots.name, list(self.leaving.snapshots))
        return referred(self.backend.index.rows(names), len(self.backend))

    @cached_property
    def unbacked(self) -> Mask:
        """Snapshots in containerd's database that the snapshotter does not have."""
        return ~there(self.stat) if self.stat is not None else Mask(0)

    @cached_property
    def ours(self) -> Mask:
        """Snapshots of the snapshotter's that the worker's namespace names; a containerd may have others."""
        if self.stat is None or self.backend is None:
            return Mask(0)
        return referred(self.stat, len(self.backend))

    @cached_property
    def unnamed(self) -> Mask:
        """Snapshots in the snapshotter's database that no namespace of containerd names."""
        root = self.root_of(self.stores.containerd)
        if root is None or self.backend is None:
            return Mask(0)
        named = self.ours
        for name in namespaces(root):
            if name != self.stores.namespace:
                names = Namespace(root, name).snapshots(self.stores.snapshotter).name
                named = named | referred(self.backend.index.rows(names), len(self.backend))
        return ~named

    @cached_property
    def directories(self) -> SnapshotDirectories | None:
        """The snapshotter's directories; None if unknown."""
        path = self.stores.directories
        return None if path is None else SnapshotDirectories(path, plain=self.stores.snapshotter == b"native")

    @cached_property
    def databases_only(self) -> bool:
        """Whether this is a copy without any directory of a snapshot and any file of a blob."""
        if self.namespace is None or self.directories is None or self.content is None:
            return False
        some = len(self.backend or ()) + len(self.namespace.blobs)
        return some > 0 and not self.directories.names and not len(self.content.digests)

    @property
    def file_count(self) -> int:
        """Files of all committed snapshots, as far as the snapshotter counted them and they are there."""
        if self.backend is None or self.directories is None or not self.directories.names:
            return 0
        return sum(self.backend.inodes.values)

    @property
    def blob_bytes(self) -> int:
        """Of all files of blobs."""
        return sum(self.content.sizes) if self.content is not None else 0

    @cached_property
    def content(self) -> Content | None:
        """Files of blobs; None if unknown."""
        return None if self.stores.content is None else Content(self.stores.content)

    @cached_property
    def whole_blobs(self) -> Mask:
        """Blobs of the namespace whose files have the sizes that containerd noted; none if unknown."""
        if self.namespace is None or self.content is None:
            return Mask(0 if self.namespace is None else len(self.namespace.blobs))
        return self.content.whole(self.namespace.blobs.keys, self.namespace.blobs.size)

    def root_of(self, store: Store) -> Bucket | None:
        """The root bucket; None if the store is not open or not sound."""
        return None if store in self._unsound else store.root


class Facts:
    """Views of one root. ``unsound``: stores with damaged pages."""

    def __init__(self, stores: Stores, unsound: frozenset[Store] = frozenset()) -> None:
        self.stores = stores
        self.unsound = unsound
        self.workers = tuple(WorkerFacts(worker, unsound) for worker in stores.workers)

    @property
    def all_workers(self) -> bool:
        """Whether these are all workers of the state directory, which share the history and its leases."""
        return self.stores.root.is_whole

    @cached_property
    def solver(self) -> SolverCache | None:
        store = self.stores.cache
        return None if store.root is None or store in self.unsound else SolverCache(store.root)

    def forget_solver(self) -> None:
        """Gives back the memory of `solver`, which is read anew if it is asked for again."""
        self.__dict__.pop("solver", None)

    @cached_property
    def histories(self) -> dict[Path, History]:
        """Build histories by path, without missing and damaged ones."""
        return {
            store.path: History(store.root)
            for store in self.stores.histories
            if store.path is not None and store.root is not None and store not in self.unsound
        }
