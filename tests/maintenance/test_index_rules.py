"""C17 to C22: indexes, ids, external data and chain ids."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from faults import check, found
from record_faults import Planter, value

from planting import edit

pytestmark = pytest.mark.slow

KINDS = (b"chainid:", b"blobchainid:", b"cache-dir:", b"local.sharedKey:", b"git-remote::", b"sha256:")
"""Of indexes in the healthy root; the last one is that of an HTTP request."""
NOBODY = b"0" * 25


@pytest.fixture
def plant(tmp_path: Path) -> Planter:
    return Planter(tmp_path)


def entry_of(plant: Planter, kind: bytes) -> tuple[bytes, bytes]:
    """An index entry of this kind, and the record that it names."""
    entry = next(key for key in plant.index if key.startswith(kind))
    return entry, entry.rpartition(b"::")[2]


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_entry_is_missing(plant: Planter, kind: bytes) -> None:
    entry, id = entry_of(plant, kind)
    plant.put_index(entry, there=False)
    assert found(plant.root) == {("C17", "H", id.decode())}
    (finding,) = check(plant.root)
    assert entry.rpartition(b"::")[0].decode()[:40] in finding.message


@pytest.mark.parametrize("kind", (*KINDS, b"git-snapshot::", b"blobmap::", b"anything"))
def test_an_index_entry_of_no_record(plant: Planter, kind: bytes) -> None:
    entry = kind + b"text::" + NOBODY
    plant.put_index(entry)
    assert found(plant.root) == {("C18", "H", entry.decode())}


@pytest.mark.parametrize("kind", (*KINDS, b"git-snapshot::", b"anything"))
def test_an_index_entry_that_no_value_of_the_record_has(plant: Planter, kind: bytes) -> None:
    for id in (plant.tops[0], plant.mounts[0]):
        entry = kind + b"text::" + id
        plant.put_index(entry)
        assert found(plant.root) == {("C19", "W", entry.decode())}
        plant.put_index(entry, there=False)


def test_an_index_that_nobody_searches_is_harmless(plant: Planter) -> None:
    entry = b"blobmap::sha256:00::" + plant.tops[0]
    plant.put_index(entry)
    assert found(plant.root) == {("C19", "H", entry.decode())}


def test_a_cache_mount_has_the_entry_of_another(plant: Planter) -> None:
    one, other = [entry for entry in plant.index if entry.startswith(b"cache-dir:")][:2]
    text, _, id = one.rpartition(b"::")
    wrong = text + b"::" + other.rpartition(b"::")[2]
    plant.put_index(wrong)
    assert found(plant.root) == {("C19", "W", wrong.decode())}
    plant.put_index(one, there=False)
    assert found(plant.root) == {("C19", "W", wrong.decode()), ("C17", "H", id.decode())}


@pytest.mark.parametrize("key", [b"cache-dir:shared", b"sha256:00", b"x", b"a:b:c", b":", b"\xff\xfe"])
def test_an_index_entry_that_can_not_be_split(plant: Planter, key: bytes) -> None:
    plant.put_index(key)
    assert found(plant.root) == {("C20", "P", key.decode(errors="surrogateescape"))}


@pytest.mark.parametrize("odd", [b"a::b", b"::", b"x::"])
def test_a_record_whose_id_has_a_separator(plant: Planter, odd: bytes) -> None:
    edit(plant.root.records, {b"_main": {odd: dict(plant.records[plant.tops[0]])}})
    entries = [key.rpartition(b"::")[0] + b"::" + odd for key in plant.entries(plant.tops[0])]
    for entry in entries:
        plant.put_index(entry)
    assert found(plant.root) == {("C20", "H", odd.decode())}


def test_what_is_left_of_a_store_without_records_is_one_fault(plant: Planter) -> None:
    edit(plant.root.records, {b"_main": dict.fromkeys(plant.records)})
    assert {it for it in found(plant.root) if it[0] != "C51"} == {("C39", "L", "")}


def test_external_data_of_no_record(plant: Planter) -> None:
    edit(plant.root.records, {b"_external": {NOBODY: {b"buildkit.contenthash.v0": b"x" * 100}}})
    assert found(plant.root) == {("C21", "L", NOBODY.decode())}
    assert check(plant.root)[0].bytes == 100 + len(b"buildkit.contenthash.v0")


# --- C22


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def put_chain(plant: Planter, id: bytes, key: bytes, chain: str) -> None:
    """With its index entry in the place of the one before."""
    prefix = {b"cache.chainID": "chainid:", b"cache.blobChainID": "blobchainid:"}[key]
    plant.put(id, key, value(chain, prefix + chain))
    plant.put_index(f"{prefix}{plant.get(id, key)}::".encode() + id, there=False)
    plant.put_index(f"{prefix}{chain}::".encode() + id)


def of_kind(plant: Planter, kind: str) -> bytes:
    if kind == "top":
        return plant.tops[0]
    if kind == "middle":
        return max(plant.layers, key=lambda id: len(plant.children(id)))
    if kind == "base":
        return next(id for id in plant.with_key(b"cache.blob", b"cache.parent") if plant.children(id))
    return next(id for id in plant.with_key(b"cache.chainID") if plant.get(id, kind.encode()))


KINDS_OF_RECORDS = ("top", "middle", "base", "cache.mergeParents", "cache.upperDiffParent")


@pytest.mark.parametrize("key", [b"cache.chainID", b"cache.blobChainID"])
@pytest.mark.parametrize("kind", KINDS_OF_RECORDS)
def test_a_chain_id_that_does_not_recompute(plant: Planter, kind: str, key: bytes) -> None:
    id = of_kind(plant, kind)
    put_chain(plant, id, key, digest(b"another"))
    # What is built on it is as it was: its own ids are right.
    assert found(plant.root) == {("C22", "W", id.decode())}
    (finding,) = check(plant.root)
    assert finding.message.startswith(f"{key.decode()} is ")
    assert plant.get(id, key) in finding.message


@pytest.mark.parametrize("kind", ["top", "middle", "base"])
@pytest.mark.parametrize("key", [b"cache.diffID"])
def test_a_layer_with_another_content_than_its_chain(plant: Planter, kind: str, key: bytes) -> None:
    id = of_kind(plant, kind)
    plant.put(id, key, value(digest(b"another")))
    assert found(plant.root) == {("C22", "W", id.decode())}


@pytest.mark.parametrize("kind", KINDS_OF_RECORDS)
def test_cleared_chain_ids_are_made_again(plant: Planter, kind: str) -> None:
    id = of_kind(plant, kind)
    for key, prefix in ((b"cache.chainID", b"chainid:"), (b"cache.blobChainID", b"blobchainid:")):
        plant.put(id, key, b"")
        for entry in plant.entries(id, prefix):
            plant.put_index(entry, there=False)
    assert found(plant.root) == set()


def test_chain_ids_without_a_blob(plant: Planter) -> None:
    id = plant.with_key(
        b"snapshot.committed", b"cache.blob", b"cache.mergeParents", b"cache.upperDiffParent"
    )[0]
    for key in (b"cache.chainID", b"cache.blobChainID"):
        chain = digest(key)
        prefix = "chainid:" if key == b"cache.chainID" else "blobchainid:"
        plant.put(id, key, value(chain, prefix + chain))
        plant.put_index(f"{prefix}{chain}::".encode() + id)
    assert found(plant.root) == {("C22", "W", id.decode())}
