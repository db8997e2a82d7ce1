"""Recognises copies of worker directories that somebody put aside in a root."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

from buildkit_migrate.bolt import BucketView, Database
from buildkit_migrate.choices import KNOWN_SNAPSHOTTERS
from buildkit_migrate.errors import BusyError, Error
from buildkit_migrate.files.locks import readable
from buildkit_migrate.workspace.names import copied_from

__all__ = ["original_of"]

_ID_BYTES: Final = 64


def original_of(directory: Path, names: Collection[str]) -> str | None:
    """The snapshotter of the worker that this worker directory is a copy of; None if it is not a copy.

    "" if it is a copy of an unknown worker. ``names``: names of all worker directories beside it. The
    directory's containerd database is trusted more than its name, since any name may be that of a
    snapshotter.
    """
    kind, _, name = directory.name.partition("-")
    if name in KNOWN_SNAPSHOTTERS:
        return None
    inside: set[str] = set()
    try:
        inside = _snapshotters(directory / "containerdmeta.db")
    except BusyError:
        return None  # in use by a daemon, so not a copy
    except Error:
        pass  # missing, as for containerd workers, or damaged
    if name in inside:
        return None
    siblings = {sibling.partition("-")[2] for sibling in names if sibling.startswith(f"{kind}-")} - {name}
    by_name = copied_from(name, KNOWN_SNAPSHOTTERS | siblings | inside)
    if by_name:
        return by_name
    for other in sorted(inside | siblings, key=len, reverse=True):
        begins_so = name.startswith(other) and not name[len(other)].isalnum()
        if (begins_so and other in inside) or (
            (begins_so or other in KNOWN_SNAPSHOTTERS) and _have_one_id(directory, f"{kind}-{other}")
        ):
            return other
    return next(iter(inside)) if by_name == "" and len(inside) == 1 else by_name


def _snapshotters(path: Path) -> set[str]:
    with Database.open(path) as database:
        snapshots = database.root.bucket(b"v1", b"buildkit", b"snapshots")
        return set() if snapshots is None else {os.fsdecode(name) for name in BucketView(snapshots)}


def _have_one_id(directory: Path, sibling: str) -> bool:
    """Whether both have the same ``workerid``, which is random: then one is a copy of the other."""
    ids = []
    with contextlib.suppress(Error):
        for path in (directory / "workerid", directory.with_name(sibling) / "workerid"):
            with readable(path) as fd:
                ids.append(os.read(fd, _ID_BYTES))
    return len(ids) == 2 and ids[0] == ids[1] != b""
