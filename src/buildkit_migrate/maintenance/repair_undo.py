"""Takes a repair back, byte for byte, as long as nobody used the root since; or gives up the way back.

Everything is looked at before anything is changed. What was done last is taken back first. Each original is
renamed into its place, so an undo that was cut off can simply be run again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, assert_never

from buildkit_migrate.errors import CorruptDatabaseError, Error, JournalError, StorageError, UndoRefusedError
from buildkit_migrate.files.directories import make_directory_like, move, remove_if_empty, remove_tree
from buildkit_migrate.files.durable import aside_of, remove, remove_aside, rename, sync_directory
from buildkit_migrate.files.errors import exists, is_directory
from buildkit_migrate.files.fingerprint import fingerprint
from buildkit_migrate.files.locks import lock
from buildkit_migrate.maintenance.disk import refuse_mounts
from buildkit_migrate.maintenance.kept_files import telling_done
from buildkit_migrate.maintenance.repair_apply import Changed
from buildkit_migrate.maintenance.repair_journal import Entry, Item, Kind, Phase, RepairJournal
from buildkit_migrate.progress import Progress, silent
from buildkit_migrate.text import named_text

__all__ = [
    "KeptRepairs",
    "RepairUndone",
    "discard_entries",
    "last_of",
    "refuse_mounted",
    "refuse_unfinished",
    "undo_entry",
]

_GIVE_UP: Final = "keep what is there; repair --discard-kept deletes the originals that repairs keep"


@dataclass(frozen=True)
class RepairUndone:
    """Result of an undo. ``when``, ``classes``: of the repair that is taken back. ``changes``: what is put
    back, in that order. ``databases``: those that were there at the repair. ``obstacle``: why it would be
    refused.
    """

    root: Path
    when: str
    classes: tuple[str, ...]
    changes: tuple[Changed, ...]
    dry_run: bool
    databases: frozenset[Path] = frozenset()
    obstacle: Error | None = None

    @property
    def exit_code(self) -> int:
        """The exit status of a refusal that a dry run predicts, otherwise 0."""
        return 0 if self.obstacle is None else self.obstacle.exit_code

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "when": self.when,
            "classes": list(self.classes),
            "changes": [change.as_dict() for change in self.changes],
            "dry_run": self.dry_run,
            **named_text("obstacle", None if self.obstacle is None else self.obstacle.message),
        }


@dataclass(frozen=True)
class KeptRepairs:
    """The repairs of a root that are in its journal, the last one at the end.

    ``discarded``: their originals are deleted. ``obstacle``: why they would not be.
    """

    root: Path
    entries: tuple[Entry, ...]
    discarded: bool = False
    obstacle: Error | None = None

    @property
    def bytes(self) -> int:
        """Size of the kept files. Raises StorageError."""
        return sum(entry.kept_bytes for entry in self.entries)

    @property
    def exit_code(self) -> int:
        """The exit status of a refusal that a dry run predicts, otherwise 0."""
        return 0 if self.obstacle is None else self.obstacle.exit_code

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        last = len(self.entries) - 1
        return {
            **named_text("root", self.root),
            "repairs": [
                _entry_as_dict(entry, is_last=number == last) for number, entry in enumerate(self.entries)
            ],
            "discarded": self.discarded,
            **named_text("obstacle", None if self.obstacle is None else self.obstacle.message),
        }


def _entry_as_dict(entry: Entry, *, is_last: bool) -> dict[str, Any]:
    reasons = entry.reasons()
    return {
        "when": entry.when,
        "classes": list(entry.classes),
        "phase": str(entry.phase),
        "changes": [change.as_dict() for change in _changes(entry.items)],
        "kept_bytes": entry.kept_bytes,
        "can_undo": is_last and not reasons,
        "reasons": [named_text("reason", reason)["reason"] for reason in reasons],
    }


def _changes(items: Iterable[Item]) -> tuple[Changed, ...]:
    return tuple(Changed(item.kind, item.path, item.kept) for item in items)


class _PutBack(Changed):
    @property
    def done(self) -> str:
        """What happened to it, for people."""
        return "is as it was before the repair"


def last_of(
    entries: Sequence[Entry], is_named: Callable[[Path], bool], state: Path
) -> tuple[list[Entry], UndoRefusedError | None]:
    """These repairs, with the last one that changed what is named at the end; none if there is no such one.

    Also why that one can't be taken back alone, if so: it changed more than that, or a later one knows its
    files as they are now. Then ``state``, the directory of all, is to be named.
    """
    number = next((at for at in reversed(range(len(entries))) if _touches(entries[at], is_named)), None)
    if number is None:
        return [], None
    entry, later = entries[number], entries[number + 1 :]
    reasons = [f"it also changed {item.path}" for item in entry.items if not is_named(item.path)]
    changed = {item.path for item in entry.items}
    reasons += [
        f"the later one of {one.when} depends on what it changed"
        if one.phase is Phase.APPLIED
        else f"the later one of {one.when} is not finished"
        for one in later
        if one.phase is not Phase.APPLIED or not changed.isdisjoint(one.known)
    ]
    chosen = [*entries[:number], *later, entry]
    if not reasons:
        return chosen, None
    message = f"the repair of {entry.when} is not taken back alone: {'; '.join(reasons)}"
    return chosen, UndoRefusedError(
        message, reasons, hint=f"undo {state} takes back what was done last there"
    )


def _touches(entry: Entry, is_named: Callable[[Path], bool]) -> bool:
    return any(is_named(item.path) for item in entry.items)


def undo_entry(
    root: Path,
    journal: RepairJournal,
    entries: Sequence[Entry],
    held: contextlib.ExitStack,
    obstacle: UndoRefusedError | None = None,
    *,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> RepairUndone:
    """Takes the last of these repairs back. The state directory must be locked.

    ``held``: gets the locks of all files that are looked at. ``obstacle``: see `last_of`. Raises
    UndoRefusedError, before anything is changed, if any file was used since, or an original is gone;
    BusyError, StorageError.
    """
    tell = progress or silent
    *before, entry = entries
    _lock_all(entry, held, exclusive=not dry_run)
    if obstacle is None and (reasons := entry.reasons()):
        obstacle = UndoRefusedError(
            f"the repair of {entry.when} is not taken back: {'; '.join(reasons)}", reasons, hint=_GIVE_UP
        )
    changes = _changes(entry.items)
    result = RepairUndone(root, entry.when, entry.classes, changes, dry_run, entry.databases, obstacle)
    if dry_run:
        return result
    if obstacle is not None:
        raise obstacle
    journal.save([*before, replace(entry, phase=Phase.UNDOING)])
    done: list[Item] = []
    with telling_done(lambda: (_PutBack(item.kind, item.path, item.kept) for item in done)):
        for item in entry.items:
            tell(f"putting back {item.path}")
            try:
                _put_back(item)
            except Error as error:
                error.hint = "; ".join(filter(None, (error.hint, "run undo again to finish it")))
                raise
            done.append(item)
    journal.save(before)
    return result


def _lock_all(entry: Entry, held: contextlib.ExitStack, *, exclusive: bool) -> None:
    """Locks the files that are there, each once. Raises BusyError, StorageError."""
    paths = [*entry.others]
    for item in entry.items:
        if item.kind is not Kind.REMOVED:
            paths += filter(None, (item.path, item.kept))
    locked: set[tuple[int, int]] = set()
    for path in paths:
        with contextlib.suppress(CorruptDatabaseError):  # a directory
            try:
                info = path.stat()
                if (info.st_dev, info.st_ino) not in locked:  # a file may have both names
                    locked.add((info.st_dev, info.st_ino))
                    held.enter_context(lock(path, exclusive=exclusive))
            except FileNotFoundError:
                continue
            except StorageError as error:
                if not error.missing:
                    raise


def _put_back(item: Item) -> None:
    match item.kind:
        case Kind.REPLACED:
            assert item.kept is not None
            for path in (item.path, item.kept):
                remove_aside(path)
            if fingerprint(item.path) != item.before:
                rename(item.kept, item.path)
            else:
                remove(item.kept)  # a second name of the file, if it is there at all
        case Kind.MADE:
            remove_aside(item.path)
            remove(item.path)
            if is_directory(item.path.parent):
                sync_directory(item.path.parent)
        case Kind.MADE_DIRECTORY:
            remove_if_empty(aside_of(item.path))
            remove_if_empty(item.path)
        case Kind.MOVED:
            assert item.kept is not None
            if item.has_original:
                rename(item.kept, item.path)
        case Kind.REMOVED:
            assert item.kept is not None
            if item.has_original:
                make_directory_like(item.path.parent, item.kept.parent)  # nobody may need it any more
                move(item.kept, item.path)
            remove_if_empty(aside_of(item.kept.parent))
            remove_if_empty(item.kept.parent)
        case _:
            assert_never(item.kind)


def discard_entries(journal: RepairJournal, entries: Sequence[Entry]) -> None:
    """Deletes the originals that these repairs keep, and the journal, if nothing is in the way of that (see
    `refuse_unfinished` and `refuse_mounted`). Raises StorageError.
    """
    for entry in entries:
        for item in entry.items:
            if item.kept is not None and exists(item.kept, follow_symlinks=False):
                remove_tree(item.kept)
                if item.kind is Kind.REMOVED:
                    remove_if_empty(item.kept.parent)
    journal.save([])


def refuse_mounted(entries: Sequence[Entry]) -> None:
    """Raises StorageError if anything is mounted in a directory that a repair keeps."""
    for entry in entries:
        for item in entry.items:
            if item.kind is Kind.REMOVED and item.kept is not None:
                refuse_mounts(item.kept, "deleted")


def refuse_unfinished(journal: RepairJournal, entries: Sequence[Entry]) -> None:
    """Raises JournalError if a repair or its undo was cut off."""
    if entries and (phase := entries[-1].phase) is not Phase.APPLIED:
        what, command = ("undo", "undo") if phase is Phase.UNDOING else ("repair", "repair")
        raise JournalError(
            f"{journal.path}: the last {what} is not finished",
            hint=f"run {command} again; after that its originals can be deleted",
        )
