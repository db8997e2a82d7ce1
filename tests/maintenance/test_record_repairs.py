"""C8, C9, C12, C17 to C22, C63: repairs in the store of records, edit for edit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import pytest
from faults import check, found
from mending import changed, everything, mend, plan
from mending import store as name_of
from record_faults import Planter, value

from planting import edit

pytestmark = pytest.mark.slow

NOBODY = b"0" * 25


@pytest.fixture
def plant(tmp_path: Path) -> Planter:
    return Planter(tmp_path)


def mended(plant: Planter, *, left: Iterable[str] = ()) -> dict[tuple[bytes, ...], object]:
    """What a repair changes in the store of records; it changes nothing else, and leaves nothing to do."""
    before = everything(plant.root)
    planned = mend(plant.root)
    found_then = changed(before, everything(plant.root))
    assert {place[0] for place in found_then} <= {name_of(plant.root, plant.root.records)}
    assert {finding.rule for finding in planned.left} == set(left)
    assert {finding.rule for finding in check(plant.root)} == set(left)
    assert plan(plant.root).mends == ()
    return {tuple(place[1:]): edited for place, edited in found_then.items()}  # type: ignore[misc]


# --- C8, C9, C63


@pytest.mark.parametrize(
    "key",
    [
        b"cache.createdAt",
        b"cache.description",
        b"cache.imageRefs",
        b"cache.lastUsedAt",
        b"cache.usageCount",
        b"snapshot.size",
    ],
)
@pytest.mark.parametrize("stored", [b'{"value":"cut', b"\xff", b'{"value":{}}'])
def test_a_value_that_only_describes_is_cleared(plant: Planter, key: bytes, stored: bytes) -> None:
    id = plant.layers[0]
    plant.put(id, key, stored)
    assert mended(plant) == {(b"_main", id, key): b""}


def test_several_values_of_several_records_are_cleared(plant: Planter) -> None:
    one, other = plant.layers[:2]
    for id in (one, other):
        plant.put(id, b"cache.description", b"{")
        plant.put(id, b"snapshot.size", value("large"))
    assert set(mended(plant)) == {
        (b"_main", id, key) for id in (one, other) for key in (b"cache.description", b"snapshot.size")
    }


@pytest.mark.parametrize("key", [b"cache.parent", b"cache.recordType", b"new.key"])
def test_other_values_stay(plant: Planter, key: bytes) -> None:
    plant.put(plant.tops[0], key, b"{")
    assert plan(plant.root).changes == ()


@pytest.mark.parametrize("stored", [b"{", value("7"), None, b"", value(0), value(-1)])
def test_the_size_of_a_blob(plant: Planter, stored: bytes | None) -> None:
    id = plant.layers[0]
    plant.put(id, b"cache.blobsize", stored)
    assert mended(plant) == {(b"_main", id, b"cache.blobsize"): plant.records[id][b"cache.blobsize"]}


def test_the_size_of_no_blob_is_cleared(plant: Planter) -> None:
    id = plant.with_key(b"snapshot.committed", b"cache.blob", b"cache.equalMutable")[0]
    plant.put(id, b"cache.blobsize", b"{")
    (finding,) = check(plant.root)
    assert finding.repair == "`repair` clears the value."
    assert mended(plant) == {(b"_main", id, b"cache.blobsize"): b""}


@pytest.mark.parametrize("fault", ["longer", "missing", "unknown", "size"])
def test_the_size_of_a_blob_that_is_not_sound(plant: Planter, fault: str) -> None:
    id = plant.tops[0]
    plant.put(id, b"cache.blobsize", None)
    digest = plant.get(id, b"cache.blob")
    file = plant.root.worker / "content" / "blobs" / "sha256" / digest.removeprefix("sha256:")
    if fault == "longer":
        file.write_bytes(file.read_bytes() + b"x")
    elif fault == "missing":
        file.unlink()
    elif fault == "size":
        edit_blob(plant, digest, {b"size": b"\x01"})  # -1
    else:
        edit_blob(plant, digest, None)
    assert "C63" in {finding.rule for finding in plan(plant.root).left}
    assert plan(plant.root).changes == ()


def edit_blob(plant: Planter, digest: str, edits: dict[bytes, bytes] | None) -> None:
    content = {b"content": {b"blob": {digest.encode(): edits}}}
    edit(plant.root.containerd, {b"v1": {b"buildkit": content}})


# --- C12


def test_a_mutable_half_that_is_gone(plant: Planter) -> None:
    id = plant.tops[0]
    plant.put(id, b"cache.equalMutable", value(NOBODY.decode()))
    assert found(plant.root) == {("C12", "H", id.decode())}
    assert mended(plant) == {(b"_main", id, b"cache.equalMutable"): b""}


def test_a_mutable_half_that_is_gone_with_the_snapshot(plant: Planter) -> None:
    immutable, _ = next(plant.pairs)
    plant.put(immutable, b"cache.equalMutable", value(NOBODY.decode()))
    assert "C12" in {finding.rule for finding in plan(plant.root).left}
    assert not any(mend.rule == "C12" for mend in plan(plant.root).mends)


# --- C17 to C21


@pytest.mark.parametrize(
    "kind", [b"chainid:", b"blobchainid:", b"cache-dir:", b"local.sharedKey:", b"sha256:"]
)
def test_an_entry_that_is_missing_is_added(plant: Planter, kind: bytes) -> None:
    entry = next(key for key in plant.index if key.startswith(kind))
    plant.put_index(entry, there=False)
    assert mended(plant) == {(b"_index", entry): b""}


def test_all_entries_of_a_record_are_missing(plant: Planter) -> None:
    id = plant.tops[0]
    entries = plant.entries(id)
    assert len(entries) > 1
    edit(plant.root.records, {b"_index": dict.fromkeys(entries)})
    assert mended(plant) == {(b"_index", entry): b"" for entry in entries}


def test_the_bucket_of_entries_is_missing(plant: Planter) -> None:
    edit(plant.root.records, {b"_index": None})
    assert set(mended(plant)) == {(b"_index",), *((b"_index", entry) for entry in plant.index)}


@pytest.mark.parametrize(
    "entry",
    [b"chainid:sha256:0::" + NOBODY, b"\xff\xfe::\xff", b"x::", b"cache-dir:shared", b"::", b"a:b", b"\xff"],
)
def test_an_entry_of_no_record_is_deleted(plant: Planter, entry: bytes) -> None:
    plant.put_index(entry)
    assert mended(plant) == {(b"_index", entry): None}


def test_an_entry_that_its_record_does_not_have_is_deleted(plant: Planter) -> None:
    entry = b"cache-dir:text::" + plant.mounts[0]
    plant.put_index(entry)
    assert mended(plant) == {(b"_index", entry): None}


def test_two_mounts_whose_entries_were_swapped(plant: Planter) -> None:
    one, other = [entry for entry in plant.index if entry.startswith(b"cache-dir:")][:2]
    swapped = [
        one.rpartition(b"::")[0] + b"::" + other.rpartition(b"::")[2],
        other.rpartition(b"::")[0] + b"::" + one.rpartition(b"::")[2],
    ]
    edit(plant.root.records, {b"_index": {one: None, other: None, **dict.fromkeys(swapped, b"")}})
    expected = {(b"_index", one): b"", (b"_index", other): b""}
    assert mended(plant) == expected | {(b"_index", entry): None for entry in swapped}


def test_an_entry_is_judged_though_a_description_does_not_decode(plant: Planter) -> None:
    id = plant.tops[0]
    plant.put(id, b"cache.description", b"{")
    plant.put_index(b"chainid:x::" + id)
    assert mended(plant) == {
        (b"_main", id, b"cache.description"): b"",
        (b"_index", b"chainid:x::" + id): None,
    }


def test_external_data_of_no_record_is_deleted(plant: Planter) -> None:
    data = {b"buildkit.contenthash.v0": b"x" * 100}
    edit(plant.root.records, {b"_external": {NOBODY: data, b"\xff\x00": {}}})
    assert mended(plant) == {
        (b"_external", NOBODY): None,
        (b"_external", NOBODY, b"buildkit.contenthash.v0"): None,
        (b"_external", b"\xff\x00"): None,
    }


# --- C22


KEYS = {b"cache.chainID": "chainid:", b"cache.blobChainID": "blobchainid:"}


def put_chain(plant: Planter, id: bytes, key: bytes, chain: str) -> bytes:
    """With its index entry in the place of the one before. Returns the entry."""
    prefix = KEYS[key]
    plant.put(id, key, value(chain, prefix + chain))
    plant.put_index(f"{prefix}{plant.get(id, key)}::".encode() + id, there=False)
    entry = f"{prefix}{chain}::".encode() + id
    plant.put_index(entry)
    return entry


def cleared(plant: Planter, id: bytes) -> dict[tuple[bytes, ...], object]:
    """Of a healthy record."""
    expected: dict[tuple[bytes, ...], object] = {}
    for key, prefix in KEYS.items():
        if chain := plant.get(id, key):
            expected[(b"_main", id, key)] = b""
            expected[(b"_index", f"{prefix}{chain}::".encode() + id)] = None
    return expected


def layers_on(plant: Planter, id: bytes) -> list[bytes]:
    found = plant.children(id)
    for child in found:
        found += plant.children(child)
    return found


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("which", ["top", "middle", "merge"])
def test_chain_ids_are_cleared_with_those_of_the_layers_above(plant: Planter, which: str, key: bytes) -> None:
    id = plant.tops[0]
    if which == "middle":
        id = max(plant.layers, key=lambda id: len(layers_on(plant, id)))
    elif which == "merge":
        id = next(id for id in plant.with_key(b"cache.chainID") if plant.get(id, b"cache.mergeParents"))
    above = layers_on(plant, id)
    assert bool(above) or which != "middle"
    wrong = "sha256:" + "7" * 64
    entry = put_chain(plant, id, key, wrong)
    expected = {(b"_main", id, other): b"" for other in KEYS}
    expected |= cleared(plant, id)
    del expected[(b"_index", f"{KEYS[key]}{plant.get(id, key)}::".encode() + id)]
    expected[(b"_index", entry)] = None
    for layer in above:
        expected |= cleared(plant, layer)
    assert mended(plant) == expected


def test_a_merge_whose_ids_follow_from_wrong_ones(plant: Planter) -> None:
    """Nothing is told of it, as it follows; but once those below are cleared it would be wrong by itself."""
    merge = next(id for id in plant.with_key(b"cache.chainID") if plant.get(id, b"cache.mergeParents"))
    first, *others = (parent.encode() for parent in plant.get(merge, b"cache.mergeParents"))
    chain, blob_chain = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    put_chain(plant, first, b"cache.chainID", chain)
    put_chain(plant, first, b"cache.blobChainID", blob_chain)
    for other in others:
        for layer in chain_of(plant, other):
            diff, blob = plant.get(layer, b"cache.diffID"), plant.get(layer, b"cache.blob")
            chain = hashed(chain, diff)
            blob_chain = hashed(blob_chain, hashed(blob, diff))
    put_chain(plant, merge, b"cache.chainID", chain)
    put_chain(plant, merge, b"cache.blobChainID", blob_chain)
    assert found(plant.root) == {("C22", "W", first.decode())}
    assert {place[1] for place in mended(plant) if place[0] == b"_main"} >= {first, merge}


def chain_of(plant: Planter, id: bytes | None) -> list[bytes]:
    """A layer and all below it, the lowest first."""
    found_then: list[bytes] = []
    while id is not None:
        found_then.insert(0, id)
        id = plant.parent(id)
    return found_then


def hashed(left: str, right: str) -> str:
    return "sha256:" + hashlib.sha256(f"{left} {right}".encode()).hexdigest()


def test_wrong_ids_on_wrong_ids(plant: Planter) -> None:
    lower = max(plant.layers, key=lambda id: len(layers_on(plant, id)))
    upper = layers_on(plant, lower)[-1]
    for id in (lower, upper):
        put_chain(plant, id, b"cache.blobChainID", "sha256:" + "3" * 64)
    planned = plan(plant.root)
    assert {mend.subject for mend in planned.mends} == {lower.decode(), upper.decode()}
    above = {id for id in layers_on(plant, lower) if plant.get(id, b"cache.chainID")}
    assert {place[1] for place in mended(plant) if place[0] == b"_main"} == {lower, *above}
