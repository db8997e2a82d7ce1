"""Repairs on disk: only what the plan says is changed, all of it can be taken back, what can't be done is
refused before anything is changed."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hand_made
import pytest
from faults import Healthy
from hand_made import STRAY, plan_of
from mending import changed, everything
from test_repair_faults import tree

import crafted
import ondisk
from buildkit_migrate import (
    RepairClass,
    check_root,
    compact_root,
    discard_kept_repairs,
    repair_root,
    repairs_kept,
    undo_maintenance,
)
from buildkit_migrate.bolt import Database, check
from buildkit_migrate.errors import (
    BusyError,
    CorruptDatabaseError,
    DifferencesError,
    EditConflictError,
    Error,
    JournalError,
    StorageError,
    UndoRefusedError,
)
from buildkit_migrate.files.locks import lock
from buildkit_migrate.maintenance import repair_root as functions
from buildkit_migrate.maintenance import rewriting
from buildkit_migrate.maintenance.mend import (
    Change,
    EditStore,
    MoveAside,
    RemoveDirectory,
    RewriteStore,
)
from buildkit_migrate.maintenance.repair_undo import RepairUndone
from buildkit_migrate.workspace.stores import Stores
from judge import Judge
from ondisk import OnDisk, run, tmpfs
from planting import break_free_list, damage, edit, grow, page_size, set_sequence
from v2_roots import NAMES, V2Root, healed, v2_root

pytestmark = pytest.mark.slow

Wanted = Callable[[Stores], Iterator[Change]]


@pytest.fixture
def whole(tmp_path: Path) -> V2Root:
    return healed(tmp_path)


@pytest.fixture
def root(tmp_path: Path) -> OnDisk:
    root = ondisk.sample(tmp_path)
    root.migrate_here()
    (root.root / "buildkitd.lock").touch()
    return root


@pytest.fixture
def planning(monkeypatch: pytest.MonkeyPatch) -> Callable[[Wanted], None]:
    """Makes all repairs that follow do these changes."""

    def wanted(changes: Wanted) -> None:
        monkeypatch.setattr(functions, "plan_repair", lambda stores, *_, **__: plan_of(stores, changes))

    return wanted


Planning = Callable[[Wanted], None]


def content(path: Path) -> Any:
    return ondisk.tree(path)


def with_stray(stores: Stores) -> Iterator[Change]:
    yield EditStore(stores.workers[0].records, {b"_index": {STRAY: b""}}, sequences={(b"_main",): 5})


def kept(path: Path) -> Path:
    return path.with_name(path.name + ".before-repair")


# --- What is changed, and what not


@pytest.mark.parametrize("name", NAMES)
def test_a_healthy_root_is_not_changed(name: str, tmp_path: Path) -> None:
    root = v2_root(name, tmp_path)
    containerd = root.options[1] if root.options else None
    before = everything(root, kept=True)
    bytes_before = {path: path.read_bytes() for path in root.databases}
    found = repair_root(root.root, classes=list(RepairClass), containerd_root=containerd)
    assert (found.exit_code, found.changes, found.plan.mends) == (0, (), ())
    assert everything(root, kept=True) == before
    assert {path: path.read_bytes() for path in root.databases} == bytes_before
    assert found.verdict is not None and found.verdict.findings == ()
    assert undo_maintenance(root.root) is None


def test_a_real_fault_is_mended_checked_and_taken_back(whole: V2Root) -> None:
    edit(whole.records, {b"_index": {STRAY: b""}})
    whole.records.chmod(0o640)
    os.chown(whole.records, 12, 34)
    before, original = everything(whole, kept=True), whole.records.read_bytes()
    assert [one.rule for one in check_root(whole.root).findings] == ["C18"]
    planned = repair_root(whole.root, dry_run=True)
    assert (planned.exit_code, planned.verdict) == (0, None)
    assert everything(whole, kept=True) == before
    found = repair_root(whole.root)
    assert [one.path for one in found.changes] == [one.path for one in planned.changes] == [whole.records]
    assert found.exit_code == 0 and found.verdict is not None and found.verdict.findings == ()
    name = str(whole.records.relative_to(whole.root.parent))
    new = changed(before, everything(whole, kept=True))
    assert {place for place in new if place[0] == name} == {(name, b"_index", STRAY)}
    beside = {f"{name}.before-repair", "root/repair.journal"}
    assert {place[0] for place in new} - beside == {name}
    info = whole.records.stat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (0o640, 12, 34)
    assert kept(whole.records).read_bytes() == original
    with Database.open(whole.records) as database:
        assert check(database.reader) == []
        assert database.reader.freelist is not None
    assert isinstance(undo_maintenance(whole.root), RepairUndone)
    assert everything(whole, kept=True) == before
    assert undo_maintenance(whole.root) is None


@pytest.mark.real
def test_go_reads_what_a_repair_wrote(root: OnDisk, planning: Planning, judge: Judge) -> None:
    planning(with_stray)
    repair_root(root.root)
    assert judge.check(root.v2) == []
    assert ((b"_main",), None, 5) in judge.dump(root.v2)
    assert judge.update(root.v2, 1, 30) == []


def test_a_store_that_is_written_twice_keeps_its_first_original(root: OnDisk, planning: Planning) -> None:
    def twice(stores: Stores) -> Iterator[Change]:
        store = stores.workers[0].containerd
        yield EditStore(store, {b"new": {b"a": b"1", b"b": b"2"}})
        yield EditStore(store, {b"new": {b"b": None}}, last=True)

    original = root.containerd.read_bytes()
    planning(twice)
    found = repair_root(root.root)
    assert [(one.path, one.kept) for one in found.changes] == [(root.containerd, kept(root.containerd))]
    assert content(root.containerd)[b"new"] == {b"a": b"1"}
    assert kept(root.containerd).read_bytes() == original
    undo_maintenance(root.root)
    assert root.containerd.read_bytes() == original


def test_previous_transaction_of_a_torn_file_is_taken(root: OnDisk, planning: Planning) -> None:
    before = content(root.v2)
    tear(root.v2)
    assert next((one.rule, one.severity) for one in check_root(root.v2).findings) == ("C1", "S")
    torn = root.v2.read_bytes()
    planning(lambda stores: iter([RewriteStore(stores.workers[0].records, previous=True)]))
    repair_root(root.root)
    assert content(root.v2) == before
    undo_maintenance(root.root)
    assert root.v2.read_bytes() == torn


def tear(path: Path) -> None:
    """As if the newest transaction had written its meta page, but not its pages."""
    size = page_size(path)
    with Database.open(path) as database:
        number, end = database.reader.transaction, database.reader.high_water
    data = bytearray(path.read_bytes())
    newest = (number & 1) * size
    older = ((number + 1) & 1) * size
    data[older : older + size] = data[newest : newest + size]  # the newer of the two from now on
    data[older : older + 8] = ((number + 1) & 1).to_bytes(8, "little")
    data[older + 64 : older + 72] = (number + 1).to_bytes(8, "little")
    data[older + 32 : older + 40] = end.to_bytes(8, "little")  # its root, which was not written
    data[older + 56 : older + 64] = (end + 1).to_bytes(8, "little")
    crafted.sign(data, size)
    path.write_bytes(data + b"\xa5" * size)


def test_free_list_is_made_anew(root: OnDisk, planning: Planning) -> None:
    break_free_list(root.snapshots)
    before = root.snapshots.read_bytes()
    planning(lambda stores: iter([RewriteStore(stores.workers[0].snapshots)]))
    repair_root(root.root)
    with Database.open(root.snapshots) as database:
        assert check(database.reader) == []
    undo_maintenance(root.root)
    assert root.snapshots.read_bytes() == before


def test_a_store_that_is_moved_aside_is_not_edited(root: OnDisk, planning: Planning) -> None:
    def both(stores: Stores) -> Iterator[Change]:
        store = stores.workers[0].snapshots
        assert store.path is not None
        yield EditStore(store, {b"new": b""})
        yield MoveAside(store.path)

    before = root.snapshots.read_bytes()
    planning(both)
    (only,) = repair_root(root.root).changes
    assert only.kept is not None and only.kept.read_bytes() == before
    assert not root.snapshots.exists()


def test_one_file_is_repaired_with_its_journal_beside_it(whole: V2Root, tmp_path: Path) -> None:
    edit(whole.records, {b"_index": {STRAY: b""}})
    alone = tmp_path / "alone" / "metadata_v2.db"
    alone.parent.mkdir()
    shutil.copy(whole.records, alone)
    before = alone.read_bytes()
    assert repair_root(alone).exit_code == 0
    assert {path.name for path in alone.parent.iterdir()} == {
        "metadata_v2.db",
        "metadata_v2.db.before-repair",
        "metadata_v2.db.repair.journal",
    }
    assert run("undo", str(alone)).returncode == 0
    assert [path.name for path in alone.parent.iterdir()] == ["metadata_v2.db"]
    assert alone.read_bytes() == before
    repair_root(whole.records)  # in a root: that one's journal
    assert (whole.root / "repair.journal").exists()
    undo_maintenance(whole.root)
    assert whole.records.read_bytes() == before


FAULTS: dict[str, tuple[Callable[[Healthy], object], str]] = {
    "a lease is gone": (lambda healthy: healthy.lease(healthy.last[0].id, None), "C26"),
    "a lease has no owner": (lambda healthy: healthy.drop_record(healthy.last[0]), "C32"),
    "no parent": (
        lambda healthy: healthy.in_record(healthy.last[0].id, {b"cache.parent": b'{"value":"nobody"}'}),
        "C10",
    ),
    "solver cache": (lambda healthy: healthy.root.cache.write_bytes(b"garbage" * 1000), "C1"),
    "history": (lambda healthy: healthy.root.history.write_bytes(b"garbage" * 1000), "C1"),
    "counter": (lambda healthy: set_sequence(healthy.root.snapshots, (b"v1", b"snapshots"), 1), "C43"),
    "free list": (lambda healthy: break_free_list(healthy.root.snapshots), "C4"),
    "container": (lambda healthy: (healthy.root.worker / "executor" / "a" / "b").mkdir(parents=True), "C60"),
    "worker's id": (lambda healthy: (healthy.root.worker / "workerid").unlink(), "C52"),
    "torn": (lambda healthy: tear(healthy.root.containerd), "C1"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_kind_of_repair_is_made_checked_and_taken_back(fault: str, whole: V2Root) -> None:
    plant, rule = FAULTS[fault]
    plant(Healthy(whole))
    (whole.root / "buildkitd.lock").touch()
    before = whole_tree(whole)
    assert rule in check_root(whole.root).counts
    found = repair_root(whole.root, classes=list(RepairClass))
    assert {mend.rule for mend in found.plan.mends} >= {rule}
    assert found.verdict is not None and found.verdict.counts.keys() <= {"C53"}  # which stays, as it says
    assert found.exit_code == (15 if found.verdict.findings else 0)
    assert repair_root(whole.root, classes=list(RepairClass)).changes == ()
    undo_maintenance(whole.root)
    assert whole_tree(whole) == before


def whole_tree(root: V2Root) -> dict[str, object]:
    """All names below a root, with modes and owners, and the content of files outside of layers."""
    found: dict[str, object] = {}
    for path in root.root.rglob("*"):
        info = path.lstat()
        inside = path.is_relative_to(root.directories)
        is_read = stat.S_ISREG(info.st_mode) and not inside
        found[str(path.relative_to(root.root))] = (
            (info.st_mode, info.st_uid, info.st_gid),
            path.read_bytes() if is_read else b"",
        )
    return found


# --- What is refused


def edits_of_missing(stores: Stores) -> Iterator[Change]:
    yield EditStore(stores.cache, {b"new": {}})


def conflict(stores: Stores) -> Iterator[Change]:
    yield EditStore(stores.workers[0].records, {b"_index": b"value"})


def no_directory(stores: Stores) -> Iterator[Change]:
    yield RemoveDirectory(stores.root.state / "nothing")


REFUSED: dict[str, tuple[Wanted, type[Error]]] = {
    "missing store": (edits_of_missing, StorageError),
    "conflict": (conflict, EditConflictError),
    "no directory": (no_directory, StorageError),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_done_is_refused_before_anything_is_changed(
    case: str, root: OnDisk, planning: Planning
) -> None:
    wanted, error = REFUSED[case]

    def both(stores: Stores) -> Iterator[Change]:
        yield from with_stray(stores)
        yield from wanted(stores)

    planning(both)
    refused(root, error)


def refused(root: OnDisk, error: type[Error], match: str | None = None) -> None:
    before = tree(root)
    planned = repair_root(root.root, dry_run=True)
    assert isinstance(planned.obstacle, error)
    assert planned.exit_code == error.exit_code
    with pytest.raises(error, match=match):
        repair_root(root.root)
    assert tree(root) == before


def test_symbolic_links_are_refused(root: OnDisk, planning: Planning) -> None:
    root.v2.rename(root.v2.with_name("real.db"))
    root.v2.symlink_to("real.db")
    planning(with_stray)
    refused(root, StorageError, "symbolic link")


def test_full_disk_is_foreseen(root: OnDisk, planning: Planning, monkeypatch: pytest.MonkeyPatch) -> None:
    full = os.statvfs_result([4096, 4096, 1000, 0, 10, 0, 0, 0, 0, 255])
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    planning(with_stray)
    refused(root, StorageError, "no space left")


def test_damaged_trees_are_not_written_anew(root: OnDisk, planning: Planning) -> None:
    with Database.open(root.snapshots) as database:
        size = database.reader.page_size
    damage(root.snapshots, 2 * size, b"\xa5" * size)
    planning(lambda stores: iter([RewriteStore(stores.workers[0].snapshots)]))
    refused(root, CorruptDatabaseError)


def test_a_directory_with_a_mount_in_it_stays(root: OnDisk, planning: Planning) -> None:
    left = root.worker / "executor" / "left"
    left.mkdir(parents=True)
    planning(lambda stores: iter([RemoveDirectory(left)]))
    with tmpfs(left / "mounted", "1M"):
        refused(root, StorageError, "is mounted there or below")
    repair_root(root.root)
    assert not left.exists()


def test_a_root_in_use_is_left_alone(root: OnDisk, planning: Planning) -> None:
    planning(with_stray)
    before = tree(root)
    with lock(root.root / "buildkitd.lock", exclusive=True), pytest.raises(BusyError):
        repair_root(root.root)
    repair_root(root.root)
    after = tree(root)
    with lock(root.v2, exclusive=True), pytest.raises(BusyError):
        undo_maintenance(root.root)
    assert tree(root) == after
    undo_maintenance(root.root)
    assert tree(root) == before


def test_what_the_disk_changed_is_noticed_before_the_switch(
    root: OnDisk, planning: Planning, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rewriting.rewrite
    monkeypatch.setattr(rewriting, "rewrite", lambda source, builder, edits: whole(source, builder, []))
    planning(with_stray)
    before = root.v2.read_bytes()
    with pytest.raises(DifferencesError, match="does not hold"):
        repair_root(root.root)
    assert root.v2.read_bytes() == before
    assert root.left_behind == []


# --- Undo


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OnDisk:
    """A repaired root with changes of all kinds."""
    monkeypatch.setattr(functions, "plan_repair", hand_made.plan_all)
    return hand_made.planted(tmp_path)


def use_store(root: OnDisk) -> None:
    edit(root.v2, {b"_main": {b"new": {}}})


def use_other_store(root: OnDisk) -> None:
    edit(root.snapshots, {b"new": {}})


def use_file(root: OnDisk) -> None:
    (root.worker / "workerid").write_text("other")


def use_made_file(root: OnDisk) -> None:
    (root.worker / "made").write_text("other")


def use_made_directory(root: OnDisk) -> None:
    (root.worker / "snapshots" / "snapshots" / "1" / "work" / "file").touch()


def make_store_anew(root: OnDisk) -> None:
    ondisk.empty_database(root.root / "cache.db")


def make_directory_anew(root: OnDisk) -> None:
    (root.worker / "executor" / "left").mkdir()


def lose_original(root: OnDisk) -> None:
    kept(root.v2).unlink()


def change_original(root: OnDisk) -> None:
    edit(kept(root.v2), {b"_main": {b"new": {}}})


def lose_directory(root: OnDisk) -> None:
    shutil.rmtree(root.worker / "executor.before-repair")


USED = (
    use_store,
    use_other_store,
    use_file,
    use_made_file,
    use_made_directory,
    make_store_anew,
    make_directory_anew,
    lose_original,
    change_original,
    lose_directory,
)


@pytest.mark.parametrize("use", USED, ids=lambda use: use.__name__)
def test_a_root_that_was_used_since_is_not_taken_back(use: Callable[[OnDisk], None], planted: OnDisk) -> None:
    repair_root(planted.root)
    use(planted)
    before = tree(planted)
    (entry,) = json.loads(run("status", str(planted.root), "--format", "json").stdout)["repairs"]
    assert not entry["can_undo"]
    assert len(entry["reasons"]) == 1
    found = undo_maintenance(planted.root, dry_run=True)
    assert isinstance(found, RepairUndone) and found.exit_code == 14
    with pytest.raises(UndoRefusedError) as raised:
        undo_maintenance(planted.root)
    (reason,) = raised.value.reasons
    assert str(planted.worker) in reason or str(planted.root / "cache.db") in reason
    assert tree(planted) == before
    result = run("undo", str(planted.root))
    assert result.returncode == 14, result
    assert "--discard-kept" in result.stderr
    assert tree(planted) == before


def test_a_store_that_the_repair_left_alone_was_used(root: OnDisk, planning: Planning) -> None:
    planning(with_stray)
    repair_root(root.root)
    edit(root.snapshots, {b"new": {}})
    with pytest.raises(UndoRefusedError, match=r"snapshots/metadata\.db was used since"):
        undo_maintenance(root.root)


def test_repairs_and_compactions_are_taken_back_one_by_one_the_last_first(
    root: OnDisk, planning: Planning
) -> None:
    states = []

    def step(do: Callable[[], object]) -> None:
        states.append(tree(root))
        do()
        assert tree(root) != states[-1]

    def add(key: bytes) -> Wanted:
        return lambda stores: iter([EditStore(stores.workers[0].records, {b"_index": {key: b""}})])

    for path in (root.v2, root.containerd, root.snapshots):
        grow(path, 5)
    step(lambda: compact_root(root.v2))
    planning(add(b"a"))
    step(lambda: repair_root(root.root))
    planning(add(b"b"))
    step(lambda: repair_root(root.root))
    step(lambda: compact_root(root.root))
    kinds = []
    for state in reversed(states):
        result = run("undo", str(root.root), "--format", "json")
        assert result.returncode == 0, result
        document = json.loads(result.stdout)
        kinds.append("repair" if document["repair"] else "compaction" if document["compaction"] else "none")
        assert tree(root) == state
    assert kinds == ["compaction", "repair", "repair", "compaction"]
    assert root.v2.exists()
    assert run("undo", str(root.root)).returncode == 0  # of the migration
    assert not root.v2.exists() and root.v1.exists()
    assert not (root.root / "repair.journal").exists()


def test_a_compaction_before_the_migration_is_not_in_the_way(tmp_path: Path) -> None:
    root = ondisk.sample(tmp_path)
    before = tree(root)
    compact_root(root.root)
    compacted = tree(root)
    root.migrate_here()
    assert run("undo", str(root.root)).returncode == 0
    left = {name: what for name, what in tree(root).items() if ".undone" not in name}
    assert {name: left.get(name) for name in compacted} == compacted
    assert run("undo", str(root.root)).returncode == 0
    assert {name: tree(root).get(name) for name in before} == before


def test_undo_with_force_goes_back_to_v1_over_a_repair_that_was_used(
    root: OnDisk, planning: Planning
) -> None:
    planning(with_stray)
    repair_root(root.root)
    edit(root.v2, {b"_main": {b"new": {}}})
    assert run("undo", str(root.root)).returncode == 14
    assert root.v2.exists()
    assert run("undo", str(root.root), "--force").returncode == 0
    assert not root.v2.exists()


def test_a_moved_root_can_be_taken_back(planted: OnDisk, tmp_path: Path) -> None:
    before = tree(planted)
    repair_root(planted.root)
    moved = tmp_path / "elsewhere"
    planted.root.rename(moved)
    undo_maintenance(moved)
    moved.rename(planted.root)
    assert tree(planted) == before


def test_relative_and_linked_paths_mean_the_same_root(
    planted: OnDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(planted)
    monkeypatch.chdir(tmp_path)
    repair_root("root")
    (tmp_path / "link").symlink_to("root")
    undo_maintenance(tmp_path / "link")
    assert tree(planted) == before


def test_databases_of_a_stopped_containerd_are_repaired_and_taken_back(
    tmp_path: Path, planning: Planning
) -> None:
    root = ondisk.sample_of_containerd(tmp_path)
    root.migrate_here()
    planning(lambda stores: iter([EditStore(stores.workers[0].containerd, {b"new": {b"k": b"v"}})]))
    before = root.containerd.read_bytes()
    repair_root(root.root, containerd_root=root.options[1])
    assert content(root.containerd)[b"new"] == {b"k": b"v"}
    with lock(root.containerd, exclusive=True), pytest.raises(BusyError):
        undo_maintenance(root.root)
    assert run("undo", *root.options, str(root.root)).returncode == 0
    assert root.containerd.read_bytes() == before
    assert not kept(root.containerd).exists()


# --- A cut repair that was used; the journal; discarding


def test_a_cut_repair_of_a_root_that_was_used_since_is_not_continued(
    root: OnDisk, planning: Planning
) -> None:
    journal = root.root / "repair.journal"
    planning(with_stray)
    repair_root(root.root)
    journal.write_text(journal.read_text().replace('"applied"', '"applying"'))
    edit(root.v2, {b"_main": {b"new": {}}})
    used = root.v2.read_bytes()
    repair_root(root.root)
    assert len(repairs_kept(root.root).entries) == 2
    undo_maintenance(root.root)
    assert root.v2.read_bytes() == used
    with pytest.raises(UndoRefusedError):
        undo_maintenance(root.root)


def test_a_cut_repair_that_is_not_wanted_any_more_leaves_nothing(root: OnDisk, planning: Planning) -> None:
    """It was cut between the second name of a file and the rename; then other options were given."""
    journal = root.root / "repair.journal"
    before = tree(root)
    planning(with_stray)
    repair_root(root.root)
    noted = journal.read_text().replace('"applied"', '"applying"')
    undo_maintenance(root.root)
    journal.write_text(noted)
    kept(root.v2).hardlink_to(root.v2)
    planning(lambda stores: iter(()))
    repair_root(root.root)
    assert tree(root) == before


GARBAGE: tuple[Any, ...] = (
    b"",
    b"{",
    b"[]",
    b"\xff",
    b"[" * 100_000,
    {"format": 2, "repairs": []},
    {"format": 1},
    {"format": 1, "repairs": [{}]},
)
ENTRY: dict[str, Any] = {
    "when": "then",
    "classes": ["protect"],
    "phase": "applied",
    "changes": [],
    "others": {},
    "compactions": {},
}
ITEM = {"kind": "replaced", "path": "a", "kept": "a.before-repair", "before": "1:2", "after": []}
HOSTILE = (
    {**ITEM, "path": "../a", "kept": "../a.before-repair"},
    {**ITEM, "kept": "../a.before-repair"},
    {**ITEM, "kept": "b/a.before-repair"},
    {**ITEM, "kept": "a"},
    {**ITEM, "kept": None},
    {**ITEM, "kept": 1},
    {**ITEM, "path": ""},
    {**ITEM, "after": [1]},
    {**ITEM, "kind": "other"},
    {**ITEM, "kind": "made"},
    {**ITEM, "kind": "removed", "path": "/etc/passwd", "kept": "/tmp/passwd"},
)


@pytest.mark.parametrize(
    "journal",
    [
        *GARBAGE,
        *({"format": 1, "repairs": [{**ENTRY, "changes": [item]}]} for item in HOSTILE),
        {"format": 1, "repairs": [{**ENTRY, "phase": "other"}]},
        {"format": 1, "repairs": [{**ENTRY, "others": []}]},
    ],
)
def test_a_journal_that_can_not_be_read_is_named(journal: Any, root: OnDisk) -> None:
    path = root.root / "repair.journal"
    path.write_bytes(journal if isinstance(journal, bytes) else json.dumps(journal).encode())
    before = tree(root)
    for command in ("undo", "repair", "status"):
        result = run(command, str(root.root))
        assert result.returncode == 13, result
        assert str(path) in result.stderr
        assert "Traceback" not in result.stderr
    assert tree(root) == before


def test_kept_originals_are_deleted_when_asked_for(planted: OnDisk) -> None:
    repair_root(planted.root)
    after = tree(planted)
    would = run("repair", str(planted.root), "--discard-kept", "--dry-run")
    assert would.returncode == 0 and "would be deleted" in would.stdout
    assert tree(planted) == after
    assert run("repair", str(planted.root), "--discard-kept").returncode == 0
    gone = {name for name in after if name not in tree(planted)}
    assert gone == {
        name
        for name in after
        if ".before-repair" in name or name.endswith(".bak") or name == "repair.journal"
    }
    assert undo_maintenance(planted.root) is None


@pytest.mark.parametrize("lost", [True, False])
def test_originals_of_a_damaged_store_stay(lost: bool, planted: OnDisk) -> None:
    repair_root(planted.root)
    if lost:
        planted.v2.unlink()
    else:
        planted.v2.write_bytes(b"garbage" * 1000)
    before = tree(planted)
    assert discard_kept_repairs(planted.root, dry_run=True).exit_code in (5, 8)
    with pytest.raises(Error):
        discard_kept_repairs(planted.root)
    assert tree(planted) == before


def test_originals_of_a_cut_repair_stay(planted: OnDisk) -> None:
    repair_root(planted.root)
    journal = planted.root / "repair.journal"
    journal.write_text(journal.read_text().replace('"applied"', '"applying"'))
    with pytest.raises(JournalError, match="not finished"):
        discard_kept_repairs(planted.root)
    assert "was interrupted: repair finishes it" in run("status", str(planted.root)).stdout
    repair_root(planted.root)
    assert "can be taken back with undo" in run("status", str(planted.root)).stdout
    discard_kept_repairs(planted.root)


# --- The command


def test_text_says_what_is_done_and_what_is_left(whole: V2Root) -> None:
    edit(whole.records, {b"_index": {STRAY: b""}})
    (whole.directories / "7777").mkdir()
    dry = run("repair", str(whole.root), "--dry-run")
    assert dry.returncode in (0, 15)
    assert "C18: An index entry of no record (1)" in dry.stdout
    assert "would be written anew; the original would be kept as" in dry.stdout
    assert "nothing was changed" in dry.stdout
    done = run("repair", str(whole.root))
    assert "deletes the entry" in done.stdout
    assert "check after the repair:" in done.stdout
    assert done.returncode == check_root(whole.root).exit_code


def test_originals_with_a_mount_in_them_are_not_deleted(planted: OnDisk) -> None:
    repair_root(planted.root)
    removed = planted.worker / "executor.before-repair" / "left"
    before = tree(planted)
    with tmpfs(removed / "mounted", "1M"), pytest.raises(StorageError, match="is mounted there or below"):
        discard_kept_repairs(planted.root)
    (removed / "mounted").rmdir()
    assert tree(planted) == before
    discard_kept_repairs(planted.root)
    assert not removed.exists()


def test_clean_leaves_originals_and_says_so(planted: OnDisk) -> None:
    repair_root(planted.root)
    result = run("clean", str(planted.root))
    assert result.returncode == 0
    assert "7 originals" in result.stderr
    assert "repair --discard-kept deletes them" in result.stderr
    assert kept(planted.v2).exists()
    undo_maintenance(planted.root)
    assert not kept(planted.v2).exists()


def test_document_says_the_same(whole: V2Root) -> None:
    edit(whole.records, {b"_index": {STRAY: b""}})
    dry = json.loads(run("repair", str(whole.root), "--dry-run", "--format", "json").stdout)
    found = json.loads(run("repair", str(whole.root), "--format", "json").stdout)
    (mend,) = found["mends"]
    assert mend["rule"] == "C18" and mend["class"] == "protect" and mend["subject"] == STRAY.decode()
    (change,) = found["changes"]
    assert change == {
        "kind": "replaced",
        "path": str(whole.records),
        "kept": str(kept(whole.records)),
    }
    assert dry["verdict"] is None and found["verdict"]["findings"] == []
    assert {**dry, "verdict": 0, "dry_run": 0} == {**found, "verdict": 0, "dry_run": 0}


def test_a_change_of_another_kind_does_not_break_a_finished_repair(planted: OnDisk) -> None:
    """What another run would do again is done once: a second repair has nothing to do."""
    repair_root(planted.root)
    after = tree(planted)
    assert repair_root(planted.root).changes == ()
    assert tree(planted) == after
