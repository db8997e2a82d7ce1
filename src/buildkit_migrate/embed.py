"""For daemons that call at each start: a root that is migrated already costs next to nothing."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from buildkit_migrate.migration.report import Report

__all__ = ["ensure_migrated"]

_KINDS = ("runc-", "containerd-")


def ensure_migrated(root: "str | os.PathLike[str]", **options: "Any") -> "list[Report]":
    """Migrates what is to be migrated of a state directory or a worker directory, whose daemon is stopped.

    Returns [] if nothing is: told from the names of files, before anything of the package is loaded and
    without reading a store. Otherwise it does what `migrate_root` does with these options, and returns and
    raises the same. A directory that does not exist has nothing to migrate. Raises ValueError if ``root`` is
    empty.
    """
    path = os.fspath(root)
    if not path:
        raise ValueError("the root is empty: is a variable not set?")
    if _is_settled(path):
        return []
    from buildkit_migrate.roots import migrate_root

    return migrate_root(root, **options)


def _is_settled(root: str) -> bool:
    try:
        with os.scandir(root) as entries:
            workers = [entry.path for entry in entries if entry.name.startswith(_KINDS)]
    except FileNotFoundError:
        return not os.path.islink(root)  # noqa: PTH114 - pathlib; one that leads nowhere is perhaps not mounted
    except OSError:
        return False  # `migrate_root` says what is wrong with it
    return all(map(_is_worker_settled, workers or [root]))


def _is_worker_settled(worker: str) -> bool:
    """An empty file is no store, and not for us to judge here."""
    try:
        return os.stat(f"{worker}/metadata_v2.db").st_size > 0  # noqa: PTH116 - pathlib costs more than all of this
    except OSError:
        return not os.path.lexists(f"{worker}/metadata.db")
