"""What a migration asks of containerd: one survey, and the plan applied in bulk.

The three services are those that upstream's function takes. Each only tells its containerd, which does
all the work: leases and labels are safe in one order only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from buildkit_migrate.errors import EventLoopError

if TYPE_CHECKING:
    from buildkit_migrate._native.facts import Records, Survey
    from buildkit_migrate._native.plan import Plan
    from buildkit_migrate.bolt import Bucket, Database
    from buildkit_migrate.model import Before, PlainState

__all__ = [
    "EXPIRE_LABEL",
    "FLAT_LABEL",
    "LONGEST_TIMEOUT",
    "ROOT_LABEL",
    "ConnectionOptions",
    "Containerd",
    "Holding",
    "Service",
    "Services",
    "refuse_event_loop",
]


ROOT_LABEL: Final = b"containerd.io/gc.root"
FLAT_LABEL: Final = b"containerd.io/gc.flat"
EXPIRE_LABEL: Final = b"containerd.io/gc.expire"
"""Labels of the garbage collector (spec containerd-services, section 8)."""

LONGEST_TIMEOUT: Final = 1e6
"""Seconds, more than a week; what the timers of the system and of gRPC can still count."""


@dataclass(frozen=True)
class ConnectionOptions:
    """How to talk to a running containerd.

    ``address``: path of its unix socket. ``timeout``: seconds for one call. ``connect_timeout``: seconds that
    it may be away, at the beginning or while it is restarted. ``concurrency``: calls in flight.
    ``origin``: who says that this is the address, for messages. Raises TypeError and ValueError for what none
    of them can be.
    """

    address: str = "/run/containerd/containerd.sock"
    timeout: float = 60.0
    connect_timeout: float = 10.0
    concurrency: int = 16
    origin: str = "argument"

    def __post_init__(self) -> None:
        if not self.address:
            raise ValueError("containerd's address is empty: is a variable not set?")
        if not isinstance(self.address, str):
            raise TypeError(f"containerd's address must be a str, not {type(self.address).__name__}")
        for name in ("timeout", "connect_timeout"):
            seconds = getattr(self, name)
            if not isinstance(seconds, int | float) or not 0 < seconds < LONGEST_TIMEOUT:
                raise ValueError(f"{name} must be a positive number of seconds, not {seconds!r}")
        # With no call in flight nothing would be written, and all of it taken for done.
        if not isinstance(self.concurrency, int) or self.concurrency < 1:
            raise ValueError(f"concurrency must be a positive number of calls, not {self.concurrency!r}")


@dataclass(frozen=True)
class Holding:
    """A namespace and snapshotter of a containerd.

    ``named_like``: how many of its snapshots are named like one of the records in question.
    """

    namespace: str
    snapshotter: str
    named_like: int


def refuse_event_loop() -> None:
    """Raises EventLoopError inside of a running event loop."""
    import asyncio  # not for those who work on files

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise EventLoopError("a running containerd can't be called inside of a running event loop")


class Containerd(Protocol):
    @property
    def identity(self) -> Mapping[str, str]:
        """What is worked on: ``mode`` (live or offline), ``namespace``, ``snapshotter``; and ``place``, for
        people.
        """

    @property
    def database(self) -> Path | None:
        """The file that `apply` replaces, keeping the old one at `kept`; None if it works otherwise."""

    @property
    def kept(self) -> Path | None: ...

    @property
    def root(self) -> Bucket | None:
        """Root bucket of `database` as it is now, None if there is no such file."""

    def survey(self, records: Records, finished: Container[bytes] = frozenset()) -> Survey:
        """What is there now; of leases, at least those named like a record.

        ``finished``: leases known to have all their resources if they are there; they need not be asked for.
        A containerd that knows nothing of the namespace or the snapshotter has no snapshots.
        """

    def holdings(self, ids: Collection[bytes]) -> list[Holding]:
        """All namespaces and snapshotters that have snapshots, and what they have for the records ``ids``."""

    def state(self, ids: Collection[bytes]) -> PlainState:
        """What is there now, as plain Python objects, read without what makes a `Survey` of it.

        All snapshots of the snapshotter and all blobs; of leases, at least those named like one of ``ids``,
        each with all its resources. A label is there if its key is, whatever its value. Raises
        ContainerdStateError if there are ids and the containerd knows nothing of their snapshotter.
        """

    def before(self, plan: Plan) -> Before:
        """What carrying the plan out, made from this object's last survey, will replace.

        Empty where `kept` will show it.
        """

    def check_is_known(self, records: int) -> None:
        """Raises ContainerdStateError if there are records, as `state` does for ids."""

    def apply(
        self,
        plan: Plan,
        on_finished: Callable[[bytes], None],
        *,
        keep: bool = True,
        switching: Callable[[Path], None] | None = None,
    ) -> None:
        """Carries out a plan made from this object's last survey, durably.

        First all leases: those that are missing are created, each gets the resources that it lacks, and none
        expires any more. Only then do snapshots and blobs lose the gc.root label; one that has gone is fine.
        ``on_finished`` is told the id of each lease that has all its resources now, durably; it is not called
        where all is done at once.
        ``keep``: a database that is replaced stays at `kept`; False if that has one of before already.
        ``switching`` is told the new file right before it takes the place of `database`.
        """

    def restore(self, ids: Collection[bytes], before: Before) -> None:
        """Takes a migration of the records ``ids`` back, durably; what is so already is left alone.

        First the labels of snapshots and blobs that still exist, so that nothing is unprotected; then leases
        named like a record that were not there, and the resources that those which were there have got.
        Leases that would have expired will do so again.
        """

    def put_back(self, kept: Database) -> None:
        """Gives a database that was replaced its place again, durably, and takes over its exclusive lock.

        Not for one without `database`.
        """


@dataclass(frozen=True)
class Service:
    """The content store, snapshotter or lease manager of a containerd, as `migrate_v2` takes it."""

    containerd: Containerd


class Services:
    """Gives a containerd its services by name."""

    @property
    def content_store(self: Containerd) -> Service:
        return Service(self)

    @property
    def snapshotter(self: Containerd) -> Service:
        return Service(self)

    @property
    def lease_manager(self: Containerd) -> Service:
        return Service(self)
