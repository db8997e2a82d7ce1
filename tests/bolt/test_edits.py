"""A stream of edits changes a tree as the same edits change a dict."""

from __future__ import annotations

import copy

from hypothesis import given
from hypothesis import strategies as st

from buildkit_migrate._native.bolt import Reader
from buildkit_migrate.bolt import encode
from buildkit_migrate.bolt.edits import Edits
from dicts import edited, file_of
from plain_bbolt import BucketDict

# Values and buckets have different names: an edit of one as the other is an error.
values = st.integers(0, 6).map(lambda n: b"v%d" % n)
names = st.integers(0, 3).map(lambda n: b"b%d" % n)
data = st.binary(max_size=5)


trees: st.SearchStrategy[BucketDict] = st.recursive(
    st.dictionaries(values, data, max_size=5),
    lambda inner: st.builds(
        lambda leaves, buckets: {**leaves, **buckets},
        st.dictionaries(values, data, max_size=5),
        st.dictionaries(names, inner, max_size=3),
    ),
    max_leaves=8,
)
changes: st.SearchStrategy[dict[bytes, bytes | Edits | None]] = st.recursive(
    st.dictionaries(values, data | st.none(), max_size=5),
    lambda inner: st.builds(
        lambda leaves, gone, entered: {**leaves, **gone, **entered},
        st.dictionaries(values, data | st.none(), max_size=5),
        st.dictionaries(names, st.none(), max_size=2),
        st.dictionaries(names, inner, max_size=3),
    ),
    max_leaves=8,
)


def apply_to_dict(tree: BucketDict, edits: Edits) -> BucketDict:
    for key, edit in edits.items():
        if edit is None:
            tree.pop(key, None)
        elif isinstance(edit, bytes):
            tree[key] = edit
        else:
            child = tree.setdefault(key, {})
            assert isinstance(child, dict)
            apply_to_dict(child, edit)
    return tree


@given(trees, changes)
def test_edits_change_a_tree_like_a_dict(tree: BucketDict, edits: Edits) -> None:
    assert edited(Reader(file_of(tree)), encode(edits)) == apply_to_dict(copy.deepcopy(tree), edits)


def test_no_edits_give_an_empty_stream() -> None:
    assert list(encode({})) == []


def test_chunks_hold_whole_operations() -> None:
    edits = {b"%05d" % number: bytes(100) for number in range(3000)}
    chunks = list(encode(edits))
    assert len(chunks) > 1
    operation = 1 + 4 + 5 + 4 + 100
    assert all(len(chunk) % operation == 0 for chunk in chunks)
    assert sum(map(len, chunks)) == operation * len(edits)


def test_stream_has_the_documented_form() -> None:
    stream = b"".join(encode({b"b": {b"k": b"", b"a": b"v"}, b"a": None}))
    assert stream == (b"\x02\x01\0\0\0a\x03\x01\0\0\0b\x01\x01\0\0\0a\x01\0\0\0v\x01\x01\0\0\0k\0\0\0\0\x04")
