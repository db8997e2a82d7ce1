"""Stores of every engine with a given content, for tests that hold for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import trees
from buildkit_migrate.bolt import Database
from buildkit_migrate.store import lmdb_bulk
from buildkit_migrate.store.bolt_store import BoltFileStore
from buildkit_migrate.store.convert import convert
from buildkit_migrate.store.engines import Engine, open_store
from buildkit_migrate.store.interface import Item, MetadataStore
from buildkit_migrate.values.gojson import encode_value
from trees import PlainBucket

rows = trees.rows
rows_of = trees.rows_of

ENGINES: tuple[Engine, ...] = ("bolt", "lmdb")

INDEX = b"the::index"
TREE = PlainBucket(
    {
        b"_main": PlainBucket(
            {
                b"r1": PlainBucket(
                    {
                        b"a": encode_value(1),
                        b"b": encode_value(b"x", INDEX),
                        b"cleared": b"",
                        b"nested": PlainBucket({b"k": b"v"}, sequence=4),
                    },
                    sequence=9,
                ),
                b"r2": PlainBucket(),
                b"stray": b"x",
            },
            sequence=7,
        ),
        b"_index": PlainBucket(
            {
                b"the::index::r1": b"",
                b"the::index::sha256:abc": b"",
                b"the::index:more::r2": b"",
                b"the::index": b"",
                b"theatre": b"",
                b"only-missing::gone": b"",
            }
        ),
        b"_external": PlainBucket(
            {b"r1": PlainBucket({b"name": b"data", b"empty": b"", b"nested": PlainBucket()})}
        ),
        b"foreign": PlainBucket({b"k": PlainBucket({b"deep": b"v"}, sequence=3)}, sequence=2),
        b"plain": b"value",
    }
)
"""A store with all that the interface covers, and content that is not BuildKit's."""


def make(directory: Path, engine: Engine, tree: PlainBucket) -> Path:
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
    """All content of a store that is not open."""
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


def open_made(directory: Path, engine: Engine, tree: PlainBucket) -> MetadataStore:
    return open_store(make(directory, engine, tree))


def ids(items: Iterator[Item]) -> list[bytes]:
    return [item.id for item in items]
