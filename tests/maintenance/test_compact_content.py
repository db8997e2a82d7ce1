"""Compaction changes no content and none of a file's properties, and cures free lists."""

from __future__ import annotations

import os
import shutil
import stat
import struct
from pathlib import Path

import pytest
from compacting import compacted, contents, kept, of, rows

import crafted
from buildkit_migrate import check_root, compact_root, discard_kept
from buildkit_migrate.bolt import Database, check
from buildkit_migrate.maintenance.compact import CompactionOutcome
from judge import Judge
from planting import break_free_list, damage, grow, page_size
from trees import PlainBucket, write
from v2_roots import NAMES, V2Root, healed, healed_databases, v2_root

pytestmark = [pytest.mark.usefixtures("early"), pytest.mark.slow]


@pytest.fixture
def root(tmp_path: Path) -> V2Root:
    return healed_databases(tmp_path)


@pytest.fixture
def whole(tmp_path: Path) -> V2Root:
    return healed(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_content_of_real_roots_is_unchanged(name: str, tmp_path: Path, judge: Judge) -> None:
    root = v2_root(name, tmp_path)
    before = {path: rows(path) for path in root.databases}
    sizes = {path: path.stat().st_size for path in root.databases}
    content = contents(root)
    found = compacted(root)
    assert {file.path for file in found.files} == set(root.databases)
    for path in root.databases:
        assert of(found, path).outcome == CompactionOutcome.COMPACTED
        assert rows(path) == before[path]
        assert path.stat().st_size == of(found, path).new_bytes < sizes[path]
        assert kept(path).read_bytes() == content[path]
        assert judge.check(path) == []
        assert judge.dump(path) == before[path]
    assert found.saved == sum(sizes.values()) - sum(path.stat().st_size for path in root.databases)
    assert check_root(root.root, containerd_root=root.options[1] if root.options else None).findings == ()
    for path in root.databases:
        assert judge.update(path, 1, 20) == []


def test_grown_files_are_as_small_as_after_bbolts_own_compaction(tmp_path: Path) -> None:
    root = v2_root("growth", tmp_path)
    compacted(root)
    assert root.records.stat().st_size <= 524_288
    assert root.containerd.stat().st_size <= 4_194_304


@pytest.mark.parametrize("sequence", [1, 2**63, 2**64 - 1])
def test_sequences_and_empty_buckets_and_values_are_kept(sequence: int, tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    inner = PlainBucket({b"key": b"", b"none": PlainBucket(sequence=sequence)}, sequence=sequence)
    large = PlainBucket({b"%04d" % n: b"x" * 100 for n in range(500)}, sequence=sequence)
    write(path, PlainBucket({b"empty": PlainBucket(), b"inner": inner, b"large": large}))
    for meta in (0, page_size(path)):  # the root bucket has a sequence, too
        damage(path, meta + 40, struct.pack("<Q", sequence))
    signed = bytearray(path.read_bytes())
    crafted.sign(signed, page_size(path))
    path.write_bytes(signed)
    grow_in_place(path)
    before = rows(path)
    assert before[0] == ((), None, sequence)
    compact_root(path)
    assert rows(path) == before


def grow_in_place(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(page_size(path)))


@pytest.mark.parametrize("size", [1024, 4096, 65536])
def test_page_size_is_kept_and_transactions_go_on(size: int, tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    write(path, PlainBucket({b"a": PlainBucket({b"%05d" % n: b"value" for n in range(9000)})}), size)
    grow_in_place(path)
    with Database.open(path) as database:
        before = database.reader.transaction
    compact_root(path)
    with Database.open(path) as database:
        assert database.reader.page_size == size
        assert database.reader.transaction == before + 1
        assert check(database.reader) == []


def test_mode_owner_and_attributes_are_kept(root: V2Root) -> None:
    root.records.chmod(0o640)
    os.chown(root.records, 1234, 2345)
    os.setxattr(root.records, "user.origin", b"here")
    compacted(root)
    info = root.records.stat()
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (1234, 2345, 0o640)
    assert os.getxattr(root.records, "user.origin") == b"here"


# --- Free lists


def without_list(path: Path) -> None:
    """As containerd leaves its own database."""
    content = bytearray(path.read_bytes())
    for meta in (0, page_size(path)):
        struct.pack_into("<Q", content, meta + 48, crafted.NO_FREELIST)
    crafted.sign(content, page_size(path))
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "stored"), [("meta.db", False), ("containerdmeta.db", True), ("x.db", True)]
)
def test_only_containerds_own_database_goes_without_a_free_list(
    name: str, stored: bool, root: V2Root, tmp_path: Path, judge: Judge
) -> None:
    path = tmp_path / "alone" / name
    path.parent.mkdir()
    shutil.copy(root.containerd, path)
    without_list(path)
    before = rows(path)
    compact_root(path)
    with Database.open(path) as database:
        assert (database.reader.freelist is not None) == stored
        assert check(database.reader) == []
    assert rows(path) == before
    assert judge.check(path) == []
    assert judge.update(path, 1, 20) == []


def test_containerd_without_free_list_stays_without_in_a_root(tmp_path: Path) -> None:
    root = v2_root("containerd", tmp_path)
    with Database.open(root.containerd) as database:
        had = database.reader.freelist
    if had is not None:
        without_list(root.containerd)
    compacted(root)
    with Database.open(root.containerd) as database:
        assert database.reader.freelist is None


def test_broken_free_list_is_cured(whole: V2Root, judge: Judge) -> None:
    root = whole
    grow(root.records, 5)
    break_free_list(root.records)
    assert "C4" in {finding.rule for finding in check_root(root.root).findings}
    before = rows(root.records)
    (fault,) = {
        text for text in of(compacted(root), root.records).cured if "free list" in text and "use" in text
    }
    assert "page 2" in fault
    assert rows(root.records) == before
    assert judge.check(root.records) == []
    assert check_root(root.root).findings == ()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_damage_is_cured_even_if_nothing_is_saved(share: float, whole: V2Root) -> None:
    root = whole
    compacted(root)
    discard_kept(root.root)
    with Database.open(root.cache) as database:
        other = 1 - database.reader.transaction % 2
    damage(root.cache, other * page_size(root.cache) + 16, b"\xa5" * 64)
    found = compact_root(root.root, min_free=share)
    assert of(found, root.cache).outcome == CompactionOutcome.COMPACTED
    assert check_root(root.root).findings == ()
    assert [file.outcome for file in found.files].count(CompactionOutcome.LEFT) == 4
