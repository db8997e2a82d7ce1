"""Properties of repairs that protect: with any faults together, nothing is lost, and one repair is enough."""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from faults import Healthy, check
from hypothesis import given
from hypothesis import strategies as st
from mending import Place, changed, everything, mend, plan
from mixed_faults import CATALOGUE, plant
from test_rules_on_all_roots import some_edit

import v2_roots
from buildkit_migrate.bolt import Database
from buildkit_migrate.maintenance.mend import EditStore, MoveAside
from buildkit_migrate.maintenance.rules.values import CLEARABLE
from planting import edit

pytestmark = pytest.mark.slow

FOLLOWING = {"C41", "C42", "C45"}
"""Rules that tell what no repair protects from, once the fault is gone that it followed from."""

CLEARED = CLEARABLE | {b"cache.equalMutable", b"cache.chainID", b"cache.blobChainID", b"cache.blobsize"}
SET = {b"cache.blobonly": b'{"value":true}', b"snapshot.size": b'{"value":-1}'}
LABELS = {
    b"buildkit/lease.temporary",
    b"containerd.io/gc.expire",
    b"buildkit.mergeUsageSize",
    b"buildkit.mergeUsageInodes",
}


def is_safe(place: Place, before: object, after: object, namespace: bytes) -> bool:
    """Whether a change keeps all that a daemon could not find out by itself."""
    file, *path = place
    name = Path(str(file)).name
    if not path:
        return _is_safe_file(Path(str(file)), after)
    if name == "metadata_v2.db":
        return _is_safe_record(path, after)
    if name in ("containerdmeta.db", "meta.db"):
        return _is_safe_lease(path, before, after, namespace)
    if name == "metadata.db":
        return path[1] == b"parents" or (path[1] == b"snapshots" and (len(path) == 2 or path[3] == b"parent"))
    return name == "cache.db" and (path[0] == b"_byresult" or (before is None and path[0] == b"_links"))


def _is_safe_file(path: Path, after: object) -> bool:
    if after is None:
        return bool({"executor", "cachemounts"} & set(path.parts))
    return path.name in ("workerid", "work") or isinstance(after, tuple)


def _is_safe_record(path: list[bytes | str], after: object) -> bool:
    if path[0] == b"_index":
        return True
    if path[0] == b"_external":
        return after is None
    key = path[2] if len(path) == 3 else None
    if after == b"":
        return key in CLEARED
    return key == b"cache.blobsize" or (key in SET and after == SET[key])  # type: ignore[index]


def _is_safe_lease(path: list[bytes | str], before: object, after: object, namespace: bytes) -> bool:
    if path[2] == b"leases" and after is None:
        if path[1] == namespace and path[3][:4] == b"ref_":
            return True
        return len(path) == 6 and path[4] == b"labels" and path[5] in LABELS
    if path[2] == b"leases":
        return before is None
    if path[2] == b"snapshots":
        return len(path) == 4 or (path[5] == b"labels" and path[6] in LABELS and after is None)
    return path[1] == namespace + b"_history" and before is None


def findings(root: v2_roots.V2Root) -> set[tuple[str, str]]:
    return {(finding.rule, finding.subject) for finding in check(root)}


def check_a_repair(healthy: Healthy) -> None:
    root = healthy.root
    told, before = findings(root), everything(root)
    planned = mend(root)
    assert not any(isinstance(change, MoveAside) for change in planned.changes)
    assert planned.dropped == ()
    stores = [change.store for change in planned.changes if isinstance(change, EditStore) and not change.last]
    assert len(stores) == len(set(stores))
    mended = {(it.rule, it.subject) for it in planned.mends}
    left, after = findings(root), everything(root)
    for place, value in changed(before, after).items():
        assert is_safe(place, before.get(place), value, healthy.namespace), (place, value)
    assert left.isdisjoint(mended)
    assert {rule for rule, _ in left - told} <= FOLLOWING
    assert plan(root).mends == ()


