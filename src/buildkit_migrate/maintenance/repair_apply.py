"""Applies the changes of a repair to stores that are locked exclusively.

Everything that can be refused is refused first. Then each database is written anew beside the old one,
synced, checked, and compared with what the plan says: the old one and its edits; the journal learns what the
new file is; the old one gets its second name, and the new one is renamed into place. A run that was cut off
leaves each file old or new, and the next one does the rest.
"""

from __future__ import annotations

import contextlib
import secrets
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, assert_never

from buildkit_migrate.bolt import Database, Reader, check, compacted_size, encode
from buildkit_migrate.errors import DifferencesError, Error, StorageError
from buildkit_migrate.files.directories import make_directory_like, move
from buildkit_migrate.files.durable import Aside, remove, remove_aside, write_content
from buildkit_migrate.files.errors import exists, is_directory
from buildkit_migrate.files.fingerprint import fingerprint, fingerprint_of
from buildkit_migrate.files.foreseeing import foresee_replaced, lacking_room, space_for
from buildkit_migrate.files.ownership import access_of
from buildkit_migrate.maintenance.disk import mount_points, why_immovable
from buildkit_migrate.maintenance.kept_files import telling_done
from buildkit_migrate.maintenance.mend import (
    Change,
    DropRecord,
    EditStore,
    MakeDirectory,
    MoveAside,
    RemoveDirectory,
    RewriteStore,
    WriteFile,
)
from buildkit_migrate.maintenance.repair import protecting_first
from buildkit_migrate.maintenance.repair_journal import (
    Entry,
    Item,
    Kind,
    Phase,
    RepairJournal,
    free_name,
    kept_place,
)
from buildkit_migrate.maintenance.rewriting import (
    refuse_link,
    whole_trees,
    write_like,
)
from buildkit_migrate.progress import Progress, reading, silent
from buildkit_migrate.text import named_text
from buildkit_migrate.workspace.stores import Store, Stores

__all__ = ["Application", "Changed", "begin"]

_ID: Final = string.digits + string.ascii_lowercase
_ID_SIZE: Final = 25
"""Names that a daemon makes up have so many of these characters."""

_ROOM: Final = (
    "make room on this file system; compact --discard-kept and repair --discard-kept delete the old files "
    "that they keep"
)


_GO_ON: Final = "run repair again to finish it, or undo to take back what was done"


@dataclass(frozen=True)
class Changed:
    """A file or directory that a repair changes. ``kept``: where its original is; None if there was none."""

    kind: Kind
    path: Path
    kept: Path | None

    @property
    def worker(self) -> Path:
        """What an error names as finished before it."""
        return self.path

    @property
    def done(self) -> str:
        """What happened to it, for people."""
        return "was repaired"

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "kind": str(self.kind),
            **named_text("path", self.path),
            **named_text("kept", self.kept),
        }


def begin(
    journal: RepairJournal,
    stores: Stores,
    classes: Sequence[str],
    compactions: Mapping[Path, str],
) -> tuple[list[Entry], Entry]:
    """The repairs before this one, and this one: a new one, or the last if it was cut off and nobody used the
    root since. Writes nothing. Raises JournalError, StorageError.
    """
    entries = journal.entries()
    if entries and entries[-1].phase is not Phase.APPLIED:
        if not entries[-1].reasons():
            both = tuple(sorted({*entries[-1].classes, *classes}))
            return entries[:-1], replace(entries[-1], phase=Phase.APPLYING, classes=both)
        # Its originals stay, but there is no way back to them.
        entries[-1] = replace(entries[-1], phase=Phase.APPLIED)
    others = {
        store.path.absolute(): fingerprint(store.path) for store in stores.all if store.path is not None
    }
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return entries, Entry(when, tuple(classes), (), others=others, compactions=compactions)


