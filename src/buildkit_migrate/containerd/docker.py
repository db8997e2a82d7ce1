"""The services of Docker Engine's builder, for a stopped engine (spec docker-builder-layout).

Its snapshotter is not one of containerd's: ``snapshots.db`` and the engine's layer store say which snapshots
there are. Both are only read. ``containerdmeta.db`` has leases only, and none before the first migration: the
engines that wrote v1 have no such file. There are no labels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from buildkit_migrate._native.facts import Records, Survey
from buildkit_migrate.bolt import Bucket, Database, scan
from buildkit_migrate.containerd.driver_store import DriverStore
from buildkit_migrate.containerd.layers import is_chain_id
from buildkit_migrate.containerd.offline import MetadataDatabase, OfflineContainerd, open_database
from buildkit_migrate.containerd.plain import read_state
from buildkit_migrate.containerd.services import Holding
from buildkit_migrate.errors import ContainerdStateError
from buildkit_migrate.model import Kind, PlainState, Snapshot
from buildkit_migrate.schema.columns import Index, take
from buildkit_migrate.settings import Setting

__all__ = [
    "DOCKER_NAMESPACE",
    "DOCKER_SNAPSHOTTER",
    "DockerBuilder",
    "Needed",
    "SnapshotRow",
    "needed_by",
    "snapshot_rows",
    "snapshots_named",
]

DOCKER_NAMESPACE: Final = "buildkit"
DOCKER_SNAPSHOTTER: Final = "default"
"""The builder's names in ``containerdmeta.db``. They can't be configured."""

_PARENT: Final = b"parent"
_COMMITTED: Final = b"committed"
_CHAIN_ID: Final = b"chainid"


class DockerBuilder(OfflineContainerd):
    """Docker Engine's builder, for graph drivers."""

    has_root_labels = False

    def __init__(
        self,
        metadata: MetadataDatabase,
        snapshots: Database,
        choose: Callable[[Bucket, Collection[bytes]], DriverStore],
        named: Setting | None = None,
    ) -> None:
        """``choose``: finds the storage driver when first needed, given ``snapshots.db`` and record ids.

        ``named``: the one that it will find, if that is known before.
        The caller remains responsible for closing the databases; `at` does everything.
        """
        super().__init__(metadata, snapshots, DOCKER_NAMESPACE, DOCKER_SNAPSHOTTER)
        self._choose = choose
        self._named = named
        self._driver: DriverStore | None = None

    @classmethod
    @contextlib.contextmanager
    def at(cls, directory: Path, driver: DriverStore, *, exclusive: bool = True) -> Iterator[DockerBuilder]:
        """Locks and opens the databases of the builder at ``directory``.

        ``driver``: the engine's. ``exclusive``: required for `apply`. Raises the same errors as
        `open_database`.
        """
        database, like = directory / "containerdmeta.db", directory / "metadata.db"
        with (
            contextlib.closing(MetadataDatabase(database, exclusive=exclusive, like=like)) as metadata,
            open_database(directory / "snapshots.db", exclusive=exclusive) as snapshots,
        ):
            yield cls(metadata, snapshots, lambda root, ids: driver, driver.setting)

    @property
    def backend(self) -> None:
        return None

    @property
    def identity(self) -> Mapping[str, str]:
        """With ``storage_driver``: "" as long as it was not needed, or if it makes no difference."""
        chosen = self.storage_driver
        return {**super().identity, "storage_driver": "" if chosen is None else chosen.value}

    @property
    def storage_driver(self) -> Setting | None:
        return self._named if self._driver is None else self._driver.setting

    def _store_for(self, ids: Collection[bytes]) -> DriverStore:
        """Of the storage driver that these records are of. Raises the errors of ``choose``."""
        if self._driver is None:
            self._driver = self._choose(self._snapshots.root, ids)
        return self._driver

    def survey(self, records: Callable[[], Records], finished: Container[bytes] = frozenset()) -> Survey:
        ids = list(records().ids())
        state = read_state(self.root, self._snapshots.root, self._namespace, self._snapshotter)
        return Survey(
            self._snapshotter,
            snapshots_named(self._snapshots.root, self._store_for(ids), ids),
            ((digest, blob.root_label, blob.size) for digest, blob in state.blobs.items()),
            ((id, None if id in finished else resources) for id, resources in state.leases.items()),
            self._namespace,
            state.expiring_leases,
        )

    def holdings(self, ids: Collection[bytes]) -> list[Holding]:
        return []  # there is only one place for snapshots

    def state(self, ids: Collection[bytes]) -> PlainState:
        """Of snapshots, only those named like one of ``ids``, and their ancestors."""
        self.check_is_known(len(ids))
        state = read_state(self.root, self._snapshots.root, self._namespace, self._snapshotter)
        waiting, driver = list(ids), self._store_for(ids)
        while waiting:
            id = waiting.pop()
            found = _stat(self._snapshots.root, driver, id)
            if found is not None:
                state.snapshots[id] = found
                if found.parent and found.parent not in state.snapshots:
                    waiting.append(found.parent)
        return state

    def left_behind(self, ids: Collection[bytes]) -> str:
        driver = self._store_for(ids)
        left = sum(
            row.there if driver.ids is None else row.data in driver.ids
            for row in snapshot_rows(self._snapshots.root, ids)
        )
        if not left:
            return ""
        return (
            f"{left} snapshots of records that are left out stay on disk, in {driver.directory}: "
            "no command of Docker's frees them, but for layers of images"
        )

    def check_is_known(self, records: int) -> None:
        if records and next(self._snapshots.root.items(), None) is None:
            raise ContainerdStateError(
                f"{self._snapshots.path} has no snapshots",
                hint="restore all of Docker's data root from one backup, or move metadata.db away to begin "
                "with an empty cache",
            )


