"""Where a repair changes anything: what a journal may name, whoever wrote it.

All that is in the state directory, with links followed. Elsewhere, in a containerd's directory or where links
lead, only what repairs change there: databases by their names, and directories of snapshots.
"""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import Final

__all__ = ["Kind", "could_be_repaired"]

_WORKER_ID: Final = "workerid"
_FILES: Final = frozenset(
    {
        "cache-debug.db",
        "cache.db",
        "containerdmeta.db",
        "history.db",
        "history_c8d.db",
        "meta.db",
        "metadata.db",
        "metadata_v2.db",
        "snapshots.db",
        _WORKER_ID,
    }
)
_COMPACTED: Final = ".before-compact"
"""A repair notes what compactions had kept."""
_SNAPSHOTS: Final = "snapshots"


class Kind(enum.StrEnum):
    """What a repair does to a file or directory."""

    REPLACED = "replaced"
    """A file has new content; the old one is kept."""
    MADE = "made"
    """A file that was missing."""
    MADE_DIRECTORY = "made-directory"
    MOVED = "moved"
    """A file that got another name."""
    REMOVED = "removed"
    """A directory that was moved out of the way."""


def could_be_repaired(kind: Kind, path: Path, place: Path, *, is_root: bool) -> bool:
    """Whether a repair of ``place``, a state directory or else one database file, may change ``path`` so."""
    real = Path(os.path.realpath(path.parent), path.name)
    inside = Path(os.path.realpath(place if is_root else place.parent))
    if not is_root:
        return real.parent == inside and real.name.removesuffix(_COMPACTED) == place.name
    if inside in real.parents:
        return True
    match kind:
        case Kind.REPLACED:
            return real.name.removesuffix(_COMPACTED) in _FILES
        case Kind.MADE:
            return real.name == _WORKER_ID
        case Kind.MOVED:
            return False  # only files of the state directory itself are set aside
        case Kind.MADE_DIRECTORY:
            return real.name == "work" and real.parent.parent.name == _SNAPSHOTS
        case Kind.REMOVED:
            return real.parent.name == _SNAPSHOTS
