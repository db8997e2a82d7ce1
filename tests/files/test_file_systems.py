"""Limited file systems: NFS locks, no locks, no hard links."""

from __future__ import annotations

import errno
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import fault_points
import ondisk
import other_user
from buildkit_migrate.errors import StorageError
from buildkit_migrate.files.durable import keep as keep_file
from ondisk import OnDisk

pytestmark = pytest.mark.slow

# --- Locks


@pytest.fixture(scope="module")
def shim() -> Iterator[Path]:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        library = Path(directory) / "flock.so"
        source = Path(__file__).parent / "flock_shim.c"
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        yield library


def test_all_commands_work_with_nfs_locks(root: OnDisk, shim: Path, tmp_path: Path) -> None:
    """An exclusive lock there needs a writable descriptor; v1 is still not changed."""
    nfs = {"LD_PRELOAD": str(shim), "SHIM_FLOCK": "nfs"}
    before = root.v1.read_bytes(), root.v1.stat().st_mtime_ns, root.containerd.read_bytes()
    commands = [
        ["migrate", "--dry-run", str(root.root)],
        ["migrate", "--verify", str(root.root)],
        ["verify", str(root.root)],
        ["convert", str(root.v2), str(tmp_path / "store.lmdb")],
        ["convert", str(tmp_path / "store.lmdb"), str(tmp_path / "store.db")],
        ["undo", str(root.root)],
    ]
    for command in commands:
        result = ondisk.run(*command, **nfs)
        assert result.returncode == 0, (command, result.stderr)
    assert (root.v1.read_bytes(), root.v1.stat().st_mtime_ns, root.containerd.read_bytes()) == before
    assert root.left_behind == []


def test_store_can_be_written_with_nfs_locks(root: OnDisk, shim: Path) -> None:
    root.migrate_here()
    program = (
        "import sys; from pathlib import Path; from buildkit_migrate import open_store\n"
        "with open_store(Path(sys.argv[1])) as store:\n"
        "    with store.update(b'new'): pass\n"
        "    print(store.get(b'new').exists)"
    )
    environ = {**os.environ, "LD_PRELOAD": str(shim), "SHIM_FLOCK": "nfs"}
    result = subprocess.run(
        [sys.executable, "-c", program, root.v2],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "True\n"), result.stderr


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_file_system_without_locks_is_refused(root: OnDisk, shim: Path, number: int) -> None:
    before = ondisk.listing(root.worker)
    for command in ("migrate", "verify"):
        result = ondisk.run(
            command, "--format", "json", str(root.root), LD_PRELOAD=str(shim), SHIM_FLOCK=str(number)
        )
        assert result.returncode == 8
        error = json.loads(result.stdout)["error"]
        assert "can't be locked on this file system" in error["message"]
        assert str(root.root) in error["message"]
        assert "copy the root" in error["hint"]
    assert ondisk.listing(root.worker) == before


@pytest.fixture
def open_root() -> Iterator[OnDisk]:
    """A root owned by 1000:1000 that other users may enter."""
    for directory in other_user.open_directory():
        yield other_user.owned(ondisk.sample(directory), 1000, 1000)


def test_read_only_v1_is_migrated_unless_nfs_needs_to_write(open_root: OnDisk, shim: Path) -> None:
    """Most file systems can lock it nevertheless; where that fails, the error names the file."""
    root = open_root
    root.v1.chmod(0o400)
    who = {"uid": 1000, "gid": 1000}
    nfs = {**os.environ, "LD_PRELOAD": str(shim), "SHIM_FLOCK": "nfs"}
    refused = other_user.run(who, "migrate", "--format", "json", str(root.root), environ=nfs)
    assert refused.returncode == 8, refused.stderr
    message = json.loads(refused.stdout)["error"]["message"]
    assert message.startswith(f"{root.v1} can't be opened for writing")
    assert not root.v2.exists()
    result = other_user.run(who, "migrate", str(root.root))
    assert result.returncode == 0, result.stderr
    root.verify_here()


# --- Hard links

NO_LINKS = ["EPERM", "EOPNOTSUPP", "ENOSYS", "EMLINK", "EXDEV"]


@pytest.mark.parametrize("name", NO_LINKS)
def test_without_hard_links_the_kept_database_is_a_copy(
    root: OnDisk, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*arguments: object, **more: object) -> None:
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    monkeypatch.setattr(os, "link", link)
    root.containerd.chmod(0o640)
    before = {path: path.read_bytes() for path in (root.v1, root.containerd, root.snapshots)}
    info = root.containerd.stat()
    for _ in range(2):
        root.migrate_here()
        kept = root.kept.stat()
        assert root.kept.read_bytes() == before[root.containerd]
        assert (kept.st_mode, kept.st_uid, kept.st_gid, kept.st_mtime_ns) == (
            info.st_mode,
            info.st_uid,
            info.st_gid,
            info.st_mtime_ns,
        )
        root.verify_here()
        root.undo_here()
        assert {path: path.read_bytes() for path in before} == before
        assert not root.kept.exists()
    assert root.left_behind == []


