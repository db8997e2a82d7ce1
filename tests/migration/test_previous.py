"""A v1 store with a torn newest transaction: the error names the one before, which can be migrated."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

import ondisk
from buildkit_migrate import errors, migrate_root
from buildkit_migrate.bolt import Reader, check
from crafted import META, checksum
from dicts import file_of
from fixtures import bucket, buckets
from ondisk import OnDisk, run

PAGE = 4096


def tear(root: OnDisk, *, cut: bool = False) -> bytes:
    """A transaction whose meta page was written and whose only new page was not; returns what is in the file.

    The new page is garbage, or missing (``cut``). The transaction before is the current content.
    """
    data = bytearray(root.v1.read_bytes())
    metas = {number: struct.unpack_from("<Q", data, number * PAGE + 64)[0] for number in (0, 1)}
    newest = max(metas, key=lambda number: metas[number])
    older = 1 - newest
    # The older meta page becomes that of the torn transaction: one page more, which is its root.
    meta = bytearray(data[newest * PAGE : newest * PAGE + PAGE])
    (used,) = struct.unpack_from("<Q", meta, 56)
    struct.pack_into("<Q", meta, 0, older)
    struct.pack_into("<Q", meta, 32, used)
    struct.pack_into("<Q", meta, 56, used + 1)
    struct.pack_into("<Q", meta, 64, metas[newest] + 1)
    assert struct.unpack_from("<H", meta, 8)[0] == META
    struct.pack_into("<Q", meta, 72, checksum(bytes(meta[:80])))
    data[older * PAGE : older * PAGE + PAGE] = meta
    del data[used * PAGE :]
    data += b"" if cut else b"\xff" * PAGE
    root.v1.write_bytes(data)
    return bytes(data)


def refusal_of(root: OnDisk, *options: str, command: str = "migrate") -> dict[str, Any]:
    before = ondisk.listing(root.worker)
    result = run(command, "--format", "json", *options, str(root.root))
    assert (result.returncode, "Traceback" in result.stderr) == (5, False), result.stderr
    assert ondisk.listing(root.worker) == before
    error = json.loads(result.stdout)["error"]
    assert isinstance(error, dict)
    assert str(root.v1) in error["message"]
    return error


@pytest.mark.parametrize("cut", [True, False])
@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_error_offers_the_previous_transaction(root: OnDisk, cut: bool, options: tuple[str, ...]) -> None:
    number = Reader(root.v1.read_bytes()).transaction
    tear(root, cut=cut)
    error = refusal_of(root, *options)
    assert f"the transaction before it ({number}) is whole" in error["message"]
    assert "--previous-transaction" in error["hint"]


@pytest.mark.parametrize("cut", [True, False])
def test_previous_transaction_is_migrated_and_undone(root: OnDisk, tmp_path: Path, cut: bool) -> None:
    (tmp_path / "twin").mkdir()
    twin = ondisk.sample(tmp_path / "twin")
    twin.migrate_here()
    before = root.containerd.read_bytes()
    torn = tear(root, cut=cut)
    assert root.migrate("--previous-transaction", "--dry-run").returncode == 0
    assert root.migrate("--previous-transaction", "--verify").returncode == 0
    assert root.v1.read_bytes() == torn
    assert ondisk.tree(root.v2) == ondisk.tree(twin.v2)
    assert len(buckets(bucket(ondisk.tree(root.v2), b"_main"))) == 287
    assert run("status", str(root.root)).returncode == 0
    assert root.verify().returncode == 0
    assert run("undo", str(root.root)).returncode == 0
    assert (root.v1.read_bytes(), root.containerd.read_bytes()) == (torn, before)
    assert not root.v2.exists()


def test_sound_store_is_not_taken_back(root: OnDisk) -> None:
    assert "nothing is torn" in refusal_of(root, "--previous-transaction")["message"]
    root.v1.write_bytes(b"")
    assert "nothing is torn" in refusal_of(root, "--previous-transaction")["message"]


def test_torn_free_list_does_not_need_the_previous_transaction(root: OnDisk) -> None:
    """All records of the newest transaction can be read, so nothing needs to be given up."""
    data = bytearray(root.v1.read_bytes())
    metas = [struct.unpack_from("<5Q", data, at + 32) for at in (0, PAGE)]
    _, _, free, _, _ = max(metas, key=lambda meta: meta[4])
    data[free * PAGE : free * PAGE + PAGE] = bytes(PAGE)
    root.v1.write_bytes(data)
    assert check(Reader(data))
    error = refusal_of(root, "--previous-transaction")
    assert "leave --previous-transaction out" in error["hint"]
    assert root.migrate().returncode == 0
    assert len(buckets(bucket(ondisk.tree(root.v2), b"_main"))) == 287


@pytest.mark.parametrize("lost", [0, 1])
def test_lost_meta_page_does_not_need_the_previous_transaction(root: OnDisk, lost: int) -> None:
    """The other meta page is read anyway."""
    data = bytearray(root.v1.read_bytes())
    data[lost * PAGE : lost * PAGE + PAGE] = bytes(PAGE)
    root.v1.write_bytes(data)
    assert "leave --previous-transaction out" in refusal_of(root, "--previous-transaction")["hint"]
    assert root.migrate().returncode == 0


def test_nothing_is_offered_if_both_transactions_are_torn(root: OnDisk) -> None:
    data = bytearray(tear(root))
    data[2 * PAGE :] = b"\xff" * (len(data) - 2 * PAGE)
    root.v1.write_bytes(data)
    for options in ((), ("--previous-transaction",)):
        error = refusal_of(root, *options)
        assert ") is whole" not in error["message"]
        assert "--previous-transaction" not in error["hint"]


def test_nothing_is_offered_if_the_older_meta_page_is_lost(root: OnDisk) -> None:
    """Then only the newest transaction exists."""
    data = bytearray(tear(root))
    metas = {number: struct.unpack_from("<Q", data, number * PAGE + 64)[0] for number in (0, 1)}
    older = min(metas, key=lambda number: metas[number])
    data[older * PAGE : older * PAGE + PAGE] = bytes(PAGE)
    root.v1.write_bytes(data)
    error = refusal_of(root, "--previous-transaction")
    assert "the transaction before the newest one is lost" in error["message"]


def test_previous_transaction_is_not_offered_for_containerd(root: OnDisk) -> None:
    """Its database is rewritten, so an older transaction must not be used."""
    torn = OnDisk(root.root, root.worker, root.containerd, root.snapshots, root.snapshotter)
    sound = root.v1.read_bytes()
    root.v1.write_bytes(root.containerd.read_bytes())
    tear(torn)
    root.containerd.write_bytes(root.v1.read_bytes())
    root.v1.write_bytes(sound)
    result = root.migrate()
    assert result.returncode == 5
    assert "--previous-transaction" not in result.stderr


def test_reader_opens_the_previous_transaction() -> None:
    data = file_of({b"_main": {}})
    newest, before = Reader(data), Reader(data, "", True)
    assert before.transaction == newest.transaction - 1
    assert check(newest) == []
    with pytest.raises(errors.CorruptDatabaseError):
        Reader(b"", "", True)


def test_library_migrates_the_previous_transaction(root: OnDisk) -> None:
    tear(root)
    with pytest.raises(errors.CorruptDatabaseError, match="is whole"):
        migrate_root(root.root)
    (report,) = migrate_root(root.root, previous_transaction=True)
    assert report.counts["records"] == 287
