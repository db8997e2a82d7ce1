"""What `compact` and `repair` share: new database files that take the places of old ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from buildkit_migrate._native.bolt import IN_TREE, count_check
from buildkit_migrate.bolt import Database, Reader, rewrite, same_content, write
from buildkit_migrate.errors import CorruptDatabaseError, DifferencesError, StorageError
from buildkit_migrate.files.errors import is_link
from buildkit_migrate.files.ownership import access_of

__all__ = ["refuse_link", "wants_free_list", "whole_trees", "write_like"]

_CONTAINERDS: Final = "meta.db"
"""containerd's own database, the only one that a daemon writes without a free list."""


def wants_free_list(path: Path, reader: Reader) -> bool:
    """Whether the new file needs a free list.

    containerd's own database has none if its containerd works without. All others get one, whatever they
    have: a BuildKit that has to derive the list can't move a damaged file aside.
    """
    return reader.freelist is not None or path.name != _CONTAINERDS


def write_like(to: Path, path: Path, reader: Reader, edits: bytes = b"") -> Database:
    """Writes what ``reader`` reads of the database at ``path``, with edits, to a new file ``to``.

    It has the mode, owner, page size, free list and sequences of the old one. It is read back and compared.
    Returns it synced and exclusively locked. ``edits``: a whole stream. Raises StorageError,
    CorruptDatabaseError, EditConflictError; DifferencesError if it does not hold what was written.
    """

    def compare(new: Database) -> None:
        if not same_content(reader, new.reader, edits):
            raise DifferencesError(
                f"{to} does not hold what {path}{' with its edits' if edits else ''} holds, and was deleted",
                (),
                hint=f"{path} is unchanged; check the disk and the memory of this machine",
            )

    return write(
        to,
        mode=access_of(path).mode,
        page_size=reader.page_size,
        fill=lambda builder: rewrite(reader.root, builder, (edits,)),
        owner_of=path,
        after=reader,
        free_list=wants_free_list(path, reader),
        verify=compare,
    )


def whole_trees(reader: Reader) -> tuple[list[tuple[int, int, str]], int, int]:
    """Findings, pages in use and bytes in them, as `count_check` gives them.

    Raises CorruptDatabaseError if the trees are damaged.
    """
    findings, counts, used, content = count_check(reader)
    if counts[IN_TREE]:
        page, rule = next((page, text) for part, page, text in findings if part == IN_TREE)
        raise CorruptDatabaseError(
            rule,
            path=reader.path,
            page=page,
            hint="whole trees are needed: restore the file from a backup, or read what is left of it with "
            "repair --salvage; `check` tells more",
        )
    return findings, used, content


def refuse_link(path: Path, command: str) -> None:
    """Raises StorageError for a symbolic link."""
    if is_link(path):
        raise StorageError(
            f"{path} is a symbolic link, which a rename would replace",
            hint=f"replace the link with the file itself, or {command} {os.path.realpath(path)}",
        )
