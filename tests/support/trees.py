"""Bucket trees as plain Python values: what a bolt file should hold, and what a reader says it holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from buildkit_migrate._native.bolt import Bucket, Reader
from buildkit_migrate._native.building import Builder, rewrite

Row = tuple[tuple[bytes, ...], bytes | None, bytes | int]
"""(path of a bucket, key, value); before these comes a row for the bucket itself: (path, None, sequence)."""


@dataclass
class PlainBucket:
    """A bucket: its keys, each with a value or a bucket."""

    items: dict[bytes, bytes | PlainBucket] = field(default_factory=dict)
    sequence: int = 0


def rows(tree: PlainBucket, path: tuple[bytes, ...] = ()) -> Iterator[Row]:
    """The rows of a tree in key order."""
    yield path, None, tree.sequence
    for key, value in sorted(tree.items.items()):
        if isinstance(value, PlainBucket):
            yield from rows(value, (*path, key))
        else:
            yield path, key, value


def rows_of(bucket: Bucket, path: tuple[bytes, ...] = ()) -> Iterator[Row]:
    """The rows of a bucket in a file, in the order in which the reader gives them."""
    yield path, None, bucket.sequence
    for key, value in bucket.items():
        if isinstance(value, Bucket):
            yield from rows_of(value, (*path, key))
        else:
            yield path, key, value


def write(path: Path, tree: PlainBucket, page_size: int = 4096, fill: float = 0.9) -> None:
    """Writes a file with `Builder`."""
    with path.open("wb") as file:
        builder = Builder(file.write, page_size, fill)
        _put(builder, tree)
        head = builder.finish()
        file.seek(0)
        file.write(head)


def copy(source: Bucket, path: Path, page_size: int = 4096, fill: float = 0.9) -> int:
    """Rewrites a tree without edits into a new file; returns the number of changes."""
    with path.open("wb") as file:
        builder = Builder(file.write, page_size, fill)
        changes = rewrite(source, builder, [])
        head = builder.finish()
        file.seek(0)
        file.write(head)
    return changes


def read(path: Path) -> Reader:
    """A reader of the file's content."""
    return Reader(path.read_bytes(), str(path))


def _put(builder: Builder, tree: PlainBucket) -> None:
    for key, value in sorted(tree.items.items()):
        if isinstance(value, PlainBucket):
            builder.open_bucket(key, value.sequence)
            _put(builder, value)
            builder.close_bucket()
        else:
            builder.put(key, value)
