"""Whoever migrates, the daemon can use the new files; otherwise the run and its dry run are refused."""

from __future__ import annotations

import errno
import itertools
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import ondisk
import other_user
from buildkit_migrate import open_store
from buildkit_migrate.errors import StorageError
from buildkit_migrate.files import access, durable, ownership
from buildkit_migrate.files.access import Access
from buildkit_migrate.files.durable import keep
from ondisk import OnDisk
from other_user import CAP_CHOWN, CAP_FOWNER

pytestmark = pytest.mark.slow

Who = Mapping[str, Any]

ACL = "system.posix_acl_access"
DEFAULT_ACL = "system.posix_acl_default"
USER_OBJ, USER, GROUP_OBJ, MASK, OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
NOBODY = 0xFFFFFFFF


@pytest.fixture
def root() -> Iterator[OnDisk]:
    """A root owned by 1000:1000 with BuildKit's modes, in a directory that other users may enter."""
    for directory in other_user.open_directory():
        yield other_user.owned(ondisk.sample(directory), 1000, 1000)


def give_all_to(root: OnDisk, uid: int, gid: int, files: int, directories: int) -> None:
    """Gives all of a root to a user, with these modes."""
    other_user.owned(root, uid, gid)
    for path in (root.root, *root.root.rglob("*")):
        path.chmod(directories if path.is_dir() else files)


def check_migrates(root: OnDisk, who: Who) -> dict[str, Any]:
    """Checks that dry run and migration agree; returns the migration's report of the worker."""
    before = ondisk.listing(root.root)
    plan = other_user.run(who, "migrate", "--dry-run", "--format", "json", str(root.root))
    assert plan.returncode == 0, plan.stdout
    assert ondisk.listing(root.root) == before
    result = other_user.run(who, "migrate", "--format", "json", str(root.root))
    assert result.returncode == 0, result.stdout
    planned, done = (json.loads(text.stdout)["workers"][0] for text in (plan, result))
    assert len(planned["notes"]) == len(done["notes"])
    assert [
        text.replace("would be", "is now").replace(", is ", ", was ") for text in planned["notes"]
    ] == done["notes"]
    assert root.left_behind == []
    return dict(done)


def check_refused(root: OnDisk, who: Who, *words: str) -> None:
    """Checks that dry run and migration are refused with the same message and change nothing."""
    before = ondisk.listing(root.root)
    messages = []
    for options in (["--dry-run"], []):
        result = other_user.run(who, "migrate", "--format", "json", *options, str(root.root))
        assert result.returncode == 8, result.stdout
        messages.append(json.loads(result.stdout)["error"]["message"])
        assert ondisk.listing(root.root) == before
    assert messages[0] == messages[1]
    assert all(word in messages[0] for word in words), messages[0]


def check_usable(who: Who, *paths: Path) -> None:
    """Checks that the user may open the files for reading and writing."""
    program = "import os, sys\nfor path in sys.argv[1:]: os.close(os.open(path, os.O_RDWR))"
    shell = ["python3", "-S", "-c", program] if Path("/usr/bin/python3").exists() else [sys.executable]
    result = subprocess.run(
        [*shell, *paths],
        user=who["uid"],
        group=who["gid"],
        extra_groups=who.get("groups", []),
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def files_made(root: OnDisk) -> tuple[Path, Path, Path]:
    return root.v2, root.containerd, root.root / "buildkitd.lock"


def access_of(path: Path) -> tuple[int, int, int]:
    info = path.stat()
    return info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)


DAEMON = {"uid": 1000, "gid": 1000}


# --- Users and groups


def test_volume_with_an_fsgroup_is_migrated(root: OnDisk) -> None:
    """Kubernetes' fsGroup: the mount point is root's."""
    os.chown(root.root, 0, 1000)
    root.root.chmod(0o2775)
    done = check_migrates(root, DAEMON)
    assert done["notes"] == []
    check_usable(DAEMON, *files_made(root))
    assert access_of(root.v2) == (1000, 1000, 0o600)
    assert other_user.run(DAEMON, "verify", str(root.root)).returncode == 0
    undone = other_user.run(DAEMON, "undo", str(root.root))
    assert undone.returncode == 0, undone.stderr


