"""Locks, reading through a mapping, and writing new files."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from threading import Condition, Event, Thread, current_thread, main_thread

import pytest

from buildkit_migrate.bolt import Builder, Database, check, write
from buildkit_migrate.errors import BusyError, CorruptDatabaseError, StorageError
from buildkit_migrate.files.blocks import Writer
from buildkit_migrate.files.durable import keep, remove
from buildkit_migrate.files.locks import lock
from dicts import file_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "x.db"
    path.write_bytes(file_of({b"k": b"v"}))
    return path


def put(builder: Builder) -> None:
    builder.put(b"k", b"new")


def put_ten_values(builder: Builder) -> None:
    """Fills four large blocks."""
    for n in range(10):
        builder.put(b"%d" % n, b"%d" % n * (1 << 20))


def open_descriptors() -> int:
    gc.collect()  # close mappings that earlier tests left
    return len(list(Path("/proc/self/fd").iterdir()))


# --- Locks


def test_exclusive_lock_keeps_others_out(path: Path) -> None:
    with lock(path, exclusive=True):
        for exclusive in (True, False):
            with pytest.raises(BusyError, match=r"x\.db is in use"):
                lock(path, exclusive=exclusive)
    lock(path, exclusive=True).close()


def test_shared_locks_go_together(path: Path) -> None:
    with lock(path, exclusive=False), lock(path, exclusive=False), pytest.raises(BusyError):
        lock(path, exclusive=True)


def test_lock_file_is_created_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with pytest.raises(StorageError, match="No such file"):
        lock(path, exclusive=True)
    assert not path.exists()
    with lock(path, exclusive=True, create=True):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_file_replaced_during_locking_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock would be on a file that nobody else can open."""
    import fcntl

    def flock_of_a_slow_process(fd: int, operation: int) -> None:
        (path.parent / "other").write_bytes(b"")
        (path.parent / "other").rename(path)

    monkeypatch.setattr(fcntl, "flock", flock_of_a_slow_process)
    with pytest.raises(BusyError, match="replaced"):
        lock(path, exclusive=True)


def test_lock_may_be_closed_twice(path: Path) -> None:
    held = lock(path, exclusive=True)
    held.close()
    held.close()


# --- Reading


def test_closing_ends_the_lock_but_not_what_was_read(path: Path) -> None:
    """The mapping holds a duplicate of the descriptor; the lock must be released nevertheless."""
    database = Database.open(path, exclusive=True)
    root = database.root
    database.close()
    lock(path, exclusive=True).close()
    assert root.get(b"k") == b"v"


def test_empty_file_is_an_empty_database(path: Path) -> None:
    path.write_bytes(b"")
    with Database.open(path) as database:
        assert database.size == 0
        assert list(database.root.items()) == []


def test_damaged_file_is_named_and_unlocked(path: Path) -> None:
    path.write_bytes(bytes(8192))
    with pytest.raises(CorruptDatabaseError, match=r"x\.db") as caught:
        Database.open(path, exclusive=True)
    assert caught.value.path == str(path)
    lock(path, exclusive=True).close()


@pytest.mark.parametrize("kind", ["directory", "fifo", "device"])
def test_file_that_is_not_regular_is_refused(tmp_path: Path, kind: str) -> None:
    path = Path("/dev/null") if kind == "device" else tmp_path / "x"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)  # opening it must not hang
    with pytest.raises(CorruptDatabaseError, match="not a regular file"):
        Database.open(path)


def test_no_descriptor_is_left_open(path: Path) -> None:
    before = open_descriptors()
    for _ in range(3):
        with Database.open(path), pytest.raises(BusyError):
            lock(path, exclusive=True)
        with pytest.raises(StorageError):
            write(path, mode=0o600, page_size=4096, fill=put)
    assert open_descriptors() == before


# --- Writing


