"""Rules about one database file as such: its pages, its length, its free list (C1, C3, C4, C5)."""

from __future__ import annotations

import enum
import mmap
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from buildkit_migrate._native.bolt import (
    IN_FREE_LIST,
    IN_META,
    IN_TREE,
    LEAKED,
    TOO_SHORT,
    TRUNCATED,
    USED_AND_FREE,
    WRONG_PAGE_TYPE,
    count_check,
)
from buildkit_migrate.bolt import Database, Reader, check
from buildkit_migrate.errors import CorruptDatabaseError
from buildkit_migrate.files.errors import storage_errors
from buildkit_migrate.files.locks import readable
from buildkit_migrate.maintenance.finding import Finding, Severity
from buildkit_migrate.workspace.stores import Fault, Store

__all__ = ["NUMBERS", "Role", "StorePages", "check_pages", "has_broken_trees", "whole_before"]

NUMBERS: Final = ("C1", "C3", "C4", "C5")

_MOST_FREE: Final = 256 << 20
"""Fewer bytes of free pages than this are no reason to compact, however small the rest is."""

_SHOWN: Final = 3
"""How many broken rules a message names."""

_BY_COMPACTION: Final = "`repair` and `compact` copy the trees, which are whole, into a new file."
_BY_GOING_BACK: Final = (
    "`repair` goes back to the transaction before, which is whole; what the newest one changed is lost."
)

_PREFIX_OF_META: Final = 20
"""How many bytes of a file tell whether it was a database: the header of a page, and the magic number."""
_MAGIC: Final = 0xED0CDAED.to_bytes(4, "little")


class Role(enum.Enum):
    """What a daemon does with a damaged database."""

    NEEDED = enum.auto()
    """It does not start, or panics."""
    SNAPSHOTTERS = enum.auto()
    """It starts, because it opens this database at first use; what uses it fails."""
    MOVED_ASIDE = enum.auto()
    """It creates a new one if this can't be opened, and panics at damage that it meets later."""


_NOT_OPENED: Final = {
    Role.NEEDED: Severity.START,
    Role.SNAPSHOTTERS: Severity.PRUNE,
    Role.MOVED_ASIDE: Severity.HARMLESS,
}
_BROKEN: Final = {**_NOT_OPENED, Role.MOVED_ASIDE: Severity.START}
"""Severities of what keeps a database from being opened, and of what is found broken later."""


@dataclass(frozen=True)
class StorePages:
    """``damage``: what is wrong with the file, as in "is damaged"; "" if it is sound. ``usable``: whether all
    of its buckets and keys can be read.
    """

    findings: tuple[Finding, ...]
    damage: str = ""
    usable: bool = True


def check_pages(store: Store, role: Role) -> StorePages:
    """Looks at every page. Raises StorageError, and what a handler of signals raises."""
    if store.path is None or store.fault in (Fault.MISSING, Fault.EMPTY):
        return StorePages(())
    if store.database is None:
        return _that_did_not_open(store.path, store.error, role)
    return _of_open(store.path, store.database, role)


def _that_did_not_open(path: Path, error: Exception | None, role: Role) -> StorePages:
    """The meta pages are damaged, or say that the file should be longer, or that something is not in it."""
    if isinstance(error, CorruptDatabaseError) and (error.rule == TRUNCATED or _was_longer(path, error)):
        # Reading behind the end kills the daemon, also one that needs the file later.
        severity = Severity.HARMLESS if role is Role.MOVED_ASIDE else Severity.START
        return _unusable(_torn("C3", severity, path, error.rule), "is cut short")
    if not isinstance(error, CorruptDatabaseError):
        return _unusable(Finding("C1", _NOT_OPENED[role], path, "", str(error)), "is damaged")
    message = _with_page(error.page, error.rule)
    return _unusable(_torn("C1", _NOT_OPENED[role], path, message), "is damaged")


