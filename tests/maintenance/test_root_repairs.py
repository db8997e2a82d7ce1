"""C1, C4, C52, C58, C60: repairs of files, of the worker's id, of the history's leases and of leftovers."""

from __future__ import annotations

import contextlib
import struct
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from faults import TIME, Healthy, check, found
from mending import Place, changed, everything, mend, plan, store

import crafted
from buildkit_migrate import repair_root
from buildkit_migrate.bolt import Database, Reader
from buildkit_migrate.bolt import check as check_bolt
from buildkit_migrate.maintenance import disk, repair_apply
from buildkit_migrate.maintenance.mend import RepairClass, RewriteStore
from buildkit_migrate.maintenance.rules import leftovers
from buildkit_migrate.schema.solver import BY_RESULT, RESULTS
from planting import break_free_list, damage, damage_page, edit, page_size

pytestmark = pytest.mark.slow

HISTORY = b"buildkit_history"
STORES = ("records", "containerd", "snapshots", "cache", "history")


def mended(it: Healthy, *, follow: Iterable[str] = ()) -> dict[Place, object]:
    """``follow``: rules whose findings go with others."""
    before = everything(it.root)
    planned = mend(it.root)
    found_then = changed(before, everything(it.root))
    assert {finding.rule for finding in planned.left} <= set(follow)
    assert found(it.root) == set()
    assert plan(it.root).mends == ()
    return found_then


# --- C1, C4


@pytest.mark.parametrize("name", STORES)
def test_a_free_list_with_pages_in_use(healthy: Healthy, name: str) -> None:
    path = getattr(healthy.root, name)
    before = everything(healthy.root)
    break_free_list(path)
    assert {rule for rule, _, _ in found(healthy.root)} >= {"C4"}
    mended(healthy)
    assert changed(before, everything(healthy.root)) == {}
    assert check_bolt(Reader(path.read_bytes())) == []


@pytest.mark.parametrize("name", STORES)
def test_a_free_list_that_is_none(healthy: Healthy, name: str) -> None:
    path = getattr(healthy.root, name)
    with Database.open(path) as database:
        freelist = database.reader.freelist
    assert freelist is not None
    damage(path, freelist * page_size(path) + 8, b"\x02\x00")
    planned = mend(healthy.root)
    assert [change for change in planned.changes if not isinstance(change, RewriteStore)] == []
    assert found(healthy.root) == set()


def test_a_meta_page_that_is_not_the_newest(healthy: Healthy) -> None:
    path = healthy.root.records
    with Database.open(path) as database:
        older = (database.reader.transaction + 1) % 2
    damage(path, older * page_size(path) + 16, b"\xa5" * 64)
    assert found(healthy.root) == {("C1", "H", "")}
    assert mended(healthy) == {}


@pytest.mark.parametrize(
    ("name", "rule"), [*((name, "C1") for name in STORES), ("records", "C3"), ("cache", "C3")]
)
def test_the_transaction_before_a_torn_one(healthy: Healthy, name: str, rule: str) -> None:
    """Pages of the newest transaction never got to the disk, or the file's length did not, either."""
    path = getattr(healthy.root, name)
    before = everything(healthy.root)
    tear(path, cut=rule == "C3")
    (finding,) = [it for it in check(healthy.root) if it.rule in ("C1", "C3")]
    assert finding.rule == rule
    assert finding.repair is not None
    assert "the transaction before" in finding.repair
    planned = plan(healthy.root)
    (change,) = [it for it in planned.changes if isinstance(it, RewriteStore)]
    assert (change.store.path, change.previous) == (path, True)
    assert any(it.loses for it in planned.mends)
    assert not any(it.kind is RepairClass.SET_ASIDE for it in planned.offered)
    mend(healthy.root)
    assert found(healthy.root) == set()
    assert changed(before, everything(healthy.root)) == {}


@pytest.mark.parametrize("name", ["records", "cache"])
@pytest.mark.parametrize("harm", ["shorter", "page", "meta"])
def test_a_short_file_whose_transaction_before_is_not_whole_stays(
    healthy: Healthy, name: str, harm: str
) -> None:
    path = getattr(healthy.root, name)
    size = page_size(path)
    with Database.open(path) as database:
        end, older = database.reader.high_water, database.reader.transaction % 2
    (root,) = struct.unpack_from("<Q", path.read_bytes(), older * size + 32)
    tear(path, cut=True)
    match harm:
        case "shorter":
            path.write_bytes(path.read_bytes()[: (end - 1) * size])
        case "page":
            damage(path, root * size + 8, b"\x77\x77")
        case "meta":
            damage(path, older * size + 16, b"\xa5" * 64)
    planned = plan(healthy.root)
    assert not any(isinstance(change, RewriteStore) for change in planned.changes)
    assert "C3" in {it.rule for it in planned.left}
    assert any(it.kind is RepairClass.SET_ASIDE for it in planned.offered) == (name == "cache")


