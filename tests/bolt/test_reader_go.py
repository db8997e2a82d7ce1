"""Files made by bbolt for Go: our reader agrees with Go, finds no fault, and rewrites them unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest

from buildkit_migrate._native.bolt import Bucket, check
from judge import Judge
from trees import Row, copy, read, rows_of

pytestmark = pytest.mark.real

PAGE_SIZES = [1024, 2048, 4096, 8192, 16384, 32768, 65536]


def find(root: Bucket, row: Row) -> bytes | int | None:
    """Looks one row up by its path and key."""
    path, key, _ = row
    bucket = root.bucket(*path) if path else root
    assert bucket is not None, path
    return bucket.sequence if key is None else bucket.get(key)


@pytest.mark.parametrize("page_size", PAGE_SIZES)
@pytest.mark.parametrize("keys", [0, 3, 4000])
def test_file_made_by_go_is_read_and_rewritten(
    judge: Judge, tmp_path: Path, keys: int, page_size: int
) -> None:
    judge.make(tmp_path / "go.db", keys, keys, page_size)
    expected = judge.dump(tmp_path / "go.db")
    reader = read(tmp_path / "go.db")
    assert reader.page_size == page_size
    assert reader.freelist is not None
    assert reader.other_meta == ""
    assert check(reader) == []
    assert list(rows_of(reader.root)) == expected
    assert [find(reader.root, row) for row in expected] == [value for _, _, value in expected]

    assert copy(reader.root, tmp_path / "ours.db", page_size) == 0
    assert judge.check(tmp_path / "ours.db") == []
    assert judge.dump(tmp_path / "ours.db") == expected
    assert judge.update(tmp_path / "ours.db", 5, 100) == []


@pytest.mark.parametrize("freelist", ["arrayfreelist", "mapfreelist"])
@pytest.mark.parametrize("stored", [True, False])
def test_files_with_and_without_a_free_list_are_read(
    judge: Judge, tmp_path: Path, stored: bool, freelist: str
) -> None:
    """Both kinds of free list in memory leave the same page; with `nofreelistsync` there is none."""
    flags = [freelist] if stored else [freelist, "nofreelistsync"]
    judge.make(tmp_path / "go.db", 11, 3000, 4096, *flags)
    reader = read(tmp_path / "go.db")
    assert (reader.freelist is not None) == stored
    assert check(reader) == []
    assert list(rows_of(reader.root)) == judge.dump(tmp_path / "go.db")


def test_items_begin_at_the_start_key(judge: Judge, tmp_path: Path) -> None:
    judge.make(tmp_path / "go.db", 3, 3000, 1024)
    flat = read(tmp_path / "go.db").root.bucket(b"flat")
    assert flat is not None
    keys = [key for key, _ in flat.items()]
    assert len(keys) > 100
    for i in range(0, len(keys), 37):
        for start in (keys[i], keys[i] + b"\0", keys[i][:-1]):
            first = next((key for key, _ in flat.items(start)), None)
            assert first == next((key for key in keys if key >= start), None)


def test_rewrite_changes_the_page_size(judge: Judge, tmp_path: Path) -> None:
    judge.make(tmp_path / "go.db", 9, 3000, 65536)
    for page_size in PAGE_SIZES:
        copy(read(tmp_path / "go.db").root, tmp_path / "ours.db", page_size, 1.0)
        assert judge.check(tmp_path / "ours.db") == []
        assert judge.dump(tmp_path / "ours.db") == judge.dump(tmp_path / "go.db")


@pytest.mark.parametrize("seed", range(5))
def test_file_after_many_transactions_is_read(judge: Judge, tmp_path: Path, seed: int) -> None:
    judge.make(tmp_path / "go.db", seed, 500, 1024)
    assert judge.update(tmp_path / "go.db", seed, 500) == []
    reader = read(tmp_path / "go.db")
    assert check(reader) == []
    assert list(rows_of(reader.root)) == judge.dump(tmp_path / "go.db")
