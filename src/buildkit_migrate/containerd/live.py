"""The containerd services of a running daemon, over gRPC.

The survey is read from streams, one call for each service; the plan is carried out in concurrent calls, as
many at a time as were asked for. Facts: spec containerd-services, sections 3 to 9.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Container,
    Iterable,
    Iterator,
    Mapping,
)
from pathlib import Path
from typing import Final

from buildkit_migrate._native.facts import Records, Survey
from buildkit_migrate._native.plan import Plan
from buildkit_migrate.bolt import Database
from buildkit_migrate.containerd.connection import Connection
from buildkit_migrate.containerd.protocol import api_pb2 as api
from buildkit_migrate.containerd.protocol.methods import (
    ADD_RESOURCE,
    CREATE_LEASE,
    DELETE_LEASE,
    DELETE_RESOURCE,
    LIST_CONTENT,
    LIST_LEASES,
    LIST_NAMESPACES,
    LIST_RESOURCES,
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
)
from buildkit_migrate.errors import ContainerdCallError, ContainerdStateError
from buildkit_migrate.model import Before, Blob, Kind, PlainState, Resource, Snapshot
from buildkit_migrate.values.times import text_time

__all__ = ["LiveContainerd"]

_ROOT_LABEL_ONLY: Final = api.FieldMask(paths=[b"labels." + ROOT_LABEL])
"""An update with this mask sets this label, or removes it, and leaves the others alone (section 4)."""

_SNAPSHOTTERS: Final = (
    "overlayfs",
    "native",
    "fuse-overlayfs",
    "stargz",
    "soci",
    "nydus",
    "erofs",
    "btrfs",
    "zfs",
    "devmapper",
)
"""Where the snapshots of a cache may be that are not where they were looked for."""


class LiveContainerd:
    """One snapshotter of a running containerd, in the namespace of the connection."""

    def __init__(self, connection: Connection, snapshotter: str) -> None:
        self.connection = connection
        self.name = snapshotter
        self._before = Before()
        self.lease_manager = LiveLeaseManager(self)
        self.snapshotter = LiveSnapshotter(self)
        self.content_store = LiveContentStore(self)

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        snapshotter: str = "overlayfs",
        namespace: str = "buildkit",
        options: ConnectionOptions | None = None,
    ) -> Iterator[LiveContainerd]:
        """Raises as `Connection` does."""
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

    def survey(self, records: Records, finished: Container[bytes] = frozenset()) -> Survey:
        snapshots = self.connection.run(self._snapshots_if_any())
        blobs = self.connection.run(self._blobs())
        leases = self.connection.run(self.lease_manager.named_like(list(records.ids()), finished))
        self._before = Before(
            {lease.id: resources for lease, resources in leases if resources is not None},
            {name: label for name, _, _, label in snapshots if label},
            {digest: label for digest, label, _ in blobs if label},
            {lease.id: labels for lease, _ in leases if EXPIRE_LABEL in (labels := _labels(lease))},
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
            with contextlib.suppress(ContainerdCallError):  # most are not loaded
                names = await client.within(namespace).rows(
                    LIST_SNAPSHOTS,
                    api.ListSnapshotsRequest(snapshotter=snapshotter.encode()),
                    lambda response: [info.name for info in response.info],
                )
                if names:
                    found.append(Holding(namespace, snapshotter, sum(name in ids for name in names)))

        namespaces = [entry.name.decode(errors="replace") for entry in answer.namespaces]
        snapshotters = dict.fromkeys((self.name, *_SNAPSHOTTERS))
        await self.connection.concurrently(itertools.product(namespaces, snapshotters), look)
        return found

    def state(self, ids: Collection[bytes]) -> PlainState:
        snapshots = self._known_snapshots(len(ids))
        leases = self.connection.run(self.lease_manager.named_like(ids))
        labelled = [(lease, _labels(lease)) for lease, _ in leases]
        return PlainState(
            self.name,
            {name: Snapshot(Kind(kind), parent, bool(label)) for name, kind, parent, label in snapshots},
            {digest: Blob(bool(label), size) for digest, label, size in self.connection.run(self._blobs())},
            {lease.id: set(resources or ()) for lease, resources in leases},
            expiring_leases={
                lease.id: labels[EXPIRE_LABEL] for lease, labels in labelled if EXPIRE_LABEL in labels
            },
            flat_leases={lease.id for lease, labels in labelled if labels.get(FLAT_LABEL)},
            # Without one containerd says what is year 1 for Go.
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
        with contextlib.suppress(ContainerdStateError):  # there is no such snapshotter
            return await self._snapshots()
        return []

    async def _snapshots(self) -> list[tuple[bytes, int, bytes, bytes]]:
        """All with one call: name, kind, parent, value of the gc.root label ("" if it has none).

        What has gone from the list is what Stat calls not found (section 4).
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
        """All, with the value of the label, and the size, None if it is not known.

        A filter for the label would leave out what exists without.
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

    def commit(self, *, keep: bool = True, switching: Callable[[Path], None] | None = None) -> None:
        """Nothing is left to do: each call is durable when the daemon answers."""

    def put_back(self, kept: Database) -> None:
        raise ValueError("a running containerd keeps its database itself")

    def restore(self, ids: Collection[bytes], before: Before) -> None:
        self.snapshotter.restore_root_labels(before.snapshots, self.connection.run(self._snapshots()))
        self.content_store.restore_root_labels(before.blobs, self.connection.run(self._blobs()))
        self.lease_manager.restore(ids, before)


def _labels(lease: api.Lease) -> dict[bytes, bytes]:
    return {label.key: label.value for label in lease.labels}


def _value(key: bytes, labels: Iterable[api.Label]) -> bytes:
    return next((label.value for label in labels if label.key == key), b"")


class _LiveService:
    def __init__(self, containerd: LiveContainerd) -> None:
        self.containerd = containerd
        self._connection = containerd.connection
        self._client = containerd.connection.client


class LiveLeaseManager(_LiveService):
    def ensure(self, plan: Plan, finished: Callable[[bytes], None]) -> None:
        before = self.containerd.before(plan)

        async def ensure(lease: tuple[bytes, bool, frozenset[Resource]]) -> None:
            id, create, resources = lease
            if create:
                await self._make(id, {FLAT_LABEL: text_time(time.time_ns())}, resources)
            elif id in before.expiring:
                labels = {key: value for key, value in before.expiring[id].items() if key != EXPIRE_LABEL}
                await self._replace(id, labels, before.leases[id] | resources)
            else:
                await self._add(id, resources)
            finished(id)

        self._connection.for_each("writing leases", plan.counts["kept"], plan.leases(), ensure)

    async def _replace(
        self, id: bytes, labels: Mapping[bytes, bytes], resources: frozenset[Resource]
    ) -> None:
        """A lease's labels can't be changed, so it is deleted and made anew.

        Meanwhile root labels hold what records need: they go after all leases, and come back before any.
        """
        await _unless_gone(self._client.call(DELETE_LEASE, api.DeleteLeaseRequest(id=id), id))
        await self._make(id, labels, resources)

    async def _make(self, id: bytes, labels: Mapping[bytes, bytes], resources: frozenset[Resource]) -> None:
        if not await self._create(id, labels):
            # Made since the survey, or by a call whose answer was lost.
            resources -= await self._resources(id)
        await self._add(id, resources)

    async def _add(self, id: bytes, resources: frozenset[Resource]) -> None:
        for type_, name in sorted(resources):
            resource = api.Resource(id=name, type=type_.encode())
            await self._client.call(ADD_RESOURCE, api.LeaseResourceRequest(id=id, resource=resource), id)

    async def _create(self, id: bytes, labels: Mapping[bytes, bytes]) -> bool:
        """Whether it was made; False if it exists."""
        request = api.CreateLeaseRequest(
            id=id, labels=[api.Label(key=key, value=value) for key, value in labels.items()]
        )
        try:
            await self._client.call(CREATE_LEASE, request, id)
        except ContainerdCallError as error:
            if error.code == "ALREADY_EXISTS":
                return False
            raise
        return True

    async def _resources(self, id: bytes) -> frozenset[Resource]:
        answer = await self._client.call(LIST_RESOURCES, api.ListResourcesRequest(id=id), id)
        return frozenset((resource.type.decode(), resource.id) for resource in answer.resources)

    async def named_like(
        self, ids: Collection[bytes], finished: Container[bytes] = frozenset()
    ) -> list[tuple[api.Lease, frozenset[Resource] | None]]:
        """The leases of these ids that exist, with their resources.

        Those that are finished are not asked for their resources; they have None. One that would expire is
        not finished.
        """
        existing = {lease.id: lease async for lease in self._with_heads_of(ids, "")}
        found: list[tuple[api.Lease, frozenset[Resource] | None]] = []

        async def ask(id: bytes) -> None:
            is_finished = id in finished and EXPIRE_LABEL not in _labels(existing[id])
            try:
                found.append((existing[id], None if is_finished else await self._resources(id)))
            except ContainerdCallError as error:
                if error.code != "NOT_FOUND":
                    raise

        await self._connection.concurrently((id for id in ids if id in existing), ask)
        return found

    def restore(self, ids: Collection[bytes], before: Before) -> None:
        existing = self._connection.run(self.named_like(ids, frozenset(ids) - before.leases.keys()))
        leases = {lease.id: (_labels(lease), resources) for lease, resources in existing}
        for id in before.expiring.keys() - leases.keys():
            leases[id] = {}, frozenset()

        async def restore(lease: tuple[bytes, tuple[dict[bytes, bytes], frozenset[Resource] | None]]) -> None:
            id, (labels, resources) = lease
            if id in before.expiring and EXPIRE_LABEL not in labels:
                await self._replace(id, before.expiring[id], before.leases[id])
            elif id in before.leases:
                await self._take(id, (resources or frozenset()) - before.leases[id])
            else:
                await _unless_gone(self._client.call(DELETE_LEASE, api.DeleteLeaseRequest(id=id), id))

        self._connection.for_each("deleting leases", len(leases), leases.items(), restore)

    async def _take(self, id: bytes, resources: frozenset[Resource]) -> None:
        for type_, name in sorted(resources):
            resource = api.Resource(id=name, type=type_.encode())
            request = api.LeaseResourceRequest(id=id, resource=resource)
            await _unless_gone(self._client.call(DELETE_RESOURCE, request, id))

    async def _with_heads_of(self, ids: Collection[bytes], prefix: str) -> AsyncIterator[api.Lease]:
        """Leases that have the first characters of any id that begins with ``prefix``.

        The answer is one message, and the server fails if it is too long for that (section 1): then it is
        asked for in parts, each with one more character.
        """
        heads = {id[: len(prefix) + 1] for id in _texts(ids) if id.startswith(prefix)}
        if not heads:
            return
        pattern = f"^(?:{'|'.join(map(re.escape, sorted(heads)))})"
        try:
            answer = await self._client.call(
                LIST_LEASES, api.ListLeasesRequest(filters=[b"id~=" + _quoted(pattern)])
            )
        except ContainerdCallError as error:
            if error.code != "RESOURCE_EXHAUSTED" or prefix in heads:
                raise
            for head in sorted(heads):
                async for lease in self._with_heads_of(ids, head):
                    yield lease
        else:
            for lease in answer.leases:
                yield lease


class LiveSnapshotter(_LiveService):
    def remove_root_labels(self, plan: Plan) -> None:
        count = plan.counts["unlabel_snapshots"]
        labels = ((name, b"") for name in plan.unlabel_snapshots())
        self._connection.for_each("removing labels of snapshots", count, labels, self._set_root_label)

    def restore_root_labels(
        self, before: Mapping[bytes, bytes], now: Iterable[tuple[bytes, int, bytes, bytes]]
    ) -> None:
        labels = [(name, before[name]) for name, _, _, label in now if not label and name in before]
        self._connection.for_each("restoring labels of snapshots", len(labels), labels, self._set_root_label)

    async def _set_root_label(self, label: tuple[bytes, bytes]) -> None:
        name, value = label
        request = api.UpdateSnapshotRequest(
            snapshotter=self.containerd.name.encode(),
            info=api.SnapshotInfo(name=name, labels=_root_label(value)),
            update_mask=_ROOT_LABEL_ONLY,
        )
        await _unless_gone(self._client.call(UPDATE_SNAPSHOT, request, name))


class LiveContentStore(_LiveService):
    def remove_root_labels(self, plan: Plan) -> None:
        count = plan.counts["unlabel_blobs"]
        labels = ((digest, b"") for digest in plan.unlabel_blobs())
        self._connection.for_each("removing labels of blobs", count, labels, self._set_root_label)

    def restore_root_labels(
        self, before: Mapping[bytes, bytes], now: Iterable[tuple[bytes, bytes, int | None]]
    ) -> None:
        labels = [(digest, before[digest]) for digest, label, _ in now if not label and digest in before]
        self._connection.for_each("restoring labels of blobs", len(labels), labels, self._set_root_label)

    async def _set_root_label(self, label: tuple[bytes, bytes]) -> None:
        digest, value = label
        request = api.UpdateContentRequest(
            info=api.BlobInfo(digest=digest, labels=_root_label(value)), update_mask=_ROOT_LABEL_ONLY
        )
        await _unless_gone(self._client.call(UPDATE_CONTENT, request, digest))


def _root_label(value: bytes) -> list[api.Label]:
    """What to send with the mask: without a value the label is removed."""
    return [api.Label(key=ROOT_LABEL, value=value)] if value else []


async def _unless_gone(call: Awaitable[object]) -> None:
    try:
        await call
    except ContainerdCallError as error:
        if error.code != "NOT_FOUND":
            raise


def _texts(ids: Iterable[bytes]) -> Iterator[str]:
    """Ids that are no UTF-8 are left out: their records can't be migrated."""
    for id in ids:
        with contextlib.suppress(UnicodeDecodeError):
            yield id.decode()


def _quoted(pattern: str) -> bytes:
    """A string of the filter language; it has Go's escapes, and those of JSON are among them (section 7)."""
    return json.dumps(pattern, ensure_ascii=False).encode()