@pytest.mark.parametrize("mount_point", [(0, 1000), (0, 0), (1000, 1000)])
def test_root_migrates_for_a_daemon_of_another_user(root: OnDisk, mount_point: tuple[int, int]) -> None:
    os.chown(root.root, *mount_point)
    root.root.chmod(0o2775)
    assert check_migrates(root, {})["notes"] == []
    check_usable(DAEMON, *files_made(root))
    root.root.chmod(0o2777)  # the daemon must be able to make a lock file itself
    assert other_user.run(DAEMON, "undo", str(root.root)).returncode == 0


def test_group_member_migrates_files_of_another_user(root: OnDisk) -> None:
    give_all_to(root, 1000, 2000, 0o660, 0o2770)
    worker = {"uid": 1001, "gid": 1001, "groups": [2000]}
    done = check_migrates(root, worker)
    assert len(done["notes"]) == 2
    assert all("owner is now 1001, was 1000" in note for note in done["notes"])
    for path in files_made(root):
        assert access_of(path) == (1001, 2000, 0o660), path
    first = {"uid": 1000, "gid": 2000}
    check_usable(first, *files_made(root))
    undone = other_user.run(first, "undo", str(root.root))
    assert undone.returncode == 0, undone.stderr


def test_report_notes_the_changed_owner(root: OnDisk) -> None:
    give_all_to(root, 1000, 2000, 0o660, 0o2770)
    worker = {"uid": 1001, "gid": 2000}
    result = other_user.run(worker, "migrate", "--dry-run", str(root.root))
    assert f"note: {root.v2}: owner would be 1001, is 1000" in result.stdout


def test_group_that_can_not_be_kept_is_noted(root: OnDisk) -> None:
    """Everybody may use the files; the new ones do not grant another group more."""
    give_all_to(root, 1000, 2000, 0o666, 0o777)
    done = check_migrates(root, {"uid": 1001, "gid": 1001})
    assert any("group is now 1001, was 2000" in note for note in done["notes"])
    check_usable({"uid": 1000, "gid": 2000}, *files_made(root))


@pytest.mark.parametrize("files", [0o640, 0o644])
def test_refused_if_the_owner_would_be_kept_out(root: OnDisk, files: int) -> None:
    give_all_to(root, 1000, 2000, files, 0o2770)
    who = {"uid": 1001, "gid": 1001, "groups": [2000]}
    check_refused(root, who, "buildkitd.lock", "1000:2000", "could not use it")
    (root.root / "buildkitd.lock").touch()
    (root.root / "buildkitd.lock").chmod(0o666)
    check_refused(root, who, str(root.v2), "1000:2000", "could not use it")


def test_root_without_chown_is_refused(root: OnDisk) -> None:
    check_refused(root, {"without": [CAP_CHOWN]}, "could not use it", "1000:1000")


def test_root_without_chown_migrates_group_writable_files(root: OnDisk) -> None:
    give_all_to(root, 1000, 1000, 0o660, 0o2770)
    done = check_migrates(root, {"without": [CAP_CHOWN]})
    assert len(done["notes"]) == 2
    assert all("owner is now 0, was 1000" in note for note in done["notes"])
    check_usable(DAEMON, *files_made(root))


def test_root_without_chown_and_group_is_refused(root: OnDisk) -> None:
    give_all_to(root, 1000, 1000, 0o660, 0o770)  # new files do not inherit it
    check_refused(root, {"without": [CAP_CHOWN]}, "could not use it")


def test_root_without_fowner_migrates(root: OnDisk) -> None:
    """Once it is given away, only the new owner may change its mode."""
    give_all_to(root, 1000, 1000, 0o640, 0o770)
    assert check_migrates(root, {"without": [CAP_FOWNER]})["notes"] == []
    assert access_of(root.v2) == (1000, 1000, 0o640)