@functools.cache
def calls() -> tuple[str, ...]:
    """The calls of an undisturbed migration without hard links."""
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as environment:
        environment.setenv("FAULTY_LINKS", "EPERM")
        result = fault_points.run(-1, "none", "migrate", ondisk.sample(Path(directory)))
    assert result.returncode == 0, result.stderr
    return tuple(result.stderr.split())


def of_the_copy() -> range:
    """Numbers of the calls from the link that fails to the rename of the new database."""
    renames = [index for index, name in enumerate(calls()) if name in ("rename", "replace")]
    return range(calls().index("link"), renames[1] + 1)


def test_calls_of_the_copy_are_known() -> None:
    names = [calls()[index] for index in of_the_copy()]
    assert {"link", "open", "copy_file_range", "utime", "fsync", "rename"} <= set(names)


@pytest.mark.parametrize("undone", [False, True], ids=["migrate", "undo"])
def test_copy_killed_at_any_call_is_finished_or_undone(
    tmp_path: Path, undone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULTY_LINKS", "EPERM")
    for index in of_the_copy():
        root = ondisk.sample(tmp_path / str(index))
        before = {path: path.read_bytes() for path in (root.v1, root.containerd)}
        assert fault_points.run(index, "kill", "migrate", root).returncode == -9
        assert {path: path.read_bytes() for path in before} == before
        if not undone:
            assert fault_points.run(-1, "none", "migrate", root).returncode == 0
            root.verify_here()
            assert root.left_behind == []
        root.undo_here()
        assert {path: path.read_bytes() for path in before} == before, calls()[index]


@pytest.mark.parametrize("fault", ["EIO", "ENOSPC"])
def test_copy_that_fails_at_any_call_changes_nothing(
    tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULTY_LINKS", "EPERM")
    for index in of_the_copy():
        root = ondisk.sample(tmp_path / str(index))
        before = {path: path.read_bytes() for path in (root.v1, root.containerd)}
        result = fault_points.run(index, fault, "migrate", root)
        assert root.left_behind == []
        if calls()[index] == "copy_file_range" or (calls()[index] == "flock" and result.returncode == 0):
            assert result.returncode == 0  # there is another way to copy; a lock goes with its file
            continue
        assert result.returncode == 8, (calls()[index], result.stdout)
        assert {path: path.read_bytes() for path in before} == before
        assert not root.v2.exists()


def test_use_after_a_kill_before_the_rename_survives(root: OnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy can't show whether the database in use is the old one; nothing is lost."""
    monkeypatch.setenv("FAULTY_LINKS", "EPERM")
    assert fault_points.run(of_the_copy()[-1], "kill", "migrate", root).returncode == -9
    lease = {b"createdat": b"\x01" + bytes(12) + b"\xff\xff"}
    ondisk.edit(root.containerd, {b"v1": {b"buildkit": {b"leases": {b"others": lease}}}})
    used = ondisk.tree(root.containerd)
    root.migrate_here()
    root.verify_here()
    root.undo_here()
    assert ondisk.timeless(ondisk.tree(root.containerd)) == ondisk.timeless(used)


def test_no_room_for_a_copy_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*arguments: object, **more: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)
    with ondisk.tmpfs(tmp_path / "volume", "1m") as volume:
        original = volume / "db"
        original.write_bytes(bytes(600_000))
        with pytest.raises(StorageError, match="No space left on device: a copy of 600000 bytes is needed"):
            keep_file(original, volume / "kept")
        assert sorted(path.name for path in volume.iterdir()) == ["db"]


def test_copy_continues_without_copy_file_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file has holes, and the call fails in the middle."""
    original = tmp_path / "db"
    data = os.urandom(1_500_000) + bytes(3_000_000) + os.urandom(1_500_000)
    original.write_bytes(data)
    real = os.copy_file_range
    asked: list[int] = []

    def some(source: int, target: int, count: int, at: int, to: int) -> int:
        asked.append(count)
        if len(asked) > 1:
            raise OSError(errno.EINVAL, "no more")
        return real(source, target, 1_000_001, at, to)

    monkeypatch.setattr(os, "link", lambda *a, **k: (_ for _ in ()).throw(OSError(errno.ENOSYS, "no links")))
    monkeypatch.setattr(os, "copy_file_range", some)
    keep_file(original, tmp_path / "kept")
    assert len(asked) == 2
    assert (tmp_path / "kept").read_bytes() == data
