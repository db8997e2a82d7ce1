"""A single database file, presented as the stores of a root about which nothing else is known.

``find_stores`` and ``open_found`` choose between the two for commands that take either.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from buildkit_migrate.bolt import Bucket, Database
from buildkit_migrate.errors import CorruptDatabaseError, RootNotFoundError, StorageError
from buildkit_migrate.files.errors import is_file
from buildkit_migrate.schema.containerd import namespaces
from buildkit_migrate.schema.tables import buckets_in
from buildkit_migrate.values.keys import EXTERNAL_BUCKET, INDEX_BUCKET, MAIN_BUCKET
from buildkit_migrate.workspace.layout import OCI_WORKER, Root, root_at
from buildkit_migrate.workspace.opening import ContainerdPlace, lock_out_daemon
from buildkit_migrate.workspace.stores import Fault, Store, Stores, WorkerStores, find_state, open_stores

__all__ = ["find_stores", "lock_out_daemons", "open_file", "open_found", "state_of"]

_NAMES: Final = {
    "metadata_v2.db": "records",
    "containerdmeta.db": "containerd",
    "meta.db": "containerd",
    "metadata.db": "snapshots",
    "cache.db": "cache",
    "cache-debug.db": "cache_debug",
    "history.db": "history",
    "history_c8d.db": "history",
}
_BUCKETS: Final = {
    MAIN_BUCKET: "records",
    INDEX_BUCKET: "records",
    EXTERNAL_BUCKET: "records",
    b"_result": "cache",
    b"_byresult": "cache",
    b"_links": "cache",
    b"_backlinks": "cache",
    b"byhash": "cache_debug",
    b"_records": "history",
    b"_version": "history",
}
_LEVELS: Final = 3
"""How many levels above a store the state directory may be."""


def find_stores(path: str | os.PathLike[str] | None = None) -> Root:
    """Like `find_state`, with its errors; or one database file, as a root without workers."""
    return find_state(path) if path is None or not is_file(Path(path)) else _root_of(Path(path))


def open_found(
    root: Root, place: ContainerdPlace, *, exclusive: bool = False
) -> contextlib.AbstractContextManager[Stores]:
    """Opens what `find_stores` has found: `open_file` or `open_stores`. ``place`` is not used for a file."""
    if is_file(root.path):
        return open_file(root.path, exclusive=exclusive)
    return open_stores(root, place, exclusive=exclusive)


def _root_of(path: Path) -> Root:
    return Root(path, path.parent, ())


@contextlib.contextmanager
def open_file(path: Path, *, exclusive: bool = False) -> Iterator[Stores]:
    """Locks the file and ``buildkitd.lock`` of its root: shared, or ``exclusive`` to replace the file.

    An exclusive lock file is created if it is missing; apart from that, nothing is written.

    The kind of store is detected by its buckets, or else by its name; if neither tells, only its pages can be
    checked. Raises BusyError, and StorageError if the file can't be read. Damage in the file raises nothing.
    """
    with contextlib.ExitStack() as held:
        lock_out_daemons(path, held, exclusive=exclusive)
        try:
            database = held.enter_context(Database.open(path, exclusive=exclusive))
            store = Store(path, database, None if database.size else Fault.EMPTY)
        except CorruptDatabaseError as error:
            store = Store(path, fault=Fault.CORRUPT, error=error)
        yield _alone(path, store)


def lock_out_daemons(path: Path, held: contextlib.ExitStack, *, exclusive: bool = False) -> None:
    """Locks ``buildkitd.lock`` of the root in which a database file is, as `open_file` does."""
    for directory in path.absolute().parents[:_LEVELS]:
        root = Root(path, directory, ())  # of a file alone no lock file is created
        if exclusive and (found := _state_at(directory)) is not None:
            root = found
        lock_out_daemon(root, held, exclusive=exclusive)


def state_of(path: Path) -> Path | None:
    """The state directory that a file belongs to, None if it belongs to none."""
    found = map(_state_at, path.absolute().parents[:_LEVELS])
    return next((root.state for root in found if root is not None), None)


def _state_at(directory: Path) -> Root | None:
    """The state directory with workers at ``directory``, None if it is not one or can't be read."""
    try:
        root = root_at(directory)
    except (StorageError, RootNotFoundError):
        return None
    return root if root is not None and root.workers and root.path == root.state else None


def _alone(path: Path, store: Store) -> Stores:
    kind, namespace, snapshotter = _NAMES.get(path.name, ""), b"buildkit", b""
    if store.root is not None:
        with contextlib.suppress(CorruptDatabaseError):
            kind, namespace, snapshotter = _recognised(store.root, kind)
    places = dict.fromkeys(_NAMES.values(), Store(None, fault=Fault.NOT_GIVEN))
    places[kind or "cache_debug"] = store
    worker = WorkerStores(
        path,
        OCI_WORKER,
        namespace,
        snapshotter,
        None,
        places["records"],
        places["containerd"],
        places["snapshots"],
        content=None,
    )
    return Stores(
        _root_of(path),
        (worker,),
        places["cache"],
        places["cache_debug"],
        (places["history"],),
    )


def _recognised(root: Bucket, kind: str) -> tuple[str, bytes, bytes]:
    """The kind of store, and its containerd namespace and snapshotter."""
    names = buckets_in(root)
    kind = next((_BUCKETS[name] for name in names if name in _BUCKETS), kind)
    if b"v1" not in names:
        return kind, b"buildkit", b""
    spaces = namespaces(root)
    if spaces and set(spaces) <= {b"snapshots", b"parents"}:
        return "snapshots", b"buildkit", b""
    namespace = next((name for name in (b"buildkit", b"moby") if name in spaces), b"buildkit")
    found = buckets_in(root.bucket(b"v1", namespace, b"snapshots"))
    return "containerd", namespace, found[0] if found else b""