@given(names=st.sets(st.sampled_from(list(CATALOGUE)), min_size=1, max_size=9), seed=st.integers(0, 999))
def test_one_repair_is_enough_and_loses_nothing(names: set[str], seed: int) -> None:
    into = Path(tempfile.mkdtemp())
    try:
        healthy = Healthy(v2_roots.healed(into))
        plant(healthy, [name for name in CATALOGUE if name in names], seed)
        check_a_repair(healthy)
    finally:
        shutil.rmtree(into)


@pytest.mark.parametrize("name", CATALOGUE)
def test_each_fault_alone(tmp_path: Path, name: str) -> None:
    healthy = Healthy(v2_roots.healed(tmp_path))
    plant(healthy, [name], 1)
    assert findings(healthy.root)
    check_a_repair(healthy)


@pytest.mark.parametrize("seed", range(4))
def test_many_faults_in_a_containerd(tmp_path: Path, seed: int) -> None:
    healthy = Healthy(v2_roots.v2_root("containerd", tmp_path))
    names = [name for name in CATALOGUE if name not in ("no_work", "free_list")]
    plant(healthy, random.Random(seed).sample(names, 12), seed)
    check_a_repair(healthy)


@pytest.mark.parametrize("seed", range(6))
def test_any_edits_of_all_stores(tmp_path: Path, seed: int) -> None:
    """Whatever a repair makes of a root that has hardly a right value left, there is no second one."""
    root, chosen = v2_roots.healed(tmp_path), random.Random(seed)
    for _ in range(8):
        for path in chosen.sample(root.databases, 2):
            with Database.open(path) as database:
                change = some_edit(database.root, chosen)
            edit(path, change)
    mend(root)
    assert plan(root).mends == ()


def test_two_workers_of_one_root(tmp_path: Path) -> None:
    """What is done to both is what is done to each alone."""
    alone: dict[str, dict[Place, object]] = {}
    for name, fixture in (("overlayfs", "healed"), ("native", "native")):
        (tmp_path / name).mkdir()
        healthy = Healthy(v2_roots.v2_root(fixture, tmp_path / name))
        faults_of_a_worker(healthy)
        (tmp_path / "workers").mkdir(exist_ok=True)
        subprocess.run(["cp", "-a", str(healthy.root.worker), str(tmp_path / "workers")], check=True)
        before = everything(healthy.root)
        mend(healthy.root)
        alone[name] = timeless(changed(before, everything(healthy.root)), name)
    one = v2_roots.healed(tmp_path / "workers")
    shutil.rmtree(one.root / "runc-overlayfs")
    for worker in (tmp_path / "workers").glob("runc-*"):
        worker.rename(one.root / worker.name)
    second = one.root / "runc-native"
    two = v2_roots.V2Root(
        *(
            one.root,
            "second",
            second,
            second / "containerdmeta.db",
            second / "snapshots" / "metadata.db",
            "native",
        )
    )
    before_of_both = everything(one), everything(two)
    planned = mend(one)
    for root, before in zip((one, two), before_of_both, strict=True):
        name = root.snapshotter
        assert timeless(changed(before, everything(root)), name) == alone[name]
    files = [change.store.path for change in planned.changes if isinstance(change, EditStore)]
    kinds = {"metadata.db": 0, "containerdmeta.db": 1, "metadata_v2.db": 2}
    assert [kinds[path.name] for path in files if path] == [0, 0, 1, 1, 2, 2]


def faults_of_a_worker(healthy: Healthy) -> None:
    names = [
        "no_blob_size",
        "entry_of_nobody",
        "lost_with_its_lease",
        "no_parent",
        "low_counter",
        "empty_lease",
    ]
    plant(healthy, names, 3)


def timeless(changes: dict[Place, object], snapshotter: str) -> dict[Place, object]:
    """In the databases of this worker, without the times of leases that were made."""
    return {
        place: None if place[-1] in (b"createdat", b"containerd.io/gc.flat") else value
        for place, value in changes.items()
        if len(place) > 1 and f"runc-{snapshotter}/" in str(place[0])
    }
