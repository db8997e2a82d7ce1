"""Repairs that drop, release and set aside are carried out and taken back, for each kind of worker."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from faults import Healthy, found
from record_faults import value

import v2_roots
from buildkit_migrate import RepairClass, repair_root, undo_maintenance
from buildkit_migrate.maintenance.mend import EditStore
from buildkit_migrate.maintenance.repair import plan_repair
from planting import damage, edit, page_size
from v2_roots import V2Root

pytestmark = pytest.mark.slow

CLASSES = (RepairClass.DROP, RepairClass.RELEASE_LEAKS, RepairClass.SET_ASIDE)


def options(root: V2Root) -> dict[str, str]:
    return {"containerd_root": root.options[1]} if root.options else {}


def faults(it: Healthy) -> None:
    """One for each class, and one for each store."""
    dropped, orphaned, moved = it.last[:3]
    it.in_record(dropped.id, {b"cache.parent": value("0" * 25)})
    it.drop_record(orphaned)
    it.in_snapshots({b"snapshots": {moved.name: {b"kind": b"\x02"}}})
    edit(it.root.history, {b"_records": {min(it.builds): b"\xff", max(it.builds): None}})
    damage(it.root.cache, 0, b"\xa5" * 2 * page_size(it.root.cache))


def files(root: V2Root) -> dict[Path, bytes]:
    every = (path for path in root.root.parent.rglob("*") if path.is_file() and not path.is_symlink())
    return {path: path.read_bytes() for path in every}


RULES = {"C1", "C10", "C30", "C32", "C34", "C56"}


@pytest.mark.parametrize("name", ["healed", "native", "containerd"])
def test_all_of_it_is_done_and_can_be_taken_back(tmp_path: Path, name: str) -> None:
    root = v2_roots.v2_root(name, tmp_path)
    it = Healthy(root)
    faults(it)
    assert {rule for rule, _, _ in found(root)} == RULES
    before = files(root)
    done = repair_root(root.root, classes=CLASSES, **options(root))
    assert {mend.rule for mend in done.plan.mends} == RULES
    assert done.verdict is not None
    assert done.verdict.findings == ()
    assert found(root) == set()
    again = repair_root(root.root, classes=CLASSES, **options(root))
    assert again.plan.changes == ()
    assert undo_maintenance(root.root) is not None
    after = files(root)
    assert {place: after.get(place) for place in before} == before


def test_two_workers_of_one_root(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = v2_roots.healed(tmp_path / "one"), v2_roots.v2_root("native", tmp_path / "two")
    shutil.move(two.worker, one.root)
    second = V2Root(
        one.root,
        "second",
        one.root / two.worker.name,
        one.root / two.worker.name / "containerdmeta.db",
        one.root / two.worker.name / "snapshots" / "metadata.db",
        "native",
    )
    gone: dict[Path, bytes] = {}
    for name, root in (("one", one), ("two", two)):
        alone = v2_roots.v2_root({"one": "healed", "two": "native"}[name], _made(tmp_path / f"{name}-again"))
        layer = Healthy(alone).last[0]
        place = one if root is one else second
        edit(place.records, {b"_main": {layer.id: {b"cache.parent": value("0" * 25)}}})
        gone[place.records] = layer.id
    with one.open() as stores:
        assert len(stores.workers) == 2
        planned = plan_repair(stores, {RepairClass.DROP})
        drops = [it for it in planned.mends if it.rule == "C10"]
        assert {it.file: it.record and it.record[1] for it in drops} == gone
        changes = [it for it in planned.changes if isinstance(it, EditStore)]
        order = [(it.store.path.name if it.store.path else "", it.last) for it in changes]
    assert order == [
        ("metadata_v2.db", False),
        ("metadata_v2.db", False),
        ("containerdmeta.db", True),
        ("containerdmeta.db", True),
    ]
    for change in changes:
        names = set(change.edits.get(b"_main") or ())  # type: ignore[arg-type]
        assert not names or change.store.path is None or names == {gone[change.store.path]}
    # A record of the other worker that has the id of one that goes is mended all the same.
    namesake = gone[second.records]
    edit(one.records, {b"_main": {namesake: {b"cache.parent": value("0" * 25)}}})
    edit(
        second.records,
        {b"_main": {namesake: {b"cache.parent": b"", b"cache.description": b"no JSON"}}},
    )
    with one.open() as stores:
        planned = plan_repair(stores, {RepairClass.DROP, RepairClass.PROTECT})
    assert [it.file for it in planned.mends if it.rule == "C8"] == [second.records]


def _made(path: Path) -> Path:
    path.mkdir()
    return path