NAMESPACE = ["0 0 1", "0 0 1"]


def test_user_namespace_without_the_owner_migrates_group_writable_files(root: OnDisk) -> None:
    give_all_to(root, 1000, 0, 0o660, 0o2770)
    done = check_migrates(root, {"namespace": NAMESPACE})
    assert any("owner is now 0, was 65534" in note for note in done["notes"])
    check_usable({"uid": 1000, "gid": 0}, *files_made(root))


def test_user_namespace_that_keeps_the_owner_out_is_refused(root: OnDisk) -> None:
    give_all_to(root, 1000, 0, 0o640, 0o2770)
    check_refused(root, {"namespace": NAMESPACE}, "could not use it", "65534")


def test_user_namespace_with_a_foreign_mount_point_migrates(root: OnDisk) -> None:
    give_all_to(root, 0, 0, 0o600, 0o755)
    os.chown(root.root, 1000, 1000)
    root.root.chmod(0o777)
    assert check_migrates(root, {"namespace": NAMESPACE})["notes"] == []


# --- Directories


def test_unwritable_directory_is_refused(root: OnDisk) -> None:
    root.worker.chmod(0o555)
    (root.root / "buildkitd.lock").touch()
    os.chown(root.root / "buildkitd.lock", 1000, 1000)
    check_refused(root, DAEMON, str(root.worker), "can't create files here", os.strerror(errno.EACCES))


def test_read_only_mount_is_refused_and_noted_by_the_dry_run(root: OnDisk) -> None:
    mount = ["mount", "--bind", str(root.root), str(root.root)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("can't mount here")
    try:
        remount = ["mount", "-o", "remount,bind,ro", str(root.root)]
        if subprocess.run(remount, capture_output=True, check=False).returncode != 0:
            pytest.skip("can't mount read-only here")
        before = ondisk.listing(root.root)
        plan = other_user.run({}, "migrate", "--dry-run", str(root.root))
        assert (plan.returncode, f"note: {root.worker}: mounted read-only" in plan.stdout) == (0, True)
        refused = other_user.run({}, "migrate", str(root.root))
        assert refused.returncode == 8
        assert os.strerror(errno.EROFS) in refused.stderr
        assert ondisk.listing(root.root) == before
        verify = other_user.run({}, "verify", str(root.root))
        assert verify.returncode == 10, verify.stderr  # not migrated; it needs to write nothing
    finally:
        subprocess.run(["umount", str(root.root)], check=True)


def test_sticky_directory_of_another_user_is_refused(root: OnDisk) -> None:
    give_all_to(root, 1000, 2000, 0o666, 0o777)
    root.worker.chmod(0o1777)
    check_refused(root, {"uid": 1001, "gid": 2000}, str(root.containerd), "sticky")
    assert check_migrates(root, {"uid": 1000, "gid": 2000})["notes"] == []


# --- Modes, ACLs and attributes


def acl(*entries: tuple[int, int, int]) -> bytes:
    return access.packed(entries)


ALLOWED_USER = acl(
    (USER_OBJ, 6, NOBODY), (USER, 6, 1000), (GROUP_OBJ, 0, NOBODY), (MASK, 6, NOBODY), (OTHER, 0, NOBODY)
)


def set_acl(path: Path, value: bytes, name: str = ACL) -> None:
    try:
        os.setxattr(path, name, value)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        pytest.skip("no ACLs here")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660, 0o644])
def test_v2_has_the_mode_of_v1(root: OnDisk, mode: int) -> None:
    root.v1.chmod(mode)
    assert check_migrates(root, {})["notes"] == []
    assert access_of(root.v2) == (1000, 1000, mode)
    assert access_of(root.root / "buildkitd.lock") == (1000, 1000, 0o660 if mode == 0o660 else 0o600)


