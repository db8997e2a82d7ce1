"""The functions behind the command ``compact``, for a whole root or one database file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from buildkit_migrate.maintenance import kept_files
from buildkit_migrate.maintenance.compact import Compaction, compact_stores
from buildkit_migrate.maintenance.kept_files import KeptFiles, kept_in
from buildkit_migrate.progress import Progress
from buildkit_migrate.settings import DEFAULT_NAMESPACE, Setting
from buildkit_migrate.workspace.finding import find_root
from buildkit_migrate.workspace.one_file import find_stores, open_found
from buildkit_migrate.workspace.opening import Opener, containerd_place, foresee_lock
from buildkit_migrate.workspace.stores import Stores

__all__ = ["compact_root", "discard_kept", "files_kept", "opened_stores", "undo_compaction"]

StrPath = str | os.PathLike[str]


def compact_root(
    path: StrPath | None = None,
    *,
    containerd_root: StrPath | Setting | None = None,
    namespace: str | Setting = DEFAULT_NAMESPACE,
    snapshotter: str | Setting | None = None,
    snapshotter_root: StrPath | Setting | None = None,
    min_free: float = 0.0,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Compaction:
    """Writes the databases of a stopped BuildKit, or a single database file, anew without their free pages.

    A database that would not get smaller is left, as is one of which less than ``min_free`` (a share, from 0
    to 1) is free; but damage that this cures, such as a broken free list, always is a reason. Each old file
    is kept as ``<name>.before-compact``, see `undo_compaction` and `discard_kept`. A containerd's databases
    are only compacted with ``containerd_root``, of a stopped one. Other parameters are those of
    `migrate_root`; for a single file those for a containerd change nothing.

    All databases are checked before any is replaced. Raises ValueError, the errors of `find_root`, BusyError,
    which names the daemon, CorruptDatabaseError for damaged trees, with the page, DifferencesError if the
    disk does not hold what was written to it, StorageError, also if there is no room for the new files, and
    ContainerdStateError.
    """
    if not 0 <= min_free <= 1:
        raise ValueError("min_free must be from 0 to 1")
    place = containerd_root, namespace, snapshotter, snapshotter_root
    with contextlib.ExitStack() as held, opened_stores(path, *place, exclusive=not dry_run) as stores:
        return compact_stores(stores, held, min_free=min_free, dry_run=dry_run, progress=progress)


def undo_compaction(
    path: StrPath | None = None,
    *,
    containerd_root: StrPath | Setting | None = None,
    namespace: str | Setting = DEFAULT_NAMESPACE,
    snapshotter: str | Setting | None = None,
    snapshotter_root: StrPath | Setting | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> KeptFiles:
    """Puts back, byte for byte, the files that the last `compact_root` kept. Takes its parameters.

    Raises UndoRefusedError, before anything is changed, if a compacted file does not hold what the old one
    does: it was used since. Raises CorruptDatabaseError if an old file can't be read, and the errors of
    `compact_root`.
    """
    place = containerd_root, namespace, snapshotter, snapshotter_root
    with contextlib.ExitStack() as held, opened_stores(path, *place, exclusive=not dry_run) as stores:
        return kept_files.put_back_kept(stores, held, dry_run=dry_run, progress=progress)


def discard_kept(
    path: StrPath | None = None,
    *,
    containerd_root: StrPath | Setting | None = None,
    namespace: str | Setting = DEFAULT_NAMESPACE,
    snapshotter: str | Setting | None = None,
    snapshotter_root: StrPath | Setting | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> KeptFiles:
    """Deletes all files that `compact_root` kept. Takes its parameters.

    Nothing is deleted if one of the databases that took their places is missing or not sound: raises
    CorruptDatabaseError, StorageError, and the errors of `compact_root`.
    """
    place = containerd_root, namespace, snapshotter, snapshotter_root
    with opened_stores(path, *place, exclusive=not dry_run) as stores:
        return kept_files.discard_kept(stores, dry_run=dry_run, progress=progress)


def files_kept(
    path: StrPath | None = None,
    *,
    containerd_root: StrPath | Setting | None = None,
    missing_ok: bool = False,
) -> KeptFiles:
    """What `compact_root` has kept in a root, judged by file names alone, without a lock.

    ``missing_ok``: as for `find_root`. Raises the errors of `find_root`, StorageError.
    """
    root = find_root(path, missing_ok=missing_ok)
    place = containerd_place(None, containerd_root, DEFAULT_NAMESPACE, None, None)
    places = [root.state] if root.path == root.state else []
    with contextlib.ExitStack() as held:
        opener = Opener(held, root, place, exclusive=False, progress=None)
        for worker in root.workers:
            places.append(worker.path)
            found = opener.place(worker)
            if found.backend:
                places += [Path(found.containerd.value).parent, Path(found.backend).parent]
    files = tuple(file for place in dict.fromkeys(places) for file in kept_in(place))
    return KeptFiles(root.path, files, dry_run=True)


@contextlib.contextmanager
def opened_stores(
    path: StrPath | None,
    containerd_root: StrPath | Setting | None,
    namespace: str | Setting,
    snapshotter: str | Setting | None,
    snapshotter_root: StrPath | Setting | None,
    *,
    exclusive: bool,
) -> Iterator[Stores]:
    """All stores of a root, or one database file as a store, locked without waiting.

    Raises the errors of `find_root` and `open_stores`, and StorageError if ``buildkitd.lock`` can't be made.
    """
    place = containerd_place(None, containerd_root, namespace, snapshotter, snapshotter_root)
    root = find_stores(path)
    foresee_lock(root)
    with open_found(root, place, exclusive=exclusive) as stores:
        yield stores
