"""What a migration needs from containerd: one survey, and the plan applied in bulk.

The three services are those that upstream's function takes. Each only identifies its containerd, which does
all the work, because leases and labels are safe in one order only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from buildkit_migrate.errors import EventLoopError

if TYPE_CHECKING:
    from buildkit_migrate._native.facts import Records, Survey
    from buildkit_migrate._native.plan import Plan
    from buildkit_migrate.bolt import Bucket, Database, Reader
    from buildkit_migrate.model import Before, PlainState
    from buildkit_migrate.settings import Setting

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
"""In seconds, more than a week; the limit of the timers of the system and of gRPC."""


@dataclass(frozen=True)
class ConnectionOptions:
    """How to connect to a running containerd.

    ``address``: path of its Unix socket. ``timeout``: seconds for one call. ``connect_timeout``: seconds that
    it may be unavailable, at the start or during a restart. ``concurrency``: calls in flight. ``origin``:
    where the address came from, for messages. Raises TypeError and ValueError for invalid values.
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
        # Without any calls, nothing would be written, yet everything would be taken for done.
        if not isinstance(self.concurrency, int) or self.concurrency < 1:
            raise ValueError(f"concurrency must be a positive number of calls, not {self.concurrency!r}")


@dataclass(frozen=True)
class Holding:
    """A namespace and snapshotter of a containerd.

    ``named_like``: how many of its snapshots have the names of the records in question.
    """

    namespace: str
    snapshotter: str
    named_like: int


def refuse_event_loop() -> None:
    """Raises EventLoopError if called inside a running event loop."""
    import asyncio  # not needed for offline work

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise EventLoopError("a running containerd can't be called inside of a running event loop")


class Containerd(Protocol):
    @property
    def identity(self) -> Mapping[str, str]:
        """Identity of this containerd: ``mode`` (live or offline), ``namespace``, ``snapshotter``, ``place``.

        ``place`` is for people.
        """

    @property
    def has_root_labels(self) -> bool:
        """Whether the snapshots of v1's records have the gc.root label until they are migrated."""

    @property
    def storage_driver(self) -> Setting | None:
        """Docker's, with its origin; None of others, and as long as it was not needed."""

    @property
    def database(self) -> Path | None:
        """The file that `apply` replaces, keeping the old one at `kept`; None if it doesn't work on files.

        It may not exist yet; then there is nothing to keep.
        """

    @property
    def kept(self) -> Path | None: ...

    @property
    def root(self) -> Bucket | None:
        """Current root bucket of `database`, empty if it does not exist yet; None if that is None."""

    @property
    def readers(self) -> Sequence[Reader]:
        """Of the files that are read: of `database`, if it exists, and last of the snapshotter's.

        A running containerd has none.
        """

    def survey(self, records: Callable[[], Records], finished: Container[bytes] = frozenset()) -> Survey:
        """The current state; of leases, at least those named like a record.

        ``records``: waits for the records, which another thread may be reading meanwhile; not called if they
        are not needed. ``finished``: leases known to have all their resources if they exist; their resources
        need not be read. A containerd that does not know the namespace or the snapshotter has no snapshots.
        """

    def holdings(self, ids: Collection[bytes]) -> list[Holding]:
        """All namespaces and snapshotters with snapshots, and how many of those belong to records ``ids``."""

    def state(self, ids: Collection[bytes]) -> PlainState:
        """The current state as plain Python objects, read independently of the code behind `Survey`.

        All snapshots of the snapshotter, or at least those named like one of ``ids`` and their ancestors; all
        blobs; of leases, at least those named like one of ``ids``,
        each with all its resources. A label is present if its key is, whatever its value. Raises
        ContainerdStateError if there are ids and the containerd does not know their snapshotter.
        """

    def left_behind(self, ids: Collection[bytes]) -> str:
        """What records ``ids`` have that nothing will ever free once they are left out; "" if nothing.

        For people. Only of what no label holds; the survey counts what labels do.
        """

    def before(self, plan: Plan) -> Before:
        """The state that carrying out the plan will replace.

        The plan must come from this object's last survey. Empty if `kept` will preserve that state.
        """

    def check_is_known(self, records: int) -> None:
        """Raises ContainerdStateError if there are records, under the same condition as `state`."""

    def apply(
        self,
        plan: Plan,
        on_finished: Callable[[bytes], None],
        *,
        keep: bool = True,
        switching: Callable[[Path], None] | None = None,
    ) -> None:
        """Carries out a plan made from this object's last survey, durably.

        First all leases: missing ones are created, each gets the resources that it lacks, and none expires
        any more. Only then do snapshots and blobs lose the gc.root label; any that are gone are ignored.

        ``on_finished`` is called with the id of each lease that durably has all its resources; it is not
        called if everything is done at once. ``keep``: keep a replaced database at `kept`; False if that
        holds an earlier one already. ``switching`` is called with the new file right before it replaces
        `database`.
        """

    def restore(self, ids: Collection[bytes], before: Before) -> None:
        """Undoes the migration of the records ``ids``, durably; whatever is undone already is left alone.

        First the labels of snapshots and blobs that still exist, so that nothing is unprotected. Then leases
        named like a record are deleted if they are new, or lose the resources that they were given. Leases
        that would have expired will do so again.
        """

    def put_back(self, kept: Database | None) -> None:
        """Puts a replaced database back in place, durably, and takes over its exclusive lock.

        None: there was none, so the new one is deleted. Only if `database` is not None.
        """


@dataclass(frozen=True)
class Service:
    """The content store, snapshotter or lease manager of a containerd, as taken by `migrate_v2`."""

    containerd: Containerd


class Services:
    """The services of a containerd as properties."""

    has_root_labels: bool = True

    @property
    def storage_driver(self) -> Setting | None:
        return None

    def left_behind(self, ids: Collection[bytes]) -> str:
        return ""

    @property
    def readers(self) -> Sequence[Reader]:
        return ()

    @property
    def content_store(self: Containerd) -> Service:
        return Service(self)

    @property
    def snapshotter(self: Containerd) -> Service:
        return Service(self)

    @property
    def lease_manager(self: Containerd) -> Service:
        return Service(self)
