"""The leases of a running containerd (spec containerd-services, sections 3 and 7)."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Collection, Container, Iterable, Iterator, Mapping

from buildkit_migrate._native.plan import Plan
from buildkit_migrate.containerd.client import unless_gone
from buildkit_migrate.containerd.connection import Connection
from buildkit_migrate.containerd.protocol import api_pb2 as api
from buildkit_migrate.containerd.protocol.methods import (
    ADD_RESOURCE,
    CREATE_LEASE,
    DELETE_LEASE,
    DELETE_RESOURCE,
    LIST_LEASES,
    LIST_RESOURCES,
)
from buildkit_migrate.containerd.services import EXPIRE_LABEL, FLAT_LABEL
from buildkit_migrate.errors import ContainerdCallError
from buildkit_migrate.model import Before, Resource
from buildkit_migrate.values.times import text_time

__all__ = ["LiveLeases", "labels_of"]


class LiveLeases:
    """Reads and writes leases in the namespace of the connection, as many at a time as its options allow."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._client = connection.client

    def write(self, plan: Plan, before: Before, on_finished: Callable[[bytes], None]) -> None:
        """Carries out the plan for leases. ``before``: the state that it replaces.

        ``on_finished`` is called with the id of each lease as soon as it has all its resources.
        """

        async def write(lease: tuple[bytes, bool, frozenset[Resource]]) -> None:
            id, create, resources = lease
            if create:
                await self._make(id, {FLAT_LABEL: text_time(time.time_ns())}, resources)
            elif id in before.expiring:
                labels = {key: value for key, value in before.expiring[id].items() if key != EXPIRE_LABEL}
                await self._replace(id, labels, before.leases[id] | resources)
            else:
                await self.add(id, resources)
            on_finished(id)

        self._connection.for_each("writing leases", plan.counts["kept"], plan.leases(), write)

    async def _replace(
        self, id: bytes, labels: Mapping[bytes, bytes], resources: frozenset[Resource]
    ) -> None:
        """Deletes and recreates a lease, because its labels can't be changed.

        Meanwhile root labels protect what records need: they are removed after all leases are written, and
        restored before any are changed back.
        """
        await unless_gone(self._client.call(DELETE_LEASE, api.DeleteLeaseRequest(id=id), id))
        await self._make(id, labels, resources)

    async def _make(self, id: bytes, labels: Mapping[bytes, bytes], resources: frozenset[Resource]) -> None:
        if not await self._create(id, labels):
            # Created since the survey, or by a call whose answer was lost.
            resources -= await self._resources(id)
        await self.add(id, resources)

    async def add(self, id: bytes, resources: frozenset[Resource]) -> None:
        """Adds resources to a lease."""
        for type_, name in sorted(resources):
            resource = api.Resource(id=name, type=type_.encode())
            await self._client.call(ADD_RESOURCE, api.LeaseResourceRequest(id=id, resource=resource), id)

    async def _create(self, id: bytes, labels: Mapping[bytes, bytes]) -> bool:
        """Creates a lease; returns False if it exists already."""
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
        """The existing leases with these ids, and their resources.

        Finished leases are not asked for their resources, and have None. A lease that would expire is not
        finished.
        """
        existing = {lease.id: lease async for lease in self._with_heads_of(ids, "")}
        found: list[tuple[api.Lease, frozenset[Resource] | None]] = []

        async def ask(id: bytes) -> None:
            is_finished = id in finished and EXPIRE_LABEL not in labels_of(existing[id])
            try:
                found.append((existing[id], None if is_finished else await self._resources(id)))
            except ContainerdCallError as error:
                if error.code != "NOT_FOUND":
                    raise

        asked = [id for id in ids if id in existing]
        await self._connection.concurrently(
            self._connection.counting("reading leases", len(asked), asked), ask
        )
        return found

    def restore(self, ids: Collection[bytes], before: Before) -> None:
        """Restores the leases with these ids to their previous state."""
        existing = self._connection.run(self.named_like(ids, frozenset(ids) - before.leases.keys()))
        leases = {lease.id: (labels_of(lease), resources) for lease, resources in existing}
        for id in before.expiring.keys() - leases.keys():
            leases[id] = {}, frozenset()

        async def restore(lease: tuple[bytes, tuple[dict[bytes, bytes], frozenset[Resource] | None]]) -> None:
            id, (labels, resources) = lease
            if id in before.expiring and EXPIRE_LABEL not in labels:
                await self._replace(id, before.expiring[id], before.leases[id])
            elif id in before.leases:
                await self._take(id, (resources or frozenset()) - before.leases[id])
            else:
                await unless_gone(self._client.call(DELETE_LEASE, api.DeleteLeaseRequest(id=id), id))

        self._connection.for_each("deleting leases", len(leases), leases.items(), restore)

    async def _take(self, id: bytes, resources: frozenset[Resource]) -> None:
        for type_, name in sorted(resources):
            resource = api.Resource(id=name, type=type_.encode())
            request = api.LeaseResourceRequest(id=id, resource=resource)
            await unless_gone(self._client.call(DELETE_RESOURCE, request, id))

    async def _with_heads_of(self, ids: Collection[bytes], prefix: str) -> AsyncIterator[api.Lease]:
        """Leases that share their first characters with any id that begins with ``prefix``.

        One character beyond the prefix is compared. The server answers in one message, and fails if that
        becomes too long (section 1). Then the leases are requested in parts, each with one more character.
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


def labels_of(lease: api.Lease) -> dict[bytes, bytes]:
    return {label.key: label.value for label in lease.labels}


def _texts(ids: Iterable[bytes]) -> Iterator[str]:
    """Omits ids that are not UTF-8, as their records can't be migrated."""
    for id in ids:
        with contextlib.suppress(UnicodeDecodeError):
            yield id.decode()


def _quoted(pattern: str) -> bytes:
    """A string in the filter language, which has Go's escapes; JSON's are a subset (section 7)."""
    return json.dumps(pattern, ensure_ascii=False).encode()
