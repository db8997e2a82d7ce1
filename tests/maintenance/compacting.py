"""Helpers of the tests of `compact`."""

from __future__ import annotations

from pathlib import Path

from buildkit_migrate import compact_root
from buildkit_migrate.bolt import Database
from buildkit_migrate.maintenance.compact import Compacted, Compaction
from trees import Row, rows_of
from v2_roots import V2Root


def rows(path: Path) -> list[Row]:
    with Database.open(path) as database:
        return list(rows_of(database.root))


def kept(path: Path) -> Path:
    return path.with_name(path.name + ".before-compact")


def contents(root: V2Root) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.databases}


def compacted(root: V2Root) -> Compaction:
    return compact_root(root.root, containerd_root=root.options[1] if root.options else None)


def of(found: Compaction, path: Path) -> Compacted:
    (file,) = (file for file in found.files if file.path == path)
    return file


def without_lock(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    return {name: entry for name, entry in found.items() if name != "buildkitd.lock"}
