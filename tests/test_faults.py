"""A kill or a failing system call at any moment: v1 stays, nothing is half done, and running again finishes.

The faults are put into a real run of the command on a real root, at each call that changes something on disk,
locks or maps a file. How many:
``pytest --collect-only -q tests/test_faults.py tests/test_undo.py`` lists them, with ``call-``
in their names.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fixtures
import ondisk
from fixtures import FLAT_LABEL, Tree, bucket, buckets
from ondisk import OnDisk, timeless

FAULTY = Path(__file__).parent / "faulty.py"
FAULTS = ("kill", "EIO", "ENOSPC", "EACCES", "EINTR")


def run_faulty(index: int, fault: str, root: OnDisk) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(FAULTY), str(index), fault, "migrate", "--format", "json", str(root.root)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@functools.cache
def calls() -> tuple[str, ...]:
    """The calls of an undisturbed run, in order."""
    with tempfile.TemporaryDirectory() as directory:
        result = run_faulty(-1, "none", ondisk.sample(Path(directory)))
    assert result.returncode == 0
    return tuple(result.stderr.split())


def points(names: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Numbers of calls and the faults for them: the worst two at each call, the rest at one of each kind."""
    for index, name in enumerate(names):
        for fault in FAULTS:
            if fault in FAULTS[:2] or names.index(name) == index:
                yield index, fault
        if name == "flock" and names.index(name) == index:
            yield index, "EWOULDBLOCK"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize(metafunc, calls)


def parametrize(metafunc: pytest.Metafunc, names_of: Callable[[], tuple[str, ...]]) -> None:
    if "call" in metafunc.fixturenames:
        names = names_of()
        ids = [f"call-{index}-{names[index]}-{fault}" for index, fault in points(names)]
        metafunc.parametrize(("call", "fault"), list(points(names)), ids=ids)


def check_status(result: subprocess.CompletedProcess[str], fault: str, name: str) -> None:
    """Killed, or a clean error; a file that can't be unlocked at the end does no harm."""
    assert "Traceback" not in result.stderr
    if fault == "kill":
        assert result.returncode == -9
    elif name == "flock" and result.returncode == 0:
        assert fault != "EWOULDBLOCK"
    else:
        error = json.loads(result.stdout)["error"]
        busy = fault == "EWOULDBLOCK"
        assert result.returncode == (4 if busy else 8), error
        assert error["type"] == ("BusyError" if busy else "StorageError")
        assert busy or os.strerror(getattr(errno, fault)) in error["message"]


class Outcome:
    """What an undisturbed run makes of the sample root."""

    def __init__(self, directory: Path) -> None:
        root = ondisk.sample(directory)
        self.v1 = root.v1.read_bytes()
        self.containerd_before = root.containerd.read_bytes()
        assert root.migrate().returncode == 0
        assert ondisk.tree(root.v2)
        self.v2 = root.v2.read_bytes()
        self.containerd = timeless(ondisk.tree(root.containerd))

    def check_intermediate(self, root: OnDisk) -> None:
        """Each file is as before or as it will be; the new store is only there when all the rest is."""
        assert root.v1.read_bytes() == self.v1
        if root.containerd.read_bytes() != self.containerd_before:
            assert timeless(ondisk.tree(root.containerd)) == self.containerd
            if root.v2.exists():
                assert root.v2.read_bytes() == self.v2
        else:
            assert not root.v2.exists()

    def check_finished(self, root: OnDisk) -> None:
        assert root.v1.read_bytes() == self.v1
        assert root.v2.read_bytes() == self.v2
        assert timeless(ondisk.tree(root.containerd)) == self.containerd
        assert root.kept.read_bytes() == self.containerd_before
        assert root.left_behind == []


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return Outcome(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def root(tmp_path: Path) -> OnDisk:
    return ondisk.sample(tmp_path)


def finish(root: OnDisk) -> None:
    result = root.migrate()
    assert result.returncode == 0, result.stderr


def test_the_calls_are_the_ones_that_matter() -> None:
    """So that a change which hides some from the injection is noticed."""
    assert {"open", "write", "fsync", "link", "rename", "unlink", "mkdir", "flock", "mmap"} <= set(calls())
    assert calls().count("rename") == 2
    assert calls().count("fsync") == 6  # two files, the journal, and three times the directory


def test_failing_call(call: int, fault: str, root: OnDisk, outcome: Outcome) -> None:
    result = run_faulty(call, fault, root)
    check_status(result, fault, calls()[call])
    outcome.check_intermediate(root)
    assert fault == "kill" or root.left_behind == []
    finish(root)
    outcome.check_finished(root)


def test_short_writes(root: OnDisk, outcome: Outcome) -> None:
    result = run_faulty(-1, "short", root)
    assert result.returncode == 0
    assert result.stderr.split().count("write") > calls().count("write")
    outcome.check_finished(root)


def test_killed_twice(root: OnDisk, outcome: Outcome) -> None:
    """The first run dies before its switch; leases and labels are done when the second one dies."""
    switch = max(index for index, name in enumerate(calls()) if name == "rename")
    assert run_faulty(switch, "kill", root).returncode == -9
    containerd = root.containerd.read_bytes()
    assert containerd != outcome.containerd_before
    assert run_faulty(calls().index("fsync"), "kill", root).returncode == -9
    outcome.check_intermediate(root)
    finish(root)
    outcome.check_finished(root)
    assert root.containerd.read_bytes() == containerd


def test_garbage_left_behind_is_replaced(root: OnDisk, outcome: Outcome) -> None:
    for path in (root.v2, root.containerd):
        path.with_name(path.name + ".tmp").write_bytes(b"garbage" * 10_000)
    finish(root)
    outcome.check_finished(root)


def test_lease_without_resources(root: OnDisk, outcome: Outcome) -> None:
    """What the reference leaves when it is interrupted, and then loses data over."""
    record = min(buckets(bucket(ondisk.tree(root.v1), b"_main")))
    lease: Tree = {
        b"createdat": b"\x01" + bytes(12) + b"\xff\xff",
        b"labels": {FLAT_LABEL: b"2020-01-01T00:00:00Z"},
    }
    ondisk.edit(root.containerd, {b"v1": {b"buildkit": {b"leases": {record: lease}}}})
    finish(root)
    assert root.v2.read_bytes() == outcome.v2
    after = ondisk.tree(root.containerd)
    assert bucket(after, b"v1", b"buildkit", b"leases", record, b"labels") == lease[b"labels"]
    assert fixtures.leases_of(after) == fixtures.leases_of(outcome.containerd)


def test_an_older_database_under_the_second_name_makes_way(root: OnDisk, outcome: Outcome) -> None:
    """It no longer fits the snapshots if a daemon ran since, so going back to it would lose data."""
    root.kept.write_bytes(b"older")
    finish(root)
    assert root.kept.read_bytes() == outcome.containerd_before


@pytest.fixture
def small_volume(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB: room for the sample root, not for its second copy."""
    with ondisk.tmpfs(tmp_path / "volume", "6m") as volume:
        yield volume


def test_really_full_disk(small_volume: Path, outcome: Outcome) -> None:
    root = ondisk.sample(small_volume)
    result = root.migrate()
    assert result.returncode == 8
    assert "No space left on device" in result.stderr
    assert not root.v2.exists()
    assert root.left_behind == []
    outcome.check_intermediate(root)
    subprocess.run(["mount", "-o", "remount,size=30m", str(small_volume)], check=True)
    finish(root)
    outcome.check_finished(root)
