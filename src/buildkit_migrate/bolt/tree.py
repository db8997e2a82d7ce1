"""A database's content as nested mappings: read when looked at, and comparable with plain dicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Union

from buildkit_migrate._native.bolt import Bucket

__all__ = ["BucketView", "Tree"]

Tree = Mapping[bytes, Union[bytes, "Tree"]]
"""Key to value, or to the nested bucket. Sequence numbers of buckets are left out."""


class BucketView(Mapping[bytes, bytes | Tree]):
    """A bucket as a `Tree` in byte order; nothing is kept. Raises CorruptDatabaseError at a damaged page."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

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
