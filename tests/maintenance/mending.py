"""Repairs, and all that a root holds, to be compared before and after.

before = everything(root)
plan = mend(root, RepairClass.PROTECT)
assert changed(before, everything(root)) == {...}
"""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from buildkit_migrate.bolt import Bucket, Builder, Database, Reader, encode, rewrite
from buildkit_migrate.bolt.edits import Edits, Sequences
from buildkit_migrate.maintenance.mend import (
    Change,
    EditStore,
    MakeDirectory,
    MoveAside,
    RemoveDirectory,
    RepairClass,
    RewriteStore,
    WriteFile,
)
from buildkit_migrate.maintenance.repair import RepairPlan, plan_repair
from buildkit_migrate.maintenance.repair_root import repair_root
from v2_roots import V2Root

__all__ = ["Place", "apply", "changed", "everything", "mend", "plan", "store"]

Place = tuple[bytes | str, ...]
"""A database's path in the root and the path of a key in it, or the path of a file or directory."""


def plan(root: V2Root, *classes: RepairClass) -> RepairPlan:
    with root.open() as stores:
        return plan_repair(stores, classes or {RepairClass.PROTECT})


def mend(root: V2Root, *classes: RepairClass) -> RepairPlan:
    """Repairs, and gives what was planned."""
    containerd_root = root.options[1] if root.options else None
    chosen = classes or (RepairClass.PROTECT,)
    return repair_root(root.root, classes=chosen, containerd_root=containerd_root).plan


def apply(planned: RepairPlan) -> None:
    """Makes the changes of a plan, or of a part of one, in the files of a root that is closed."""
    for change in planned.changes:
        _apply(change)


def _apply(change: Change) -> None:
    if isinstance(change, EditStore):
        assert change.store.path is not None
        _write(change.store.path, change.edits, change.sequences)
    elif isinstance(change, RewriteStore):
        assert change.store.path is not None
        _write(change.store.path, {}, {}, previous=change.previous)
    elif isinstance(change, MakeDirectory):
        change.path.mkdir()
        shutil.copymode(change.like, change.path)
    elif isinstance(change, WriteFile):
        change.path.write_bytes(change.content)
    elif isinstance(change, RemoveDirectory):
        shutil.rmtree(change.path)
    elif isinstance(change, MoveAside):
        change.path.rename(change.path.with_name(f"{change.path.name}.{'0' * 25}.bak"))


def _write(path: Path, edits: Edits, sequences: Sequences, *, previous: bool = False) -> None:
    reader = Reader(path.read_bytes(), str(path), previous=previous)
    image = bytearray()
    builder = Builder(image.extend, reader.page_size)
    rewrite(Bucket(reader), builder, encode(edits, sequences))
    metas = builder.finish(reader.transaction + 1)
    image[: len(metas)] = metas
    path.write_bytes(image)


def everything(root: V2Root, *, kept: bool = False) -> dict[Place, object]:
    """Each value, bucket (with its sequence), and file of a root and of its containerd.

    ``kept``: with the journal and the originals of repairs.
    """
    found: dict[Place, object] = {}
    top = root.root.parent
    for path in sorted(top.rglob("*")):
        name = str(path.relative_to(top))
        if path in root.databases:
            with Database.open(path) as database:
                found.update(((name, *at), value) for at, value in _content(database.root))
        elif path.name != "buildkitd.lock" and (kept or not _is_kept(path)):
            info = path.lstat()
            is_file = stat.S_ISREG(info.st_mode)
            found[(name,)] = (
                info.st_mode,
                info.st_uid,
                info.st_gid,
                is_file and (info.st_size, info.st_mtime_ns),
            )
    return found


def _is_kept(path: Path) -> bool:
    names = ("repair.journal", ".before-repair", ".bak")
    return any(name in part for name in names for part in path.parts)


def _content(bucket: Bucket, path: tuple[bytes, ...] = ()) -> Iterator[tuple[tuple[bytes, ...], object]]:
    for key, value in bucket.items():
        if isinstance(value, bytes):
            yield (*path, key), value
        else:
            yield (*path, key), value.sequence
            yield from _content(value, (*path, key))


def changed(before: dict[Place, object], after: dict[Place, object]) -> dict[Place, object]:
    """What was put, and None for what is gone."""
    gone = dict.fromkeys(before.keys() - after.keys())
    return gone | {
        place: value for place, value in after.items() if place not in before or before[place] != value
    }


def store(root: V2Root, path: Path) -> str:
    """How places name a database."""
    return str(path.relative_to(root.root.parent))
