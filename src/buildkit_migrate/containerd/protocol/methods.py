"""The gRPC methods: path, request and response types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from google.protobuf.message import Message

from buildkit_migrate.containerd.protocol import api_pb2 as api

__all__ = [
    "ADD_RESOURCE",
    "CREATE_LEASE",
    "DELETE_LEASE",
    "DELETE_RESOURCE",
    "LIST_CONTENT",
    "LIST_LEASES",
    "LIST_NAMESPACES",
    "LIST_RESOURCES",
    "LIST_SNAPSHOTS",
    "UPDATE_CONTENT",
    "UPDATE_SNAPSHOT",
    "VERSION",
    "Method",
]

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


@dataclass(frozen=True)
class Method(Generic[Request, Response]):
    """``path``: as sent by gRPC, ``/<service>/<name>``."""

    path: str
    request: type[Request]
    response: type[Response]

    @property
    def name(self) -> str:
        """Service and name, such as ``Leases.Create``."""
        service, name = self.path.rsplit("/", 1)
        return f"{service.rpartition('.')[2]}.{name}"


_LEASES: Final = "/containerd.services.leases.v1.Leases/"
_SNAPSHOTS: Final = "/containerd.services.snapshots.v1.Snapshots/"
_CONTENT: Final = "/containerd.services.content.v1.Content/"
_NAMESPACES: Final = "/containerd.services.namespaces.v1.Namespaces/"
_VERSION: Final = "/containerd.services.version.v1.Version/"

CREATE_LEASE: Final = Method(_LEASES + "Create", api.CreateLeaseRequest, api.CreateLeaseResponse)
DELETE_LEASE: Final = Method(_LEASES + "Delete", api.DeleteLeaseRequest, api.Empty)
LIST_LEASES: Final = Method(_LEASES + "List", api.ListLeasesRequest, api.ListLeasesResponse)
ADD_RESOURCE: Final = Method(_LEASES + "AddResource", api.LeaseResourceRequest, api.Empty)
DELETE_RESOURCE: Final = Method(_LEASES + "DeleteResource", api.LeaseResourceRequest, api.Empty)
LIST_RESOURCES: Final = Method(_LEASES + "ListResources", api.ListResourcesRequest, api.ListResourcesResponse)

LIST_SNAPSHOTS: Final = Method(_SNAPSHOTS + "List", api.ListSnapshotsRequest, api.ListSnapshotsResponse)
"""Streams its responses, like the list of content."""
UPDATE_SNAPSHOT: Final = Method(_SNAPSHOTS + "Update", api.UpdateSnapshotRequest, api.UpdateSnapshotResponse)

LIST_CONTENT: Final = Method(_CONTENT + "List", api.ListContentRequest, api.ListContentResponse)
UPDATE_CONTENT: Final = Method(_CONTENT + "Update", api.UpdateContentRequest, api.UpdateContentResponse)

LIST_NAMESPACES: Final = Method(_NAMESPACES + "List", api.ListNamespacesRequest, api.ListNamespacesResponse)
VERSION: Final = Method(_VERSION + "Version", api.Empty, api.VersionResponse)
