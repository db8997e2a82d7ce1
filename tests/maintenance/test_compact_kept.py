"""The old files are kept until they are put back, or deleted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from compacting import compacted, contents, kept

from buildkit_migrate import compact_root, discard_kept, undo_compaction
from buildkit_migrate.bolt import Database
from buildkit_migrate.errors import (
    CorruptDatabaseError,
    Error,
    StorageError,
    UndoRefusedError,
)
from buildkit_migrate.maintenance.kept_files import KeptOutcome
from ondisk import listing, run, sample
from planting import break_free_list, damage, edit, grow, page_size, set_sequence
from v2_roots import V2Root, healed_databases


@pytest.fixture
def root(tmp_path: Path) -> V2Root:
    return healed_databases(tmp_path)


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


def test_clean_leaves_what_compact_keeps_and_tells_of_it(tmp_path: Path) -> None:
    root = sample(tmp_path)
    assert root.migrate().returncode == 0
    assert compact_root(root.root).saved
    before = {path.name for path in root.root.rglob("*.before-compact")}
    assert before
    result = run("clean", str(root.root))
    assert result.returncode == 0
    assert f"{len(before)} old files" in result.stderr
    assert "compact --discard-kept" in result.stderr
    assert {path.name for path in root.root.rglob("*.before-compact")} == before
    assert not list(root.root.rglob("*.journal"))
    assert undo_compaction(root.root).files
    assert run("clean", str(root.root)).stderr == ""
