"""Salvage of a file in memory, and what the new file holds."""

from __future__ import annotations

from dataclasses import dataclass

import plain_bbolt
import trees
from buildkit_migrate._native.bolt import Reader
from buildkit_migrate._native.building import Builder
from buildkit_migrate._native.salvaging import Damaged
from plain_bbolt import BucketDict


@dataclass(frozen=True)
class Result:
    """As `bolt.salvage.Salvaged`. ``losses``: path, page, first key, key after the last one, reason."""

    data: bytes
    buckets: int
    keys: int
    losses: list[tuple[tuple[bytes, ...], int, bytes | None, bytes | None, str]]
    unreached: int | None
    is_newest: bool
    is_verified: bool
    other_meta: str


def salvaged(data: bytes) -> Result:
    """The result of a salvage that names everything. Raises CorruptDatabaseError."""
    damaged = Damaged(data)
    image = bytearray()
    builder = Builder(image.extend, damaged.page_size)
    buckets, keys, losses, count, unreached = damaged.salvage(builder, 1_000_000)
    assert count == len(losses)
    metas = builder.finish(max(2, damaged.transaction), sequence=damaged.sequence)
    image[: len(metas)] = metas
    kept = (buckets, keys, losses, unreached)
    return Result(bytes(image), *kept, damaged.is_newest, damaged.is_verified, damaged.other_meta)


def tree(data: bytes) -> BucketDict:
    """Content of the file, by the independent reader."""
    return plain_bbolt.load(data)


def rows_of(data: bytes) -> list[trees.Row]:
    return list(trees.rows_of(Reader(data).root))


def is_named(result: Result, path: tuple[bytes, ...], key: bytes | None) -> bool:
    """Whether a loss covers this key of a bucket, or the bucket itself (None) or one above it."""
    for bucket, _page, first, end, _reason in result.losses:
        if bucket != path[: len(bucket)]:
            continue
        name = path[len(bucket)] if len(path) > len(bucket) else key
        if name is None:
            if first is None and end is None:
                return True
        elif (first is None or first <= name) and (end is None or name < end):
            return True
    return False
