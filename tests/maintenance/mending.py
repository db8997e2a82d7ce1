"""What a repair does to a root, until `repair` itself does it, and trees of all stores to compare."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ondisk
from buildkit_migrate.bolt import Bucket, Database
from buildkit_migrate.maintenance.mend import Change, EditStore
from v2_roots import V2Root

__all__ = ["Tree", "apply", "sequences", "trees"]

Tree = dict[bytes, Any]


def trees(root: V2Root) -> dict[str, Tree]:
    """All buckets, keys and values of each store that is there."""
    return {path.name + path.parent.name: ondisk.tree(path) for path in root.databases if path.exists()}


def sequences(path: Path) -> dict[tuple[bytes, ...], int]:
    """The sequence of each bucket that has one."""
    found: dict[tuple[bytes, ...], int] = {}

    def walk(bucket: Bucket, place: tuple[bytes, ...]) -> None:
        for key, value in bucket.items():
            if not isinstance(value, bytes):
                if value.sequence:
                    found[(*place, key)] = value.sequence
                walk(value, (*place, key))

    with Database.open(path) as database:
        walk(database.root, ())
    return found


def apply(changes: Iterable[Change]) -> None:
    """Makes the changes, one after the other."""
    for change in changes:
        assert isinstance(change, EditStore)
        assert change.store.path is not None
        ondisk.edit(change.store.path, change.edits)
