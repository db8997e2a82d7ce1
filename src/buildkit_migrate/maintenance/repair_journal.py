"""What repairs changed, so that a cut one can be finished, and each be taken back: one small JSON file.

It is written aside, synced and renamed before anything else is changed, and again whenever something becomes
known that a later run needs; docs/format.md describes its fields.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from buildkit_migrate.errors import CorruptDatabaseError, JournalError, StorageError
from buildkit_migrate.files.durable import remove, sync_directory, write_content
from buildkit_migrate.files.errors import exists, is_directory, is_link, look
from buildkit_migrate.files.fingerprint import fingerprint
from buildkit_migrate.files.locks import readable
from buildkit_migrate.files.ownership import model_for
from buildkit_migrate.maintenance.repair_places import Kind, could_be_repaired

__all__ = ["Entry", "Item", "Kind", "Phase", "RepairJournal", "free_name", "kept_place"]

_NAME: Final = "repair.journal"
_FORMAT: Final = 1
_SUFFIX: Final = ".before-repair"
_KEPT: Final = re.compile(rf".+({re.escape(_SUFFIX)}(\.\d+)?|\.[0-9a-z]{{25}}\.bak)")
"""Second names that repairs give: their own, and the one that a daemon gives to a store it moves aside."""
_LARGEST: Final = 64 << 20
_UNREADABLE: Final = "restore it from a backup, or remove it: then no repair can be taken back"


class Phase(enum.StrEnum):
    APPLYING = "applying"
    """Begun, and not finished: cut off, or at work."""
    APPLIED = "applied"
    UNDOING = "undoing"


@dataclass(frozen=True)
class Item:
    """A file or directory that a repair changes. ``path``: absolute. ``kept``: where the original is, if any.

    ``before``: fingerprint of the original file, "" if there was none, or for directories. ``after``:
    fingerprints of all files that the repair has put, or is about to put, in its place.
    """

    kind: Kind
    path: Path
    kept: Path | None = None
    before: str = ""
    after: tuple[str, ...] = ()

    @property
    def is_done(self) -> bool:
        """Whether the change has been made. Raises StorageError."""
        if self.kind in (Kind.MADE, Kind.MADE_DIRECTORY):
            return exists(self.path)
        if self.kind in (Kind.MOVED, Kind.REMOVED):
            return not exists(self.path, follow_symlinks=False) and self.has_original
        return _now(self.path) != self.before

    @property
    def has_original(self) -> bool:
        return self.kept is not None and exists(self.kept, follow_symlinks=False)

    @property
    def went_back(self) -> bool:
        """Whether an undo of the migration has taken the repaired database away."""
        return not exists(self.path) and exists(self.path.with_name(f"{self.path.name}.undone"))

    def why_not(self) -> str:
        """Why the original can't be put back without a loss; "" if it can be, or is. Raises StorageError.

        A new file that is lost is no reason: all that is left then is the original.
        """
        if self.kind is Kind.MADE_DIRECTORY:
            with_files = is_directory(self.path) and any(self.path.iterdir())
            return f"{self.path} is used: there is something in it" if with_files else ""
        if self.kind is Kind.REMOVED:
            return self._why_not_back()
        now = _now(self.path)
        if self.kind is Kind.MOVED and now and now != self.before:
            return f"{self.path} was used since it was repaired"
        if self.kind is Kind.MOVED:
            return self._why_not_back()
        if now == self.before:
            return ""
        if now and now not in self.after:
            return f"{self.path} was used since it was repaired"
        if self.went_back:
            return f"{self.path} was taken away by an undo of the migration"
        return "" if self.kind is Kind.MADE else self._why_not_kept()

    def _why_not_back(self) -> str:
        there = exists(self.path, follow_symlinks=False)
        if there and self.has_original:
            return f"{self.path} was made anew since the repair"
        if there:
            return ""
        above = self.path.parent
        if self.kind is Kind.REMOVED and not is_directory(above) and not is_directory(above.parent):
            return f"{above.parent}, where {self.path} was, is gone"
        return self._why_not_kept()

    def _why_not_kept(self) -> str:
        if not self.has_original:
            return f"{self.kept}, the original of {self.path}, is gone"
        assert self.kept is not None
        if self.kind is not Kind.REMOVED and _now(self.kept) != self.before:
            return f"{self.kept}, the original of {self.path}, has changed"
        return ""


def _now(path: Path) -> str:
    """Fingerprint, or what tells that there is no file. Raises StorageError."""
    try:
        return fingerprint(path)
    except CorruptDatabaseError:
        return "not a file"


@dataclass(frozen=True)
class Entry:
    """One repair. ``when``: its time (RFC 3339). ``classes``: what was asked for. ``items``: in the order in
    which they are put back.

    ``others``: fingerprints of the databases that it leaves as they are. ``compactions``: those of the files
    that `compact` had kept before it.
    """

    when: str
    classes: tuple[str, ...]
    items: tuple[Item, ...]
    phase: Phase = Phase.APPLYING
    others: Mapping[Path, str] = field(default_factory=dict)
    compactions: Mapping[Path, str] = field(default_factory=dict)

    def reasons(self) -> tuple[str, ...]:
        """Why it can't be taken back without a loss; none if it can. Raises StorageError."""
        found = [why for item in self.items if (why := item.why_not())]
        found += [
            f"{path} was used since the repair" for path, mark in self.others.items() if _now(path) != mark
        ]
        return tuple(found)

    @property
    def known(self) -> frozenset[Path]:
        """All paths that it says anything of."""
        return frozenset({*self.others, *(item.path for item in self.items)})

    @property
    def databases(self) -> frozenset[Path]:
        """The databases, and other files that it changed, that were there before it."""
        before = {**self.others, **{item.path: item.before for item in self.items}}
        return frozenset(path for path, mark in before.items() if mark)

    @property
    def kept_bytes(self) -> int:
        """Size of the kept files; directories are not counted. Raises StorageError."""
        found = (look(item.kept, follow_symlinks=False) for item in self.items if item.kept is not None)
        return sum(info.st_size for info in found if info is not None)


