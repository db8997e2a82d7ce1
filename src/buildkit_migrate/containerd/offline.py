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
from buildkit_migrate.bolt import Bucket, Database, Reader, encode, nothing_at, rewrite, write
from buildkit_migrate.containerd.plain import edits_to_restore, holdings, read_state
from buildkit_migrate.containerd.services import Holding, Services
from buildkit_migrate.errors import BusyError, ContainerdStateError, StorageError
from buildkit_migrate.files.durable import Aside, remove, sync_directory
from buildkit_migrate.files.errors import exists, is_link
from buildkit_migrate.files.openers import refuse_others
from buildkit_migrate.files.ownership import usable_mode
from buildkit_migrate.model import Before, PlainState
from buildkit_migrate.values.times import stored_time, text_time

__all__ = ["KEPT_SUFFIX", "NEW_MODE", "MetadataDatabase", "OfflineContainerd", "open_database"]

KEPT_SUFFIX: Final = ".before-v2"
"""Suffix of the second name that keeps containerd's database before it is replaced, for undo."""

NEW_MODE: Final = 0o644
"""Mode of a database that did not exist, as daemons create it."""


class MetadataDatabase:
    """containerd's metadata database, locked. It is shared by all namespaces and snapshotters.

    ``database``: None if the file does not exist yet.
    """

    def __init__(self, path: Path, *, exclusive: bool, like: Path | None = None) -> None:
        """``like``: the file may be missing; then `rewrite` creates it for the owner of this one.

        Raises the errors of `open_database`; ContainerdStateError for a link, as a rename replaces it.
        """
        if is_link(path):
            raise ContainerdStateError(
                f"the database {path} is a symbolic link",
                hint="replace the link with the file itself",
            )
        self.path = path
        self._like = like
        self.database: Database | None = None
        if like is None or exists(path):
            self.database = open_database(path, exclusive=exclusive)

    @property
    def reader(self) -> Reader:
        """An empty database stands in for a missing file."""
        return nothing_at(self.path) if self.database is None else self.database.reader

    @property
    def root(self) -> Bucket:
        return self.reader.root

    def rewrite(
        self,
        edits: Iterable[bytes],
        kept: Path | None = None,
        switching: Callable[[Path], None] | None = None,
    ) -> None:
        """Applies edits of the root bucket at once: a new file replaces the old one by a rename.

        The old file is kept under the name ``kept``. Without edits nothing is written. The new file takes
        over the lock. ``switching`` is called with its path right before the rename. Raises BusyError if a
        file that was missing has been created by another process, or the old one was opened by one.
        """
        rest = iter(edits)
        first = next(rest, None)
        if first is None:
            self._forget_temporary_name()
            return
        reader, source, is_new = self.reader, self.root, self.database is None
        model = self._like if is_new and self._like is not None else self.path
        mode = NEW_MODE if is_new else usable_mode(self.path)
        with Aside[Database](self.path, exists=not is_new) as aside:
            new = aside.write(
                lambda path: write(
                    path,
                    mode=mode,
                    page_size=reader.page_size,
                    fill=lambda builder: rewrite(source, builder, itertools.chain([first], rest)),
                    owner_of=model,
                    after=None if is_new else reader,
                )
            )
            if switching is not None:
                switching(aside.path)
            try:
                aside.switch(None if is_new else kept)
            except FileExistsError as error:
                raise BusyError(f"{self.path} was created by another process just now") from error
        self._go_over_to(new)

    def put_back(self, kept: Database | None) -> None:
        """Replaces the file by a kept one, which must be exclusively locked, by a rename.

        The lock is taken over. None: there was no file, so it is deleted. Raises BusyError if another process
        has opened the file in use.
        """
        if kept is None:
            self._forget_temporary_name()
            refuse_others(self.path)
            remove(self.path)
            sync_directory(self.path.parent)
        else:
            kept.rename(self.path)
        self._go_over_to(kept)

    def _forget_temporary_name(self) -> None:
        """A run that was killed while it put a new file in place leaves it with both names."""
        if self._like is not None:
            Aside[Database](self.path).clear()

    def _go_over_to(self, new: Database | None) -> None:
        replaced, self.database = self.database, new
        if replaced is not None:
            replaced.close()

    def close(self) -> None:
        if self.database is not None:
            self.database.close()


def open_database(path: Path, *, exclusive: bool) -> Database:
    """Opens a database. Raises ContainerdStateError if it is missing.

    Also raises BusyError, CorruptDatabaseError, StorageError.
    """
    try:
        return Database.open(path, exclusive=exclusive)
    except StorageError as error:
        if error.missing:
            raise ContainerdStateError(f"the database {path} is missing") from error
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
    def databases(self) -> tuple[Database, ...]:
        """containerd's database, if it exists, and the snapshotter's."""
        metadata = self._metadata.database
        return (self._snapshots,) if metadata is None else (metadata, self._snapshots)

    @property
    def readers(self) -> list[Reader]:
        return [database.reader for database in self.databases]

    @property
    def backend(self) -> Bucket | None:
        """Root bucket of the snapshotter's database; None if it is not one of containerd's snapshotters."""
        return self._snapshots.root

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
        return self._metadata.root

    def survey(self, records: Callable[[], Records], finished: Container[bytes] = frozenset()) -> Survey:
        return Survey.offline(
            self._metadata.reader, self._snapshots.reader, self._namespace, self._snapshotter
        )

    def holdings(self, ids: Collection[bytes]) -> list[Holding]:
        return holdings(self.root, ids)

    def state(self, ids: Collection[bytes]) -> PlainState:
        self.check_is_known(len(ids))
        return read_state(self.root, self._snapshots.root, self._namespace, self._snapshotter)

    def check_is_known(self, records: int) -> None:
        metadata = self._metadata
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

    def put_back(self, kept: Database | None) -> None:
        self._metadata.put_back(kept)
