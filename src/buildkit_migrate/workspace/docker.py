"""Docker Engine's data root: which storage driver the layers of its builder belong to.

``image/`` has a directory for each driver that was ever used (spec docker-builder-layout, section 3).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from buildkit_migrate.errors import ContainerdStateError, StorageError
from buildkit_migrate.files.errors import exists, is_directory, storage_errors
from buildkit_migrate.settings import Setting
from buildkit_migrate.workspace.places import daemon_settings

__all__ = ["data_root", "layers_of", "storage_driver"]


def data_root(builder: Path) -> Path:
    """The engine's data root, given the directory of its builder.

    That may be a link to another disk, and its name may be ``.``.
    """
    beside = builder.absolute().parent
    return beside if is_directory(beside / "image") else builder.resolve().parent


def layers_of(data: Path, driver: Setting | None) -> Path | None:
    """The directory of the driver's layers; None without a driver."""
    return None if driver is None else data / "image" / driver.value / "layerdb"


def storage_driver(
    data: Path,
    given: Setting | None,
    mentioned: set[bytes],
    environ: Mapping[str, str] = os.environ,
) -> Setting | None:
    """The storage driver that was in use when ``snapshots.db`` was written.

    ``given``: by the user. ``mentioned``: the chain ids of layers in ``snapshots.db``. That is the driver
    which has most of these layers. If several have as many, it is the one named in ``daemon.json``, or else
    the only one whose data exists. None if it is not known and makes no difference, as none is mentioned.

    Raises ContainerdStateError if the driver has no layers or can't be told, StorageError.
    """
    found = _drivers(data)
    if given is not None:
        if given.value not in found:
            raise ContainerdStateError(
                f"{data / 'image'} has no storage driver {given.value}, only: {', '.join(found) or 'none'}",
                hint="give the one that was in use when the builder's records were written",
            )
        return given
    if not mentioned:
        return Setting(found[0], "the only one") if len(found) == 1 else None
    if not found:
        raise ContainerdStateError(
            f"{data / 'image'} has no storage driver, but the builder refers to {len(mentioned)} layers",
            hint="restore all of Docker's data root from one backup; copies need image/, too",
        )
    layers = {driver: len(_layers(data, driver) & mentioned) for driver in found}
    best = [driver for driver in found if layers[driver] == max(layers.values())]
    if len(found) == 1:
        return Setting(found[0], "the only one")
    if len(best) == 1:
        others = ", ".join(f"{one} has {layers[one]}" for one in found if one != best[0])
        return Setting(best[0], f"has {layers[best[0]]} of the builder's {len(mentioned)} layers; {others}")
    return _configured(data, best, environ) or _with_data(data, best)


def _configured(data: Path, drivers: Collection[str], environ: Mapping[str, str]) -> Setting | None:
    for file, settings in daemon_settings(environ):
        root = settings.get("data-root") or settings.get("graph") or "/var/lib/docker"
        driver = settings.get("storage-driver")
        if driver in drivers and isinstance(root, str) and _are_one(Path(root), data):
            return Setting(str(driver), str(file))
    return None


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
    directory = data / "image" / driver / "layerdb" / "sha256"
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
