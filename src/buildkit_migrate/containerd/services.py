"""What a migration asks of containerd: one survey, and the plan carried out in bulk.

The three services stand for those that the reference's function takes; all belong to one containerd and one
namespace. A service may gather its part of the work until ``commit``.
"""

from __future__ import annotations

from typing import Protocol

from buildkit_migrate._native.plan import Plan, Survey
from buildkit_migrate.migration.model import PlainState

__all__ = ["Containerd", "ContentStore", "LeaseManager", "Service", "Snapshotter"]


class Containerd(Protocol):
    def survey(self, *, expected: bool) -> Survey:
        """What is there now.

        ``expected``: there are records. A containerd that knows nothing of their snapshotter is the wrong one
        then; raises ContainerdStateError.
        """

    def state(self, *, expected: bool) -> PlainState:
        """What is there now, as plain Python objects, read without anything that makes a `Survey`.

        All snapshots of the snapshotter that have a kind, named by their keys (not the backend's names); all
        blobs and all leases of the namespace, with every resource of a lease, of other snapshotters, too.
        A label counts as there if its key is, whatever its value. ``expected``: as for `survey`.
        Raises CorruptDatabaseError, too.
        """

    def commit(self) -> None:
        """Makes all that was asked of the services durable."""


class Service(Protocol):
    @property
    def containerd(self) -> Containerd: ...


class LeaseManager(Service, Protocol):
    def ensure(self, plan: Plan) -> None:
        """Creates the leases that are missing, and adds the resources that they lack."""


class Snapshotter(Service, Protocol):
    def remove_root_labels(self, plan: Plan) -> None:
        """Removes the gc.root label of the plan's snapshots; one that has gone is fine."""


class ContentStore(Service, Protocol):
    def remove_root_labels(self, plan: Plan) -> None:
        """Removes the gc.root label of the plan's blobs; one that has gone is fine."""
