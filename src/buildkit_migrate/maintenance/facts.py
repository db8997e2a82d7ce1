"""What the rules and `du` look at: views over all stores of a root that could be opened."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from buildkit_migrate.bolt import Bucket
from buildkit_migrate.maintenance.loading import Found, Loading
from buildkit_migrate.schema.containerd import Namespace, Snapshots
from buildkit_migrate.schema.history import History
from buildkit_migrate.schema.records import External, IndexEntries, Records
from buildkit_migrate.schema.snapshots import Backend
from buildkit_migrate.schema.solver import SolverCache
from buildkit_migrate.workspace.stores import DOCKER_BUILDER, Store, Stores, WorkerStores

__all__ = ["Facts", "WorkerFacts"]


class WorkerFacts:
    """Of one worker. A view is None where its store is not there, not sound or not known.

    ``unsound``: stores with damaged pages; nobody looks into them.
    """

    def __init__(self, stores: WorkerStores, unsound: frozenset[Store] = frozenset()) -> None:
        self.stores = stores
        self._unsound = unsound

    @cached_property
    def records(self) -> Records | None:
        root = self._root(self.stores.records)
        return None if root is None else Records(root)

    @cached_property
    def entries(self) -> IndexEntries | None:
        root = self._root(self.stores.records)
        return None if root is None else IndexEntries(root)

    @cached_property
    def external(self) -> External | None:
        root = self._root(self.stores.records)
        return None if root is None else External(root)

    @cached_property
    def namespace(self) -> Namespace | None:
        """The worker's namespace in containerd's metadata database."""
        root = self._root(self.stores.containerd)
        return None if root is None else Namespace(root, self.stores.namespace)

    @cached_property
    def history_namespace(self) -> Namespace | None:
        """Where the leases and blobs of builds are since v0.12."""
        root = self._root(self.stores.containerd)
        return None if root is None else Namespace(root, self.stores.namespace + b"_history")

    @cached_property
    def snapshots(self) -> Snapshots | None:
        """What containerd knows of the worker's snapshotter. Docker's builder has none there."""
        if self.namespace is None or self.stores.kind == DOCKER_BUILDER:
            return None
        return self.namespace.snapshots(self.stores.snapshotter)

    @cached_property
    def backend(self) -> Backend | None:
        """What the snapshotter itself knows; not of Docker's builder, where that is another layout."""
        root = self._root(self.stores.snapshots)
        return None if root is None or self.stores.kind == DOCKER_BUILDER else Backend(root)

    @cached_property
    def loading(self) -> Loading | None:
        """What a daemon makes of the records when it starts. None without any of the three stores."""
        if self.records is None or self.namespace is None or self.snapshots is None or self.backend is None:
            return None
        return Loading(self.records, Found.of(self.snapshots, self.backend), self.namespace.blobs.index)

    def _root(self, store: Store) -> Bucket | None:
        return None if store in self._unsound else store.root


class Facts:
    """Of one root. ``unsound``: stores with damaged pages."""

    def __init__(self, stores: Stores, unsound: frozenset[Store] = frozenset()) -> None:
        self.stores = stores
        self.unsound = unsound
        self.workers = tuple(WorkerFacts(worker, unsound) for worker in stores.workers)

    @cached_property
    def solver(self) -> SolverCache | None:
        store = self.stores.cache
        return None if store.root is None or store in self.unsound else SolverCache(store.root)

    @cached_property
    def histories(self) -> dict[Path, History]:
        """By path; without those that are not there or not sound."""
        return {
            store.path: History(store.root)
            for store in self.stores.histories
            if store.path is not None and store.root is not None and store not in self.unsound
        }