@dataclass(frozen=True)
class RepairJournal:
    """The journal at ``path``. Only the holder of the lock on the state directory writes to it."""

    path: Path

    @classmethod
    def of_root(cls, state: Path) -> RepairJournal:
        return cls(state.absolute() / _NAME)

    @classmethod
    def of_file(cls, file: Path) -> RepairJournal:
        """Of a database file that belongs to no root."""
        return cls(file.absolute().with_name(f"{file.name}.{_NAME}"))

    def entries(self) -> list[Entry]:
        """All repairs that can be taken back, the last one at the end. Raises JournalError, StorageError."""
        try:
            with readable(self.path) as fd, open(fd, "rb", closefd=False) as file:
                content = file.read(_LARGEST + 1)
        except StorageError as error:
            if error.missing:
                return []
            raise
        except CorruptDatabaseError as error:
            raise JournalError(error.message, hint=_UNREADABLE) from error
        try:
            if len(content) > _LARGEST:
                raise ValueError("too large")
            document = json.loads(content)
            if document["format"] != _FORMAT:
                raise ValueError("unknown format")
            return [self._entry(entry) for entry in document["repairs"]]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise JournalError(f"{self.path} can't be read: {error}", hint=_UNREADABLE) from error

    def save(self, entries: Sequence[Entry]) -> None:
        """Writes all repairs; without any, removes the journal. Raises StorageError."""
        if not entries:
            if exists(self.path):
                remove(self.path)
                sync_directory(self.path.parent)
            return
        document = {"format": _FORMAT, "repairs": [self._as_dict(entry) for entry in entries]}
        content = json.dumps(document, indent=1).encode() + b"\n"
        like, mode = model_for(self.path, None)
        write_content(self.path, content, like=like, mode=mode)

    def _as_dict(self, entry: Entry) -> dict[str, Any]:
        return {
            "when": entry.when,
            "classes": list(entry.classes),
            "phase": str(entry.phase),
            "changes": [
                {
                    "kind": str(item.kind),
                    "path": self._text(item.path),
                    "kept": None if item.kept is None else self._text(item.kept),
                    "before": item.before,
                    "after": list(item.after),
                }
                for item in entry.items
            ],
            "others": {self._text(path): mark for path, mark in entry.others.items()},
            "compactions": {self._text(path): mark for path, mark in entry.compactions.items()},
        }

    def _entry(self, document: dict[str, Any]) -> Entry:
        return Entry(
            _string(document["when"]),
            tuple(map(_string, document["classes"])),
            tuple(map(self._item, document["changes"])),
            Phase(document["phase"]),
            dict(self._marks(document["others"])),
            dict(self._marks(document["compactions"])),
        )

    def _item(self, document: dict[str, Any]) -> Item:
        kind = Kind(document["kind"])
        path = self._path(document["path"], kind)
        kept = None if document["kept"] is None else self._text_as_path(document["kept"])
        if (kept is None) != (kind in (Kind.MADE, Kind.MADE_DIRECTORY)):
            raise ValueError(f"{path} has no original, or one too many")
        if kept is not None and not self._could_be_kept(kind, path, kept):
            raise ValueError(f"{kept} is not the name of an original of {path}")
        after = tuple(map(_string, document["after"]))
        return Item(kind, path, kept, _string(document["before"]), after)

    def _could_be_kept(self, kind: Kind, path: Path, kept: Path) -> bool:
        if kind is Kind.REMOVED:
            return kept.parent == _place(path, self.path.parent) and not is_link(kept.parent)
        return kept.parent == path.parent and _KEPT.fullmatch(kept.name) is not None

    def _marks(self, document: dict[str, Any]) -> Iterator[tuple[Path, str]]:
        return ((self._path(path, Kind.REPLACED), _string(mark)) for path, mark in document.items())

    def _text(self, path: Path) -> str:
        """Relative, where that is possible: a root may be moved."""
        with contextlib.suppress(ValueError):
            return os.fspath(path.relative_to(self.path.parent))
        return os.fspath(path)

    def _path(self, text: str, kind: Kind) -> Path:
        path = self._text_as_path(text)
        if not could_be_repaired(kind, path, self._place, is_root=self.path.name == _NAME):
            raise ValueError(f"{path} is nothing that a repair of {self._place} changes")
        return path

    def _text_as_path(self, text: str) -> Path:
        path = Path(_string(text))
        if ".." in path.parts or not path.name:
            raise ValueError(f"{text} is not a path of a file")
        return self.path.parent / path

    @property
    def _place(self) -> Path:
        """The state directory, or the file that has this journal beside it."""
        return (
            self.path.parent
            if self.path.name == _NAME
            else self.path.with_name(self.path.name[: -len(_NAME) - 1])
        )


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is expected")
    return value


def free_name(path: Path) -> Path:
    """A second name for the original of a file, which nothing has yet. Raises StorageError."""
    name = path.with_name(path.name + _SUFFIX)
    number = 1
    while exists(name, follow_symlinks=False):
        number += 1
        name = path.with_name(f"{path.name}{_SUFFIX}.{number}")
    return name


def kept_place(path: Path, state: Path) -> Path:
    """Where a directory is moved: beside the one that it is in, where no daemon and no rule looks for any.

    In the state directory for a directory that is in it. Nothing has the name yet. Raises StorageError.
    """
    place = _place(path, state)
    name, number = place / path.name, 1
    while exists(name, follow_symlinks=False):
        number += 1
        name = place / f"{path.name}.{number}"
    return name


def _place(path: Path, state: Path) -> Path:
    above = path.parent
    return state / f"directories{_SUFFIX}" if above == state else above.with_name(above.name + _SUFFIX)
