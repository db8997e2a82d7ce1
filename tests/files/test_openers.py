"""A file that another process has opened, and would go on with, is not replaced and keeps its name."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from buildkit_migrate.errors import BusyError
from buildkit_migrate.files import durable, mounts, openers
from buildkit_migrate.files.directories import move
from buildkit_migrate.files.durable import keep, rename
from buildkit_migrate.files.locks import Lock, lock, readable, using_own_locks
from openers import coming_at_the_rename, opened_by_another


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "old.db"
    file.write_bytes(b"old")
    (tmp_path / "new").write_bytes(b"new")
    return file


def replace(path: Path) -> None:
    rename(path.with_name("new"), path)


def replace_and_keep(path: Path) -> None:
    keep(path, path.with_name("kept"))
    rename(path.with_name("new"), path, path.with_name("kept"))


def move_away(path: Path) -> None:
    move(path, path.with_name("moved"))


WAYS = (replace, replace_and_keep, move_away)


@pytest.fixture(params=[True, False], ids=["lease", "no-leases"])
def leases(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a file system without leases, where only /proc tells."""
    if not request.param:
        monkeypatch.setattr(openers, "_has_lease", lambda _: None)


@pytest.mark.usefixtures("leases")
@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_was_opened_before_stays(way: Callable[[Path], None], path: Path) -> None:
    with lock(path, exclusive=True), opened_by_another(path, os.O_RDWR) as number:
        with pytest.raises(BusyError, match=rf"old\.db was opened by .* \(process {number}\)"):
            way(path)
        assert path.read_bytes() == b"old"
        assert path.with_name("new").exists()


@pytest.mark.usefixtures("leases")
@pytest.mark.parametrize("way", [replace_and_keep, move_away])
def test_a_file_that_was_opened_at_the_last_moment_is_back(
    way: Callable[[Path], None], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = path.stat().st_ino
    with lock(path, exclusive=True), coming_at_the_rename(path, os.O_RDWR, monkeypatch) as came:
        with pytest.raises(BusyError) as raised:
            way(path)
        assert f"(process {came[0]})" in str(raised.value)
    assert (path.read_bytes(), path.stat().st_ino) == (b"old", number)
    assert not path.with_name("kept").exists() and not path.with_name("moved").exists()


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no file system in memory")
def test_a_file_below_dev_is_like_any_other() -> None:
    """A second descriptor of this process, for reading, says why there is no lease."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        path = Path(directory, "db")
        path.write_bytes(b"old")
        with lock(path, exclusive=True) as held, path.open("rb"), readable(path):
            openers.refuse_others(path)
            assert openers.others_with(held.fd) == ""
            with opened_by_another(path, os.O_RDWR) as number:
                assert f"(process {number})" in openers.others_with(held.fd)
                with pytest.raises(BusyError, match=f"process {number}"):
                    openers.refuse_others(path)


def test_whoever_holds_a_file_without_a_name_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with lock(path, exclusive=True), coming_at_the_rename(path, os.O_RDWR, monkeypatch) as came:
        with pytest.raises(BusyError, match="is lost") as raised:
            replace(path)
        assert f"(process {came[0]})" in str(raised.value) and "end that process" in raised.value.hint
    assert path.read_bytes() == b"new"


@pytest.mark.usefixtures("leases")
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR | os.O_NONBLOCK], ids=["reader", "this-program"])
@pytest.mark.parametrize("way", WAYS)
def test_what_writes_nothing_is_no_danger(way: Callable[[Path], None], flags: int, path: Path) -> None:
    with lock(path, exclusive=True), readable(path), opened_by_another(path, flags):
        way(path)
    assert not path.exists() or path.read_bytes() == b"new"


def test_own_descriptors_alone_are_no_danger(path: Path) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0), lock(path, exclusive=True) as held:
        file.close()
        assert openers.others_with(held.fd) == ""


def test_a_process_in_another_namespace_is_noticed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = openers._own()
    monkeypatch.setattr(openers, "_processes", lambda: iter([own]))
    unseen = pytest.raises(BusyError, match="a process that can't be seen from here")
    with lock(path, exclusive=True), opened_by_another(path, os.O_RDWR), unseen:
        replace_and_keep(path)
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("release", ["5.2.21", "4.18.0-553.el8_10.x86_64", "none"])
def test_on_old_systems_no_lease_says_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    """There a second name of the file is enough for none; who has it open is looked for all the same."""
    monkeypatch.setattr(openers.os, "uname", lambda: SimpleNamespace(release=release))
    with lock(path, exclusive=True) as held, opened_by_another(path, os.O_RDWR) as number:
        assert f"process {number}" in openers.others_with(held.fd)
        monkeypatch.setattr(openers, "_processes", lambda: iter(()))
        assert openers.others_with(held.fd) == ""


def test_file_systems_of_a_network_refuse_leases_for_their_own_reasons(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openers, "_LOCAL", frozenset({"a disk"}))
    monkeypatch.setattr(openers, "_processes", lambda: iter(()))
    with lock(path, exclusive=True) as held, opened_by_another(path, os.O_RDWR):
        assert openers.others_with(held.fd) == ""


def test_a_mapping_without_a_descriptor_is_no_danger(path: Path) -> None:
    code = (
        "import ctypes, os, sys; fd = os.open(sys.argv[1], os.O_RDONLY); libc = ctypes.CDLL(None)\n"
        "libc.mmap.restype = ctypes.c_void_p\n"
        "libc.mmap(None, ctypes.c_size_t(3), 1, 1, fd, ctypes.c_long(0))\n"
        "os.close(fd); print(flush=True); sys.stdin.read()"
    )
    with (
        lock(path, exclusive=True) as held,
        subprocess.Popen([sys.executable, "-c", code, path], stdin=-1, stdout=-1) as mapping,
    ):
        assert mapping.stdin is not None and mapping.stdout is not None
        mapping.stdout.readline()
        assert openers._has_lease(held.fd) is not True
        assert openers.others_with(held.fd) == ""
        mapping.stdin.close()


def test_without_processes_to_look_at_nothing_is_known(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a rescue system without /proc, for example."""
    for module in (openers, mounts):
        monkeypatch.setattr(
            module, "Path", lambda *parts: Path("/nowhere", *(str(part)[1:] for part in parts))
        )
    with lock(path, exclusive=True) as held, opened_by_another(path, os.O_RDWR):
        assert openers.others_with(held.fd) == ""


def test_an_interrupt_of_the_look_puts_the_old_file_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: int) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(durable, "others_with", interrupted)
    with lock(path, exclusive=True), pytest.raises(KeyboardInterrupt):
        replace_and_keep(path)
    assert path.read_bytes() == b"old"


def test_files_that_are_not_locked_here_are_not_looked_at(path: Path) -> None:
    with opened_by_another(path, os.O_RDWR):
        replace(path)
    assert path.read_bytes() == b"new"


def test_only_locks_of_the_block_are_enough_for_another_look(path: Path) -> None:
    with lock(path, exclusive=True), using_own_locks(), pytest.raises(BusyError):
        lock(path, exclusive=False)
    with using_own_locks():
        with lock(path, exclusive=True), lock(path, exclusive=False), pytest.raises(BusyError):
            lock_elsewhere(path).close()
        with lock_elsewhere(path), pytest.raises(BusyError):
            lock(path, exclusive=False)
    lock(path, exclusive=True).close()


def lock_elsewhere(path: Path) -> Lock:
    """Locked by another thread."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lock, path, exclusive=True).result()
