"""Predicts the access of files that a migration will create."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from buildkit_migrate.containerd.offline import NEW_MODE
from buildkit_migrate.files.access import Access
from buildkit_migrate.files.errors import exists
from buildkit_migrate.files.foreseeing import foresee_new, foresee_replaced
from buildkit_migrate.files.ownership import access_of, usable_mode

__all__ = ["foresee_migration"]


def foresee_migration(
    from_path: Path, to_path: Path, database: Path | None
) -> dict[Path, tuple[Access, Access]]:
    """For each file that will be created: the wanted access, and the predicted access.

    ``database``: containerd's, if it will be replaced or created. Raises StorageError if a file can't be
    created, or its owner could not use it.
    """
    new = foresee_new(to_path, from_path, usable_mode(from_path))
    found = {to_path: (access_of(from_path), new)}
    if database is not None:
        if exists(database):
            found[database] = (access_of(database), foresee_replaced(database))
        else:
            wanted = replace(access_of(from_path), mode=NEW_MODE)
            found[database] = (wanted, foresee_new(database, from_path, NEW_MODE))
    return found
