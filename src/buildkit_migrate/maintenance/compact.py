"""Compaction: every database of a root written anew, without the pages that hold nothing.

What each file would become is computed first, and is all that a dry run does. Then each file is written
beside the old one, synced, read back, compared with the old one, and renamed into place; the old one is kept
under a second name (see `kept_files`).

To compute how large a file will become takes half as long as writing it. So a large one that is likely to get
smaller is written at once, while its pages are checked; it is renamed when all are checked, or deleted.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from buildkit_migrate.bolt import Database, compacted_size
from buildkit_migrate.errors import CorruptDatabaseError, Error, StorageError
from buildkit_migrate.files.beside import beside
from buildkit_migrate.files.durable import Aside
from buildkit_migrate.files.foreseeing import Space, foresee_replaced, lacking_room, space_for
from buildkit_migrate.maintenance.kept_files import kept_name, telling_done
from buildkit_migrate.maintenance.rewriting import (
    refuse_link,
    wants_free_list,
    whole_trees,
    write_like,
)
from buildkit_migrate.progress import Progress, reading, silent
from buildkit_migrate.store.engines import engine_of
from buildkit_migrate.text import named_text
from buildkit_migrate.workspace.stores import Fault, Store, Stores

__all__ = ["Compacted", "Compaction", "CompactionOutcome", "compact_stores"]

_EARLY_BYTES: Final = 16 << 20
_EARLY_FILL: Final = 0.75
"""Files from this size on are written before they are checked, if less full: a new one is filled to 0.9."""

_REASONS: Final = {
    Fault.EMPTY: "it has 0 bytes",
    Fault.ELSEWHERE: "its containerd's files are not known (--containerd-root says where they are)",
}


class CompactionOutcome(enum.StrEnum):
    COMPACTED = "compacted"
    PLANNED = "planned"
    """A dry run, or an obstacle: nothing was changed."""
    LEFT = "left"
    """Compaction would gain nothing, or too little."""
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Compacted:
    """Result for one database. ``path``: None for a containerd's databases whose place is not known.

    ``bytes``, ``new_bytes``: size before, and after a compaction. ``live_bytes``: of pages in use;
    ``free_bytes``: all others, those behind the last page included. ``fill``: share of the pages in use
    (without the meta pages) that is headers, keys and values. ``cured``: what is wrong with the file that
    compaction cures. ``kept``: second name of the old file. ``obstacle``: why it can't be compacted.
    ``reason``: why it was left or skipped. For a skipped file, and one that can't be read, there are no
    numbers.
    """

    path: Path | None
    outcome: CompactionOutcome
    bytes: int = 0
    new_bytes: int = 0
    page_size: int = 0
    live_bytes: int = 0
    free_bytes: int = 0
    fill: float = 0.0
    cured: tuple[str, ...] = ()
    kept: Path | None = None
    obstacle: Error | None = None
    reason: str = ""

    @property
    def saved(self) -> int:
        """Bytes that compaction saves; less than 0 if the file grows."""
        return self.bytes - self.new_bytes

    @property
    def worker(self) -> Path:
        """What an error names as finished before it."""
        assert self.path is not None
        return self.path

    @property
    def done(self) -> str:
        """What happened to the file, for people."""
        return "was compacted"

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            **named_text("path", self.path),
            "outcome": str(self.outcome),
            "bytes": self.bytes,
            "new_bytes": self.new_bytes,
            "page_size": self.page_size,
            "live_bytes": self.live_bytes,
            "free_bytes": self.free_bytes,
            "fill": round(self.fill, 4),
            "cured": list(self.cured),
            **named_text("kept", self.kept),
            **named_text("obstacle", None if self.obstacle is None else self.obstacle.message),
            **named_text("reason", self.reason or None),
        }


@dataclass(frozen=True)
class Compaction:
    """Result for a root, or one file. ``obstacle``: why none of the files can be compacted."""

    root: Path
    files: tuple[Compacted, ...]
    dry_run: bool
    obstacle: Error | None = None
    space: tuple[Space, ...] = ()
    """Of a dry run: the room for the new files on each file system, and what is free."""

    @property
    def obstacles(self) -> tuple[Error, ...]:
        """Everything that is in the way. With any of these nothing is changed."""
        found = (self.obstacle, *(file.obstacle for file in self.files))
        return tuple(error for error in found if error is not None)

    @property
    def saved(self) -> int:
        """Bytes that the compaction of all files saves."""
        done = (CompactionOutcome.COMPACTED, CompactionOutcome.PLANNED)
        return sum(file.saved for file in self.files if file.outcome in done)

    @property
    def exit_code(self) -> int:
        """The exit status of a refusal that a dry run predicts, otherwise 0."""
        return self.obstacles[0].exit_code if self.obstacles else 0

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            **named_text("root", self.root),
            "dry_run": self.dry_run,
            "files": [file.as_dict() for file in self.files],
            "saved": self.saved,
            "space": [space.as_dict() for space in self.space],
            **named_text("obstacle", None if self.obstacle is None else self.obstacle.message),
        }


def compact_stores(
    stores: Stores,
    held: contextlib.ExitStack,
    *,
    min_free: float = 0.0,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Compaction:
    """Compacts all stores, which must be locked exclusively unless ``dry_run``.

    ``held``: gets the locks of the new files. ``min_free``: share of a file that must be free, from 0 to 1;
    damage that compaction cures is cured in any case. Raises what is in the way of any file before any is
    replaced: CorruptDatabaseError (damaged trees, with the page), StorageError (also if there is not enough
    room). Raises DifferencesError if a file does not hold what was written.
    """
    tell = progress or silent
    planned: dict[Store, Compacted] = {}
    with contextlib.ExitStack() as unused:
        drafts = _Drafts(unused)
        early = None if dry_run or min_free or _lacking_room(_sizes(stores)) else drafts
        for store in stores.all:
            if (file := _planned(store, min_free, early, tell)) is not None:
                planned[store] = file
        found = Compaction(stores.root.path, tuple(planned.values()), dry_run)
        found = replace(found, obstacle=_lacking_room(_not_drafted(found, drafts)))
        if dry_run:
            return replace(found, space=tuple(space_for(_not_drafted(found, drafts))))
        if found.obstacles:
            raise found.obstacles[0]
        with telling_done(lambda: _done(planned.values())):
            for store, file in planned.items():
                if file.outcome is CompactionOutcome.PLANNED and store.database is not None:
                    tell(reading(f"compacting {file.path}", store.database.reader))
                    planned[store] = _applied(file, store.database, drafts, held)
    return replace(found, files=tuple(planned.values()))


def _done(files: Iterable[Compacted]) -> Iterator[Compacted]:
    return (file for file in files if file.outcome is CompactionOutcome.COMPACTED)


class _Drafts:
    """New files that are complete and compared, but not in use; those that never will be are deleted."""

    def __init__(self, unused: contextlib.ExitStack) -> None:
        self._unused = unused
        self._files: dict[Path, tuple[Aside[Database], Database]] = {}

    def __contains__(self, path: Path) -> bool:
        return path in self._files

    def write(self, database: Database) -> Database:
        path = database.path
        aside = self._unused.enter_context(Aside[Database](path))
        new = aside.write(lambda to: write_like(to, path, database.reader))
        self._files[path] = aside, new
        return new

    def drop(self, path: Path) -> None:
        if path in self._files:
            self._files.pop(path)[0].close()

    def switch(self, path: Path) -> Database:
        """Puts the new file in use. The old one keeps a second name."""
        aside, new = self._files.pop(path)
        aside.switch(kept_name(path))
        return new


# --- Planning


def _planned(store: Store, min_free: float, drafts: _Drafts | None, tell: Progress) -> Compacted | None:
    """None for a store that is missing, or not asked for. ``drafts``: where it may be written already."""
    path = store.path
    if store.fault in (Fault.MISSING, Fault.NOT_GIVEN):
        return None
    if store.fault in _REASONS:
        return Compacted(path, CompactionOutcome.SKIPPED, reason=_REASONS[store.fault])
    assert path is not None
    if store.database is None:
        assert store.error is not None
        if store.fault is Fault.CORRUPT and _is_lmdb(path):
            return Compacted(path, CompactionOutcome.SKIPPED, reason="it is an LMDB file")
        return Compacted(path, CompactionOutcome.PLANNED, obstacle=store.error)
    tell(reading(f"checking the pages of {path}", store.database.reader))
    try:
        early = drafts if drafts is not None and _is_promising(path, store.database) else None
        file = _measured(path, store.database, early)
        refuse_link(path, "compact")
        file = _decided(file, min_free)
        if file.outcome is CompactionOutcome.PLANNED:
            foresee_replaced(path)
        elif early is not None:
            early.drop(path)
    except (CorruptDatabaseError, StorageError) as error:
        return Compacted(path, CompactionOutcome.PLANNED, obstacle=error)
    return file


def _is_lmdb(path: Path) -> bool:
    try:
        return engine_of(path) == "lmdb"
    except CorruptDatabaseError:
        return False


def _is_promising(path: Path, database: Database) -> bool:
    """Whether a new file will very likely be needed and can be written. Raises StorageError."""
    if database.size < _EARLY_BYTES or database.estimated_fill() > _EARLY_FILL:
        return False
    refuse_link(path, "compact")
    foresee_replaced(path)
    return True


def _measured(path: Path, database: Database, drafts: _Drafts | None) -> Compacted:
    """``drafts``: where to write the new file to see its size; otherwise that is computed.

    Raises CorruptDatabaseError if the trees are damaged.
    """
    reader = database.reader
    with beside(lambda: whole_trees(database.another_reader())) as checked:
        try:
            new_bytes = _new_size(database) if drafts is None else drafts.write(database).size
        except CorruptDatabaseError:
            checked()  # it tells the first fault
            raise
        findings, used, content = checked()
    live = (used + 2) * reader.page_size
    cured = [text if page < 0 else f"page {page}: {text}" for _, page, text in findings]
    if reader.other_meta:
        cured.append(f"one of the two meta pages: {reader.other_meta}")
    return Compacted(
        path,
        CompactionOutcome.PLANNED,
        bytes=database.size,
        new_bytes=new_bytes,
        page_size=reader.page_size,
        live_bytes=live,
        free_bytes=database.size - live,
        fill=content / (used * reader.page_size),
        cured=tuple(cured),
        kept=kept_name(path),
    )


def _new_size(database: Database) -> int:
    return compacted_size(database.root, free_list=wants_free_list(database.path, database.reader))


def _decided(file: Compacted, min_free: float) -> Compacted:
    if file.cured:
        return file
    if file.saved < file.page_size:
        return replace(file, outcome=CompactionOutcome.LEFT, kept=None, reason="it would not get smaller")
    if file.free_bytes < min_free * file.bytes:
        reason = f"only {file.free_bytes / file.bytes:.0%} of it is free"
        return replace(file, outcome=CompactionOutcome.LEFT, kept=None, reason=reason)
    return file


def _sizes(stores: Stores) -> Iterator[tuple[Path, int]]:
    """Directories and sizes of the stores."""
    for store in stores.all:
        if store.path is not None and store.database is not None:
            yield store.path.parent, store.database.size


def _not_drafted(found: Compaction, drafts: _Drafts) -> Iterator[tuple[Path, int]]:
    """Directories and sizes of the new files that are still to be written."""
    for file in found.files:
        if file.path is None or file.path in drafts:
            continue
        if file.outcome is CompactionOutcome.PLANNED and file.obstacle is None:
            yield file.path.parent, file.new_bytes


def _lacking_room(new: Iterable[tuple[Path, int]]) -> StorageError | None:
    return lacking_room(
        new,
        "compaction",
        "make room on this file system, or compact one file at a time (compact FILE), the smallest first; "
        "compact --discard-kept deletes the old files",
    )


# --- Applying


def _applied(file: Compacted, database: Database, drafts: _Drafts, held: contextlib.ExitStack) -> Compacted:
    """Replaces the file by a compacted one. ``held``: gets its lock."""
    if database.path not in drafts:
        drafts.write(database)
    database.check_not_replaced()
    held.callback(drafts.switch(database.path).close)
    return replace(file, outcome=CompactionOutcome.COMPACTED)
