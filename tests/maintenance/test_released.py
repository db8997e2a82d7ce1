"""Repairs of leases that nobody owns (C32 to C35): they go, and then what they held is collected."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults import FLAT, TIME, Healthy, found
from mending import changed, everything, mend, plan, store

import v2_roots
from buildkit_migrate.bolt.edits import Edits
from buildkit_migrate.maintenance.collection import Collection
from buildkit_migrate.maintenance.facts import Facts
from buildkit_migrate.maintenance.mend import RepairClass
from buildkit_migrate.maintenance.repair import RepairPlan
from containerd_daemon import Containerd, why_missing
from planting import below, edit
from v2_roots import V2Root

pytestmark = pytest.mark.slow

RELEASE = RepairClass.RELEASE_LEAKS


@pytest.fixture(params=["healed", "containerd"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Healthy:
    """A root of each kind of worker."""
    return Healthy(v2_roots.v2_root(request.param, tmp_path))


def lease(labels: dict[bytes, bytes], *digests: bytes) -> Edits:
    return {b"createdat": TIME, b"labels": labels, b"content": dict.fromkeys(digests, b"")}


def kept(root: V2Root, namespace: bytes) -> int:
    """Bytes that the next collection leaves in a namespace: of blobs, and of committed snapshots."""
    with root.open() as stores:
        (worker,) = Facts(stores).workers
        assert worker.backend is not None
        spaces = [it for it in (worker.namespace, worker.history_namespace) if it is not None]
        (space,) = [it for it in spaces if it.name == namespace]
        objects = Collection(space, worker.now).kept()
        size = sum(space.blobs.size.values[row] for row in objects.blobs)
        for name, rows in objects.snapshots.items():
            names = space.snapshots(name).name
            size += sum(
                worker.backend.size.values[worker.backend.index.row(names[row] or b"")] for row in rows
            )
    return size


def rules(root: V2Root) -> set[str]:
    """Of what is found, but for results of the record, which the next start releases."""
    return {rule for rule, _, _ in found(root)} - {"C53"}


def only(planned: RepairPlan, *ids: bytes, rule: str) -> None:
    """One mend of this rule and one change, which deletes these leases."""
    (one,) = planned.mends
    assert (one.rule, one.kind, one.subject, one.loses) == (rule, RELEASE, ids[0].decode(), "")
    assert ("variants" in one.does) == (len(ids) > 1)
    (change,) = planned.changes
    assert change.last  # type: ignore[union-attr]


def test_the_record_of_a_lease_is_gone(either: Healthy) -> None:
    root = either.root
    layer = next(it for it in either.last if it.digest)
    either.drop_record(layer)
    (offered,) = plan(root).offered
    assert (offered.rule, offered.kind) == ("C32", RELEASE)
    before, held = everything(root), kept(root, either.namespace)
    planned = mend(root, RELEASE)
    only(planned, layer.id, layer.id + b"-variants", rule="C32")
    gone = {place for place, value in changed(before, everything(root)).items() if value is None}
    leases = (store(root, root.containerd), b"v1", either.namespace, b"leases")
    assert gone == {
        place for place in before if place[:5] in ((*leases, layer.id), (*leases, layer.id + b"-variants"))
    }
    assert gone
    assert set(changed(before, everything(root))) == gone
    assert planned.mends[0].freed == held - kept(root, either.namespace) > 0
    assert rules(root) == set()
    assert plan(root, RELEASE).changes == ()


@pytest.mark.skipif(bool(why_missing()), reason=why_missing())
def test_containerd_frees_what_is_told(tmp_path: Path) -> None:
    root = v2_roots.v2_root("containerd", tmp_path)
    healthy = Healthy(root)
    layers = [it for it in healthy.last if it.digest][:2]
    for layer in layers:
        healthy.drop_record(layer)
    with root.open() as stores:
        (worker,) = Facts(stores).workers
        assert worker.namespace is not None
        collection = Collection(worker.namespace, worker.now)
        objects = collection.kept()
        table = collection.snapshots[b"overlayfs"]
        sizes = worker.namespace.blobs.size.values
        blobs = {worker.namespace.blobs.keys[row] or b"": sizes[row] for row in objects.blobs}
        snapshots = {table.keys[row] or b"": table.name[row] for row in objects.snapshots[b"overlayfs"]}
        backend = worker.backend
        assert backend is not None
        of_snapshots = {
            key: backend.size.values[backend.index.row(name or b"")] for key, name in snapshots.items()
        }
    freed = sum(it.freed or 0 for it in mend(root, RELEASE).mends)
    with Containerd(Path(root.options[1])) as containerd:
        gone = blobs.keys() - {digest.encode() for digest in containerd.content()}
        lost = of_snapshots.keys() - {name.encode() for name in containerd.snapshots("overlayfs")}
    assert {it.digest for it in layers} <= gone
    assert {it.key for it in layers} <= lost
    assert freed == sum(blobs[digest] for digest in gone) + sum(of_snapshots[key] for key in lost)


def test_the_lease_for_variants_alone(healthy: Healthy) -> None:
    layer = next(it for it in healthy.last if it.digest)
    healthy.drop_record(layer)
    healthy.lease(layer.id, None)
    held = kept(healthy.root, healthy.namespace)
    planned = mend(healthy.root, RELEASE)
    only(planned, layer.id + b"-variants", rule="C33")
    assert planned.mends[0].freed == held - kept(healthy.root, healthy.namespace) > 0
    assert rules(healthy.root) == set()


def test_the_build_of_a_lease_is_gone(either: Healthy) -> None:
    build = min(either.builds)
    edit(either.root.history, {b"_records": {build: None}})
    space = either.namespace + b"_history"
    held = kept(either.root, space)
    planned = mend(either.root, RELEASE)
    only(planned, b"ref_" + build, rule="C34")
    assert planned.mends[0].freed == held - kept(either.root, space) > 0
    assert rules(either.root) == set()


def test_a_lease_of_a_build_where_v011_had_it(healthy: Healthy) -> None:
    healthy.lease(b"ref_" + b"0" * 25, lease({}))
    only(mend(healthy.root, RELEASE), b"ref_" + b"0" * 25, rule="C35")
    assert rules(healthy.root) == set()


def test_several_at_once_free_what_they_hold_together(healthy: Healthy) -> None:
    root, namespace = healthy.root, healthy.namespace
    layers = [it for it in healthy.last if it.digest][:3]
    for layer in layers:
        healthy.drop_record(layer)
    healthy.lease(b"0" * 25, lease({FLAT: b"1"}, *(it.digest or b"" for it in layers)))
    edit(root.history, {b"_records": dict.fromkeys(healthy.builds)})
    held = kept(root, namespace)
    planned = mend(root, RELEASE)
    assert {it.rule for it in planned.mends} == {"C32", "C34"}
    assert len(planned.mends) == 4 + len(healthy.builds)
    freed = sum(it.freed or 0 for it in planned.mends if it.rule == "C32")
    assert freed == held - kept(root, namespace) > 0
    assert rules(root) == set()


@pytest.mark.parametrize("id", [b"mine", b"A" * 25])
def test_leases_of_others_stay(healthy: Healthy, id: bytes) -> None:
    healthy.lease(id, lease({FLAT: b"1"}))
    assert plan(healthy.root, *RepairClass).changes == ()


def test_nothing_is_released_where_the_records_were_reset(healthy: Healthy) -> None:
    edit(healthy.root.records, {b"_main": None, b"_index": None, b"_external": None})
    edit(healthy.root.history, {b"_records": dict.fromkeys(healthy.builds)})
    planned = plan(healthy.root, RELEASE)
    assert planned.changes == ()
    assert {it.rule for it in planned.left} == {"C34", "C39"}


def test_nothing_is_released_where_the_records_are_lost(healthy: Healthy) -> None:
    edit(healthy.root.history, {b"_records": dict.fromkeys(healthy.builds)})
    healthy.root.records.unlink()
    planned = plan(healthy.root, RELEASE)
    assert planned.changes == ()
    assert {it.rule for it in planned.left} == {"C2", "C34"}


def test_nothing_is_released_if_a_second_history_can_not_be_read(healthy: Healthy) -> None:
    edit(healthy.root.history, {b"_records": dict.fromkeys(healthy.builds)})
    (healthy.root.root / "history_c8d.db").write_bytes(b"\xa5" * 10_000)
    assert plan(healthy.root, RELEASE).changes == ()


@pytest.mark.parametrize("where", ["worker", "odd"])
def test_nothing_is_released_if_another_worker_of_that_containerd_is_not_looked_at(
    tmp_path: Path, where: str
) -> None:
    root = v2_roots.v2_root("containerd", tmp_path)
    it = Healthy(root)
    it.drop_record(next(it for it in it.last if it.digest))
    assert plan(root, RELEASE).changes
    if where == "worker":
        root = V2Root(
            root.worker,
            root.name,
            root.worker,
            root.containerd,
            root.snapshots,
            root.snapshotter,
            root.options,
        )
    else:
        second = root.root / "containerd-odd name"
        second.mkdir()
        (second / "metadata_v2.db").write_bytes(root.records.read_bytes())
    planned = plan(root, RELEASE)
    assert planned.changes == ()
    assert {it.rule for it in planned.left} == {"C32"}


def test_a_second_worker_of_that_containerd_owns_it(tmp_path: Path) -> None:
    root = v2_roots.v2_root("containerd", tmp_path)
    it = Healthy(root)
    second = root.root / "containerd-native"
    second.mkdir()
    (second / "metadata_v2.db").write_bytes(root.records.read_bytes())
    it.drop_record(next(it for it in it.last if it.digest))
    assert not {mend.rule for mend in plan(root, RELEASE).mends} & {"C32", "C33"}


def test_leases_of_docker_s_layers_stay(tmp_path: Path) -> None:
    healthy = Healthy(v2_roots.healed(tmp_path))
    layer = next(it for it in healthy.last if it.digest)
    with healthy.root.open() as stores:
        facts = Facts(stores)
        (worker,) = facts.workers
        assert worker.stores.kind == "runc"
    docker = tmp_path / "docker" / "buildkit"
    docker.mkdir(parents=True)
    for path in (healthy.root.containerd, healthy.root.records, healthy.root.cache):
        (docker / path.name).write_bytes(path.read_bytes())
    edit(docker / "metadata_v2.db", below((b"_main",), {layer.id: None}))
    (docker / "snapshots.db").write_bytes(healthy.root.snapshots.read_bytes())
    from buildkit_migrate.maintenance.repair import plan_repair
    from buildkit_migrate.workspace.stores import find_state, open_stores

    with open_stores(find_state(docker), healthy.root.place) as stores:
        planned = plan_repair(stores, {RELEASE})
        assert any(it.rule == "C32" and "Docker" in (it.repair or "") for it in planned.left)
        assert not any(it.rule == "C32" for it in planned.mends)
