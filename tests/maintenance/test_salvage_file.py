"""Salvage from a file into a new one: locks, names, access, and what the report says."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from pathlib import Path

import pytest

from buildkit_migrate import errors, salvage_file
from buildkit_migrate.bolt import Lost
from buildkit_migrate.bolt.database import Database
from planting import cut, damage_page
from trees import PlainBucket, read, rows, rows_of, write

TREE = PlainBucket(
    {b"a": PlainBucket({b"%04d" % n: b"v" * 100 for n in range(500)}, sequence=4), b"\xff": b"value"}
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "db", TREE)
    return tmp_path / "db"


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def test_whole_file_is_copied(path: Path, tmp_path: Path) -> None:
    before = path.read_bytes()
    done = salvage_file(path, tmp_path / "new")
    assert done.is_complete
    assert (done.buckets, done.keys, done.lost, done.unreached) == (1, 501, (), 0)
    assert (done.path, done.output, done.bytes) == (path, tmp_path / "new", (tmp_path / "new").stat().st_size)
    assert list(rows_of(read(tmp_path / "new").root)) == list(rows(TREE))
    assert path.read_bytes() == before
    assert names(tmp_path) == ["db", "new"]


def test_new_file_continues_the_transactions(path: Path, tmp_path: Path) -> None:
    """Otherwise the two could be taken for each other."""
    salvage_file(path, tmp_path / "new")
    assert read(tmp_path / "new").transaction == read(path).transaction + 1


def test_what_is_lost_is_named(path: Path, tmp_path: Path) -> None:
    damage_page(path, 2)
    done = salvage_file(path, tmp_path / "new")
    assert not done.is_complete
    (lost,) = done.lost
    assert (lost.bucket, lost.page, lost.first) == ((b"a",), 2, b"0000")
    assert lost.end is not None
    kept = [row for row in rows(TREE) if row[0] != (b"a",) or row[1] is None or row[1] >= lost.end]
    assert list(rows_of(read(tmp_path / "new").root)) == kept
    assert done.keys == sum(key is not None for _, key, _ in kept)


def test_losses_as_json() -> None:
    text = Lost((b"a",), 3, b"x", None, "why").as_dict()
    assert text == {"bucket": ["a"], "page": 3, "from": "x", "to": None, "reason": "why"}
    odd = Lost((b"a", b"\xff"), None, None, b"\xfe", "why").as_dict()
    assert odd["bucket"] == ["a", "\ufffd"]
    assert odd["bucket_b64"] == [None, "/w=="]
    assert (odd["to"], odd["to_b64"], odd["page"]) == ("\ufffd", "/g==", None)
    json.dumps(odd)


@pytest.mark.parametrize("kind", ["file", "link", "dangling link", "directory", "itself"])
def test_existing_output_is_refused(kind: str, path: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    if kind == "file":
        new.write_bytes(b"mine")
    elif kind == "directory":
        new.mkdir()
    elif kind == "itself":
        new = path
    else:
        new.symlink_to("db" if kind == "link" else "nowhere")
    before = path.read_bytes(), names(tmp_path)
    with pytest.raises(errors.UnusableTargetError, match="already exists"):
        salvage_file(path, new)
    assert (path.read_bytes(), names(tmp_path)) == before


def test_output_that_appears_meanwhile_is_kept(path: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    with pytest.raises(errors.UnusableTargetError, match="already exists"):
        salvage_file(path, new, progress=lambda step: new.write_bytes(b"mine"))
    assert new.read_bytes() == b"mine"
    assert names(tmp_path) == ["db", "new"]


def test_file_in_use_is_refused(path: Path, tmp_path: Path) -> None:
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(errors.BusyError):
            salvage_file(path, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_root_in_use_is_refused(path: Path, tmp_path: Path) -> None:
    with (tmp_path / "buildkitd.lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(errors.BusyError):
            salvage_file(path, tmp_path / "new")


def test_readers_do_not_disturb(path: Path, tmp_path: Path) -> None:
    with Database.open(path):
        assert salvage_file(path, tmp_path / "new").is_complete


def test_access_is_that_of_the_old_file(path: Path, tmp_path: Path) -> None:
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 12, 34)
    salvage_file(path, tmp_path / "new")
    old, new = path.stat(), (tmp_path / "new").stat()
    assert stat.S_IMODE(new.st_mode) == 0o640
    assert (new.st_uid, new.st_gid) == (old.st_uid, old.st_gid)


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, bytes(100_000)])
def test_nothing_is_written_if_nothing_can_be_read(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(content)
    with pytest.raises(errors.CorruptDatabaseError) as caught:
        salvage_file(tmp_path / "db", tmp_path / "new")
    assert "no file was written" in caught.value.hint
    assert caught.value.path == str(tmp_path / "db")
    assert names(tmp_path) == ["db"]


def test_root_page_beyond_a_cut_is_named(path: Path, tmp_path: Path) -> None:
    cut(path, 5 * 4096)
    with pytest.raises(errors.CorruptDatabaseError, match="truncated") as caught:
        salvage_file(path, tmp_path / "new")
    assert caught.value.page > 5


def test_lmdb_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(bytes(16) + b"\xde\xc0\xef\xbe\x01\0\0\0" + bytes(8000))
    with pytest.raises(errors.UnusableTargetError, match="LMDB"):
        salvage_file(tmp_path / "db", tmp_path / "new")


def test_missing_file_or_directory_is_named(path: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.StorageError, match="nowhere"):
        salvage_file(tmp_path / "nowhere", tmp_path / "new")
    with pytest.raises(errors.StorageError, match="missing"):
        salvage_file(path, tmp_path / "missing" / "new")
    with pytest.raises(errors.CorruptDatabaseError, match="directory"):
        salvage_file(tmp_path, tmp_path / "new")
