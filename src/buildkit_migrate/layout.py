"""BuildKit's state directories and the worker directories in them, and where to find them.

Spec containerd-metadata-db, section 1.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from buildkit_migrate.errors import RootNotFoundError, StorageError
from buildkit_migrate.storage import storage_errors

__all__ = ["CONTAINERD_WORKER", "LOCK_FILE", "OCI_WORKER", "Root", "Worker", "default_places", "find_root"]

SYSTEM_ROOT: Final = Path("/var/lib/buildkit")
OCI_WORKER: Final = "runc"
CONTAINERD_WORKER: Final = "containerd"

LOCK_FILE: Final = "buildkitd.lock"
_STATE_FILES: Final = {LOCK_FILE, "cache.db", "history.db"}


@dataclass(frozen=True)
class Worker:
    """A worker directory. ``kind``: OCI_WORKER or CONTAINERD_WORKER."""

    path: Path
    kind: str
    snapshotter: str

    @property
    def v1(self) -> Path:
        return self.path / "metadata.db"

    @property
    def v2(self) -> Path:
        return self.path / "metadata_v2.db"


@dataclass(frozen=True)
class Root:
    """What was found at ``path``. ``state``: the state directory, which is the parent of a lone worker."""

    path: Path
    state: Path
    workers: tuple[Worker, ...]


def default_places(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Where BuildKit keeps its state when nothing else is configured, in order of preference.

    That of a rootless daemon is left out if the environment does not tell it.
    """
    rootless = _rootless_place(environ)
    return [SYSTEM_ROOT, rootless] if isinstance(rootless, Path) else [SYSTEM_ROOT]


def _rootless_place(environ: Mapping[str, str]) -> Path | str:
    """As BuildKit finds it, which does not ask the user database; or why there is none.

    A relative path is not used: it would be one below wherever the command happens to be run.
    """
    data_home, home = environ.get("XDG_DATA_HOME", "").split(":")[0], environ.get("HOME", "")
    if data_home.startswith("/"):
        return Path(data_home, "buildkit")
    if home.startswith("/"):
        return Path(home, ".local/share/buildkit")
    why = f"{home!r}, not an absolute path" if home else "not set"
    return f"no place of a rootless daemon: HOME is {why}"


def find_root(path: str | os.PathLike[str] | None = None, *, missing_ok: bool = False) -> Root:
    """The state or worker directory at ``path``, or at the first default place that has one.

    ``missing_ok``: a directory that does not exist is a root without workers. Raises RootNotFoundError, which
    says what was looked for, StorageError, and ValueError for an empty path.
    """
    if path is None:
        return _at_default_places(missing_ok)
    if not os.fspath(path):
        raise ValueError("the root is empty: is a variable not set?")
    place = Path(path)
    root = _root_at(place)
    if root is not None:
        return root
    if missing_ok and _is_missing(place):
        return Root(place, place, ())
    raise RootNotFoundError(
        f"{path} is no BuildKit state directory (with runc-* or containerd-* directories in it) "
        "and no such worker directory"
    )


def _at_default_places(missing_ok: bool) -> Root:
    tried = []
    without_workers = None
    places = default_places()
    for place in places:
        try:
            root = _root_at(place)
        except StorageError as error:
            tried.append(str(error))
            continue
        if root is None:
            tried.append(f"{place}: no state directory")
        elif root.workers:
            return root
        else:
            # An empty system directory must not hide the root of a rootless daemon.
            without_workers = without_workers or root
    rootless = _rootless_place(os.environ)
    if isinstance(rootless, str):
        tried.append(rootless)
    if without_workers is not None:
        return without_workers
    if missing_ok and all(map(_is_missing, places)):
        return Root(places[0], places[0], ())
    raise RootNotFoundError(
        f"found no BuildKit state directory ({'; '.join(tried)})", hint="give the directory as an argument"
    )


def _is_missing(place: Path) -> bool:
    """A link that leads nowhere is there: what it should lead to is perhaps not mounted."""
    with storage_errors(place):
        try:
            place.lstat()
        except FileNotFoundError:
            return True
        except NotADirectoryError:
            pass
    return False


def _root_at(path: Path) -> Root | None:
    with storage_errors(path):
        try:
            names = sorted(entry.name for entry in os.scandir(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
    workers = tuple(worker for name in names if (worker := _worker_at(path / name)) is not None)
    if workers or _is_state_without_workers(set(names)):
        return Root(path, path, workers)
    real = path.resolve()
    worker = _worker_at(real)
    return None if worker is None else Root(path, real.parent, (worker,))


def _is_state_without_workers(names: set[str]) -> bool:
    """So is a new volume. Docker has its records right beside ``cache.db``; that is another layout."""
    return not names - {"lost+found"} or (bool(_STATE_FILES & names) and "metadata.db" not in names)


def _worker_at(path: Path) -> Worker | None:
    kind, dash, snapshotter = path.name.partition("-")
    if kind not in (OCI_WORKER, CONTAINERD_WORKER) or not dash or not snapshotter or not path.is_dir():
        return None
    if not snapshotter.isascii():
        raise RootNotFoundError(f"{os.fsencode(path)!r} names no snapshotter that containerd could have")
    return Worker(path, kind, snapshotter)
