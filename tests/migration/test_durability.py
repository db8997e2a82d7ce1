"""The order in which data reaches the disk, by strace; and faults in LMDB's calls for the journal."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

import ondisk
from ondisk import OnDisk

pytestmark = [pytest.mark.real, pytest.mark.slow]

TRACED = "openat,fsync,fdatasync,rename,renameat,renameat2,pwrite64,writev,ftruncate"


@pytest.fixture
def root(tmp_path: Path) -> OnDisk:
    if shutil.which("strace") is None:
        pytest.skip("no strace")
    probe = ["strace", "-o", os.devnull, "true"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        pytest.skip("strace may not trace here")
    return ondisk.sample(tmp_path)


def strace(command: str, root: OnDisk, *options: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Runs a command under strace; returns its result and the traced calls, descriptors with their paths."""
    trace = root.root.parent / "trace"
    arguments = [sys.executable, "-m", "buildkit_migrate", command, "--format", "json", str(root.root)]
    result = subprocess.run(
        ["strace", "-f", "-y", "-e", "signal=none", *options, "-o", str(trace), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return result, whole_calls(trace.read_text().splitlines())


def whole_calls(lines: Iterable[str]) -> list[str]:
    """Calls without process ids; a call interrupted by another thread's stands where it ended."""
    begun: dict[str, str] = {}
    calls = []
    for line in lines:
        thread, _, call = line.partition(" ")
        call = call.strip()
        if call.endswith("<unfinished ...>"):
            begun[thread] = call.removesuffix("<unfinished ...>").strip()
            continue
        if call.startswith("<... "):
            call = f"{begun.pop(thread, '')}{call.partition('resumed>')[2]}"
        calls.append(call)
    return calls


def is_synced(calls: list[str], path: Path) -> bool:
    return any(re.match(rf"f(data)?sync\(\d+<{re.escape(str(path))}>\) += 0", call) for call in calls)


def check_sync_order(calls: list[str], new: set[Path]) -> None:
    """Checks that each new file is synced before its rename, and its directory after it, before the next."""
    renames = [index for index, call in enumerate(calls) if call.startswith("rename")]
    for index, following in zip(renames, [*renames[1:], len(calls)], strict=True):
        source, target = (Path(name) for name in re.findall(r'"([^"]+)"', calls[index])[:2])
        if source in new:
            new.remove(source)
            assert is_synced(calls[:index], source)
        assert is_synced(calls[index + 1 : following], target.parent), calls[index]
    assert not new


def test_files_and_directories_are_synced_around_each_rename(root: OnDisk) -> None:
    owner = 65534 if os.geteuid() == 0 else os.geteuid()
    if owner != os.geteuid():
        for path in (root.v1, root.containerd):
            os.chown(path, owner, owner)
    root.v1.chmod(0o644)
    root.containerd.chmod(0o640)
    result, calls = strace("migrate", root, "-e", f"trace={TRACED}")
    assert result.returncode == 0
    aside = {path.with_name(path.name + ".tmp") for path in (root.v2, root.containerd)}
    check_sync_order(calls, aside)
    journal = root.v2.with_name(root.v2.name + ".journal")
    first = next(index for index, call in enumerate(calls) if call.startswith("rename"))
    assert is_synced(calls[:first], journal / "data.mdb")
    assert is_synced(calls[:first], journal)
    for path, mode in ((root.v2, 0o644), (root.containerd, 0o640)):
        info = path.stat()
        assert (stat.S_IMODE(info.st_mode), info.st_uid) == (mode, owner), path
    for path in journal.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    result, calls = strace("undo", root, "-e", f"trace={TRACED}")
    assert result.returncode == 0
    check_sync_order(calls, set())
    assert sum(call.startswith("rename") for call in calls) == 2


# What LMDB writes in a migration: the file's metas, the first transaction, and the last one.
LMDB_CALLS = [
    ("openat", "lock.mdb", 2),
    ("openat", "data.mdb", 2),
    ("pwrite64", "data.mdb", 1),
    ("pwrite64", "data.mdb", 2),
    ("pwrite64", "data.mdb", 3),
    ("pwrite64", "data.mdb", 4),
    ("writev", "data.mdb", 1),
    ("fdatasync", "data.mdb", 1),
    ("fdatasync", "data.mdb", 2),
]


@pytest.mark.parametrize(("call", "name", "number"), LMDB_CALLS)
@pytest.mark.parametrize("fault", ["error=ENOSPC", "signal=KILL"])
@pytest.mark.parametrize("command", ["migrate", "undo"])
def test_fault_in_a_journal_write_leaves_v1_and_the_next_run_finishes(
    root: OnDisk, command: str, call: str, name: str, number: int, fault: str
) -> None:
    before = {path: path.read_bytes() for path in (root.v1, root.containerd)}
    if command == "undo":
        root.migrate_here()
    file = root.v2.with_name(root.v2.name + ".journal") / name
    inject = ["-P", str(file), "-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={number}"]
    result, calls = strace(command, root, *inject)
    assert root.v1.read_bytes() == before[root.v1]
    assert "Traceback" not in result.stderr
    if result.returncode == 0:
        assert command == "undo"  # it makes fewer of them
        # LMDB can do without its first read of the file.
        assert call == "openat" or not any("INJECTED" in line for line in calls)
    elif fault == "signal=KILL":
        assert result.returncode == -9
    else:
        assert result.returncode == 8, result.stdout
        assert str(file.parent) in json.loads(result.stdout)["error"]["message"]
    if root.v2.exists():
        assert ondisk.tree(root.v2)
    again = ondisk.run(command, "--format", "json", str(root.root))
    assert again.returncode == 0, again.stdout
    assert root.left_behind == []
    assert root.v1.read_bytes() == before[root.v1]
    if command == "migrate":
        root.verify_here()
        root.undo_here()
    assert root.containerd.read_bytes() == before[root.containerd]
    assert not root.v2.exists()
