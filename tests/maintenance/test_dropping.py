"""Records that are dropped take with them what the daemon drops then, and nothing else changes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import FLAT, TIME, Healthy, found
from hypothesis import given
from hypothesis import strategies as st
from plain_rules import Plain
from record_faults import Planter, value
from test_record_properties import World, as_edits, edits

import ondisk
import v2_roots
from buildkit_migrate.bolt import Bucket, Database
from buildkit_migrate.maintenance.dropping import drop_records, with_descendants
from buildkit_migrate.maintenance.facts import Facts
from buildkit_migrate.maintenance.mend import EditStore
from buildkit_migrate.schema.columns import Mask
from buildkit_migrate.schema.snapshots import COMMITTED
from planting import below, edit
from v2_roots import V2Root

pytestmark = pytest.mark.slow

Tree = dict[bytes, Any]


def sequences(path: Path) -> dict[tuple[bytes, ...], int]:
    """The sequence of each bucket that has one."""
    found: dict[tuple[bytes, ...], int] = {}

    def walk(bucket: Bucket, place: tuple[bytes, ...]) -> None:
        for key, inner in bucket.items():
            if not isinstance(inner, bytes):
                if inner.sequence:
                    found[(*place, key)] = inner.sequence
                walk(inner, (*place, key))

    with Database.open(path) as database:
        walk(database.root, ())
    return found


def apply(changes: Iterable[EditStore]) -> None:
    for change in changes:
        assert change.store.path is not None
        edit(change.store.path, change.edits)


def drop(root: V2Root, *ids: bytes) -> set[bytes]:
    """Drops records, and says which went."""
    with root.open() as stores:
        facts = Facts(stores)
        (worker,) = facts.workers
        assert worker.records is not None
        rows = Mask(len(worker.records), (worker.records.index.row(id) for id in ids))
        dropped = drop_records({worker: rows}, facts.workers)
        gone = {worker.records.ids[row] or b"" for row in dropped.rows[worker]}
        changes = dropped.changes
    assert [change.last for change in changes] == sorted(change.last for change in changes)
    apply(changes)
    return gone


# --- In plain Python


def closure(plain: Plain, gone: set[bytes]) -> set[bytes]:
    while True:
        more = {
            id
            for id in plain.records.keys() - gone
            if gone.intersection(plain.parents(id))
            or (plain.target(id) in gone and not is_independent(plain, id))
        }
        if not more:
            return gone
        gone = gone | more


def is_independent(plain: Plain, id: bytes) -> bool:
    return bool(
        plain.get(id, b"snapshot.committed")
        and plain.snapshots.get(plain.key_of_snapshot(id)) == COMMITTED
        and not plain.get(id, b"cache.deleted")
        and not plain.is_waiting(id)
    )


def without(tree: Tree, plain: Plain, gone: set[bytes]) -> Tree:
    """The record store as it should be."""
    main = {
        id: {**values, b"cache.equalMutable": b""} if plain.target(id) in gone else dict(values)
        for id, values in tree[b"_main"].items()
        if id not in gone
    }
    index = {key: it for key, it in tree[b"_index"].items() if key.rpartition(b"::")[2] not in gone}
    external = {id: it for id, it in tree[b"_external"].items() if id not in gone}
    return {b"_main": main, b"_index": index, b"_external": external}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory() as into:
        yield World(Path(into))


@given(operations=edits, chosen=st.sets(st.integers(0, 1 << 30), min_size=1, max_size=3))
def test_what_goes_is_what_plain_python_says(
    world: World, operations: list[tuple[str, int, int, int]], chosen: set[int]
) -> None:
    root = world.root
    root.records.write_bytes(world.whole)
    containerd = root.containerd.read_bytes()
    for operation in operations:
        if operation[0] != "copy":  # ids with ::, see below
            edit(root.records, as_edits(world, *operation))
    before: Tree = ondisk.tree(root.records)
    held: Tree = ondisk.tree(root.containerd)
    plain = world.plain()
    ids = sorted(plain.records)
    rows = {ids[number % len(ids)] for number in chosen}
    gone = closure(plain, rows)
    try:
        assert drop(root, *rows) == gone
        assert ondisk.tree(root.records) == without(before, plain, gone)
        missing = {plain.target(id) for id in gone} - plain.records.keys()
        for id in (gone | missing) - {b""}:
            for lease in (id, id + b"-variants"):
                held[b"v1"][b"buildkit"][b"leases"].pop(lease, None)
        assert ondisk.tree(root.containerd) == held
    finally:
        root.containerd.write_bytes(containerd)


# --- Cases


@pytest.fixture
def plant(tmp_path: Path) -> Planter:
    return Planter(tmp_path)


def test_nothing_but_the_record_and_its_leases_changes(plant: Planter) -> None:
    root, id = plant.root, plant.tops[0]
    before = {path: ondisk.tree(path) for path in root.databases}
    counters = {path: sequences(path) for path in root.databases}
    assert any(counters.values())
    assert drop(root, id) == {id}
    records: Tree = before[root.records]  # type: ignore[assignment]
    del records[b"_main"][id]
    for key in plant.entries(id):
        del records[b"_index"][key]
    records[b"_external"].pop(id, None)
    leases: Any = before[root.containerd][b"v1"]
    for lease in (id, id + b"-variants"):
        del leases[b"buildkit"][b"leases"][lease]
    assert {path: ondisk.tree(path) for path in root.databases} == before
    assert {path: sequences(path) for path in root.databases} == counters
    assert found(root) <= {("C53", "H", it[2]) for it in found(root)}


def test_a_pair_goes_with_its_mutable_half_and_not_the_other_way_round(plant: Planter) -> None:
    pairs = [pair for pair in plant.pairs if not plant.children(pair[0])]
    (one, its), (other, kept) = pairs[:2]
    assert drop(plant.root, its, other) == {one, its, other}
    tree: Tree = ondisk.tree(plant.root.records)
    assert kept in tree[b"_main"]
    leases: Any = ondisk.tree(plant.root.containerd)[b"v1"]
    assert its not in leases[b"buildkit"][b"leases"]
    assert kept in leases[b"buildkit"][b"leases"]
    assert {rule for rule, _, _ in found(plant.root)} <= {"C53"}


def test_an_immutable_half_with_a_snapshot_of_its_own_goes_on_alone(plant: Planter) -> None:
    its = next(mutable for one, mutable in plant.pairs if not plant.children(one))
    layer = plant.tops[0]
    plant.put(layer, b"cache.equalMutable", value(its.decode()))
    gone = drop(plant.root, its)
    assert layer not in gone
    tree: Tree = ondisk.tree(plant.root.records)
    assert tree[b"_main"][layer] == {**plant.records[layer], b"cache.equalMutable": b""}
    assert {rule for rule, _, _ in found(plant.root)} <= {"C53"}


def test_without_the_snapshotter_s_store_an_immutable_half_goes_too(plant: Planter) -> None:
    one, its = next(pair for pair in plant.pairs if not plant.children(pair[0]))
    plant.root.snapshots.unlink()
    assert drop(plant.root, its) == {one, its}


def test_without_containerd_s_store_the_records_go(plant: Planter) -> None:
    id = plant.tops[0]
    plant.root.containerd.unlink()
    assert drop(plant.root, id) == {id}
    assert not plant.root.containerd.exists()


@pytest.mark.parametrize("id", [b"a::b", b"\xff\xfe", b"x" * 300, b"-variants", b"\n"])
def test_odd_ids(plant: Planter, id: bytes) -> None:
    original = next(mount for mount in plant.mounts if plant.entries(mount))
    entries = [entry.removesuffix(original) + id for entry in plant.entries(original)]
    lease = {b"createdat": TIME, b"labels": {FLAT: b"1"}}
    before: Tree = ondisk.tree(plant.root.records)
    leases = ondisk.tree(plant.root.containerd)
    edit(
        plant.root.records,
        {
            b"_main": {id: dict(plant.records[original])},
            b"_index": dict.fromkeys(entries, b""),
            b"_external": {id: {b"name": b"value"}},
        },
    )
    edit(plant.root.containerd, below((b"v1", b"buildkit", b"leases"), {id: lease, id + b"-variants": lease}))
    assert id in drop(plant.root, id)
    assert ondisk.tree(plant.root.records) == before
    assert ondisk.tree(plant.root.containerd) == leases


def test_an_entry_that_is_also_one_of_a_record_that_stays(plant: Planter) -> None:
    id = next(mount for mount in plant.mounts if plant.entries(mount, b"cache-dir"))
    odd = b"o::" + id
    index = plant.entries(id, b"cache-dir")[0].rpartition(b"::")[0]
    stored = value("x", f"{index.decode()}::o")
    edit(
        plant.root.records,
        {
            b"_main": {odd: {b"cache-dir": value("x", index.decode())}, id: {b"cache-dir": stored}},
            b"_index": {index + b"::o::" + id: b""},
        },
    )
    assert drop(plant.root, odd) == {odd}
    tree: Tree = ondisk.tree(plant.root.records)
    assert index + b"::o::" + id in tree[b"_index"]


def test_the_lease_of_a_record_that_is_called_like_the_second_lease_of_another(plant: Planter) -> None:
    id = plant.tops[0]
    second = id + b"-variants"
    edit(plant.root.records, {b"_main": {second: dict(plant.records[id])}})
    assert drop(plant.root, id) == {id}
    leases: Any = ondisk.tree(plant.root.containerd)[b"v1"]
    assert id not in leases[b"buildkit"][b"leases"]
    assert second in leases[b"buildkit"][b"leases"]


@pytest.mark.parametrize("name", [b"ref_" + b"1" * 25, b"somebody-s", b"1" * 25])
def test_the_lease_of_a_missing_mutable_half_goes_if_it_is_one_of_a_record(
    plant: Planter, name: bytes
) -> None:
    id = plant.tops[0]
    plant.put(id, b"cache.equalMutable", value(name.decode()))
    lease = {b"createdat": TIME, b"labels": {FLAT: b"1"}}
    edit(plant.root.containerd, below((b"v1", b"buildkit", b"leases"), {name: lease}))
    drop(plant.root, id)
    leases: Any = ondisk.tree(plant.root.containerd)[b"v1"]
    assert (name in leases[b"buildkit"][b"leases"]) == (name != b"1" * 25)


@pytest.mark.parametrize("other", ["stays", "goes", "unknown"])
def test_a_lease_that_two_workers_of_one_namespace_have(tmp_path: Path, other: str) -> None:
    root = v2_roots.v2_root("containerd", tmp_path)
    id = Healthy(root).last[0].id
    second = root.root / "containerd-native"
    second.mkdir()
    (second / "metadata_v2.db").write_bytes(root.records.read_bytes())
    if other == "unknown":
        (second / "metadata_v2.db").write_bytes(b"\xa5" * 10_000)
    edit(root.containerd, below((b"v1", b"buildkit", b"leases", id, b"snapshots", b"native"), {id: b""}))
    with root.open() as stores:
        facts = Facts(stores)
        workers = {it.stores.snapshotter: it for it in facts.workers}
        rows = {}
        for name, worker in workers.items():
            if name == b"overlayfs" or other == "goes":
                assert worker.records is not None
                rows[worker] = Mask(len(worker.records), [worker.records.index.row(id)])
        changes = drop_records(rows, facts.workers).changes
        apply(changes)
    leases: Any = ondisk.tree(root.containerd)[b"v1"]
    lease = leases[b"buildkit"][b"leases"].get(id)
    if other == "goes":
        assert lease is None
    else:
        assert lease[b"snapshots"] == {b"native": {id: b""}}
        assert lease[b"content"]


def test_nothing_is_dropped_for_nothing(plant: Planter) -> None:
    with plant.root.open() as stores:
        facts = Facts(stores)
        (worker,) = facts.workers
        assert worker.records is not None
        nothing = Mask(len(worker.records))
        assert not with_descendants(worker, nothing)
        assert drop_records({worker: nothing}, facts.workers).changes == ()
