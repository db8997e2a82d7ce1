"""BuildKit's state directories, and the worker directories in them.

Spec containerd-metadata-db, section 1.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from buildkit_migrate.containerd.docker import DOCKER_SNAPSHOTTER
from buildkit_migrate.errors import RootNotFoundError
from buildkit_migrate.files.errors import is_directory, storage_errors
from buildkit_migrate.settings import ARGUMENT
from buildkit_migrate.workspace.copies import original_of
from buildkit_migrate.workspace.names import is_identifier
from buildkit_migrate.workspace.places import docker_builder, is_remapped

__all__ = [
    "CONTAINERD_WORKER",
    "DOCKER_BUILDER",
    "LOCK_FILE",
    "OCI_WORKER",
    "Root",
    "Skipped",
    "Worker",
    "root_at",
    "with_image_store",
]

OCI_WORKER: Final = "runc"
CONTAINERD_WORKER: Final = "containerd"
DOCKER_BUILDER: Final = "docker"
"""The builder of Docker Engine for graph drivers, located directly in its state directory."""

LOCK_FILE: Final = "buildkitd.lock"
_STATE_FILES: Final = {LOCK_FILE, "cache.db", "history.db"}


@dataclass(frozen=True)
class _Directory:
    """A directory with its stores."""

    path: Path

    @property
    def v1(self) -> Path:
        return self.path / "metadata.db"

    @property
    def v2(self) -> Path:
        return self.path / "metadata_v2.db"


@dataclass(frozen=True)
class Worker(_Directory):
    """A worker directory. ``kind``: OCI_WORKER, CONTAINERD_WORKER or DOCKER_BUILDER."""

    kind: str
    snapshotter: str


@dataclass(frozen=True)
class Skipped(_Directory):
    """A directory that is named like a worker's but is not one. ``reason``: for people."""

    reason: str


@dataclass(frozen=True)
class Root:
    """What was found at ``path``. ``state``: the state directory; for a lone worker its parent.

    ``skipped``: for example copies of workers. ``origin``: of ``path``, see `Setting`.
    """

    path: Path
    state: Path
    workers: tuple[Worker, ...]
    skipped: tuple[Skipped, ...] = ()
    origin: str = ARGUMENT

    @property
    def skipped_inside(self) -> tuple[Skipped, ...]:
        """Those in the state directory itself."""
        return tuple(one for one in self.skipped if one.path.parent == self.path)

    @property
    def is_whole(self) -> bool:
        """Whether ``workers`` are all that the state directory has."""
        return self.path == self.state and not self.skipped_inside


def root_at(path: Path) -> Root | None:
    """The state or worker directory at ``path``, None if it is neither. Raises StorageError.

    If ``path`` is Docker's data root, its ``buildkit/``.

    Raises RootNotFoundError if all directories that look like workers have impossible snapshotter names.
    """
    with storage_errors(path):
        try:
            names = sorted(entry.name for entry in os.scandir(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
    real = path.resolve()
    if docker_builder(path) and not _names_a_worker(real):
        return _docker_root(path, names)
    found = _workers_in(path, names)
    if found:
        return _sorted_out(path, found)
    if docker_builder(path / "buildkit"):
        return root_at(path / "buildkit")
    if _is_state_without_workers(set(names)):
        return Root(path, path, ())
    return Root(path, real.parent, (_named_worker(real),)) if _names_a_worker(real) else None


def _docker_root(path: Path, names: Sequence[str]) -> Root:
    """The root of Docker's builder. Its image store never had v1 records."""
    reason = "of Docker's containerd image store, which never had v1 records"
    skipped = [Skipped(directory, reason) for directory in _workers_in(path, names)]
    remapped = "another builder of Docker Engine, for remapped users: a root of its own"
    skipped += [Skipped(directory, remapped) for directory in _remapped(path.absolute().parent)]
    return Root(path, path, (Worker(path, DOCKER_BUILDER, DOCKER_SNAPSHOTTER),), tuple(skipped))


def _remapped(data_root: Path) -> list[Path]:
    """Builders of remapped users. What can't be listed has none: it is not what was asked for."""
    try:
        below = [data_root / entry.name for entry in os.scandir(data_root)]
    except OSError:
        return []
    return sorted(it / "buildkit" for it in below if is_remapped(it.name) and docker_builder(it / "buildkit"))


def with_image_store(root: Root) -> Root:
    """The root of Docker's builder with the workers of its containerd image store; others as they are.

    Raises RootNotFoundError as `root_at` does.
    """
    builder = [worker for worker in root.workers if worker.kind == DOCKER_BUILDER]
    if not builder or not root.skipped_inside:
        return root
    inside = _sorted_out(root.path, [skipped.path for skipped in root.skipped_inside])
    elsewhere = (skipped for skipped in root.skipped if skipped not in root.skipped_inside)
    return replace(root, workers=(*builder, *inside.workers), skipped=(*inside.skipped, *elsewhere))


def _workers_in(path: Path, names: Sequence[str]) -> list[Path]:
    return [path / name for name in names if _is_workers_name(name) and is_directory(path / name)]


def _sorted_out(path: Path, directories: Sequence[Path]) -> Root:
    """The workers among directories with such names; copies and the like are set apart."""
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
    """A directory that was given by name is a worker, even if it is a copy."""
    kind, _, snapshotter = path.name.partition("-")
    siblings: list[str] = []
    with contextlib.suppress(OSError):
        siblings = [sibling.name for sibling in path.parent.iterdir()]
    snapshotter = original_of(path, siblings) or snapshotter
    if not is_identifier(snapshotter):
        raise _names_no_snapshotter(path)
    return Worker(path, kind, snapshotter)


def _names_no_snapshotter(path: Path) -> RootNotFoundError:
    return RootNotFoundError(f"{path} names no snapshotter that containerd could have")


def _is_state_without_workers(names: set[str]) -> bool:
    """Whether these are the files of a state directory without workers, or of a new volume.

    Docker's builder has its records directly beside ``cache.db``; that is another layout.
    """
    return not names - {"lost+found"} or (bool(_STATE_FILES & names) and "metadata.db" not in names)


def _names_a_worker(path: Path) -> bool:
    return _is_workers_name(path.name) and is_directory(path)


def _is_workers_name(name: str) -> bool:
    kind, dash, snapshotter = name.partition("-")
    return kind in (OCI_WORKER, CONTAINERD_WORKER) and bool(dash and snapshotter)