def test_owner_can_always_write_v2(root: OnDisk) -> None:
    root.v1.chmod(0o440)
    assert check_migrates(root, DAEMON)["notes"] == []
    assert access_of(root.v2) == (1000, 1000, 0o640)


def test_acl_is_kept(root: OnDisk) -> None:
    """The mode shows the ACL's mask, which is not the group's permission."""
    give_all_to(root, 0, 0, 0o600, 0o755)
    for path in (root.v1, root.containerd):
        set_acl(path, ALLOWED_USER)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
    check_migrates(root, {})
    for path in files_made(root):
        assert os.getxattr(path, ACL) == ALLOWED_USER, path
    check_usable(DAEMON, *files_made(root))
    journal = root.v2.with_name("metadata_v2.db.journal")
    check_usable(DAEMON, *journal.iterdir())


def test_acl_that_lets_the_old_owner_in_is_kept(root: OnDisk) -> None:
    give_all_to(root, 1000, 2000, 0o600, 0o777)
    value = acl(
        (USER_OBJ, 6, NOBODY),
        (USER, 6, 1000),
        (USER, 6, 1001),
        (GROUP_OBJ, 0, NOBODY),
        (MASK, 6, NOBODY),
        (OTHER, 0, NOBODY),
    )
    for path in root.root.rglob("*"):
        if path.is_file():
            set_acl(path, value)
    done = check_migrates(root, {"uid": 1001, "gid": 1001})
    assert any("owner is now 1001, was 1000" in note for note in done["notes"])
    check_usable(DAEMON, *files_made(root))


def test_acl_entries_unknown_in_a_namespace_are_left_out(root: OnDisk) -> None:
    give_all_to(root, 0, 0, 0o600, 0o755)
    set_acl(root.v1, ALLOWED_USER)
    check_migrates(root, {"namespace": NAMESPACE})
    info = root.v2.stat()
    assert info.st_uid == 0
    assert b"\xe8\x03\x00\x00" not in os.getxattr(root.v2, ACL)


def test_default_acl_does_not_widen_access(root: OnDisk) -> None:
    for directory in (root.root, root.worker):
        set_acl(directory, ALLOWED_USER, DEFAULT_ACL)
    root.v1.chmod(0o640)
    check_migrates(root, {})
    for path in files_made(root):
        assert ACL not in os.listxattr(path), path
    assert access_of(root.v2) == (1000, 1000, 0o640)


def test_lost_acl_does_not_turn_its_mask_into_permissions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, new = tmp_path / "model", tmp_path / "new"
    model.touch()
    set_acl(model, ALLOWED_USER)

    def refuse(*arguments: object, **more: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "setxattr", refuse)
    with new.open("xb") as file:
        ownership.copy_access(file.fileno(), new, model, ownership.usable_mode(model))
    assert stat.S_IMODE(new.stat().st_mode) == 0o600
    assert list(ownership.changed_access(ownership.access_of(model), new, None)) == [
        f"{new}: the ACL is now missing"
    ]


def test_attributes_are_kept(root: OnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    attributes = {"user.note": b"ours", "trusted.note": b"root's"}
    for path in (root.v1, root.containerd):
        for name, value in attributes.items():
            set_acl(path, value, name)
    os.setxattr(root.v1, "trusted.overlay.origin", b"of this file")
    monkeypatch.setattr(os, "link", lambda *a, **k: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))
    root.migrate_here()
    for path in (root.v2, root.containerd, root.kept):
        for name, value in attributes.items():
            assert os.getxattr(path, name) == value, (path, name)
    assert "trusted.overlay.origin" not in os.listxattr(root.v2)
    root.undo_here()
    assert os.getxattr(root.containerd, "user.note") == b"ours"


def test_kept_copy_belongs_to_the_same_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    original = tmp_path / "db"
    original.write_bytes(b"content")
    os.chown(original, 1234, 1235)
    original.chmod(0o440)
    monkeypatch.setattr(os, "link", lambda *a, **k: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))
    keep(original, tmp_path / "kept")
    assert access_of(tmp_path / "kept") == (1234, 1235, 0o440)


