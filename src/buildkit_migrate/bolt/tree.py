"""A database's content as nested mappings, read on access and comparable with plain dicts."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping
from typing import Union

from buildkit_migrate._native.bolt import Bucket, Reader
from buildkit_migrate.progress import Stage, reading

__all__ = ["BucketView", "Tree", "sequence_of", "walking"]

Tree = Mapping[bytes, Union[bytes, "Tree"]]
"""Maps keys to values or nested buckets. `sequence_of` gives a bucket's sequence number."""


class BucketView(Mapping[bytes, bytes | Tree]):
    """A bucket as a `Tree` in byte order. Caches nothing. Raises CorruptDatabaseError at a damaged page."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    @property
    def reader(self) -> Reader:
        return self._bucket.reader

    @property
    def sequence(self) -> int:
        return self._bucket.sequence

    def __getitem__(self, key: bytes) -> bytes | Tree:
        value = self._bucket.get(key)
        if value is not None:
            return value
        nested = self._bucket.bucket(key)
        if nested is None:
            raise KeyError(key)
        return BucketView(nested)

    def __iter__(self) -> Iterator[bytes]:
        return (key for key, _ in self._bucket.items())

    def __len__(self) -> int:
        return sum(1 for _ in self._bucket.items())

    def items(self) -> ItemsView[bytes, bytes | Tree]:
        """Iterates in one walk; looking up each key would take twice as long."""
        return _Items(self)


def walking(text: str, *trees: Tree) -> Stage:
    """A stage that is over when all of each file has been walked through once, by `items`."""
    return reading(text, *(tree.reader for tree in trees if isinstance(tree, BucketView)))


def sequence_of(bucket: Tree) -> int:
    """Sequence number of a bucket; 0 for plain mappings."""
    return bucket.sequence if isinstance(bucket, BucketView) else 0


class _Items(ItemsView[bytes, bytes | Tree]):
    def __init__(self, view: BucketView) -> None:
        super().__init__(view)
        self._view = view

    def __iter__(self) -> Iterator[tuple[bytes, bytes | Tree]]:
        for key, value in self._view._bucket.items():
            yield key, value if isinstance(value, bytes) else BucketView(value)
