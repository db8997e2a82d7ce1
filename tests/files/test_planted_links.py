"""Roots behind links work, and no planted link leads a write out of the root."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

import ondisk
from ondisk import OnDisk


@pytest.fixture
def root(tmp_path: Path) -> OnDisk:
    """In a directory where everybody may make files."""
    found = ondisk.sample(tmp_path)
    for directory in (found.root, found.worker):
        directory.chmod(0o777)
    return found


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of somebody else, outside of the root."""
    path = tmp_path / "victim" / "file"
    path.parent.mkdir()
    path.write_bytes(b"precious")
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    return path


def check_refused(root: OnDisk, status: int, link: Path) -> None:
    v1 = root.v1.read_bytes()
    result = root.migrate("--format", "json")
    assert result.returncode == status, result.stderr
    assert "Traceback" not in result.stderr
    assert str(link) in json.loads(result.stdout)["error"]["message"]
    assert root.v1.read_bytes() == v1
    assert not root.v2.exists()
    assert root.left_behind == []


@pytest.mark.parametrize(
    "name", ["metadata_v2.db.tmp", "containerdmeta.db.tmp", "containerdmeta.db.before-v2"]
)
@pytest.mark.parametrize("dangling", [False, True], ids=["to-a-file", "dangling"])
def test_planted_link_is_replaced_and_not_followed(
    root: OnDisk, victim: Path, name: str, dangling: bool
) -> None:
    target = victim.with_name("missing") if dangling else victim
    (root.worker / name).symlink_to(target)
    before, database = ondisk.listing(victim.parent), root.containerd.read_bytes()
    root.migrate_here()
    assert ondisk.listing(victim.parent) == before
    assert not root.v2.is_symlink()
    assert not root.containerd.is_symlink()
    assert not root.kept.is_symlink()
    assert root.kept.read_bytes() == database
    assert root.left_behind == []


def test_link_to_the_database_is_not_taken_for_a_kept_database(root: OnDisk) -> None:
    """It would lead to the new database after the switch, and the old one would be lost."""
    root.kept.symlink_to(root.containerd)
    before = root.containerd.read_bytes()
    root.migrate_here()
    assert root.kept.read_bytes() == before
    root.undo_here()
    assert root.containerd.read_bytes() == before


def test_planted_lock_file_is_refused(root: OnDisk, victim: Path) -> None:
    link = root.root / "buildkitd.lock"
    for target in (victim, victim.with_name("missing")):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        before = ondisk.listing(victim.parent)
        check_refused(root, 8, link)
        assert ondisk.listing(victim.parent) == before


def journal(root: OnDisk) -> Path:
    return root.v2.with_name(root.v2.name + ".journal")


def test_planted_journal_is_refused(root: OnDisk, victim: Path) -> None:
    """Its target has files named like LMDB's."""
    for name in ("data.mdb", "lock.mdb"):
        victim.with_name(name).write_bytes(b"")
    journal(root).symlink_to(victim.parent)
    before = ondisk.listing(victim.parent)
    check_refused(root, 13, journal(root))
    assert ondisk.run("undo", str(root.root)).returncode == 13
    assert ondisk.listing(victim.parent) == before


@pytest.mark.parametrize("name", ["data.mdb", "lock.mdb"])
def test_planted_file_in_the_journal_is_refused(root: OnDisk, victim: Path, name: str) -> None:
    root.migrate_here()
    root.v2.unlink()
    file = journal(root) / name
    file.unlink()
    file.symlink_to(victim)
    before = ondisk.listing(victim.parent)
    check_refused(root, 13, file)
    assert ondisk.run("undo", str(root.root)).returncode == 13
    assert ondisk.listing(victim.parent) == before


def test_containerd_database_that_is_a_link_is_refused(root: OnDisk, victim: Path) -> None:
    """The rename would replace the link and leave its target unchanged."""
    real = victim.with_name("meta.db")
    shutil.move(root.containerd, real)
    root.containerd.symlink_to(real)
    before = ondisk.listing(victim.parent)
    check_refused(root, 7, root.containerd)
    assert root.containerd.is_symlink()
    assert ondisk.listing(victim.parent) == before


def test_root_behind_a_link_works(root: OnDisk, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(root.root)
    before = root.containerd.read_bytes()
    for command in ("migrate", "verify", "undo"):
        assert ondisk.run(command, str(link)).returncode == 0
    assert root.containerd.read_bytes() == before
    assert link.is_symlink()
    assert root.left_behind == []