def test_refused_chown_leaves_no_lock_file(root: OnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system refuses what was foreseen."""

    def refuse(*arguments: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "fchown", refuse)
    before = ondisk.listing(root.worker)
    with pytest.raises(StorageError, match="could not use it"):
        root.migrate_here()
    assert ondisk.listing(root.worker) == before
    assert not (root.root / "buildkitd.lock").exists()


@pytest.mark.parametrize(
    "ending",
    ["metadata_v2.db.tmp", ".journal", "lock.mdb", "data.mdb", "containerdmeta.db.tmp", ".before-v2.tmp"],
)
def test_refused_attributes_leave_no_file(root: OnDisk, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each file the file system may refuse what was foreseen."""
    real = durable.copy_access

    def copy_access(fd: int, path: Path, model: Path, mode: int) -> None:
        if str(path).endswith(ending):
            raise StorageError(f"{path}: refused")
        real(fd, path, model, mode)

    monkeypatch.setattr(durable, "copy_access", copy_access)
    monkeypatch.setattr(os, "link", lambda *a, **k: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))
    before = ondisk.listing(root.worker)
    with pytest.raises(StorageError, match="refused"):
        root.migrate_here()
    after = ondisk.listing(root.worker)
    assert after.keys() == before.keys()
    assert all(after[name] == before[name] for name in before if name != ".")  # its time of change


def test_lock_file_of_an_lmdb_store_belongs_to_its_owner(root: OnDisk) -> None:
    """Even if root opened the store first."""
    assert other_user.run(DAEMON, "migrate", "--to-engine", "lmdb", str(root.root)).returncode == 0
    open_store(root.v2).close()
    (lock,) = root.worker.glob("*-lock")
    assert access_of(lock) == (1000, 1000, 0o600)
    assert other_user.run(DAEMON, "verify", str(root.root)).returncode == 0


# --- The rules, for all modes


def test_another_group_gets_no_more_than_others() -> None:
    for mode, named in itertools.product(range(0o1000), (False, True)):
        entries = ((GROUP_OBJ, mode >> 3 & 7, NOBODY), (MASK, 7, NOBODY)) if named else ()
        wanted = Access(1, 2, mode | (0o070 if named else 0), entries)
        others = wanted.mode & 7
        made = wanted.with_group(3)
        group = made.acl[0][1] if named else made.mode >> 3 & 7
        assert group & ~others == 0
        assert made.mode & 0o707 == wanted.mode & 0o707
        without = access.without_acl(wanted)
        assert without.mode >> 3 & 7 == mode >> 3 & 7
        assert wanted.with_group(2) == wanted


@pytest.mark.parametrize(
    ("wanted", "made", "out"),
    [
        (Access(1, 2, 0o600), Access(1, 3, 0o600), False),
        (Access(1, 2, 0o660), Access(9, 2, 0o660), False),
        (Access(1, 2, 0o660), Access(9, 3, 0o600), True),
        (Access(1, 2, 0o606), Access(9, 2, 0o606), True),
        (Access(1, 2, 0o666), Access(9, 3, 0o666), False),
        (Access(1, 2, 0o660), Access(9, 2, 0o660, ((GROUP_OBJ, 4, NOBODY),)), True),
        (Access(1, 2, 0o660), Access(9, 2, 0o660, ((USER, 6, 1), (GROUP_OBJ, 0, NOBODY))), False),
        (Access(1, 2, 0o640), Access(9, 2, 0o640, ((USER, 6, 1), (GROUP_OBJ, 6, NOBODY))), True),
        (Access(1, 2, 0o660), Access(9, 2, 0o660, ((USER, 4, 1), (GROUP_OBJ, 6, NOBODY))), True),
    ],
)
def test_lost_access_is_recognised(wanted: Access, made: Access, out: bool) -> None:
    assert access.keeps_out(wanted, made) == out
