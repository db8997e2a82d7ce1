"""The room that a migration needs on disk, so that one that would fill a disk is refused before it begins."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from buildkit_migrate._native.plan import Plan
from buildkit_migrate.bolt import Bucket, Database, compacted_size
from buildkit_migrate.containerd.services import Containerd
from buildkit_migrate.files.durable import aside_of
from buildkit_migrate.files.errors import look
from buildkit_migrate.files.foreseeing import Space, lacking_room, space_for
from buildkit_migrate.store.engines import Engine
from buildkit_migrate.values.times import stored_time, text_time

__all__ = ["Room", "refuse_lacking_room"]

_OF_RECORD: Final = 4096
"""Bytes that a record grows by: real ones by half of that, as chain ids and index keys are about as long."""
_PAGES_OF_LEASE: Final = 4
"""bbolt gives each bucket with buckets in it a page: the lease, its resources, those of the snapshotter."""
_OF_RESOURCE: Final = 512
_BLOCK: Final = 512

_HINT: Final = (
    "make room on this file system: the old files stay until buildkit-migrate clean, so that undo can go back"
)

Sizes = Sequence[tuple[Path, int]]
"""Directories and sizes of new files."""


class Room:
    """The room for one worker's new files. ``target``: the new store."""

    def __init__(
        self, source: Database, target: Path, engine: Engine, containerd: Containerd, plan: Plan
    ) -> None:
        self._source = source
        self._target = target
        self._engine = engine
        self._containerd = containerd
        self._plan = plan

    def estimated(self) -> Sizes:
        """Quickly, and rather too much."""
        counts = self._plan.counts
        new = [(self._target.parent, self._source.size + counts["kept"] * _OF_RECORD)]
        root = self._changed_root
        if root is not None:
            reader = root.reader
            growth = counts["leases_to_create"] * _PAGES_OF_LEASE * reader.page_size
            growth += counts["resources_to_add"] * _OF_RESOURCE
            new.append((self._directory, reader.high_water * reader.page_size + growth))
        return new

    def exact(self) -> Sizes:
        """To the byte for bbolt files, by doing all but the writing.

        What killed runs left, which is deleted first, counts as free.
        """
        new = []
        if self._engine == "bolt":
            size = compacted_size(self._source.root, self._plan.store_edits())
            new.append((self._target.parent, size - _taken(aside_of(self._target))))
        root = self._changed_root
        if root is not None:
            now = time.time_ns()
            edits = self._plan.containerd_edits(stored_time(now), text_time(now))
            assert self._containerd.database is not None
            size = compacted_size(root, edits) - _taken(aside_of(self._containerd.database))
            new.append((self._directory, size))
        return new

    def space(self) -> tuple[Space, ...]:
        """As estimated, or exact where the estimate would not fit. Raises StorageError."""
        found = space_for(self.estimated())
        return tuple(found if all(one.is_enough for one in found) else space_for(self.exact()))

    @property
    def _directory(self) -> Path:
        assert self._containerd.database is not None
        return self._containerd.database.parent

    @property
    def _changed_root(self) -> Bucket | None:
        """Root bucket of containerd's database; None if no file is replaced."""
        leases = ("leases_to_create", "leases_to_keep", "resources_to_add")
        changes = (self._plan.counts[name] for name in (*leases, "unlabel_snapshots", "unlabel_blobs"))
        return self._containerd.root if self._containerd.database is not None and any(changes) else None


def _taken(path: Path) -> int:
    there = look(path, follow_symlinks=False)
    return there.st_blocks * _BLOCK if there is not None else 0


def refuse_lacking_room(rooms: Sequence[Room]) -> None:
    """Raises StorageError if the new files of these workers do not fit beside the old ones."""
    if all(space.is_enough for space in space_for(_all(room.estimated() for room in rooms))):
        return
    lacking = lacking_room(_all(room.exact() for room in rooms), "the migration", _HINT)
    if lacking is not None:
        raise lacking


def _all(sizes: Iterator[Sizes]) -> list[tuple[Path, int]]:
    return [one for some in sizes for one in some]
