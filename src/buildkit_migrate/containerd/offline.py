"""The containerd services of a stopped daemon, implemented on its database files.

There are two databases: containerd's own (leases, labels, parents), which is rewritten as a whole, and the
snapshotter's (kinds), which is only read. Spec containerd-metadata-db, sections 1 to 6.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from buildkit_migrate._native.facts import Records, Survey
from buildkit_migrate._native.plan import Plan
from buildkit_migrate.bolt import Bucket, Database, encode, rewrite, write
from buildkit_migrate.containerd.plain import edits_to_restore, holdings, read_state
from buildkit_migrate.containerd.services import Holding, Services
from buildkit_migrate.errors import ContainerdStateError, StorageError
from buildkit_migrate.files.durable import Aside
from buildkit_migrate.files.errors import is_link
from buildkit_migrate.files.ownership import usable_mode
from buildkit_migrate.model import Before, PlainState
from buildkit_migrate.values.times import stored_time, text_time

__all__ = ["KEPT_SUFFIX", "MetadataDatabase", "OfflineContainerd", "open_database"]

KEPT_SUFFIX: Final = ".before-v2"
"""Suffix of the second name that keeps containerd's database before it is replaced, for undo."""


class MetadataDatabase:
    """containerd's metadata database, locked. It is shared by all namespaces and snapshotters."""

    def __init__(self, path: Path, *, exclusive: bool) -> None:
        """Raises the errors of `open_database`; ContainerdStateError for a link, as a rename replaces it."""
        if is_link(path):
            raise ContainerdStateError(
                f"containerd's database {path} is a symbolic link",
                hint="replace the link with the file itself",
            )
        self.path = path
        self.database = open_database(path, exclusive=exclusive)

    def rewrite(
        self,
        edits: Iterable[bytes],
        kept: Path | None = None,
        switching: Callable[[Path], None] | None = None,
    ) -> None:
        """Applies edits of the root bucket at once: a new file replaces the old one by a rename.

        The old file is kept under the name ``kept``. Without edits nothing is written. The new file takes
        over the lock. ``switching`` is called with its path right before the rename.
        """
        rest = iter(edits)
        first = next(rest, None)
        if first is None:
            return
        source = self.database.root
        with Aside[Database](self.path) as aside:
            new = aside.write(
                lambda path: write(
                    path,
                    mode=usable_mode(self.path),
                    page_size=source.reader.page_size,
                    fill=lambda builder: rewrite(source, builder, itertools.chain([first], rest)),
                    owner_of=self.path,
                    after=source.reader,
                )
            )
            if switching is not None:
                switching(aside.path)
            aside.switch(kept)
        self._go_over_to(new)

    def put_back(self, kept: Database) -> None:
        """Replaces the file by a kept one, which must be exclusively locked, by a rename.

        The lock is taken over.
        """
        kept.rename(self.path)
        self._go_over_to(kept)

    def _go_over_to(self, new: Database) -> None:
        replaced, self.database = self.database, new
        replaced.close()

    def close(self) -> None:
        self.database.close()


def open_database(path: Path, *, exclusive: bool) -> Database:
    """Opens a database. Raises ContainerdStateError if it is missing.

    Also raises BusyError, CorruptDatabaseError, StorageError.
    """
    try:
        return Database.open(path, exclusive=exclusive)
    except StorageError as error:
        if error.missing:
            raise ContainerdStateError(f"containerd's database {path} is missing") from error
        raise


class OfflineContainerd(Services):
    """One namespace and snapshotter of a stopped containerd."""

    def __init__(
        self,
        metadata: MetadataDatabase,
        snapshots: Database,
        namespace: str,
        snapshotter: str,
        *,
        kept_suffix: str = KEPT_SUFFIX,
    ) -> None:
        """The caller remains responsible for closing the databases; `open` does everything.

        ``kept_suffix``: suffix of the second name that keeps containerd's database before it is replaced.
        """
        self._kept_suffix = kept_suffix
        self._metadata = metadata
        self._snapshots = snapshots
        self._namespace = namespace
        self._snapshotter = snapshotter

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        metadata_path: Path,
        snapshots_path: Path,
        namespace: str = "buildkit",
        snapshotter: str = "overlayfs",
        *,
        exclusive: bool = True,
    ) -> Iterator[OfflineContainerd]:
        """Locks and opens containerd's database and the snapshotter's; ``exclusive`` is required for `apply`.

        Raises the same errors as `open_database`.
        """
        with (
            contextlib.closing(MetadataDatabase(metadata_path, exclusive=exclusive)) as metadata,
            open_database(snapshots_path, exclusive=exclusive) as snapshots,
        ):
            yield cls(metadata, snapshots, namespace, snapshotter)

    @property
    def databases(self) -> tuple[Database, Database]:
        """containerd's database and the snapshotter's."""
        return self._metadata.database, self._snapshots

    @property
    def identity(self) -> Mapping[str, str]:
        return {
            "mode": "offline",
            "namespace": self._namespace,
            "snapshotter": self._snapshotter,
            "place": os.fsdecode(self.database.absolute()),
        }

    @property
    def database(self) -> Path:
        return self._metadata.path

    @property
    def kept(self) -> Path:
        return self.database.with_name(self.database.name + self._kept_suffix)

    @property
    def root(self) -> Bucket:
        return self._metadata.database.root

    def survey(self, records: Records, finished: Container[bytes] = frozenset()) -> Survey:
        metadata, snapshots = self.databases
        return Survey.offline(metadata.reader, snapshots.reader, self._namespace, self._snapshotter)

    def holdings(self, ids: Collection[bytes]) -> list[Holding]:
        return holdings(self.databases[0].root, ids)

    def state(self, ids: Collection[bytes]) -> PlainState:
        self.check_is_known(len(ids))
        metadata, snapshots = self.databases
        return read_state(metadata.root, snapshots.root, self._namespace, self._snapshotter)

    def check_is_known(self, records: int) -> None:
        metadata = self._metadata.database
        if records and metadata.root.bucket(*self._snapshots_bucket()) is None:
            raise ContainerdStateError(
                f"{metadata.path} has no snapshots of {self._snapshotter} in namespace {self._namespace}",
                hint="if that is the wrong place, give the containerd root and the namespace that BuildKit "
                "used; otherwise restore the file from a backup",
            )

    def _snapshots_bucket(self) -> tuple[bytes, ...]:
        return b"v1", self._namespace.encode(), b"snapshots", self._snapshotter.encode()

    def before(self, plan: Plan) -> Before:
        return Before()  # `kept` has the previous state

    def apply(
        self,
        plan: Plan,
        on_finished: Callable[[bytes], None],
        *,
        keep: bool = True,
        switching: Callable[[Path], None] | None = None,
    ) -> None:
        """Applies leases and labels together, in one rename."""
        now = time.time_ns()
        edits = plan.containerd_edits(stored_time(now), text_time(now))
        self._metadata.rewrite(edits, self.kept if keep else None, switching)

    def restore(self, ids: Collection[bytes], before: Before) -> None:
        edits = edits_to_restore(self.root, self._namespace, self._snapshotter, ids, before)
        self._metadata.rewrite(encode(edits))

    def put_back(self, kept: Database) -> None:
        self._metadata.put_back(kept)
