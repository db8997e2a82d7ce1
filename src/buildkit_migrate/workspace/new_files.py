"""What the files that a migration makes will be like, told before one is made."""

from __future__ import annotations

from pathlib import Path

from buildkit_migrate.files.access import Access
from buildkit_migrate.files.ownership import access_of, predict_access, predict_replaced_access, usable_mode

__all__ = ["foresee_migration"]


def foresee_migration(
    from_path: Path, to_path: Path, database: Path | None
) -> dict[Path, tuple[Access, Access]]:
    """By file that will be made: what the one has that it must be like, and what it will have itself.

    ``database``: containerd's, if it will be replaced. Raises StorageError if a file can't be made, or not so
    that the owner of the other one can work with it.
    """
    new = predict_access(to_path, from_path, usable_mode(from_path))
    found = {to_path: (access_of(from_path), new)}
    if database is not None:
        found[database] = (access_of(database), predict_replaced_access(database))
    return found