def tear(path: Path, *, cut: bool = False) -> None:
    """Adds a transaction whose root page is garbage, or behind the end of the file."""
    size, content = page_size(path), bytearray(path.read_bytes())
    metas = [bytes(content[page * size : page * size + size]) for page in (0, 1)]
    newest = max((0, 1), key=lambda page: struct.unpack_from("<Q", metas[page], 64))
    (transaction,) = struct.unpack_from("<Q", metas[newest], 64)
    end = len(content) // size
    meta = bytearray(metas[newest])
    struct.pack_into("<Q", meta, 0, 1 - newest)
    struct.pack_into("<Q", meta, 32, end)  # the root page
    struct.pack_into("<QQ", meta, 56, end + 1, transaction + 1)
    content[(1 - newest) * size : (2 - newest) * size] = meta
    content += b"" if cut else b"\xa5" * size
    crafted.sign(content, size)
    path.write_bytes(content)


@pytest.mark.parametrize("name", STORES)
def test_broken_trees_stay(healthy: Healthy, name: str) -> None:
    path = getattr(healthy.root, name)
    edit(path, {})  # both meta pages lead to the same tree
    damage_page(path, struct.unpack_from("<Q", path.read_bytes(), 32)[0])
    assert not any(isinstance(change, RewriteStore) for change in plan(healthy.root).changes)
    assert "C1" in {finding.rule for finding in plan(healthy.root).left}


# --- C52


@pytest.mark.parametrize("text", [None, "", "another", "0123456789abcdefghijklmno"])
def test_the_id_that_results_name_is_written(healthy: Healthy, text: str | None) -> None:
    file = healthy.root.worker / "workerid"
    id, mode = file.read_bytes(), file.stat().st_mode
    file.unlink()
    if text is not None:
        file.write_text(text)
        file.chmod(mode)
    assert set(mended(healthy)) <= {
        (str(file.relative_to(healthy.root.root.parent)),),
        (PARENT,),
    }
    assert file.read_bytes() == id


PARENT = "root/runc-overlayfs"


def results_of(it: Healthy, worker: bytes, record: bytes | None = None) -> None:
    """Adds a result of a worker, or makes all of them this worker's, of one record that there is not."""
    id = worker + b"::" + (record or b"0" * 25)
    value = b'{"ID":"%b"}' % id
    if record is None:
        edit(it.root.cache, {RESULTS: None, BY_RESULT: None})
    edit(it.root.cache, {RESULTS: {b"random:1": {id: value}}, BY_RESULT: {id: {b"random:1": b""}}})
    edit(it.root.cache, {b"_links": {b"random:1": {}}})


def test_no_id_is_written_if_results_name_two(healthy: Healthy) -> None:
    (healthy.root.worker / "workerid").unlink()
    results_of(healthy, b"1" * 25, healthy.last[0].id)
    assert plan(healthy.root).changes == ()
    assert all(it.repair is not None for it in check(healthy.root) if it.rule == "C52")


@pytest.mark.parametrize("worker", [b"1" * 25, b"moby", b"\xff" * 25])
def test_no_id_is_written_that_no_record_confirms(healthy: Healthy, worker: bytes) -> None:
    results_of(healthy, worker)
    assert not any(it.rule == "C52" for it in plan(healthy.root).mends)
    (finding,) = [it for it in check(healthy.root) if it.rule == "C52"]
    assert finding.repair is not None


def test_no_id_is_written_if_there_are_two_workers(healthy: Healthy) -> None:
    (healthy.root.worker / "workerid").unlink()
    other = healthy.root.root / "runc-native"
    other.mkdir()
    (other / "workerid").write_bytes(b"2" * 25)
    assert not any(it.rule == "C52" for it in plan(healthy.root).mends)


# --- C58


def lease(it: Healthy, namespace: bytes, id: bytes, *below: bytes) -> Place:
    return (store(it.root, it.root.containerd), b"v1", namespace, b"leases", id, *below)


def content(it: Healthy, namespace: bytes, *below: bytes) -> Place:
    return (store(it.root, it.root.containerd), b"v1", namespace, b"content", b"blob", *below)


def cut(it: Healthy, *, listed: bool, moved: bool) -> tuple[bytes, dict[Place, object]]:
    """A migration of the history, cut off at the first build. Returns its lease, and how all was before.

    ``listed``: the new lease has what it should; ``moved``: so has its namespace.
    """
    id = b"ref_" + min(it.builds)
    before = everything(it.root)
    place = lease(it, HISTORY, id, b"content")
    digests = [at[-1] for at in before if at[:-1] == place]
    assert digests
    edit(it.root.history, {b"_version": None})
    it.lease(id, {b"createdat": TIME, b"content": dict.fromkeys(digests, b"")})
    if not listed:
        it.lease(id, {b"content": None}, HISTORY)
    if not moved:
        blobs = {digest: blob_of(before, content(it, HISTORY, digest)) for digest in digests}
        it.in_containerd({b"content": {b"blob": blobs}})
        it.in_containerd({b"content": {b"blob": dict.fromkeys(digests)}}, HISTORY)
    return id, before


