"""Where people run BuildKit: its own places, volumes of buildx builders, and Docker's builder.

Only lists of paths; directories are listed, but never walked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from buildkit_migrate.workspace.names import TELLING, is_docker_builder

__all__ = [
    "SYSTEM_ROOT",
    "DaemonSettings",
    "Places",
    "daemon_settings",
    "default_places",
    "docker_builder",
    "is_remapped",
    "more_places",
    "rootless_place",
    "volumes",
]

SYSTEM_ROOT: Final = Path("/var/lib/buildkit")

_DOCKER: Final = (Path("/var/lib/docker"), Path("/var/snap/docker/common/var-lib-docker"))
_PODMAN: Final = Path("containers/storage/volumes")
_OCI_SNAPSHOTTERS: Final = ("overlayfs", "native", "fuse-overlayfs", "stargz")


def default_places(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Where BuildKit keeps its state by default, in order of preference.

    The place of a rootless daemon is omitted if the environment does not tell it.
    """
    rootless = rootless_place(environ)
    return [SYSTEM_ROOT, rootless] if isinstance(rootless, Path) else [SYSTEM_ROOT]


def rootless_place(environ: Mapping[str, str]) -> Path | str:
    """The place that a rootless BuildKit uses (it does not ask the user database), or why there is none.

    A relative path is not used, as it would depend on the current directory.
    """
    data_home, home = environ.get("XDG_DATA_HOME", "").split(":")[0], environ.get("HOME", "")
    if data_home.startswith("/"):
        return Path(data_home, "buildkit")
    if home.startswith("/"):
        return Path(home, ".local/share/buildkit")
    why = f"{home!r}, not an absolute path" if home else "not set"
    return f"no place of a rootless daemon: HOME is {why}"


@dataclass
class Places:
    """``roots``: possible state directories. ``docker``: existing builders inside Docker Engine.

    ``unreadable``: messages about directories that can't be listed.
    """

    roots: list[Path] = field(default_factory=list)
    docker: list[Path] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def more_places(
    environ: Mapping[str, str] = os.environ, top: Path = Path("/"), *, all_users: bool | None = None
) -> Places:
    """Places other than `default_places`; see the module.

    ``top``: prefix of all paths on the host. ``all_users``: include other users' rootless daemons; by default
    if this is root, who may read them.
    """
    found = Places()
    homes = []
    rootless = rootless_place(environ)
    if isinstance(rootless, Path):
        homes.append(_below(top, rootless.parent))
    if all_users or (all_users is None and os.geteuid() == 0):
        others = [home / ".local/share" for home in _entries(top / "home", found)]
        homes += [other for other in others if other not in homes]
        found.roots += [other / "buildkit" for other in others]
    for home in homes:
        # rootless nerdctl has one BuildKit per namespace
        found.roots += [entry for entry in _entries(home, found) if entry.name.startswith("buildkit-")]
    for data in _docker_data(environ, top, homes, found):
        found.roots += volumes(data / "volumes", found)
        if docker_builder(data / "buildkit"):
            found.docker.append(data / "buildkit")
    for storage in (_below(top, Path("/var/lib")), *homes):
        found.roots += volumes(storage / _PODMAN, found)
    return found


def volumes(directory: Path, found: Places) -> Iterator[Path]:
    """Volumes of buildx builder containers, and other volumes with a worker in them."""
    for volume in _entries(directory, found):
        data = volume / "_data"
        of_buildx = volume.name.startswith("buildx_buildkit_") and volume.name.endswith("_state")
        if of_buildx or any(_is_dir(data / f"runc-{name}") for name in _OCI_SNAPSHOTTERS):
            yield data


def docker_builder(path: Path) -> bool:
    """Whether this is the directory of the builder inside Docker Engine."""
    names = _names(path)
    # Its name may be "..", and it may be a link to another disk.
    return bool(names) and is_docker_builder(names, _names(path.absolute().parent) | _names(path / ".."))


def _names(directory: Path) -> set[str]:
    """The names in it; of a directory that can't be listed those that tell Docker's builder."""
    try:
        return {entry.name for entry in os.scandir(directory)}
    except OSError:
        return {name for name in TELLING if _exists(directory / name)}


def _docker_data(environ: Mapping[str, str], top: Path, homes: list[Path], found: Places) -> Iterator[Path]:
    """Docker's data roots, each also for remapped users, without duplicates."""
    roots = [_below(top, path) for path in _DOCKER] + [home / "docker" for home in homes]
    roots += [_below(top, it.data_root) for it in daemon_settings(environ, top) if it.data_root is not None]
    for root in dict.fromkeys(roots):
        yield root
        yield from (entry for entry in _entries(root, found) if is_remapped(entry.name))


def is_remapped(name: str) -> bool:
    """Whether a directory in a data root of Docker's is that of remapped users: ``<uid>.<gid>``."""
    uid, _, gid = name.partition(".")
    return uid.isdigit() and gid.isdigit()


class DaemonSettings(NamedTuple):
    """A ``daemon.json`` of Docker's. ``data_root``: of the engine that it is for; None if that is unknown."""

    path: Path
    content: dict[str, object]
    data_root: Path | None


def daemon_settings(environ: Mapping[str, str], top: Path = Path("/")) -> Iterator[DaemonSettings]:
    """Those of the host and of the user's rootless engine, as far as they exist and can be read."""
    home = Path(environ.get("HOME", ""))
    data_home = Path(environ.get("XDG_DATA_HOME") or home / ".local/share")
    config_home = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    for settings, default in (
        (Path("/etc/docker/daemon.json"), _DOCKER[0]),
        (config_home / "docker/daemon.json", data_home / "docker"),
    ):
        path = _below(top, settings)
        try:
            content = json.loads(path.read_bytes()) if path.is_file() else {}
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(content, dict):
            yield DaemonSettings(settings, content, _data_root(content, default))


def _data_root(content: dict[str, object], default: Path) -> Path | None:
    given = next((content[key] for key in ("data-root", "graph") if content.get(key)), os.fspath(default))
    return Path(given) if isinstance(given, str) and given.startswith("/") else None


def _entries(directory: Path, found: Places) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        found.unreadable.append(f"{directory}: {error.strerror}")
        return []


def _below(top: Path, path: Path) -> Path:
    return top / path.relative_to(path.anchor)


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False