def test_written_file_is_locked_readable_and_complete(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    with write(path, mode=0o640, page_size=8192, fill=put) as database:
        assert database.root.get(b"k") == b"new"
        assert database.reader.page_size == 8192
        with pytest.raises(BusyError):
            lock(path, exclusive=False)
    with Database.open(path) as database:
        assert database.root.get(b"k") == b"new"


@pytest.mark.parametrize("thread", [True, False])
def test_file_is_read_back_and_synced_before_it_counts(
    tmp_path: Path, thread: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, synced, read = os.fsync, [], []

    def sync(fd: int) -> None:
        synced.append(current_thread() is main_thread())
        real(fd)

    def refuse(thread: Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(os, "fsync", sync)
    if not thread:
        monkeypatch.setattr(Thread, "start", refuse)

    def verify(new: Database) -> None:
        read.append(new.root.get(b"k"))

    with write(tmp_path / "new.db", mode=0o600, page_size=4096, fill=put, verify=verify):
        assert read == [b"new"]
        assert synced == [not thread]


@pytest.mark.parametrize("failing", ["sync", "verify"])
def test_file_that_is_not_synced_or_not_verified_is_removed(
    tmp_path: Path, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_descriptors()

    def fail(_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    if failing == "sync":
        monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match="Input/output error"):
        write(
            tmp_path / "new.db",
            mode=0o600,
            page_size=4096,
            fill=put,
            verify=fail if failing == "verify" else lambda new: None,
        )
    assert list(tmp_path.iterdir()) == []
    assert open_descriptors() == before


@pytest.mark.parametrize("umask", [0o077, 0])
def test_mode_does_not_depend_on_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write(tmp_path / "new.db", mode=0o644, page_size=4096, fill=put).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new.db").stat().st_mode) == 0o644


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_owner_is_that_of_the_model(path: Path, tmp_path: Path) -> None:
    os.chown(path, 1234, 2345)
    write(tmp_path / "new.db", mode=0o600, page_size=4096, fill=put, owner_of=path).close()
    info = (tmp_path / "new.db").stat()
    assert (info.st_uid, info.st_gid) == (1234, 2345)


def test_existing_file_is_not_overwritten(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(StorageError, match="File exists"):
        write(path, mode=0o600, page_size=4096, fill=put)
    assert path.read_bytes() == before


@pytest.mark.parametrize("error", [RuntimeError("inside"), KeyboardInterrupt()])
def test_failed_file_is_removed(tmp_path: Path, error: BaseException) -> None:
    def fail(builder: Builder) -> None:
        put(builder)
        raise error

    with pytest.raises(type(error)):
        write(tmp_path / "new.db", mode=0o600, page_size=4096, fill=fail)
    assert list(tmp_path.iterdir()) == []


def test_large_files_are_written_whole(tmp_path: Path) -> None:
    def put_many(builder: Builder) -> None:
        for n in range(20_000):
            builder.put(b"%08d" % n, b"%d" % n * 200)

    before = open_descriptors()
    with write(tmp_path / "new.db", mode=0o600, page_size=4096, fill=put_many) as database:
        assert database.size > 16 << 20
        assert check(database.reader) == []
        assert database.root.get(b"%08d" % 19_999) == b"19999" * 200
    del database
    assert open_descriptors() == before


Refuse = Callable[[int], OSError | None]


def refuse_writes(monkeypatch: pytest.MonkeyPatch, refuse: Refuse) -> list[tuple[bool, bool]]:
    """Makes `os.write` raise the error that ``refuse`` returns for the number of the call.

    Returns a list that gets for each call: whether it was made in the main thread, and as a direct write.
    """
    calls = []
    real = os.write

    def write(fd: int, data: memoryview) -> int:
        direct = bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT)
        calls.append((current_thread() is main_thread(), direct))
        error = refuse(len(calls))
        if error is not None:
            raise error
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    return calls


def full_at(call: int) -> Refuse:
    return lambda number: OSError(errno.ENOSPC, "No space left on device") if number == call else None


@pytest.mark.parametrize("call", [1, 2, 4, 5])
def test_failed_write_of_any_block_removes_the_file(
    tmp_path: Path, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the next block is built, at the last block, and at the meta pages."""
    before = open_descriptors()
    calls = refuse_writes(monkeypatch, full_at(call))
    with pytest.raises(StorageError, match="No space left"):
        write(tmp_path / "new.db", mode=0o600, page_size=4096, fill=put_ten_values)
    assert len(calls) == call  # and nothing was written after it
    assert list(tmp_path.iterdir()) == []
    assert open_descriptors() == before


def write_and_read(tmp_path: Path, page_size: int = 4096) -> bytes:
    path = tmp_path / "new.db"
    with write(path, mode=0o600, page_size=page_size, fill=put_ten_values) as database:
        assert check(database.reader) == []
    content = path.read_bytes()
    path.unlink()
    return content


def takes_direct_writes(directory: Path) -> bool:
    try:
        os.close(os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_DIRECT))
    except OSError:
        return False
    return True


def test_large_blocks_are_written_by_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not takes_direct_writes(tmp_path):
        pytest.skip("the file system knows no direct writes")
    calls = refuse_writes(monkeypatch, lambda number: None)
    content = write_and_read(tmp_path)
    assert calls == [(False, True)] * 4 + [(True, False)]  # the meta pages come last
    monkeypatch.setattr(fcntl, "F_SETFL", -1)  # as on a file system without direct writes
    calls.clear()
    assert write_and_read(tmp_path) == content
    assert calls == [(False, False)] * 4 + [(True, False)]


def test_blocks_that_wait_for_a_slow_disk_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One block is written, one waits, and a third is built."""
    content = write_and_read(tmp_path)
    put, given = Writer.put, 0
    behind: list[int] = []

    def counted(writer: Writer, block: memoryview) -> None:
        nonlocal given
        put(writer, block)
        given += 1

    def slow(number: int) -> None:
        time.sleep(0.02)  # so that the builder gets as far ahead as it may
        behind.append(given - number)

    monkeypatch.setattr(Writer, "put", counted)
    refuse_writes(monkeypatch, slow)
    assert write_and_read(tmp_path) == content
    assert max(behind) == 1


@pytest.mark.parametrize("call", [1, 3])
def test_refused_direct_write_is_repeated_through_the_page_cache(
    tmp_path: Path, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not takes_direct_writes(tmp_path):
        pytest.skip("the file system knows no direct writes")
    content = write_and_read(tmp_path)
    invalid = OSError(errno.EINVAL, "Invalid argument")
    calls = refuse_writes(monkeypatch, lambda number: invalid if number == call else None)
    assert write_and_read(tmp_path) == content
    assert [direct for _, direct in calls] == [True] * call + [False] * (6 - call)


def test_pages_smaller_than_a_sector_are_written(tmp_path: Path) -> None:
    image = bytearray()
    builder = Builder(image.extend, 1024)
    put_ten_values(builder)
    metas = builder.finish()
    image[: len(metas)] = metas
    assert write_and_read(tmp_path, page_size=1024) == image


def test_without_a_thread_the_main_thread_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: Thread) -> None:
        raise RuntimeError("can't start new thread")

    content = write_and_read(tmp_path)
    monkeypatch.setattr(Thread, "start", refuse)
    calls = refuse_writes(monkeypatch, lambda number: None)
    assert write_and_read(tmp_path) == content
    assert all(main for main, _ in calls)


def test_write_that_ends_within_a_sector_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest can't be written directly: a file system with direct writes refuses it."""
    content = write_and_read(tmp_path)
    real = os.write

    def short(fd: int, data: memoryview) -> int:
        monkeypatch.setattr(os, "write", real)
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        fcntl.fcntl(fd, fcntl.F_SETFL, flags & ~os.O_DIRECT)
        size = real(fd, data[:1000])
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)
        return size

    monkeypatch.setattr(os, "write", short)
    assert write_and_read(tmp_path) == content


def test_failed_write_leaves_no_descriptor_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even while the error is handled, so that a full disk has its space back."""
    gc.collect()  # what other tests left
    before = open_descriptors()
    refuse_writes(monkeypatch, full_at(2))
    gc.disable()
    try:
        write(tmp_path / "new.db", mode=0o600, page_size=4096, fill=put_ten_values)
    except StorageError:
        assert len(list(Path("/proc/self/fd").iterdir())) == before
    else:
        pytest.fail("no error")
    finally:
        gc.enable()


@pytest.mark.parametrize("interrupts", [1, 2])
def test_interrupt_while_a_thread_writes_leaves_nothing_behind(
    tmp_path: Path, interrupts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first interrupt waits for the thread; after a second one the thread writes to a removed file."""
    before = open_descriptors()
    begun, go_on, ended = Event(), Event(), Event()
    real_wait, real_write = Condition.wait_for, os.write
    left = interrupts

    def slow(fd: int, data: memoryview) -> int:
        begun.set()
        assert go_on.wait(60)
        size = real_write(fd, data)
        ended.set()
        return size

    def interrupted(changed: Condition, is_so: Callable[[], bool], timeout: float | None = None) -> bool:
        nonlocal left
        if is_so():
            return True
        while not begun.is_set():
            changed.wait(0.01)
        if left:
            left -= 1
            raise KeyboardInterrupt
        go_on.set()
        return real_wait(changed, is_so, timeout)

    monkeypatch.setattr(os, "write", slow)
    monkeypatch.setattr(Condition, "wait_for", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "new.db", mode=0o600, page_size=4096, fill=put_ten_values)
    assert list(tmp_path.iterdir()) == []
    assert ended.is_set() == (interrupts == 1)
    go_on.set()
    assert ended.wait(60)
    monkeypatch.undo()
    for _ in range(1000):
        if open_descriptors() == before:
            break
        time.sleep(0.01)
    assert open_descriptors() == before


def test_renamed_database_stays_locked(path: Path, tmp_path: Path) -> None:
    with write(tmp_path / "new.db", mode=0o600, page_size=4096, fill=put) as database:
        database.rename(path)
        assert database.path == path
        with pytest.raises(BusyError):
            lock(path, exclusive=False)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.db"]


def test_keep_makes_a_second_name_and_numbers_older_files(path: Path, tmp_path: Path) -> None:
    second = tmp_path / "kept"
    keep(path, second)
    keep(path, second)
    assert second.samefile(path)
    second.unlink()
    other = b"of an earlier state, which no longer fits"
    second.write_bytes(other)
    keep(path, second)
    assert second.samefile(path)
    assert second.with_name("kept.~1~").read_bytes() == other
    second.unlink()
    second.write_bytes(path.read_bytes())
    keep(path, second)
    assert second.samefile(path)
    assert not second.with_name("kept.~2~").exists()


def test_remove_accepts_a_missing_file(path: Path) -> None:
    remove(path)
    remove(path)
    assert not path.exists()
    path.mkdir()
    with pytest.raises(StorageError):
        remove(path)
