"""Compaction changes no content, cures free lists, refuses broken trees, and can be taken back."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import crafted
from buildkit_migrate import check_root, compact_root, discard_kept, undo_compaction
from buildkit_migrate.bolt import Database, check
from buildkit_migrate.errors import (
    BusyError,
    CorruptDatabaseError,
    DifferencesError,
    Error,
    StorageError,
    UndoRefusedError,
)
from buildkit_migrate.files import durable
from buildkit_migrate.maintenance.compact import Compacted, Compaction, CompactionOutcome
from buildkit_migrate.maintenance.kept_files import KeptOutcome
from judge import Judge
from ondisk import listing, run, sample, tmpfs
from planting import break_free_list, damage, damage_page, edit, grow, page_size, set_sequence
from trees import PlainBucket, Row, rows_of, write
from v2_roots import NAMES, V2Root, healed, v2_root


@pytest.fixture
def whole(tmp_path: Path) -> V2Root:
    return healed(tmp_path)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> V2Root:
    return healed(tmp_path_factory.mktemp("original"))


@pytest.fixture
def root(original: V2Root, tmp_path: Path) -> V2Root:
    """Only the databases, which take less time to copy than all files."""
    copy = replace(original, root=tmp_path / "root", worker=tmp_path / "root" / original.worker.name)
    copy = replace(
        copy,
        containerd=copy.worker / original.containerd.name,
        snapshots=copy.worker / "snapshots" / original.snapshots.name,
    )
    copy.snapshots.parent.mkdir(parents=True)
    for source, path in zip(original.databases, copy.databases, strict=True):
        shutil.copy2(source, path)
    (copy.root / "buildkitd.lock").touch()
    return copy


def rows(path: Path) -> list[Row]:
    with Database.open(path) as database:
        return list(rows_of(database.root))


def kept(path: Path) -> Path:
    return path.with_name(path.name + ".before-compact")


def contents(root: V2Root) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.databases}


def compacted(root: V2Root) -> Compaction:
    return compact_root(root.root, containerd_root=root.options[1] if root.options else None)


def of(found: Compaction, path: Path) -> Compacted:
    (file,) = (file for file in found.files if file.path == path)
    return file


# --- What stays as it is


@pytest.mark.parametrize("name", NAMES)
def test_content_of_real_roots_is_unchanged(name: str, tmp_path: Path, judge: Judge) -> None:
    root = v2_root(name, tmp_path)
    before = {path: rows(path) for path in root.databases}
    sizes = {path: path.stat().st_size for path in root.databases}
    content = contents(root)
    found = compacted(root)
    assert {file.path for file in found.files} == set(root.databases)
    for path in root.databases:
        assert of(found, path).outcome == CompactionOutcome.COMPACTED
        assert rows(path) == before[path]
        assert path.stat().st_size == of(found, path).new_bytes < sizes[path]
        assert kept(path).read_bytes() == content[path]
        assert judge.check(path) == []
        assert judge.dump(path) == before[path]
    assert found.saved == sum(sizes.values()) - sum(path.stat().st_size for path in root.databases)
    assert check_root(root.root, containerd_root=root.options[1] if root.options else None).findings == ()
    for path in root.databases:
        assert judge.update(path, 1, 20) == []


def test_grown_files_are_as_small_as_after_bbolts_own_compaction(tmp_path: Path) -> None:
    root = v2_root("growth", tmp_path)
    compacted(root)
    assert root.records.stat().st_size <= 524_288
    assert root.containerd.stat().st_size <= 4_194_304


@pytest.mark.parametrize("sequence", [1, 2**63, 2**64 - 1])
def test_sequences_and_empty_buckets_and_values_are_kept(sequence: int, tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    inner = PlainBucket({b"key": b"", b"none": PlainBucket(sequence=sequence)}, sequence=sequence)
    large = PlainBucket({b"%04d" % n: b"x" * 100 for n in range(500)}, sequence=sequence)
    write(path, PlainBucket({b"empty": PlainBucket(), b"inner": inner, b"large": large}))
    for meta in (0, page_size(path)):  # the root bucket has a sequence, too
        damage(path, meta + 40, struct.pack("<Q", sequence))
    signed = bytearray(path.read_bytes())
    crafted.sign(signed, page_size(path))
    path.write_bytes(signed)
    grow_in_place(path)
    before = rows(path)
    assert before[0] == ((), None, sequence)
    compact_root(path)
    assert rows(path) == before


def grow_in_place(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(page_size(path)))


@pytest.mark.parametrize("size", [1024, 4096, 65536])
def test_page_size_is_kept_and_transactions_go_on(size: int, tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    write(path, PlainBucket({b"a": PlainBucket({b"%05d" % n: b"value" for n in range(9000)})}), size)
    grow_in_place(path)
    with Database.open(path) as database:
        before = database.reader.transaction
    compact_root(path)
    with Database.open(path) as database:
        assert database.reader.page_size == size
        assert database.reader.transaction == before + 1
        assert check(database.reader) == []


def test_mode_owner_and_attributes_are_kept(root: V2Root) -> None:
    root.records.chmod(0o640)
    os.chown(root.records, 1234, 2345)
    os.setxattr(root.records, "user.origin", b"here")
    compacted(root)
    info = root.records.stat()
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (1234, 2345, 0o640)
    assert os.getxattr(root.records, "user.origin") == b"here"


# --- Free lists


def without_list(path: Path) -> None:
    """As containerd leaves its own database."""
    content = bytearray(path.read_bytes())
    for meta in (0, page_size(path)):
        struct.pack_into("<Q", content, meta + 48, crafted.NO_FREELIST)
    crafted.sign(content, page_size(path))
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "stored"), [("meta.db", False), ("containerdmeta.db", True), ("x.db", True)]
)
def test_only_containerds_own_database_goes_without_a_free_list(
    name: str, stored: bool, root: V2Root, tmp_path: Path, judge: Judge
) -> None:
    path = tmp_path / "alone" / name
    path.parent.mkdir()
    shutil.copy(root.containerd, path)
    without_list(path)
    before = rows(path)
    compact_root(path)
    with Database.open(path) as database:
        assert (database.reader.freelist is not None) == stored
        assert check(database.reader) == []
    assert rows(path) == before
    assert judge.check(path) == []
    assert judge.update(path, 1, 20) == []


def test_containerd_without_free_list_stays_without_in_a_root(tmp_path: Path) -> None:
    root = v2_root("containerd", tmp_path)
    with Database.open(root.containerd) as database:
        had = database.reader.freelist
    if had is not None:
        without_list(root.containerd)
    compacted(root)
    with Database.open(root.containerd) as database:
        assert database.reader.freelist is None


def test_broken_free_list_is_cured(whole: V2Root, judge: Judge) -> None:
    root = whole
    grow(root.records, 5)
    break_free_list(root.records)
    assert "C4" in {finding.rule for finding in check_root(root.root).findings}
    before = rows(root.records)
    (fault,) = {
        text for text in of(compacted(root), root.records).cured if "free list" in text and "use" in text
    }
    assert "page 2" in fault
    assert rows(root.records) == before
    assert judge.check(root.records) == []
    assert check_root(root.root).findings == ()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_damage_is_cured_even_if_nothing_is_saved(share: float, whole: V2Root) -> None:
    root = whole
    compacted(root)
    discard_kept(root.root)
    with Database.open(root.cache) as database:
        other = 1 - database.reader.transaction % 2
    damage(root.cache, other * page_size(root.cache) + 16, b"\xa5" * 64)
    found = compact_root(root.root, min_free=share)
    assert of(found, root.cache).outcome == CompactionOutcome.COMPACTED
    assert check_root(root.root).findings == ()
    assert [file.outcome for file in found.files].count(CompactionOutcome.LEFT) == 4


# --- What is refused


def test_broken_tree_is_refused_with_its_page_and_nothing_is_written(root: V2Root) -> None:
    with Database.open(root.history) as database:
        page = root_page(database)
    damage_page(root.history, page)
    before = listing(root.root)
    result = run("compact", "--format", "json", str(root.root))
    assert result.returncode == 5
    error = json.loads(result.stdout)["error"]
    assert (error["path"], error["page"]) == (str(root.history), page)
    assert listing(root.root, ["buildkitd.lock"]) == without_lock(before)
    result = run("compact", "--dry-run", str(root.root))
    assert result.returncode == 5
    assert f"page {page}" in result.stdout


def without_lock(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    return {name: entry for name, entry in found.items() if name != "buildkitd.lock"}


def root_page(database: Database) -> int:
    start = (database.reader.transaction % 2) * database.reader.page_size
    return int.from_bytes(database.path.read_bytes()[start + 32 : start + 40], "little")


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize("store", ["records", "containerd", "snapshots", "cache", "history"])
def test_store_in_use_is_refused_with_the_process_and_does_not_wait(
    store: str, dry_run: bool, root: V2Root
) -> None:
    before = contents(root)
    path: Path = getattr(root, store)
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match=path.name) as raised:
            compact_root(root.root, dry_run=dry_run)
    assert raised.value.exit_code == 4
    assert contents(root) == before


def test_running_daemon_is_refused(root: V2Root) -> None:
    daemon = root.root / "buildkitd.lock"
    with daemon.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match=r"buildkitd\.lock"):
            compact_root(root.root)
        with pytest.raises(BusyError, match=r"buildkitd\.lock"):
            compact_root(root.snapshots)


def test_lock_file_is_held_until_the_end(root: V2Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for a single file: a daemon that waited for it would get the old one."""
    (root.root / "buildkitd.lock").unlink(missing_ok=True)
    held = []

    def look(path: Path, name: Path) -> None:
        with (root.root / "buildkitd.lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(path)
        keep(path, name)

    keep = durable.keep
    monkeypatch.setattr(durable, "keep", look)
    compact_root(root.snapshots)
    assert held == [root.snapshots]
    compact_root(root.root)
    assert len(held) == 5


def test_link_in_the_place_of_a_store_is_refused(root: V2Root, tmp_path: Path) -> None:
    moved = tmp_path / "moved.db"
    root.cache.rename(moved)
    root.cache.symlink_to(moved)
    before = contents(root)
    with pytest.raises(StorageError, match="symbolic link") as raised:
        compact_root(root.root)
    assert str(moved) in raised.value.hint
    assert contents(root) == before
    compact_root(moved)
    assert moved.stat().st_size < len(before[root.cache])


def test_full_disk_is_foreseen(root: V2Root, monkeypatch: pytest.MonkeyPatch) -> None:
    before = listing(root.root)
    whole = os.statvfs

    def full(path: object) -> os.statvfs_result:
        found = list(whole(path))  # type: ignore[call-overload]
        found[4] = 10  # f_bavail
        return os.statvfs_result(found)

    monkeypatch.setattr(os, "statvfs", full)
    found = compact_root(root.root, dry_run=True)
    assert found.exit_code == 8
    assert found.saved > 0
    with pytest.raises(StorageError, match="no space left"):
        compact_root(root.root)
    assert listing(root.root, ["buildkitd.lock"]) == without_lock(before)


def test_what_the_disk_changed_is_noticed_before_the_switch(
    root: V2Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(root)
    real = os.write

    def changing(fd: int, block: memoryview) -> int:
        return real(fd, bytes(block).replace(b"_backlinks", b"_backlinkz"))

    monkeypatch.setattr(os, "write", changing)
    with pytest.raises(DifferencesError, match=r"cache\.db\.tmp does not hold what"):
        compact_root(root.root)
    assert root.cache.read_bytes() == before[root.cache]
    assert not list(root.root.rglob("*.tmp"))
    assert not kept(root.cache).exists()


# --- Which files


def test_dry_run_tells_what_a_run_then_does_and_writes_nothing(root: V2Root) -> None:
    grow(root.records, 100)
    before = listing(root.root)
    planned = compact_root(root.root, dry_run=True)
    assert listing(root.root) == before
    done = compact_root(root.root)
    assert planned.saved == done.saved > 0
    for file, result in zip(planned.files, done.files, strict=True):
        assert file.path is not None
        assert file.outcome == CompactionOutcome.PLANNED
        assert file.new_bytes == result.new_bytes == file.path.stat().st_size
        assert file.live_bytes + file.free_bytes == file.bytes
        assert 0 < file.fill <= 1


def test_second_run_changes_nothing(root: V2Root) -> None:
    compacted(root)
    before = listing(root.root)
    found = compacted(root)
    assert {file.outcome for file in found.files} == {CompactionOutcome.LEFT}
    assert found.saved == 0
    assert listing(root.root) == before


def test_min_free_leaves_files_with_less_free(root: V2Root) -> None:
    compacted(root)
    grow(root.records, 400)
    grow(root.cache, 5)
    found = compact_root(root.root, min_free=0.25)
    assert of(found, root.records).outcome == CompactionOutcome.COMPACTED
    assert of(found, root.cache).outcome == CompactionOutcome.LEFT
    assert "free" in of(found, root.cache).reason
    assert of(compact_root(root.root), root.cache).outcome == CompactionOutcome.COMPACTED


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_impossible_share_is_refused(share: float, root: V2Root) -> None:
    with pytest.raises(ValueError, match="min_free"):
        compact_root(root.root, min_free=share)


@pytest.mark.parametrize("share", ["-1%", "101%", "a quarter", "", "25%%"])
def test_impossible_percentage_is_wrong_usage(share: str, root: V2Root) -> None:
    assert run("compact", f"--min-free={share}", str(root.root)).returncode == 2


def test_missing_and_empty_stores_are_left_alone(root: V2Root) -> None:
    root.history.unlink()
    root.cache.write_bytes(b"")
    found = compacted(root)
    assert root.history not in {file.path for file in found.files}
    assert of(found, root.cache).outcome == CompactionOutcome.SKIPPED
    assert root.cache.read_bytes() == b""


def test_containerds_files_are_only_touched_if_their_place_is_given(tmp_path: Path) -> None:
    root = v2_root("containerd", tmp_path)
    before = root.containerd.read_bytes(), root.snapshots.read_bytes()
    found = compact_root(root.root)
    assert (root.containerd.read_bytes(), root.snapshots.read_bytes()) == before
    skipped = [file for file in found.files if file.outcome == CompactionOutcome.SKIPPED]
    assert "--containerd-root" in skipped[0].reason
    assert of(found, root.records).outcome == CompactionOutcome.COMPACTED


def test_lmdb_store_is_skipped(tmp_path: Path) -> None:
    root = sample(tmp_path)
    assert root.migrate("--to-engine", "lmdb").returncode == 0
    before = root.v2.read_bytes()
    found = compact_root(root.root)
    assert "LMDB" in of(found, root.v2).reason
    assert root.v2.read_bytes() == before


def test_one_file_is_compacted_alone(root: V2Root) -> None:
    before = contents(root)
    content = rows(root.cache)
    result = run("compact", "--format", "json", str(root.cache))
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert [file["path"] for file in document["files"]] == [str(root.cache)]
    assert rows(root.cache) == content
    after = contents(root)
    assert {path for path in after if after[path] != before[path]} == {root.cache}


# --- Kept files


def test_undo_brings_the_old_files_back_byte_for_byte(root: V2Root) -> None:
    break_free_list(root.records)
    before, names = contents(root), set(listing(root.root)) | {"buildkitd.lock"}
    compacted(root)
    planned = undo_compaction(root.root, dry_run=True)
    assert {file.outcome for file in planned.files} == {KeptOutcome.PLANNED}
    assert contents(root) != before
    done = undo_compaction(root.root)
    assert {file.database for file in done.files} == set(root.databases)
    assert contents(root) == before
    assert set(listing(root.root)) == names
    assert undo_compaction(root.root).files == ()


def test_undo_is_refused_if_any_file_was_used_since(root: V2Root) -> None:
    compacted(root)
    edit(root.cache, {b"_links": {b"new": {}}})
    before = contents(root)
    result = run("compact", "--undo", "--dry-run", str(root.root))
    assert result.returncode == UndoRefusedError.exit_code
    assert "was used since" in result.stdout
    with pytest.raises(UndoRefusedError, match=r"cache\.db was used since"):
        undo_compaction(root.root)
    assert contents(root) == before


def test_sequence_alone_is_a_use(root: V2Root) -> None:
    compacted(root)
    with Database.open(root.snapshots) as database:
        snapshots = database.root.bucket(b"v1", b"snapshots")
        assert snapshots is not None
        sequence = snapshots.sequence
    set_sequence(root.snapshots, (b"v1", b"snapshots"), sequence + 1)
    with pytest.raises(UndoRefusedError):
        undo_compaction(root.root)


def test_damaged_file_is_not_replaced_by_undo_unseen(root: V2Root) -> None:
    compacted(root)
    damage(root.cache, 0, b"\xa5" * 2 * page_size(root.cache))
    with pytest.raises(UndoRefusedError, match="can't be read"):
        undo_compaction(root.root)


def test_older_kept_files_are_not_overwritten(root: V2Root) -> None:
    first = root.cache.read_bytes()
    compacted(root)
    grow(root.cache, 50)
    second = root.cache.read_bytes()
    compacted(root)
    assert kept(root.cache).read_bytes() == second
    older = kept(root.cache).with_name(kept(root.cache).name + ".~1~")
    assert older.read_bytes() == first
    found = discard_kept(root.root)
    assert {file.path for file in found.files} >= {older, kept(root.cache)}
    assert not older.exists()


def test_discarding_frees_what_is_kept(root: V2Root) -> None:
    sizes = sum(path.stat().st_size for path in root.databases)
    compacted(root)
    after = contents(root)
    planned = discard_kept(root.root, dry_run=True)
    assert planned.bytes == sizes
    assert all(kept(path).exists() for path in root.databases)
    assert discard_kept(root.root).bytes == sizes
    assert not list(root.root.rglob("*before-compact*"))
    assert contents(root) == after
    assert discard_kept(root.root).files == ()


@pytest.mark.parametrize("fault", ["garbage", "free list", "missing"])
def test_old_files_stay_if_a_database_in_use_is_not_sound(fault: str, root: V2Root) -> None:
    compacted(root)
    if fault == "garbage":
        damage(root.cache, 0, b"\xa5" * 2 * page_size(root.cache))
    elif fault == "free list":
        grow(root.cache, 3)
        break_free_list(root.cache)
    else:
        root.cache.unlink()
    with pytest.raises(Error) as raised:
        discard_kept(root.root)
    assert isinstance(raised.value, CorruptDatabaseError | StorageError)
    assert all(kept(path).exists() for path in root.databases)


def test_text_names_every_file(root: V2Root) -> None:
    grow(root.records, 100)
    for arguments in (["--dry-run"], [], ["--undo", "--dry-run"], ["--discard-kept"]):
        result = run("compact", *arguments, str(root.root))
        assert (result.returncode, result.stderr) == (0, "")
        for path in root.databases:
            assert str(path.relative_to(root.root)) in result.stdout


def test_documents_have_the_same_fields(root: V2Root) -> None:
    documents = [
        json.loads(run("compact", "--format", "json", *arguments, str(root.root)).stdout)
        for arguments in (["--dry-run"], [], ["--undo"], ["--discard-kept"])
    ]
    documents.append(json.loads(run("compact", "--format", "json", "/none").stdout))
    assert len({frozenset(document) for document in documents}) == 1


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    with tmpfs(tmp_path / "small", "3m") as place:
        yield place


def test_disk_that_fills_up_leaves_all_as_it_was(small: Path) -> None:
    path = small / "some.db"
    write(path, PlainBucket({b"a": PlainBucket({b"%06d" % n: b"v" * 90 for n in range(8000)})}), fill=0.5)
    before = path.read_bytes()
    subprocess.run(["fallocate", "-l", str(700 << 10), str(small / "filler")], check=True)
    result = run("compact", str(path))
    assert result.returncode == 8
    assert "no space left" in result.stderr
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in small.iterdir()) == ["filler", "some.db"]


def test_status_lists_the_kept_files(root: V2Root) -> None:
    sizes = {str(kept(path)): path.stat().st_size for path in root.databases}
    assert json.loads(run("status", "--format", "json", str(root.root)).stdout)["kept"] == []
    compacted(root)
    result = run("status", "--format", "json", str(root.root))
    document = json.loads(result.stdout)
    assert {file["path"]: file["bytes"] for file in document["kept"]} == sizes
    assert document["kept_bytes"] == sum(sizes.values())
    text = run("status", str(root.root)).stdout
    assert all(path in text for path in sizes)
    assert f"{sum(sizes.values()):,} bytes" in text


def test_second_name_of_the_file_in_use_is_only_removed(root: V2Root) -> None:
    """A run that was killed between keeping and the rename leaves it."""
    before = contents(root)
    kept(root.cache).hardlink_to(root.cache)
    assert discard_kept(root.root).bytes == 0
    kept(root.cache).hardlink_to(root.cache)
    assert undo_compaction(root.root).bytes == 0
    assert contents(root) == before
    assert not kept(root.cache).exists()
