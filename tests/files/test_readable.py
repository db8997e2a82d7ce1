"""What a failing disk still reads of a file, and what salvage makes of it."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildkit_migrate import salvage_file
from buildkit_migrate.errors import CorruptDatabaseError, StorageError
from buildkit_migrate.files.locks import lock
from buildkit_migrate.files.readable import readable
from dicts import file_of
from plain_bbolt import load

SECTOR = 4096
WHOLE = os.preadv
KEYS = {b"%04d" % number: b"value %d" % number for number in range(2000)}
LONG = bytes(range(256)) * 200
CONTENT = {b"keys": KEYS, b"long": {b"a": b"1", b"long": LONG, b"z": b"2"}, b"other": {b"a": b"b"}}


def failing(bad: set[int], number: int = errno.EIO) -> Callable[..., int]:
    """`os.preadv` of a disk with bad sectors: a read ends before the first, and fails if it starts there."""

    def preadv(fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        size = len(buffers[0])
        sectors = range(offset // SECTOR, -(-(offset + size) // SECTOR))
        touched = [sector for sector in bad if sector in sectors]
        if touched and min(touched) * SECTOR <= offset:
            raise OSError(number, os.strerror(number))
        end = min(touched) * SECTOR if touched else offset + size
        return WHOLE(fd, [buffers[0][: end - offset]], offset)

    return preadv


@given(
    size=st.integers(1, 5 << 20),
    bad=st.sets(st.integers(0, (5 << 20) // SECTOR)),
    strict=st.booleans(),
)
def test_all_but_the_bad_sectors_is_read(
    tmp_path_factory: pytest.TempPathFactory, size: int, bad: set[int], strict: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "file"
    content = os.urandom(256) * (size // 256 + 1)
    path.write_bytes(content[:size])
    expected = bytearray(content[:size])
    for sector in bad:
        end = min((sector + 1) * SECTOR, size)
        expected[sector * SECTOR : end] = bytes(max(0, end - sector * SECTOR))
    with pytest.MonkeyPatch.context() as patch, lock(path, exclusive=False) as source:
        read = failing(bad)
        if strict:  # a read that touches a bad sector fails as a whole
            patch.setattr(os, "preadv", lambda fd, to, at: _whole_or_nothing(read, fd, to, at))
        else:
            patch.setattr(os, "preadv", read)
        data, gaps = readable(source)
    assert bytes(data) == expected
    assert {sector for start, end in gaps for sector in range(start // SECTOR, -(-end // SECTOR))} == {
        sector for sector in bad if sector * SECTOR < size
    }
    assert all(one[1] < two[0] for one, two in itertools.pairwise(gaps))


def _whole_or_nothing(read: Callable[..., int], fd: int, to: Sequence[memoryview], at: int) -> int:
    count, possible = read(fd, to, at), min(len(to[0]), os.fstat(fd).st_size - at)
    if count < possible:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    return count


def test_other_errors_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(9000))
    monkeypatch.setattr(os, "preadv", failing({1}, errno.EACCES))
    with lock(path, exclusive=False) as source, pytest.raises(StorageError, match="Permission denied"):
        readable(source)


def test_salvage_loses_only_what_is_in_bad_sectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.db"
    path.write_bytes(file_of(CONTENT))
    pages = path.stat().st_size // SECTOR
    whole, named = load(path.read_bytes()), 0
    for page in range(pages):
        monkeypatch.setattr(os, "preadv", failing({page}))
        new = tmp_path / f"new-{page}"
        try:
            done = salvage_file(path, new)
        except CorruptDatabaseError:
            assert not list(tmp_path.glob("new-*.tmp"))
            continue
        kept = load(new.read_bytes())
        for name, bucket in whole.items():
            assert isinstance(bucket, dict)
            found = kept.get(name, {})
            assert isinstance(found, dict)
            assert found.items() <= bucket.items(), "nothing is made up, zeros least of all"
        named += any("the disk can't read" in lost.reason and lost.page is not None for lost in done.lost)
        assert done.is_complete == (kept == whole)
    assert named > 20