class Application:
    """The changes of one repair. The constructor examines everything, and changes nothing.

    ``before``: the repairs before this one; ``entry``: this one, see `begin`. ``exclusive``: required for
    `carry_out`. ``obstacles``: why the changes can't be made. Raises StorageError if something can't be
    examined.
    """

    def __init__(
        self,
        stores: Stores,
        changes: Sequence[Change],
        journal: RepairJournal,
        before: Sequence[Entry],
        entry: Entry,
        *,
        exclusive: bool,
        progress: Progress | None = None,
    ) -> None:
        self._journal = journal
        self._saved = journal.entries()
        self._before = tuple(before)
        self._entry = entry
        self._exclusive = exclusive
        self._state = stores.root.state.absolute()
        self._tell = progress or silent
        self._sources: dict[Store, tuple[Database, Reader]] = {}
        self._opened: list[Database] = []
        self._done: list[Path] = []
        self.obstacles: list[Error] = []
        moved = {_path(change) for change in changes if _is_move(change)}
        self._changes = tuple(change for change in changes if _path(change) not in moved or _is_move(change))
        self._items = {item.path: item for item in entry.items}
        self._points = mount_points()
        room: list[tuple[Path, int]] = []
        for change in self._changes:
            try:
                room += self._examined(change)
            except Error as error:
                self.obstacles.append(error)
        others = {path: mark for path, mark in entry.others.items() if path not in self._items}
        self._items = {item.path: item for item in _in_order(self._items.values(), stores)}
        self._entry = replace(entry, others=others)
        self.space = tuple(space_for(room))
        if (lacking := lacking_room(room, "a repair", _ROOM)) is not None:
            self.obstacles.append(lacking)

    @property
    def changed(self) -> tuple[Changed, ...]:
        """All that this repair changes, or has changed before it was cut off."""
        return tuple(Changed(item.kind, item.path, item.kept) for item in self._items.values())

    # --- Examining

    def _examined(self, change: Change) -> list[tuple[Path, int]]:
        """Notes what becomes of a path. Returns the room that is needed, by directory."""
        path = _path(change)
        new: list[tuple[Path, int]] = []
        match change:
            case EditStore() | RewriteStore():
                new = [(path.parent, self._examined_store(change, path))]
                self._note(Kind.REPLACED, path, lambda: free_name(path))
            case WriteFile():
                access_of(change.like)
                new = [(path.parent, len(change.content))]
                if exists(path, follow_symlinks=False):
                    refuse_link(path, "repair")
                    self._note(Kind.REPLACED, path, lambda: free_name(path))
                else:
                    self._note(Kind.MADE, path)
                self._add_after(path, fingerprint_of(change.content))
            case MakeDirectory():
                if not is_directory(path):
                    access_of(change.like)
                    self._note(Kind.MADE_DIRECTORY, path)
            case MoveAside():
                if not exists(path, follow_symlinks=False):
                    raise StorageError(f"{path} is not there", hint="run the command again")
                self._note(Kind.MOVED, path, lambda: path.with_name(f"{path.name}.{_new_id()}.bak"))
            case RemoveDirectory():
                self._refuse_immovable(path)
                self._note(Kind.REMOVED, path, lambda: kept_place(path, self._state))
            case DropRecord():
                raise AssertionError("a plan has made edits of it")
            case _:
                assert_never(change)
        return new

    def _note(self, kind: Kind, path: Path, kept: Callable[[], Path] | None = None) -> None:
        """Adds an item; one of an earlier run stays, and so does the original that it kept."""
        if path not in self._items:
            mark = fingerprint(path) if kind in (Kind.REPLACED, Kind.MOVED) else ""
            self._items[path] = Item(kind, path, kept and kept(), mark)

    def _add_after(self, path: Path, mark: str) -> None:
        item = self._items[path]
        if mark not in item.after:
            self._items[path] = replace(item, after=(*item.after, mark))

    def _examined_store(self, change: EditStore | RewriteStore, path: Path) -> int:
        """Size in bytes of the new file. Raises the errors of what can't be rewritten."""
        refuse_link(path, "repair")
        foresee_replaced(path)
        database, reader = self._source(change)
        self._tell(reading(f"examining {path}", reader))
        if isinstance(change, RewriteStore):
            whole_trees(reader)
            return compacted_size(reader.root)
        database.check_not_replaced()
        return compacted_size(reader.root, encode(change.edits, change.sequences))

    def _source(self, change: EditStore | RewriteStore) -> tuple[Database, Reader]:
        """The database as it is now, and what is to be read of it."""
        store = change.store
        if store in self._sources:
            return self._sources[store]
        database, is_previous = store.database, isinstance(change, RewriteStore) and change.previous
        assert store.path is not None
        if database is None and is_previous:
            database = Database.open(store.path, exclusive=self._exclusive, previous=True)
            self._opened.append(database)
        elif database is None:
            raise store.error or StorageError(f"{store.path} is not there")
        reader = database.previous_reader() if is_previous else database.reader
        self._sources[store] = database, reader
        return database, reader

    def _refuse_immovable(self, path: Path) -> None:
        """Raises StorageError if a directory can't be moved out of the way as a whole."""
        if why := why_immovable(path, kept_place(path, self._state).parent.parent, self._points):
            raise StorageError(f"{path} can't be removed: {why}", hint="run the command again")

    # --- Carrying out

    def carry_out(self, held: contextlib.ExitStack) -> None:
        """Makes all changes. ``held``: gets the locks of the new files.

        Raises StorageError, and DifferencesError if a new file does not hold what was written; whatever was
        done before is in the journal, and the next run goes on from there.
        """
        for database in self._opened:
            held.callback(database.close)
        self._save()
        with telling_done(lambda: (one for one in self.changed if one.path in self._done)):
            for change in self._changes:
                self._tell(f"repairing {_path(change)}")
                try:
                    self._apply(change, held)
                except Error as error:
                    error.hint = "; ".join(filter(None, (error.hint, _GO_ON)))
                    raise
                self._done.append(_path(change))
        before = self._items
        self._entry = _settled(replace(self._entry, items=tuple(before.values())))
        self._items = {item.path: item for item in self._entry.items}
        for path, item in before.items():
            if path not in self._items and item.kind is Kind.REPLACED and item.kept is not None:
                remove(item.kept)  # a second name of the file in use, which an earlier run gave
        self._save()

    def close(self) -> None:
        """Releases what the examination locked, if nothing is carried out."""
        for database in self._opened:
            database.close()

    def _save(self) -> None:
        entry = replace(self._entry, items=tuple(self._items.values()))
        entries = [*self._before, *([entry] if entry.items else [])]
        remove_aside(self._journal.path)  # of a run that was killed
        if entries != self._saved:
            self._journal.save(entries)
            self._saved = entries

    def _apply(self, change: Change, held: contextlib.ExitStack) -> None:
        path = _path(change)
        item = self._items.get(path)
        match change:
            case EditStore():
                stream = b"".join(encode(change.edits, change.sequences))
                self._write_store(change, path, stream, held)
            case RewriteStore():
                self._write_store(change, path, b"", held)
            case WriteFile():
                mode = access_of(change.like).mode
                write_content(path, change.content, like=change.like, mode=mode, kept=self._kept_now(path))
            case MakeDirectory():
                make_directory_like(path, change.like)
            case MoveAside() | RemoveDirectory():
                assert item is not None and item.kept is not None
                if isinstance(change, RemoveDirectory):
                    make_directory_like(item.kept.parent, path.parent)
                move(path, item.kept)

    def _kept_now(self, path: Path) -> Path | None:
        """The second name that a file is to get: none if it is not the original any more."""
        item = self._items.get(path)
        return item.kept if item is not None and item.before and fingerprint(path) == item.before else None

    def _write_store(
        self, change: EditStore | RewriteStore, path: Path, stream: bytes, held: contextlib.ExitStack
    ) -> None:
        database, reader = self._source(change)
        self._tell(reading(f"repairing {path}", reader))
        with Aside[Database](path) as aside:
            new = aside.write(lambda to: write_like(to, path, reader, stream))
            if found := check(new.another_reader()):
                raise DifferencesError(
                    f"{aside.path}, the new {path}, is not sound, and was deleted: {found[0][1]}",
                    (),
                    hint=f"{path} is unchanged; check the disk and the memory of this machine",
                )
            self._add_after(path, fingerprint(aside.path))
            self._save()
            database.check_not_replaced()
            aside.switch(self._kept_now(path))
            held.callback(new.close)
        self._sources[change.store] = new, new.reader


