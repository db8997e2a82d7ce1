"""Whatever is in the files of a root: findings, or an error that says what can't be read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ondisk
from buildkit_migrate.maintenance.check import check_stores
from planting import edit
from v2_roots import V2Root, healed

pytestmark = pytest.mark.slow

STORES = ("records", "containerd", "snapshots", "cache", "history")


@pytest.fixture(scope="module")
def root() -> Iterator[V2Root]:
    with tempfile.TemporaryDirectory() as into:
        yield healed(Path(into))


@pytest.fixture(scope="module")
def whole(root: V2Root) -> dict[str, bytes]:
    return {store: getattr(root, store).read_bytes() for store in STORES}


def checked(root: V2Root) -> set[str]:
    with root.open() as stores:
        found = check_stores(stores)
    assert found.as_dict()["findings"] is not None
    return set(found.counts)


flips = st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(0, 255)), min_size=1, max_size=20)


@given(store=st.sampled_from(STORES), changes=flips)
def test_any_bytes_may_be_wrong(
    root: V2Root, whole: dict[str, bytes], store: str, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(whole[store])
    for place, byte in changes:
        data[place % len(data)] = byte
    path: Path = getattr(root, store)
    path.write_bytes(data)
    try:
        checked(root)
    finally:
        path.write_bytes(whole[store])


@pytest.mark.parametrize("store", STORES)
def test_values_where_buckets_should_be_and_the_other_way_round(
    root: V2Root, whole: dict[str, bytes], store: str
) -> None:
    path: Path = getattr(root, store)
    tree = ondisk.tree(path)
    for name in tree:
        for wrong in (b"", b"value", {b"\xff": {b"x": {}}}):
            edit(path, {name: None})
            edit(path, {name: wrong})
            checked(root)
            path.write_bytes(whole[store])
    assert checked(root) == set()


@pytest.mark.parametrize("store", STORES)
def test_every_value_may_be_garbage(root: V2Root, whole: dict[str, bytes], store: str) -> None:
    path: Path = getattr(root, store)
    for garbage in (b"", b"\xff" * 20, b"\0", b"{}", b"x" * 3000):
        edit(path, replaced(ondisk.tree(path), garbage))
        checked(root)
        path.write_bytes(whole[store])


def replaced(tree: object, garbage: bytes) -> dict[bytes, object]:
    assert hasattr(tree, "items")
    return {key: garbage if isinstance(it, bytes) else replaced(it, garbage) for key, it in tree.items()}
