"""Which stored chain ids follow from those of the parents, against a plain statement."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildkit_migrate._native.chain import following
from buildkit_migrate._native.columns import Mask

Ids = tuple[bytes, bytes]

TEXTS = [b"", b"sha256:" + b"1" * 64, b"sha256:" + b"2" * 64, b"odd"]


def hashed(left: bytes, right: bytes) -> bytes:
    return b"sha256:" + hashlib.sha256(left + b" " + right).hexdigest().encode()


def right_ids(diff_id: bytes, blob: bytes, above: Ids | None) -> Ids:
    if not diff_id or not blob or (above is not None and not all(above)):
        return b"", b""
    own = hashed(blob, diff_id)
    return (diff_id, own) if above is None else (hashed(above[0], diff_id), hashed(above[1], own))


@given(st.data(), st.integers(1, 8))
def test_stored_ids_follow(data: st.DataObject, count: int) -> None:
    rows = st.lists(st.integers(-2, count - 1), min_size=count, max_size=count)
    texts = st.lists(st.sampled_from(TEXTS), min_size=count, max_size=count)
    parents, diff_ids, blobs = data.draw(rows), data.draw(texts), data.draw(texts)
    chains, blob_chains = data.draw(texts), data.draw(texts)

    def expected(row: int) -> Ids:
        parent = parents[row]
        above = (chains[parent], blob_chains[parent]) if parent >= 0 else None
        return right_ids(diff_ids[row], blobs[row], above)

    for row in range(count):
        if data.draw(st.booleans()):
            chains[row], blob_chains[row] = expected(row)
    layers = Mask(count, data.draw(st.sets(st.integers(0, count - 1))))
    absent = [text or data.draw(st.sampled_from([None, b""])) for text in chains]
    found = following(layers, parents, diff_ids, blobs, absent, blob_chains)
    assert list(found) == [
        row
        for row in layers
        if all(
            is_there in (b"", right)
            for is_there, right in zip((chains[row], blob_chains[row]), expected(row), strict=True)
        )
    ]


def test_a_chain_longer_than_a_block_follows() -> None:
    count = 10_000
    diff_ids = [b"sha256:%064x" % row for row in range(count)]
    chains, blob_chains = [diff_ids[0]], [hashed(diff_ids[0], diff_ids[0])]
    for diff_id in diff_ids[1:]:
        ids = right_ids(diff_id, diff_id, (chains[-1], blob_chains[-1]))
        chains.append(ids[0])
        blob_chains.append(ids[1])
    chains[5000] = b"wrong"
    everything = ~Mask(count)
    found = following(everything, range(-1, count - 1), diff_ids, diff_ids, chains, blob_chains)
    assert list(everything - found) == [5000, 5001]


def test_columns_that_do_not_fit_are_refused() -> None:
    one = [b"x"]
    with pytest.raises(ValueError, match="length"):
        following(Mask(1), [-1], one, one, one, [])
    with pytest.raises(ValueError, match="length"):
        following(Mask(1), [], one, one, one, one)
    with pytest.raises(IndexError):
        following(Mask(1), [1], one, one, one, one)
