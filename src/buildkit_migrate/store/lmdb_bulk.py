"""Bulk writing of whole LMDB stores."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import lmdb

from buildkit_migrate._native.packing import Packer
from buildkit_migrate.bolt import Bucket
from buildkit_migrate.files.durable import new_file, remove
from buildkit_migrate.files.locks import Lock
from buildkit_migrate.files.ownership import usable_mode
from buildkit_migrate.lmdb.file import lmdb_errors
from buildkit_migrate.store import bolt_store
from buildkit_migrate.store.lmdb_format import HEAD, HEAD_KEY, OTHER, STORE_MODE, TAGS, open_environment

__all__ = ["load", "write_empty", "write_store"]


def load(path: Path, source: Bucket, *, owner_of: Path | None = None) -> Lock:
    """Writes the tree below ``source``, the root of a bolt file, to a new LMDB store in one pass.

    ``owner_of``: make the new file usable by those who use this one; by default only by its owner. If
    anything fails, the file is deleted. Raises StorageError (also if ``path`` exists) and
    CorruptDatabaseError.
    """
    return _write(path, _entries(source), owner_of)


def write_empty(path: Path) -> None:
    """Writes an empty store. Raises StorageError, also if ``path`` exists."""
    _write(path, [[(HEAD_KEY, HEAD)]], None).close()


def write_store(path: Path, source: Bucket, edits: Iterable[bytes], *, like: Path) -> Lock:
    """Writes a new store: the tree below ``source`` with ``edits`` applied.

    Like `bolt_store.write_store`, but to an LMDB file. A bolt file is built first, under the same name, so
    that a killed run leaves nothing under another name.
    """
    with bolt_store.write_store(path, source, edits, like=like) as edited:
        remove(path)  # it stays mapped
        return load(path, edited.root, owner_of=like)


Batch = list[tuple[bytes, bytes]]


def _entries(source: Bucket) -> Iterable[Batch]:
    """All entries of a store, in key order."""
    packer = Packer(source.reader)
    buckets = {name: bucket for name in TAGS if (bucket := source.bucket(name)) is not None}
    yield [(HEAD_KEY, HEAD)]
    for name, bucket in buckets.items():
        yield [(TAGS[name], bucket.sequence.to_bytes(8, "little"))]
        yield from packer.batches(bucket, TAGS[name])
    yield from packer.batches(source, OTHER, frozenset(buckets))


def _write(path: Path, batches: Iterable[Batch], owner_of: Path | None) -> Lock:
    mode = STORE_MODE if owner_of is None else usable_mode(owner_of)
    with new_file(path, mode=mode, owner_of=owner_of) as held:
        environment = open_environment(path, create=True, alone=True)
        try:
            with lmdb_errors(path):
                for batch in batches:
                    _append(environment, batch)
                environment.sync(True)
        finally:
            environment.close()
    return held


def _append(environment: lmdb.Environment, batch: Batch) -> None:
    while True:
        try:
            with environment.begin(write=True) as txn, txn.cursor() as cursor:
                cursor.putmulti(batch, append=True)
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()["map_size"])
        else:
            return
