"""C8, C9, C62, C63: values of records."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults import check, found
from record_faults import Planter, value

from buildkit_migrate.maintenance.odd import STRUCTURAL
from buildkit_migrate.schema.records import KEYS, Kind
from planting import edit

pytestmark = pytest.mark.slow

BROKEN = (
    b'{"value":"cut',
    b"not JSON",
    b"\x00\xff",
    b"[1]",
    b'{"value":1}{"value":2}',
    b'{"value":01}',
    b"\xef\xbb\xbf{}",
)
WRONG: dict[Kind, tuple[bytes, ...]] = {
    Kind.TEXT: (value(5), value(True), value(["a"]), value({}), b"{}"),
    Kind.INTEGER: (value("5"), value(1.5), value(True), value(2**63), b"{}"),
    Kind.FLAG: (value("true"), value(1), b"{}"),
    Kind.TEXTS: (value("a"), value([1]), value({"a": "b"}), b"{}"),
}


@pytest.fixture
def plant(tmp_path: Path) -> Planter:
    return Planter(tmp_path)


@pytest.mark.parametrize("key", sorted(KEYS))
def test_a_value_that_does_not_decode(plant: Planter, key: bytes) -> None:
    ids = plant.with_key(key) or plant.layers
    for broken, id in zip(BROKEN, ids * len(BROKEN), strict=False):
        plant.put(id, key, broken)
        assert found(plant.root) == {("C8", "S", id.decode())}, (broken, id)
        plant.put(id, key, plant.records[id].get(key))


def test_a_value_of_a_key_that_nobody_writes_does_not_decode(plant: Planter) -> None:
    id = plant.layers[0]
    plant.put(id, b"somebody.elses", b"{")
    assert found(plant.root) == {("C8", "S", id.decode()), ("C62", "H", id.decode())}


def test_cleared_values_are_sound(plant: Planter) -> None:
    for key in (
        b"cache.description",
        b"snapshot.size",
        b"cache.createdAt",
        b"cache.usageCount",
        b"cache.imageRefs",
    ):
        for id in plant.with_key(key)[:5]:
            plant.put(id, key, b"")
    assert found(plant.root) == set()


@pytest.mark.parametrize("key", sorted(key for key, kind in KEYS.items() if kind is not Kind.ANY))
def test_a_value_of_another_type(plant: Planter, key: bytes) -> None:
    severity = "B" if key in STRUCTURAL or key == b"cache.blobsize" else "H"
    ids = plant.with_key(key) or plant.layers
    for wrong, id in zip(WRONG[KEYS[key]], ids * 5, strict=False):
        plant.put(id, key, wrong)
        # That the value names no index any more follows from it.
        assert found(plant.root) == {("C9", severity, id.decode())}, wrong
        plant.put(id, key, plant.records[id].get(key))


def test_null_is_a_value_of_any_type(plant: Planter) -> None:
    for key in (
        b"cache.description",
        b"cache.recordType",
        b"cache.deleted",
        b"cache.imageRefs",
        b"cache.usageCount",
    ):
        plant.put(plant.layers[0], key, value(None))
    assert found(plant.root) == set()


def test_what_a_repair_does_depends_on_the_key(plant: Planter) -> None:
    id = plant.layers[0]
    repairs = {}
    for key in (b"cache.description", b"cache.parent", b"cache.blobsize"):
        plant.put(id, key, b"{")
        (finding,) = check(plant.root)
        repairs[key] = finding.repair or ""
        assert key.decode() in finding.message
        plant.put(id, key, plant.records[id][key])
    assert "clears" in repairs[b"cache.description"]
    assert "removes the record" in repairs[b"cache.parent"]
    assert "size" in repairs[b"cache.blobsize"]


# --- C63


@pytest.mark.parametrize("stored", [None, b"", value(0), value(-1)])
def test_a_blob_without_size(plant: Planter, stored: bytes | None) -> None:
    id = plant.layers[0]
    plant.put(id, b"cache.blobsize", stored)
    assert found(plant.root) == {("C63", "B", id.decode())}
    (finding,) = check(plant.root)
    assert finding.repair is not None
    assert str(plant.get(id, b"cache.blobsize")) in finding.repair


def test_no_blob_and_no_size_is_sound(plant: Planter) -> None:
    id = plant.with_key(b"snapshot.committed", b"cache.blob", b"cache.equalMutable")[0]
    plant.put(id, b"cache.blobsize", value(-1))
    assert found(plant.root) == set()


# --- C62


def test_what_nobody_knows(plant: Planter) -> None:
    root, id = plant.root, plant.layers[0]
    edit(
        root.records,
        {b"theirs": {b"a": b"b"}, b"_main": {b"plain": b"x", id: {b"new.key": value(1), b"in": {}}}},
    )
    edit(root.containerd, {b"theirs": {}, b"v1": {b"buildkit": {b"new": {}}}})
    edit(root.snapshots, {b"v1": {b"new": {}}})
    edit(root.cache, {b"_new": {}})
    edit(root.history, {b"_new": {}})
    findings = check(root)
    assert {(it.rule, it.severity) for it in findings} == {("C62", "H")}
    names = sorted((it.file.name, it.subject) for it in findings)
    assert names == [
        ("cache.db", "_new"),
        ("containerdmeta.db", "new"),
        ("containerdmeta.db", "theirs"),
        ("history.db", "_new"),
        ("metadata.db", "new"),
        ("metadata_v2.db", id.decode()),
        ("metadata_v2.db", id.decode()),
        ("metadata_v2.db", "plain"),
        ("metadata_v2.db", "theirs"),
    ]
