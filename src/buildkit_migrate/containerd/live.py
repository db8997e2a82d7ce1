"""The containerd services of a running daemon, over gRPC.

The survey is read from streams, with one call per service. The plan is carried out by concurrent calls, as
many at a time as the options allow. Spec containerd-services, sections 3 to 9.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from buildkit_migrate._native.facts import Records, Survey
from buildkit_migrate._native.plan import Plan
from buildkit_migrate.bolt import Database
from buildkit_migrate.choices import KNOWN_SNAPSHOTTERS
from buildkit_migrate.containerd.client import unless_gone
from buildkit_migrate.containerd.connection import Connection
from buildkit_migrate.containerd.live_leases import LiveLeases, labels_of
from buildkit_migrate.containerd.protocol import api_pb2 as api
from buildkit_migrate.containerd.protocol.methods import (
    LIST_CONTENT,
    LIST_NAMESPACES,
    LIST_SNAPSHOTS,
    UPDATE_CONTENT,
    UPDATE_SNAPSHOT,
)
from buildkit_migrate.containerd.services import (
    EXPIRE_LABEL,
    FLAT_LABEL,
    ROOT_LABEL,
    ConnectionOptions,
    Holding,
    Services,
)
from buildkit_migrate.errors import ContainerdCallError, ContainerdStateError
from buildkit_migrate.model import Before, Blob, Kind, PlainState, Snapshot

__all__ = ["LiveContainerd"]

_ROOT_LABEL_ONLY: Final = api.FieldMask(paths=[b"labels." + ROOT_LABEL])
"""An update with this mask sets or removes this label, and leaves others alone (section 4)."""


class LiveContainerd(Services):
    """One snapshotter of a running containerd, in the namespace of the connection."""

    def __init__(self, connection: Connection, snapshotter: str) -> None:
        self.connection = connection
        self.name = snapshotter
        self.leases = LiveLeases(connection)
        self._before = Before()

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        snapshotter: str = "overlayfs",
        namespace: str = "buildkit",
        options: ConnectionOptions | None = None,
    ) -> Iterator[LiveContainerd]:
        """Connects. Raises the same errors as `Connection`."""
        with contextlib.closing(Connection(options or ConnectionOptions(), namespace)) as connection:
            yield cls(connection, snapshotter)

    @property
    def identity(self) -> Mapping[str, str]:
        return {
            "mode": "live",
            "namespace": self.connection.client.namespace,
            "snapshotter": self.name,
            "place": self.connection.client.address,
        }

    @property
    def database(self) -> None:
        return None

    @property
    def kept(self) -> None:
        return None

    @property
    def root(self) -> None:
        return None

    def survey(self, records: Callable[[], Records], finished: Container[bytes] = frozenset()) -> Survey:
        snapshots = self.connection.run(self._snapshots_if_any())
        blobs = self.connection.run(self._blobs())
        leases = self.connection.run(self.leases.named_like(list(records().ids()), finished))
        self._before = Before(
            {lease.id: resources for lease, resources in leases if resources is not None},
            {name: label for name, _, _, label in snapshots if label},
            {digest: label for digest, label, _ in blobs if label},
            {lease.id: labels for lease, _ in leases if EXPIRE_LABEL in (labels := labels_of(lease))},
        )
        return Survey(
            self.name,
            ((name, kind, parent, bool(label)) for name, kind, parent, label in snapshots),
            ((digest, bool(label), size) for digest, label, size in blobs),
            ((lease.id, resources) for lease, resources in leases),
            self.connection.client.namespace,
            self._before.expiring,
        )

    def before(self, plan: Plan) -> Before:
        return Before(
            self._before.leases,
            {name: self._before.snapshots[name] for name in plan.unlabel_snapshots()},
            {digest: self._before.blobs[digest] for digest in plan.unlabel_blobs()},
            {id: self._before.expiring[id] for id in plan.kept_leases()},
        )

    def holdings(self, ids: Collection[bytes]) -> list[Holding]:
        return self.connection.run(self._holdings(ids))

    async def _holdings(self, ids: Collection[bytes]) -> list[Holding]:
        client = self.connection.client
        answer = await client.call(LIST_NAMESPACES, api.ListNamespacesRequest())
        found = []

        async def look(place: tuple[str, str]) -> None:
            namespace, snapshotter = place
            with contextlib.suppress(ContainerdCallError):  # most snapshotters are not loaded
                names = await client.within(namespace).rows(
                    LIST_SNAPSHOTS,
                    api.ListSnapshotsRequest(snapshotter=snapshotter.encode()),
                    lambda response: [info.name for info in response.info],
                )
                if names:
                    found.append(Holding(namespace, snapshotter, sum(name in ids for name in names)))

        namespaces = [entry.name.decode(errors="replace") for entry in answer.namespaces]
        snapshotters = sorted({self.name, *KNOWN_SNAPSHOTTERS})
        await self.connection.concurrently(itertools.product(namespaces, snapshotters), look)
        return found

    def state(self, ids: Collection[bytes]) -> PlainState:
        snapshots = self._known_snapshots(len(ids))
        leases = self.connection.run(self.leases.named_like(ids))
        labelled = [(lease, labels_of(lease)) for lease, _ in leases]
        return PlainState(
            self.name,
            {name: Snapshot(Kind(kind), parent, bool(label)) for name, kind, parent, label in snapshots},
            {digest: Blob(bool(label), size) for digest, label, size in self.connection.run(self._blobs())},
            {lease.id: set(resources or ()) for lease, resources in leases},
            expiring_leases={
                lease.id: labels[EXPIRE_LABEL] for lease, labels in labelled if EXPIRE_LABEL in labels
            },
            flat_leases={lease.id for lease, labels in labelled if labels.get(FLAT_LABEL)},
            # If it is missing, containerd reports Go's year 1.
            undated_leases={lease.id for lease, _ in leases if lease.created_at.seconds <= 0},
        )

    def check_is_known(self, records: int) -> None:
        self._known_snapshots(records)

    def _known_snapshots(self, records: int) -> list[tuple[bytes, int, bytes, bytes]]:
        snapshots = self.connection.run(self._snapshots())
        if records and not snapshots:
            self.connection.run(self._refuse_unknown())
        return snapshots

    async def _snapshots_if_any(self) -> list[tuple[bytes, int, bytes, bytes]]:
        with contextlib.suppress(ContainerdStateError):  # the snapshotter does not exist
            return await self._snapshots()
        return []

    async def _snapshots(self) -> list[tuple[bytes, int, bytes, bytes]]:
        """All snapshots in one call: name, kind, parent, value of the gc.root label ("" if it has none).

        A snapshot missing from the list is one that Stat reports as not found (section 4).
        """
        request = api.ListSnapshotsRequest(snapshotter=self.name.encode())
        try:
            return await self.connection.client.rows(
                LIST_SNAPSHOTS,
                request,
                lambda response: [
                    (info.name, info.kind, info.parent, _value(ROOT_LABEL, info.labels))
                    for info in response.info
                ],
            )
        except ContainerdCallError as error:
            if "snapshotter not loaded" in error.detail:
                raise ContainerdStateError(
                    f"containerd at {self.connection.client.address} has no snapshotter {self.name}",
                    hint="give the one that BuildKit used with --snapshotter",
                ) from error
            raise

    async def _blobs(self) -> list[tuple[bytes, bytes, int | None]]:
        """All blobs with the value of the label, and the size (None if unknown).

        A filter for the label would omit blobs that exist without it.
        """
        return await self.connection.client.rows(
            LIST_CONTENT,
            api.ListContentRequest(),
            lambda response: [
                (info.digest, _value(ROOT_LABEL, info.labels), info.size if info.size > 0 else None)
                for info in response.info
            ],
        )

    async def _refuse_unknown(self) -> None:
        client = self.connection.client
        answer = await client.call(LIST_NAMESPACES, api.ListNamespacesRequest())
        names = sorted(entry.name.decode(errors="backslashreplace") for entry in answer.namespaces)
        missing = (
            f"no snapshots of {self.name} in namespace {client.namespace}"
            if client.namespace in names
            else f"no namespace {client.namespace}, only: {', '.join(names) or 'none'}"
        )
        raise ContainerdStateError(
            f"containerd at {client.address} has {missing}",
            hint="give the containerd (--address), namespace and snapshotter that BuildKit used",
        )

    def apply(
        self,
        plan: Plan,
        on_finished: Callable[[bytes], None],
        *,
        keep: bool = True,
        switching: Callable[[Path], None] | None = None,
    ) -> None:
        """Each call is durable when the daemon answers.

        The daemon keeps its own database, so ``keep`` and ``switching`` are not used.
        """
        self.leases.write(plan, self.before(plan), on_finished)
        # Only now, as from here on the leases protect what the labels did.
        counts, for_each = plan.counts, self.connection.for_each
        snapshots = ((name, b"") for name in plan.unlabel_snapshots())
        for_each("removing labels of snapshots", counts["unlabel_snapshots"], snapshots, self._label_snapshot)
        blobs = ((digest, b"") for digest in plan.unlabel_blobs())
        for_each("removing labels of blobs", counts["unlabel_blobs"], blobs, self._label_blob)

    def restore(self, ids: Collection[bytes], before: Before) -> None:
        run, for_each = self.connection.run, self.connection.for_each
        snapshots = [
            (name, before.snapshots[name])
            for name, _, _, label in run(self._snapshots())
            if not label and name in before.snapshots
        ]
        for_each("restoring labels of snapshots", len(snapshots), snapshots, self._label_snapshot)
        blobs = [
            (digest, before.blobs[digest])
            for digest, label, _ in run(self._blobs())
            if not label and digest in before.blobs
        ]
        for_each("restoring labels of blobs", len(blobs), blobs, self._label_blob)
        self.leases.restore(ids, before)

    def put_back(self, kept: Database | None) -> None:
        raise ValueError("a running containerd keeps its database itself")

    async def _label_snapshot(self, label: tuple[bytes, bytes]) -> None:
        """Sets the gc.root label of the snapshot with this name, or removes it if the value is empty."""
        name, value = label
        request = api.UpdateSnapshotRequest(
            snapshotter=self.name.encode(),
            info=api.SnapshotInfo(name=name, labels=_root_label(value)),
            update_mask=_ROOT_LABEL_ONLY,
        )
        await unless_gone(self.connection.client.call(UPDATE_SNAPSHOT, request, name))

    async def _label_blob(self, label: tuple[bytes, bytes]) -> None:
        """Like `_label_snapshot`, for the blob with this digest."""
        digest, value = label
        request = api.UpdateContentRequest(
            info=api.BlobInfo(digest=digest, labels=_root_label(value)), update_mask=_ROOT_LABEL_ONLY
        )
        await unless_gone(self.connection.client.call(UPDATE_CONTENT, request, digest))


def _value(key: bytes, labels: Iterable[api.Label]) -> bytes:
    return next((label.value for label in labels if label.key == key), b"")


def _root_label(value: bytes) -> list[api.Label]:
    """Labels to send with the mask; without a value the label is removed."""
    return [api.Label(key=ROOT_LABEL, value=value)] if value else []
