"""Docker Engine's data root: which storage driver the records of its builder belong to.

``image/`` has a directory for each driver that was ever used (spec docker-builder-layout, section 3).
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from buildkit_migrate.containerd.docker import Needed
from buildkit_migrate.containerd.driver_store import DriverStore, layer_directory
from buildkit_migrate.errors import ContainerdStateError, StorageError
from buildkit_migrate.files.errors import exists, is_directory, storage_errors
from buildkit_migrate.settings import Setting
from buildkit_migrate.workspace.places import daemon_settings

__all__ = ["data_root", "storage_driver"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_USED_AGAIN: Final = ("aufs", "btrfs", "devicemapper", "fuse-overlayfs", "overlay", "overlay2", "zfs")
"""Drivers that the engine uses again if they have data; vfs is not one of them."""


def data_root(builder: Path) -> Path:
    """The engine's data root, given the directory of its builder.

    That may be a link to another disk, and its name may be ``.``.
    """
    beside = builder.absolute().parent
    return beside if is_directory(beside / "image") else builder.resolve().parent


def storage_driver(
    data: Path,
    given: Setting | None,
    needed: Needed,
    environ: Mapping[str, str] = os.environ,
) -> Setting | None:
    """The storage driver that the builder's records are of.

    ``given``: by the user. ``needed``: by the records. That is the driver which has most of it; if several
    have as much, the one that the engine will use, or else the only one whose data exists. None if it is not
    known and makes no difference, as nothing is needed.

    Raises ContainerdStateError if it can't be told, or the engine will use another one: then the records are
    of no use to it, and an engine that migrates by itself does not start. Raises StorageError.
    """
    found, engine = _drivers(data), _engines_driver(data, environ)
    if given is not None:
        if given.value not in found and (engine is None or given.value != engine.value):
            raise ContainerdStateError(
                f"{data / 'image'} has no storage driver {given.value}, only: {', '.join(found) or 'none'}",
                hint="give the one that was in use when the builder's records were written",
            )
        return given
    if not needed.layers and not (needed.data and found):
        return engine or (Setting(found[0], "the only one") if len(found) == 1 else None)
    if not found:
        raise ContainerdStateError(
            f"{data / 'image'} has no storage driver, but the builder's records need {len(needed.layers)} "
            "layers",
            hint="restore all of Docker's data root from one backup; copies need image/, too",
        )
    chosen = _with_most(data, found, needed, engine)
    if engine is not None and engine.value != chosen.value:
        raise ContainerdStateError(
            f"the builder's records are of the storage driver {chosen}, but Docker Engine will use {engine}, "
            "which does not have their data",
            hint=f'if it is to use {chosen.value} again, set "storage-driver" in daemon.json; otherwise give '
            f"--storage-driver {engine.value}; migrate --on-broken drop leaves out what that does not have",
        )
    return chosen


def _with_most(data: Path, drivers: list[str], needed: Needed, engine: Setting | None) -> Setting:
    """The driver that has most of what is needed."""
    if len(drivers) == 1:
        return Setting(drivers[0], "the only one")
    layers = {driver: len(_layers(data, driver) & needed.layers) for driver in drivers}
    stored = {
        driver: len((DriverStore(data, Setting(driver)).ids or set()) & needed.data) for driver in drivers
    }
    score = {driver: layers[driver] + stored[driver] for driver in drivers}
    best = [driver for driver in drivers if score[driver] == max(score.values())]
    if len(best) > 1:
        return engine if engine is not None and engine.value in best else _with_data(data, best)
    have = layers if layers[best[0]] else stored
    what = f"{len(needed.layers)} layers" if have is layers else f"{len(needed.data)} snapshots"
    others = ", ".join(f"{one} has {have[one]}" for one in drivers if one != best[0])
    return Setting(best[0], f"has {have[best[0]]} of the {what} that records need; {others}")


def _engines_driver(data: Path, environ: Mapping[str, str]) -> Setting | None:
    """The driver that the engine will use at its next start; None if it is not known.

    That is the one in ``daemon.json``, or else the only one with data. (Options of the daemon are not seen.)
    """
    for settings in daemon_settings(environ):
        driver = settings.content.get("storage-driver")
        is_ours = settings.data_root is not None and _are_one(settings.data_root, data)
        if is_ours and isinstance(driver, str) and _NAME.fullmatch(driver):
            return Setting(driver, str(settings.path))
    filled = [driver for driver in _USED_AGAIN if _is_filled(data / driver)]
    return Setting(filled[0], "the only one with data") if len(filled) == 1 else None


def _are_one(configured: Path, data: Path) -> bool:
    """Whether this is the data root; with remapped users it is below the configured one."""
    real = data.resolve()
    return configured.resolve() in (real, real.parent)


def _with_data(data: Path, drivers: Collection[str]) -> Setting:
    with_data = [driver for driver in drivers if _is_filled(data / driver)]
    if len(with_data) == 1:
        return Setting(with_data[0], "the only one with data")
    raise ContainerdStateError(
        f"{data} has layers of several storage drivers ({', '.join(drivers)}), and nothing tells which are "
        "those of the builder",
        hint="give the driver that was in use when the builder's records were written with --storage-driver",
    )


def _drivers(data: Path) -> list[str]:
    with storage_errors(data / "image"):
        try:
            entries = sorted(entry.name for entry in os.scandir(data / "image"))
        except (FileNotFoundError, NotADirectoryError):
            return []
    return [name for name in entries if is_directory(data / "image" / name)]


def _layers(data: Path, driver: str) -> set[bytes]:
    directory = layer_directory(data, driver) / "sha256"
    with storage_errors(directory):
        try:
            return {b"sha256:" + os.fsencode(entry.name) for entry in os.scandir(directory)}
        except (FileNotFoundError, NotADirectoryError):
            return set()


def _is_filled(directory: Path) -> bool:
    try:
        return exists(directory) and any(directory.iterdir())
    except (OSError, StorageError):
        return False