def blob_of(before: dict[Place, object], place: Place) -> dict[bytes, bytes | dict[bytes, bytes]]:
    fields = {at[-1]: value for at, value in before.items() if at[:-1] == place and isinstance(value, bytes)}
    labels = (*place, b"labels")
    if labels not in before:
        return fields
    return {**fields, b"labels": {at[-1]: value for at, value in before.items() if at[:-1] == labels}}


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("moved", [True, False])
def test_a_migration_that_was_cut_off(healthy: Healthy, listed: bool, moved: bool) -> None:
    id, before = cut(healthy, listed=listed, moved=moved)
    assert ("C58", "S", min(healthy.builds).decode()) in found(healthy.root)
    mended(healthy, follow={"C57"} if moved else ())
    after = everything(healthy.root)
    differing = changed(before, after)
    version = (store(healthy.root, healthy.root.history), b"_version")
    main = {place: value for place, value in differing.items() if place[2:3] == (b"buildkit",)}
    assert all(place[3:5] == (b"content", b"blob") for place in main)
    assert {place for place in differing if place not in main} == {version, (*version, b"version")}
    assert lease(healthy, b"buildkit", id) not in after


def test_what_gives_up_comes_last(healthy: Healthy) -> None:
    cut(healthy, listed=False, moved=True)
    healthy.in_record(healthy.last[0].id, {b"cache.blobsize": None})
    changes = plan(healthy.root).changes
    assert [getattr(change, "last", None) for change in changes][-1] is True
    assert sum(getattr(change, "last", False) for change in changes) == 1


def test_a_lease_with_something_else_than_content_stays(healthy: Healthy) -> None:
    id, _ = cut(healthy, listed=False, moved=True)
    healthy.lease(id, {b"snapshots": {healthy.snapshotter: {healthy.last[0].key: b""}}})
    assert not any(it.rule == "C58" for it in plan(healthy.root).mends)


# --- C60


def test_what_containers_left_is_removed(healthy: Healthy) -> None:
    before = everything(healthy.root)
    for name in ("executor/w3ng0ol6", "executor/odd \udcff", "cachemounts/buildkit123"):
        (healthy.root.worker / name / "inside").mkdir(parents=True)
    mended(healthy)
    after = everything(healthy.root)
    assert {
        place for place in changed(before, after) if not (healthy.root.root.parent / str(place[0])).is_dir()
    } == set()
    assert after.keys() == before.keys()


@contextlib.contextmanager
def in_another_place(kind: str, place: Path, elsewhere: Path) -> Iterator[None]:
    """What is in a directory is in another file system, or elsewhere in this one."""
    if kind == "link":
        place.rename(elsewhere)
        place.symlink_to(elsewhere)
        yield
        return
    elsewhere.mkdir()
    what = ["--bind", str(elsewhere)] if kind == "bind mount" else ["-t", "tmpfs", "none"]
    if subprocess.run(["mount", *what, str(place)], capture_output=True).returncode != 0:
        pytest.skip("this process may not mount anything")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("kind", ["link", "mount", "bind mount"])
def test_what_can_not_be_moved_away_does_not_stop_the_rest(
    healthy: Healthy, tmp_path: Path, kind: str
) -> None:
    executor, other = healthy.root.worker / "executor", healthy.root.worker / "cachemounts" / "buildkit123"
    other.mkdir(parents=True)
    with in_another_place(kind, executor, tmp_path / "elsewhere"):
        (executor / "w3ng0ol6").mkdir()
        repaired = repair_root(healthy.root.root)
        assert [mend.subject for mend in repaired.plan.mends] == [other.name]
        assert not other.exists()
        (left,) = check(healthy.root)
        assert (left.rule, left.subject) == ("C60", "w3ng0ol6")
        assert left.repair is not None
        assert left.repair.startswith("`repair` leaves it: ")


def test_mount_points_are_read_as_often_for_many_directories(
    healthy: Healthy, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = disk.mount_points

    def reads(count: int) -> int:
        for number in range(count):
            (healthy.root.worker / "executor" / f"{count}-{number}").mkdir()
        made: list[None] = []

        def counted() -> list[Path]:
            made.append(None)
            return whole()

        with monkeypatch.context() as patch:
            for module in (disk, leftovers, repair_apply):
                patch.setattr(module, "mount_points", counted)
            repair_root(healthy.root.root)
        return len(made)

    assert reads(2) == reads(20) > 0


def test_what_is_mounted_stays(healthy: Healthy) -> None:
    place = healthy.root.worker / "executor" / "in use" / "rootfs"
    place.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], capture_output=True).returncode != 0:
        pytest.skip("this process may not mount anything")
    try:
        assert plan(healthy.root, *RepairClass).changes == ()
    finally:
        subprocess.run(["umount", str(place)], check=True)
