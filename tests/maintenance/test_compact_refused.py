"""Compaction refuses broken trees, stores in use, links and full disks before anything is changed."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from compacting import compacted, contents, kept, rows, without_lock

from buildkit_migrate import compact_root
from buildkit_migrate.bolt import Database
from buildkit_migrate.errors import (
    BusyError,
    CorruptDatabaseError,
    DifferencesError,
    StorageError,
)
from buildkit_migrate.files import durable
from ondisk import listing, run, tmpfs
from planting import damage_page
from trees import PlainBucket, write
from v2_roots import V2Root, healed_databases

pytestmark = pytest.mark.usefixtures("early")


@pytest.fixture
def root(tmp_path: Path) -> V2Root:
    return healed_databases(tmp_path)


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


def test_nothing_is_left_of_what_was_written_before_a_tree_was_found_broken(root: V2Root) -> None:
    with Database.open(root.history) as database:
        page = root_page(database)
    damage_page(root.history, page)
    before, names = contents(root), set(listing(root.root)) | {"buildkitd.lock"}
    with pytest.raises(CorruptDatabaseError) as raised:
        compact_root(root.root)
    assert raised.value.page == page
    assert contents(root) == before
    assert set(listing(root.root)) == names


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


@pytest.mark.parametrize("store", ["records", "containerd", "snapshots", "cache", "history"])
def test_link_in_the_place_of_a_store_is_refused(store: str, root: V2Root, tmp_path: Path) -> None:
    link: Path = getattr(root, store)
    moved = tmp_path / "elsewhere" / link.name
    moved.parent.mkdir()
    link.rename(moved)
    link.symlink_to(moved)
    before = contents(root)
    planned = compact_root(root.root, dry_run=True)
    assert [file.path for file in planned.files if file.obstacle is not None] == [link]
    with pytest.raises(StorageError, match=f"{link} is a symbolic link") as raised:
        compact_root(root.root)
    assert f"compact {moved}" in raised.value.hint
    assert contents(root) == before
    assert not list(tmp_path.rglob("*before-compact*"))
    compact_root(moved)
    assert link.is_symlink()
    assert link.stat().st_size < len(before[link])


def test_directories_on_the_way_may_be_links(root: V2Root, tmp_path: Path) -> None:
    moved = tmp_path / "disk"
    root.snapshots.parent.rename(moved)
    root.snapshots.parent.symlink_to(moved)
    before = rows(root.snapshots)
    compacted(root)
    assert rows(moved / root.snapshots.name) == before
    assert kept(moved / root.snapshots.name).exists()


def test_full_disk_is_foreseen(root: V2Root, monkeypatch: pytest.MonkeyPatch) -> None:
    before = listing(root.root)
    whole = os.statvfs

    def full(path: object) -> os.statvfs_result:
        found = list(whole(path))  # type: ignore[call-overload]
        found[3] = found[4] = 10  # f_bfree, f_bavail
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
