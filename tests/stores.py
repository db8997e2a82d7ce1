"""Stores of every engine with a given content, for tests that hold for all of them."""

from __future__ import annotations

from pathlib import Path

import trees
from buildkit_migrate.bolt import Database
from buildkit_migrate.store import lmdb_bulk
from buildkit_migrate.store.bolt_store import BoltFileStore
from buildkit_migrate.store.convert import convert
from buildkit_migrate.store.engines import Engine, open_store
from buildkit_migrate.store.interface import MetadataStore

rows = trees.rows
rows_of = trees.rows_of

ENGINES: tuple[Engine, ...] = ("bolt", "lmdb")


def make(directory: Path, engine: Engine, tree: trees.Tree) -> Path:
    """A store file with this content; the directory may have none yet."""
    path = directory / "store"
    bolt = path if engine == "bolt" else directory / "source"
    trees.write(bolt, tree)
    if engine == "lmdb":
        with Database.open(bolt) as database:
            lmdb_bulk.load(path, database.root).close()
        bolt.unlink()
    return path


def content(path: Path) -> list[trees.Row]:
    """All that is in a store that is not open."""
    with open_store(path, read_only=True) as store:
        if isinstance(store, BoltFileStore):
            with Database.open(path) as database:
                return list(trees.rows_of(database.root))
    bolt = path.with_name("as-bolt")
    convert(path, bolt)
    with Database.open(bolt) as database:
        rows = list(trees.rows_of(database.root))
    bolt.unlink()
    return rows


def open_made(directory: Path, engine: Engine, tree: trees.Tree) -> MetadataStore:
    return open_store(make(directory, engine, tree))
