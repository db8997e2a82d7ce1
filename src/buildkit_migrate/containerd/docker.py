"""The services of Docker Engine's builder, for a stopped engine (spec docker-builder-layout).

Its snapshotter is not one of containerd's: ``snapshots.db`` and the engine's layer store say which snapshots
there are. Both are only read. ``containerdmeta.db`` has leases only, and none before the first migration: the
engines that wrote v1 have no such file. There are no labels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Container, Iterator
from pathlib import Path
from typing import Final

from buildkit_migrate._native.facts import Records, Survey
from buildkit_migrate.bolt import Bucket, Database, scan
from buildkit_migrate.containerd.layers import LayerStore, is_chain_id
from buildkit_migrate.containerd.offline import MetadataDatabase, OfflineContainerd, open_database
from buildkit_migrate.containerd.plain import read_state
from buildkit_migrate.containerd.services import Holding
from buildkit_migrate.errors import ContainerdStateError
from buildkit_migrate.model import Kind, PlainState, Snapshot
from buildkit_migrate.schema.columns import Index, starting_with, take

__all__ = ["DOCKER_NAMESPACE", "DOCKER_SNAPSHOTTER", "DockerBuilder", "chain_ids", "snapshots_named"]

DOCKER_NAMESPACE: Final = "buildkit"
DOCKER_SNAPSHOTTER: Final = "default"
"""The builder's names in ``containerdmeta.db``. They can't be configured."""

_PARENT: Final = b"parent"
_COMMITTED: Final = b"committed"
_CHAIN_ID: Final = b"chainid"
_DIGEST: Final = b"sha256:"


class DockerBuilder(OfflineContainerd):
    """Docker Engine's builder, for graph drivers."""

    has_root_labels = False

    def __init__(self, metadata: MetadataDatabase, snapshots: Database, layers: LayerStore) -> None:
        """The caller remains responsible for closing the databases; `at` does everything."""
        super().__init__(metadata, snapshots, DOCKER_NAMESPACE, DOCKER_SNAPSHOTTER)
        self._layers = layers

    @classmethod
    @contextlib.contextmanager
    def at(cls, directory: Path, layerdb: Path | None, *, exclusive: bool = True) -> Iterator[DockerBuilder]:
        """Locks and opens the databases of the builder at ``directory``.

        ``layerdb``: directory of the storage driver's layers. ``exclusive``: required for `apply`. Raises the
        same errors as `open_database`.
        """
        database, like = directory / "containerdmeta.db", directory / "metadata.db"
        with (
            contextlib.closing(MetadataDatabase(database, exclusive=exclusive, like=like)) as metadata,
            open_database(directory / "snapshots.db", exclusive=exclusive) as snapshots,
        ):
            yield cls(metadata, snapshots, LayerStore(layerdb))

    @property
    def backend(self) -> None:
        return None

    def survey(self, records: Records, finished: Container[bytes] = frozenset()) -> Survey:
        state = read_state(self.root, self._snapshots.root, self._namespace, self._snapshotter)
        return Survey(
            self._snapshotter,
            snapshots_named(self._snapshots.root, self._layers, list(records.ids())),
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
        waiting = list(ids)
        while waiting:
            id = waiting.pop()
            found = _stat(self._snapshots.root, self._layers, id)
            if found is not None:
                state.snapshots[id] = found
                if found.parent and found.parent not in state.snapshots:
                    waiting.append(found.parent)
        return state

    def check_is_known(self, records: int) -> None:
        if records and next(self._snapshots.root.items(), None) is None:
            raise ContainerdStateError(
                f"{self._snapshots.path} has no snapshots",
                hint="restore all of Docker's data root from one backup, or move metadata.db away to begin "
                "with an empty cache",
            )


def chain_ids(snapshots: Bucket) -> set[bytes]:
    """Chain ids of layers that ``snapshots.db`` mentions, given its root bucket."""
    names, (chains,) = scan(snapshots, [(_CHAIN_ID,)])
    mentioned = [take(column, list(starting_with(column, _DIGEST))) for column in (names, chains)]
    return {text for column in mentioned for text in column if text is not None and is_chain_id(text)}


def snapshots_named(
    root: Bucket, layers: LayerStore, ids: list[bytes]
) -> Iterator[tuple[bytes, int, bytes, bool]]:
    """Snapshots with these names, as `Survey` takes them; see `_stat`, which is the rule in full.

    ``snapshots.db`` is read in one walk, and looked up in whole columns.
    """
    names, (parents, committed, chains) = scan(root, [(_PARENT,), (_COMMITTED,), (_CHAIN_ID,)])
    index = Index(names)
    rows = index.rows(ids)
    active = take(committed, rows)
    places = [
        place if name else row for row, name, place in zip(rows, active, index.rows(active), strict=True)
    ]
    columns = (ids, take(chains, rows), active, places, take(parents, places))
    for id, chain, name, place, parent in zip(*columns, strict=True):
        if is_chain_id(id):
            if (above := layers.parent(id)) is not None:
                yield id, Kind.COMMITTED, above, False
            continue
        from_layer = layers.parent(chain) if chain else None
        if chain and from_layer is None:
            continue
        if parent is not None:
            yield id, Kind.COMMITTED if name else Kind.ACTIVE, parent, False
        elif from_layer is not None:
            yield id, Kind.COMMITTED, from_layer, False
        elif place >= 0:
            yield id, Kind.COMMITTED if name else Kind.ACTIVE, b"", False


def _stat(root: Bucket, layers: LayerStore, id: bytes) -> Snapshot | None:
    """What the engine says of a snapshot (section 4); None if that is an error."""
    if is_chain_id(id):
        parent = layers.parent(id)
        return None if parent is None else Snapshot(Kind.COMMITTED, parent)
    own = root.bucket(id)
    chain = own.get(_CHAIN_ID) if own is not None else None
    from_layer = layers.parent(chain) if chain else None
    if chain and from_layer is None:
        return None
    active = own.get(_COMMITTED) if own is not None else None
    data = root.bucket(active) if active else own
    kind = Kind.COMMITTED if active else Kind.ACTIVE
    if data is None and from_layer is None:
        return None
    stored = data.get(_PARENT) if data is not None else None
    if stored is not None:
        return Snapshot(kind, stored)
    return Snapshot(kind, b"") if from_layer is None else Snapshot(Kind.COMMITTED, from_layer)