def _was_longer(path: Path, error: CorruptDatabaseError) -> bool:
    """Whether a file that is too short to be a database begins like one."""
    if error.rule != TOO_SHORT:
        return False
    with readable(path) as fd, storage_errors(path):
        return os.pread(fd, _PREFIX_OF_META, 0).endswith(_MAGIC)


def _unusable(finding: Finding, damage: str) -> StorePages:
    return StorePages((finding,), damage, usable=False)


def _of_open(path: Path, database: Database, role: Role) -> StorePages:
    reader = database.reader
    found, counts, used, _ = count_check(reader)
    if counts[IN_TREE]:
        message = _listed(_texts(found, IN_TREE), counts[IN_TREE])
        return _unusable(_torn("C1", _BROKEN[role], path, message), "is damaged")
    findings = []
    damage = ""
    if number := counts[IN_FREE_LIST]:
        message = _listed(_texts(found, IN_FREE_LIST), number)
        # A list that is none keeps the database from being opened.
        is_none = any(text == WRONG_PAGE_TYPE for part, _, text in found if part == IN_FREE_LIST)
        severity = _NOT_OPENED[role] if is_none else _BROKEN[role]
        findings.append(Finding("C1", severity, path, "", message, repair=_BY_COMPACTION))
        damage = "has a damaged free list"
    elif (number := counts[LEAKED]) and not counts[USED_AND_FREE]:
        message = f"{number} of its pages are neither in use nor free"
        size = number * reader.page_size
        findings.append(Finding("C1", Severity.LEAK, path, "", message, size, _BY_COMPACTION))
    if number := counts[USED_AND_FREE]:
        first = next(page for part, page, _ in found if part == USED_AND_FREE)
        message = f"{number} of its pages in use are in its free list, page {first} is the first"
        findings.append(Finding("C4", Severity.START, path, "", message))
        damage = damage or "has pages that are in use and free"
    if counts[IN_META] or reader.other_meta:
        what = reader.other_meta or _listed(_texts(found, IN_META), counts[IN_META])
        message = f"one of its two meta pages is damaged ({what}), and the other is used"
        findings.append(Finding("C1", Severity.HARMLESS, path, "", message, repair=_BY_COMPACTION))
    free = reader.high_water - 2 - used - counts[LEAKED]
    if not damage and free * 4 >= reader.high_water and free * reader.page_size >= _MOST_FREE:
        message = f"{free} of its {reader.high_water} pages are free"
        findings.append(Finding("C5", Severity.LEAK, path, "", message, free * reader.page_size))
    return StorePages(tuple(findings), damage)


def has_broken_trees(database: Database) -> bool:
    """Whether a page that a bucket needs is damaged."""
    return count_check(database.reader)[1][IN_TREE] > 0


def _torn(rule: str, severity: Severity, path: Path, message: str) -> Finding:
    """What the newest transaction lacks; it may be that the one before it is whole."""
    repair = None
    if (transaction := whole_before(path)) is not None:
        message += f"; the transaction before it ({transaction}) is whole"
        repair = _BY_GOING_BACK
    return Finding(rule, severity, path, "", message, repair=repair)


def _texts(found: Sequence[tuple[int, int, str]], part: int) -> list[str]:
    return [_with_page(page, text) for where, page, text in found if where == part]


def _listed(texts: Sequence[str], number: int) -> str:
    shown = "; ".join(texts[:_SHOWN])
    return f"{shown}; and {number - _SHOWN} more" if number > _SHOWN else shown


def _with_page(page: int, text: str) -> str:
    return f"page {page}: {text}" if page >= 0 else text


def whole_before(path: Path) -> int | None:
    """Number of the transaction before the newest one, else None.

    Only if all of its pages are within the file, both meta pages have the right checksums, and no rule of the
    format is broken in it.
    """
    with suppress(CorruptDatabaseError), readable(path) as fd, storage_errors(path):
        data = mmap.mmap(fd, os.fstat(fd).st_size, access=mmap.ACCESS_READ)
        reader = Reader(data, str(path), previous=True)
        return None if check(reader) else reader.transaction
    return None
