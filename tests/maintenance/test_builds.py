"""Repairs that delete builds (C56, C57), and that move stores aside (C1, C3)."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults import Healthy, check, found
from mending import changed, everything, mend, plan, store

import v2_roots
from buildkit_migrate import check_root, repair_root
from buildkit_migrate.bolt import Database
from buildkit_migrate.cli import main
from buildkit_migrate.maintenance.mend import MoveAside, RepairClass
from planting import cut, damage, damage_page, edit, page_size
from v2_roots import V2Root

pytestmark = pytest.mark.slow

DROP, RELEASE, ASIDE = RepairClass.DROP, RepairClass.RELEASE_LEAKS, RepairClass.SET_ASIDE


@pytest.fixture(params=["healed", "containerd"])
def healthy(request: pytest.FixtureRequest, tmp_path: Path) -> Healthy:
    """A root of each kind of worker."""
    return Healthy(v2_roots.v2_root(request.param, tmp_path))


@pytest.fixture
def root(tmp_path: Path) -> V2Root:
    return v2_roots.healed(tmp_path)


def history(healthy: Healthy) -> bytes:
    return healthy.namespace + b"_history"


def undecodable(healthy: Healthy, ref: bytes) -> str:
    edit(healthy.root.history, {b"_records": {ref: b"\xff"}})
    return "C56"


def under_another_name(healthy: Healthy, ref: bytes) -> str:
    with Database.open(healthy.root.history) as database:
        records = database.root.bucket(b"_records")
        assert records is not None
        stored = records.get(ref) or b""
    edit(healthy.root.history, {b"_records": {ref: stored.replace(ref, ref[::-1])}})
    return "C56"


def without_lease(healthy: Healthy, ref: bytes) -> str:
    healthy.lease(b"ref_" + ref, None, history(healthy))
    return "C57"


def with_an_empty_lease(healthy: Healthy, ref: bytes) -> str:
    healthy.lease(b"ref_" + ref, {b"content": None}, history(healthy))
    return "C57"


@pytest.mark.parametrize("plant", [undecodable, under_another_name, without_lease, with_an_empty_lease])
def test_a_build_and_its_lease_go(healthy: Healthy, plant) -> None:  # type: ignore[no-untyped-def]
    root, ref = healthy.root, min(healthy.builds)
    rule = plant(healthy, ref)
    before = everything(root)
    planned = mend(root, DROP)
    (one,) = planned.mends
    assert (one.rule, one.kind, one.subject) == (rule, DROP, ref.decode())
    assert "build" in one.loses
    lasts = [change.last for change in planned.changes]  # type: ignore[union-attr]
    assert lasts == ([False] if plant is without_lease else [False, True])
    lease = (store(root, root.containerd), b"v1", history(healthy), b"leases", b"ref_" + ref)
    build = (store(root, root.history), b"_records", ref)
    gone = {place for place in before if place[:5] == lease or place == build}
    assert changed(before, everything(root)) == dict.fromkeys(gone)
    assert found(root) == set()
    assert plan(root, *RepairClass).changes == ()


def test_odd_names_of_builds(root: V2Root) -> None:
    healthy = Healthy(root)
    ref = b"\xfe\xff"
    edit(root.history, {b"_records": {ref: b"\xff"}})
    healthy.lease(b"ref_" + ref, {b"createdat": b""}, history(healthy))
    before = everything(root)
    assert len(mend(root, DROP).mends) == 1
    assert None in changed(before, everything(root)).values()
    assert found(root) == set()


def test_the_lease_stays_if_another_history_has_the_build(root: V2Root) -> None:
    healthy = Healthy(root)
    ref = min(healthy.builds)
    (root.root / "history_c8d.db").write_bytes(root.history.read_bytes())
    undecodable(healthy, ref)
    planned = plan(root, DROP)
    assert [change.last for change in planned.changes] == [False]  # type: ignore[union-attr]


# --- Moving aside


def meta_pages(path: Path) -> None:
    damage(path, 0, b"\xa5" * 2 * page_size(path))


def cut_short(path: Path) -> None:
    cut(path, path.stat().st_size // 2 // page_size(path) * page_size(path))


def other_content(path: Path) -> None:
    path.write_bytes(b"this was never a database" * 1000)


def page_of_both_transactions(path: Path) -> None:
    """Met after the file is open, when no daemon moves it aside any more."""
    edit(path, {b"new": {b"key": b"value" * 3000}})
    with Database.open(path) as database:
        end = database.reader.high_water
    for page in range(2, end - 1):
        damage_page(path, page)


DAMAGES = [meta_pages, cut_short, other_content, page_of_both_transactions]


@pytest.mark.parametrize("damaged", DAMAGES)
@pytest.mark.parametrize("name", ["cache", "history"])
def test_a_store_that_can_not_be_read_is_moved_aside(root: V2Root, name: str, damaged) -> None:  # type: ignore[no-untyped-def]
    path: Path = getattr(root, name)
    builds = len(Healthy(root).builds)
    damaged(path)
    content = path.read_bytes()
    (offered,) = plan(root).offered
    assert offered.kind is ASIDE
    before = everything_but(root, path)
    planned = mend(root, ASIDE)
    assert planned.changes == (MoveAside(path),)
    (one,) = planned.mends
    assert one.rule in {"C1", "C3"}
    assert (str(builds) if name == "history" else "solver cache") in one.loses
    assert not path.exists()
    (aside,) = path.parent.glob(f"{path.name}.*.bak")
    assert aside.read_bytes() == content
    assert everything_but(root, path, aside) == before
    assert found(root) == set()
    assert plan(root, *RepairClass).changes == ()


def everything_but(root: V2Root, *paths: Path) -> dict[str, bytes]:
    files = (path for path in root.root.parent.rglob("*") if path.is_file() and not path.is_symlink())
    ours = {root.root / "buildkitd.lock", root.root / "repair.journal", *paths}
    return {str(path): path.read_bytes() for path in files if path not in ours}


def test_leases_of_a_history_that_was_moved_aside_are_released_when_there_is_a_new_one(root: V2Root) -> None:
    builds = Healthy(root).builds
    meta_pages(root.history)
    mend(root, ASIDE, RELEASE)
    assert found(root) == set()
    root.history.write_bytes(b"")  # as a daemon makes it
    edit_empty(root.history)
    assert {it.rule for it in check(root)} == {"C34"}
    assert {it.subject for it in mend(root, RELEASE).mends} == {f"ref_{ref.decode()}" for ref in builds}
    assert found(root) == set()


def edit_empty(path: Path) -> None:
    from dicts import file_of

    path.write_bytes(file_of({b"_records": {}, b"_version": {b"version": b"2"}}))


@pytest.mark.parametrize("name", ["records", "containerd", "snapshots"])
@pytest.mark.parametrize("damaged", [meta_pages, cut_short])
def test_other_stores_are_not_moved_aside(root: V2Root, name: str, damaged) -> None:  # type: ignore[no-untyped-def]
    damaged(getattr(root, name))
    assert not any(isinstance(change, MoveAside) for change in plan(root, *RepairClass).changes)


def test_a_store_that_can_be_mended_is_not_moved_aside(root: V2Root) -> None:
    whole = root.cache.read_bytes()
    damage(root.cache, page_size(root.cache) + 16, b"\xa5" * 64)
    assert plan(root, ASIDE).changes == ()
    root.cache.write_bytes(whole)
    root.cache.unlink()
    assert plan(root, ASIDE).changes == ()


# --- Directories of native (C45)


@pytest.fixture
def native(tmp_path: Path) -> Healthy:
    (tmp_path / "native").mkdir()
    return Healthy(v2_roots.v2_root("native", tmp_path / "native"))


@pytest.mark.parametrize("name", ["7777", "new-12345", "rm-3"])
def test_a_directory_of_no_snapshot_goes_with_native_alone(
    native: Healthy, root: V2Root, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for it in (native.root, root):
        (it.directories / name / "inside").mkdir(parents=True)
        (it.directories / name / "inside" / "file").write_bytes(b"x" * 10_000)
    before = everything(native.root)
    main(["repair", str(native.root.root), "--release-leaks", "--dry-run"])
    (told,) = [line for line in capsys.readouterr().out.splitlines() if "frees" in line]
    assert "repair --discard-kept" in told
    assert "collection" not in told
    planned = mend(native.root, RELEASE)
    (one,) = planned.mends
    assert (one.rule, one.subject) == ("C45", name)
    assert one.freed is not None
    assert one.freed >= 10_000
    assert one.freed_by == "discard-kept"
    gone = {place for place in before if f"/snapshots/{name}" in str(place[0])}
    assert changed(before, everything(native.root)) == dict.fromkeys(gone)
    assert found(native.root) == set()
    assert plan(root, *RepairClass).changes == ()


def test_no_directory_goes_while_numbers_are_wrong(native: Healthy) -> None:
    from planting import set_sequence

    (native.root.directories / "new-7").mkdir()
    set_sequence(native.root.snapshots, (b"v1", b"snapshots"), 1)
    assert plan(native.root, RELEASE).changes == ()


@pytest.mark.parametrize("containerd", [True, False])
def test_no_directory_goes_that_may_be_a_lost_snapshot_s(native: Healthy, containerd: bool) -> None:
    layer = native.last[0]
    native.lose_in_snapshotter(layer)
    if containerd:
        native.lose_in_containerd(layer)
    (native.root.directories / "new-7").mkdir()
    assert {it.subject for it in check(native.root) if it.rule == "C45"} == {"new-7", str(layer.number)}
    planned = plan(native.root, *RepairClass)
    assert [it.subject for it in planned.mends if it.rule == "C45"] == ["new-7"]


def test_no_directory_goes_while_something_is_mounted_below(
    native: Healthy, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = native.root.directories / "new-7" / "inside"
    inside.mkdir(parents=True)
    points = [Path("/"), inside.resolve()]
    monkeypatch.setattr("buildkit_migrate.maintenance.repairs.released.mount_points", lambda: points)
    assert plan(native.root, RELEASE).changes == ()
    points.pop()
    assert plan(native.root, RELEASE).changes != ()


def test_a_file_among_the_directories_stays(native: Healthy) -> None:
    (native.root.directories / "left").write_bytes(b"x")
    (native.root.directories / "new-1").symlink_to("/")
    assert {it.subject for it in check(native.root)} == {"left", "new-1"}
    assert plan(native.root, *RepairClass).changes == ()


def test_nothing_is_done_about_a_log_that_is_gone(root: V2Root) -> None:
    healthy = Healthy(root)
    healthy.blob_file(min(healthy.logs)).unlink()
    (finding,) = check(root)
    assert (finding.rule, finding.repair) == ("C25", "`repair` does nothing, as no record uses the blob.")
    assert plan(root, *RepairClass).changes == ()


def test_of_one_worker_alone_no_build_is_missed_and_none_goes(root: V2Root) -> None:
    """The leases of its builds may be those of another worker."""
    healthy, worker = Healthy(root), root.worker
    without_lease(healthy, min(healthy.builds))
    assert "C57" not in check_root(worker).counts
    before = root.history.read_bytes()
    done = repair_root(worker, classes=RepairClass)
    assert not any(mend.rule in ("C56", "C57") for mend in (*done.plan.mends, *done.plan.offered))
    assert root.history.read_bytes() == before
    assert "C57" in check_root(root.root).counts