_BACK: Final = (Kind.REMOVED, Kind.MOVED, Kind.REPLACED, Kind.MADE, Kind.MADE_DIRECTORY)


def _in_order(items: Iterable[Item], stores: Stores) -> tuple[Item, ...]:
    """In the order in which an undo puts them back: data, then what protects it, then what names it."""
    paths = [store.path.absolute() for store in protecting_first(stores) if store.path is not None]
    ranks = {path: rank for rank, path in reversed(list(enumerate(paths)))}
    return tuple(sorted(items, key=lambda item: (_BACK.index(item.kind), ranks.get(item.path, len(paths)))))


def _settled(entry: Entry) -> Entry:
    """A finished repair: without what an earlier run meant to change, and this one did not."""
    done = tuple(item for item in entry.items if item.is_done)
    paths = {item.path for item in done}
    others = {
        item.path: item.before
        for item in entry.items
        if item.path not in paths and item.kind is Kind.REPLACED
    }
    return replace(entry, items=done, others={**entry.others, **others}, phase=Phase.APPLIED)


def _path(change: Change) -> Path:
    if isinstance(change, EditStore | RewriteStore):
        assert change.store.path is not None
        return change.store.path.absolute()
    assert not isinstance(change, DropRecord)
    return change.path.absolute()


def _is_move(change: Change) -> bool:
    return isinstance(change, MoveAside)


def _new_id() -> str:
    return "".join(secrets.choice(_ID) for _ in range(_ID_SIZE))