@dataclass(frozen=True)
class Needed:
    """What records need of a storage driver. ``layers``: chain ids. ``data``: ids of snapshots' data."""

    layers: frozenset[bytes]
    data: frozenset[bytes]


def needed_by(root: Bucket, ids: Collection[bytes]) -> Needed:
    """What the records ``ids`` need, given the root bucket of ``snapshots.db``.

    That file also has snapshots that no record names any more, of drivers that were given up, for example.
    """
    layers: set[bytes] = set()
    data: set[bytes] = set()
    for row in snapshot_rows(root, ids):
        layers.update(id for id in (row.id, row.chain, row.parent) if id and is_chain_id(id))
        if row.there and not row.chain and not is_chain_id(row.id):
            data.add(row.data)
    return Needed(frozenset(layers), frozenset(data))


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """What ``snapshots.db`` says of a snapshot. Of a committed one, ``parent`` is that of its active one.

    ``there``: whether it has the bucket that has or could have the parent. ``data``: id of its data.
    """

    id: bytes
    chain: bytes | None
    committed: bool
    there: bool
    parent: bytes | None
    data: bytes


def snapshot_rows(root: Bucket, ids: Collection[bytes] | None = None) -> Iterator[SnapshotRow]:
    """What ``snapshots.db`` says of these snapshots, or of all that it has, given its root bucket.

    It is read in one walk, and looked up in whole columns.
    """
    names, (parents, committed, chains) = scan(root, [(_PARENT,), (_COMMITTED,), (_CHAIN_ID,)])
    index = Index(names)
    ids = [name for name in names if name] if ids is None else list(ids)
    rows = index.rows(ids)
    active = take(committed, rows)
    places = [
        place if name else row for row, name, place in zip(rows, active, index.rows(active), strict=True)
    ]
    columns = (ids, take(chains, rows), active, places, take(parents, places))
    for id, chain, name, place, parent in zip(*columns, strict=True):
        yield SnapshotRow(id, chain, bool(name), place >= 0, parent, name or id)


def snapshots_named(
    root: Bucket, driver: DriverStore, ids: list[bytes]
) -> Iterator[tuple[bytes, int, bytes, bool]]:
    """Snapshots with these names, as `Survey` takes them; see `_stat`, which is the rule in full."""
    layers = driver.layers
    for row in snapshot_rows(root, ids):
        if is_chain_id(row.id):
            if (above := layers.parent(row.id)) is not None:
                yield row.id, Kind.COMMITTED, above, False
            continue
        from_layer = layers.parent(row.chain) if row.chain else None
        if from_layer is None and (row.chain or driver.lacks(row.data)):
            continue
        if row.parent is not None:
            yield row.id, Kind.COMMITTED if row.committed else Kind.ACTIVE, row.parent, False
        elif from_layer is not None:
            yield row.id, Kind.COMMITTED, from_layer, False
        elif row.there:
            yield row.id, Kind.COMMITTED if row.committed else Kind.ACTIVE, b"", False


def _stat(root: Bucket, driver: DriverStore, id: bytes) -> Snapshot | None:
    """What the engine says of a snapshot (section 4); None if that is an error.

    None, too, if its data is known to be gone: the engine would fail when it is used.
    """
    if is_chain_id(id):
        parent = driver.layers.parent(id)
        return None if parent is None else Snapshot(Kind.COMMITTED, parent)
    own = root.bucket(id)
    chain = own.get(_CHAIN_ID) if own is not None else None
    from_layer = driver.layers.parent(chain) if chain else None
    if chain and from_layer is None:
        return None
    active = own.get(_COMMITTED) if own is not None else None
    data = root.bucket(active) if active else own
    kind = Kind.COMMITTED if active else Kind.ACTIVE
    if from_layer is None and (data is None or driver.lacks(active or id)):
        return None
    stored = data.get(_PARENT) if data is not None else None
    if stored is not None:
        return Snapshot(kind, stored)
    return Snapshot(kind, b"") if from_layer is None else Snapshot(Kind.COMMITTED, from_layer)
