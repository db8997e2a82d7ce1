"""What the system will refuse is refused before anything is written, and by the dry run in the same words."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import ondisk
from buildkit_migrate import clean_root, compact_root, migrate_root, undo_root
from buildkit_migrate.errors import StorageError
from buildkit_migrate.files import foreseeing
from ondisk import OnDisk

_COMMANDS = {"migrate": migrate_root, "undo": undo_root, "clean": clean_root, "compact": compact_root}


def lock_is_a_link(root: OnDisk) -> None:
    lock = root.root / "buildkitd.lock"
    lock.unlink(missing_ok=True)
    lock.symlink_to("nowhere")


def directory_for_new_store(root: OnDisk) -> None:
    root.v2.with_name("metadata_v2.db.tmp").mkdir()


def directory_for_new_containerd(root: OnDisk) -> None:
    (root.worker / "containerdmeta.db.tmp").mkdir()


def file_for_journal(root: OnDisk) -> None:
    root.v2.with_name("metadata_v2.db.journal").write_bytes(b"")


def fixed(root: OnDisk, name: str) -> None:
    path = root.worker / name
    if subprocess.run(["chattr", "+i", str(path)], capture_output=True, check=False).returncode:
        pytest.skip("no immutable files here")


def content(root: OnDisk) -> dict[Path, bytes | None]:
    """All files, without those that exist to be locked."""
    paths = (path for path in root.root.rglob("*") if path.name not in ("buildkitd.lock", "lock.mdb"))
    return {path: path.read_bytes() if path.is_file() else None for path in paths}


CASES: dict[str, tuple[Callable[[OnDisk], None], tuple[str, ...]]] = {
    "the lock file is a link": (lock_is_a_link, ("migrate", "undo", "clean", "compact")),
    "a directory where the store is written": (directory_for_new_store, ("migrate",)),
    "a directory where containerd's database is written": (directory_for_new_containerd, ("migrate",)),
    "a file in the place of the journal": (file_for_journal, ("migrate",)),
    "containerd's database is immutable": (
        lambda root: fixed(root, "containerdmeta.db"),
        ("migrate", "undo"),
    ),
    "the worker's directory is immutable": (lambda root: fixed(root, ""), ("migrate", "undo", "clean")),
}


@pytest.fixture
def movable(root: OnDisk) -> Iterator[OnDisk]:
    yield root
    subprocess.run(["chattr", "-R", "-i", str(root.root)], capture_output=True, check=False)


@pytest.mark.parametrize(
    ("case", "command"), [(case, command) for case, (_, commands) in CASES.items() for command in commands]
)
def test_dry_run_refuses_what_the_run_refuses_and_nothing_is_written(
    movable: OnDisk, case: str, command: str
) -> None:
    if command in ("undo", "clean"):
        movable.migrate_here()
    CASES[case][0](movable)
    before = content(movable)
    messages = set()
    for dry_run in (True, False):
        with pytest.raises(StorageError) as refused:
            _COMMANDS[command](movable.root, dry_run=dry_run)  # type: ignore[operator]
        messages.add(refused.value.message)
        assert content(movable) == before
    assert len(messages) == 1


def full_disk(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """All file systems have this many bytes left."""
    told = SimpleNamespace(f_blocks=1 << 40, f_bfree=free, f_bavail=free, f_frsize=1, f_flag=0)
    monkeypatch.setattr(foreseeing.os, "statvfs", lambda path: told)


def test_migration_without_room_is_refused_and_one_with_just_enough_is_not(
    root: OnDisk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is needed is known to the byte where it is tight, and is what the new files take."""
    twin = ondisk.copy_of(root, tmp_path / "twin")
    twin.migrate_here()
    needed = sum(path.stat().st_size for path in (twin.v2, twin.worker / "containerdmeta.db"))
    before = content(root)
    for dry_run in (True, False):
        full_disk(monkeypatch, needed - 1)
        with pytest.raises(StorageError, match=f"{needed} bytes are needed .*, {needed - 1} are free"):
            migrate_root(root.root, dry_run=dry_run)
        assert content(root) == before
    full_disk(monkeypatch, needed)
    (report,) = migrate_root(root.root, dry_run=True)
    assert [(space.needed, space.free) for space in report.space] == [(needed, needed)]
    migrate_root(root.root)
    root.verify_here()


def test_dry_run_tells_the_room_that_is_needed(root: OnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    full_disk(monkeypatch, 10**12)
    (report,) = migrate_root(root.root, dry_run=True)
    (space,) = report.space
    assert (space.directory, space.free) == (root.worker, 10**12)
    migrate_root(root.root)
    new = sum(path.stat().st_size for path in (root.v2, root.worker / "containerdmeta.db"))
    assert new <= space.needed <= 3 * new


def test_file_system_that_tells_no_size_is_not_taken_for_a_full_one(
    root: OnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = SimpleNamespace(f_blocks=0, f_bavail=0, f_frsize=1, f_flag=0)
    monkeypatch.setattr(foreseeing.os, "statvfs", lambda path: told)
    assert foreseeing.space_for([(root.worker, 1)]) == []
    migrate_root(root.root)


@pytest.mark.parametrize(("uid", "free"), [(0, 50), (1000, 10)])
def test_root_may_use_the_blocks_that_are_reserved_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uid: int, free: int
) -> None:
    told = SimpleNamespace(f_blocks=100, f_bfree=50, f_bavail=10, f_frsize=1, f_flag=0)
    monkeypatch.setattr(foreseeing.os, "statvfs", lambda path: told)
    monkeypatch.setattr(foreseeing.os, "geteuid", lambda: uid)
    (space,) = foreseeing.space_for([(tmp_path, 1)])
    assert space.free == free


def test_file_system_that_is_read_only_is_not_taken_for_a_full_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images such as squashfs have no free block; a dry run is possible all the same."""
    told = SimpleNamespace(f_blocks=100, f_bfree=0, f_bavail=0, f_frsize=1, f_flag=os.ST_RDONLY)
    monkeypatch.setattr(foreseeing.os, "statvfs", lambda path: told)
    assert foreseeing.space_for([(tmp_path, 1)]) == []
