"""Finding roots: at a path, near a path that is not a root, and on the whole host."""

from __future__ import annotations

import contextlib
import itertools
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from buildkit_migrate.errors import RootNotFoundError, StorageError
from buildkit_migrate.files.errors import exists, storage_errors
from buildkit_migrate.settings import DEFAULT, FOUND
from buildkit_migrate.workspace.layout import DOCKER_BUILDER, Root, root_at
from buildkit_migrate.workspace.places import (
    Places,
    default_places,
    more_places,
    rootless_place,
    volumes,
)

__all__ = ["Host", "find_root", "find_roots"]

_LEVELS_UP: Final = 5
_MOST_BELOW: Final = 4096


@dataclass(frozen=True)
class Host:
    """All roots found on this host, in order of preference; those of Docker's builders are the last.

    ``unreadable``: messages about what could not be searched.
    """

    roots: tuple[Root, ...]
    unreadable: tuple[str, ...] = ()


def find_roots() -> Host:
    """All roots with workers, at the default places and wherever else people run BuildKit. Raises nothing."""
    more = more_places()
    roots: dict[str, Root] = {}
    unreadable = []
    for place in (*default_places(), *more.roots, *more.docker):
        try:
            root = root_at(place)
        except (StorageError, RootNotFoundError) as error:
            unreadable.append(str(error))
            continue
        if root is not None and (root.workers or root.skipped):
            # The same place may have two names.
            roots.setdefault(os.path.realpath(place), replace(root, origin=FOUND))
    return Host(tuple(roots.values()), (*unreadable, *more.unreadable))


def find_root(path: str | os.PathLike[str] | None = None, *, missing_ok: bool = False) -> Root:
    """The state or worker directory at ``path``, or at the first default place that has one.

    If neither exists, the only root of `find_roots`, or the only one that is not of Docker's builder.
    ``missing_ok``: treat a directory that does not exist as a root without workers. Raises RootNotFoundError,
    which tells where was searched and lists the roots near ``path`` or all that were found; StorageError;
    ValueError for an empty path.
    """
    if path is None:
        return _at_known_places(missing_ok)
    if not os.fspath(path):
        raise ValueError("the root is empty: is a variable not set?")
    place = Path(path)
    root = root_at(place)
    if root is not None:
        return root
    if missing_ok and _is_missing(place):
        return Root(place, place, ())
    near = [str(root.path) for root in _near(place)]
    hint = f"did you mean {' or '.join(near)}?" if near else ""
    raise RootNotFoundError(
        f"{path} is not a BuildKit state directory (with runc-* or containerd-* directories in it), "
        "such a worker directory, or a data root of Docker Engine",
        hint=hint,
        candidates=near,
    )


def _at_known_places(missing_ok: bool) -> Root:
    tried = []
    without_workers = None
    places = default_places()
    for place in places:
        try:
            root = root_at(place)
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
    host = find_roots()
    elsewhere = [root for root in host.roots if root.path not in places]
    # Most hosts with a builder of buildx have Docker's own, too.
    elsewhere = [root for root in elsewhere if not _is_docker(root)] or elsewhere
    if len(elsewhere) == 1:
        return elsewhere[0]
    if elsewhere:
        raise RootNotFoundError(
            f"found {len(elsewhere)} BuildKit roots and none at the usual places",
            hint="give one of them as an argument; migrate, verify and status take all of them with --all",
            candidates=[str(root.path) for root in elsewhere],
        )
    rootless = rootless_place(os.environ)
    if isinstance(rootless, str):
        tried.append(rootless)
    if without_workers is not None:
        return without_workers
    # Other people's directories, which the user of a rootless daemon may not list, don't have that daemon's
    # root.
    if missing_ok and all(map(_is_missing, places)):
        return Root(places[0], places[0], ())
    tried += [message for message in host.unreadable if message not in tried]
    raise RootNotFoundError(
        f"found no BuildKit state directory ({'; '.join(tried)})", hint="give the directory as an argument"
    )


def _is_docker(root: Root) -> bool:
    return any(worker.kind == DOCKER_BUILDER for worker in root.workers)


def _near(path: Path) -> list[Root]:
    """Roots a few levels above or below a path that is not one: probably what was meant."""
    try:
        if not exists(path):
            return []
    except StorageError:
        return []
    above = path.resolve()
    for _ in range(_LEVELS_UP):
        above = above.parent
        if (root := _quiet_root_at(above)) is not None and root.workers:
            return [root]
    inside = Places()
    below = [path / "_data", path / "buildkit", *volumes(path, inside), *volumes(path / "volumes", inside)]
    with contextlib.suppress(OSError):
        below += sorted(itertools.islice(path.iterdir(), _MOST_BELOW))
    found = [root for place in dict.fromkeys(below) if (root := _quiet_root_at(place)) is not None]
    with_workers = [root for root in found if root.workers]
    # A container's new volume has no workers yet.
    return with_workers or [root for root in found if root.path.name == "_data"]


def _quiet_root_at(path: Path) -> Root | None:
    try:
        return root_at(path)
    except (StorageError, RootNotFoundError):
        return None


def _is_missing(place: Path) -> bool:
    """A dangling symbolic link is not missing: its target may be on a file system that is not mounted."""
    with storage_errors(place):
        try:
            place.lstat()
        except FileNotFoundError:
            return True
        except NotADirectoryError:
            pass
    return False
