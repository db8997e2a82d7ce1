"""Files made by the builder from nested dicts, and dicts read back from files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hypothesis import strategies as st

import plain_bbolt
from buildkit_migrate._native.bolt import Bucket, Reader
from buildkit_migrate._native.building import Builder, rewrite
from plain_bbolt import BucketDict


def fill(builder: Builder, tree: Mapping[bytes, bytes | BucketDict]) -> None:
    """Puts `tree` into the bucket that is open in `builder`."""
    for key in sorted(tree):
        value = tree[key]
        if isinstance(value, bytes):
            builder.put(key, value)
        else:
            builder.open_bucket(key)
            fill(builder, value)
            builder.close_bucket()


class Image:
    """Collects what a builder writes into the bytes of one file."""

    def __init__(self, page_size: int = 4096, fill: float = 0.9) -> None:
        self.data = bytearray()
        self.builder = Builder(self.data.extend, page_size, fill)

    def finish(self) -> bytes:
        metas = self.builder.finish()
        self.data[: len(metas)] = metas
        return bytes(self.data)


def file_of(tree: Mapping[bytes, bytes | BucketDict], page_size: int = 4096, share: float = 0.9) -> bytes:
    image = Image(page_size, share)
    fill(image.builder, tree)
    return image.finish()


def tree_of(bucket: Bucket) -> BucketDict:
    return {k: v if isinstance(v, bytes) else tree_of(v) for k, v in bucket.items()}


keys = st.binary(min_size=1, max_size=40) | st.binary(min_size=600, max_size=900)
values = st.binary(max_size=60) | st.integers(200, 9000).map(lambda n: b"v" * n)
page_sizes = st.sampled_from([1024, 2048, 4096, 8192, 65536])


def trees() -> st.SearchStrategy[BucketDict]:
    return st.recursive(
        st.dictionaries(keys, values, max_size=30),
        lambda inner: st.dictionaries(keys, values | inner, max_size=12),
        max_leaves=12,
    )


def edited(reader: Reader, edits: Iterable[bytes]) -> BucketDict:
    """Content of the file after these edits of its root bucket, by the independent reader."""
    image = Image()
    rewrite(reader.root, image.builder, edits)
    return plain_bbolt.load(image.finish())
