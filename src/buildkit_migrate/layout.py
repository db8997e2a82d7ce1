"""BuildKit's state directories and the worker directories in them, and where to find them.

Spec containerd-metadata-db, section 1.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from buildkit_migrate.copies import original_of
from buildkit_migrate.errors import RootNotFoundError, StorageError
from buildkit_migrate.names import is_identifier
from buildkit_migrate.settings import ARGUMENT, DEFAULT
from buildkit_migrate.storage import storage_errors

__all__ = [
    "CONTAINERD_WORKER",
    "LOCK_FILE",
    "OCI_WORKER",
    "Root",
    "Skipped",
    "Worker",
    "default_places",
    "find_root",
]

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
class Skipped:
    """A directory that is named like a worker's and is none. ``reason``: for people."""

    path: Path
    reason: str

    @property
    def v1(self) -> Path:
        return self.path / "metadata.db"

    @property
    def v2(self) -> Path:
        return self.path / "metadata_v2.db"


@dataclass(frozen=True)
class Root:
    """What was found at ``path``. ``state``: the state directory, which is the parent of a lone worker.

    ``skipped``: copies of workers, for example. ``origin``: of ``path``, see `Setting`.
    """

    path: Path
    state: Path
    workers: tuple[Worker, ...]
    skipped: tuple[Skipped, ...] = ()
    origin: str = ARGUMENT


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
            return replace(root, origin=DEFAULT)
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
    found = [directory for name in names if _names_a_worker(directory := path / name)]
    if found:
        return _sorted_out(path, found)
    if _is_state_without_workers(set(names)):
        return Root(path, path, ())
    real = path.resolve()
    return Root(path, real.parent, (_named_worker(real),)) if _names_a_worker(real) else None


def _sorted_out(path: Path, directories: Sequence[Path]) -> Root:
    """The workers among directories that are named so; copies and the like must not be in their way."""
    names = [directory.name for directory in directories]
    workers, copies, odd = [], [], []
    for directory in directories:
        kind, _, snapshotter = directory.name.partition("-")
        original = original_of(directory, names)
        if original is not None:
            what = f"a copy of {kind}-{original}" if original else "a copy that was put aside"
            copies.append(Skipped(directory, f"looks like {what}; move it out of the root"))
        elif is_identifier(snapshotter):
            workers.append(Worker(directory, kind, snapshotter))
        else:
            odd.append(Skipped(directory, "names no snapshotter that containerd could have"))
    if odd and not workers:
        raise _names_no_snapshotter(odd[0].path)
    return Root(path, path, tuple(workers), tuple(sorted([*copies, *odd], key=lambda skipped: skipped.path)))


def _named_worker(path: Path) -> Worker:
    """A directory that was asked for by its name is a worker, be it a copy."""
    kind, _, snapshotter = path.name.partition("-")
    siblings: list[str] = []
    with contextlib.suppress(OSError):
        siblings = [sibling.name for sibling in path.parent.iterdir()]
    snapshotter = original_of(path, siblings) or snapshotter
    if not is_identifier(snapshotter):
        raise _names_no_snapshotter(path)
    return Worker(path, kind, snapshotter)


def _names_no_snapshotter(path: Path) -> RootNotFoundError:
    return RootNotFoundError(f"{os.fsencode(path)!r} names no snapshotter that containerd could have")


def _is_state_without_workers(names: set[str]) -> bool:
    """So is a new volume. Docker has its records right beside ``cache.db``; that is another layout."""
    return not names - {"lost+found"} or (bool(_STATE_FILES & names) and "metadata.db" not in names)


def _names_a_worker(path: Path) -> bool:
    kind, dash, snapshotter = path.name.partition("-")
    return kind in (OCI_WORKER, CONTAINERD_WORKER) and bool(dash and snapshotter) and path.is_dir()
