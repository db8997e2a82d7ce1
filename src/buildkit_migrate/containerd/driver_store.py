"""What one of Docker's storage drivers has: the layers of images, and the data of snapshots.

Layers are in the layer store (see `layers`). Data is in directories of the driver, one for each id; where
they are depends on the driver, and of some drivers files don't tell.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Final

from buildkit_migrate.containerd.layers import LayerStore
from buildkit_migrate.files.errors import storage_errors
from buildkit_migrate.settings import Setting

__all__ = ["DriverStore", "layer_directory"]

_DATA_OF: Final = {
    "aufs": "diff",
    "btrfs": "subvolumes",
    "fuse-overlayfs": ".",
    "overlay": ".",
    "overlay2": ".",
    "vfs": "dir",
}
"""Where each driver has a directory for each id, below its own."""
_NOT_DATA: Final = frozenset((b"l", b"staging"))
"""Short names of overlay2, and what is being made."""


def layer_directory(data_root: Path, name: str) -> Path:
    """``layerdb`` of a storage driver."""
    return data_root / "image" / name / "layerdb"


class DriverStore:
    """A storage driver of the engine with this data root; each directory is read once.

    ``setting``: its name; None if no driver is known; then there are no layers.
    """

    def __init__(self, data_root: Path, setting: Setting | None) -> None:
        self.setting = setting
        name = None if setting is None else setting.value
        self.directory = data_root / (name or "")
        """The driver's own."""
        self.layers = LayerStore(None if name is None else layer_directory(data_root, name))

    @cached_property
    def ids(self) -> frozenset[bytes] | None:
        """All ids that have data. None if that is not known: in a copy of the databases, for example.

        Raises StorageError if the directory can't be read.
        """
        below = None if self.setting is None else _DATA_OF.get(self.setting.value)
        if below is None:
            return None
        directory = self.directory / below
        with storage_errors(directory):
            try:
                found = frozenset(os.fsencode(entry.name) for entry in os.scandir(directory))
            except (FileNotFoundError, NotADirectoryError):
                return None
        return (found - _NOT_DATA) or None

    def lacks(self, id: bytes) -> bool:
        """Whether it is known that there is no data for this id. Raises StorageError."""
        return self.ids is not None and id not in self.ids
