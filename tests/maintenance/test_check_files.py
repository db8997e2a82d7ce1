"""Rules about files: pages, lengths, free lists, what is missing (C1 to C5, C7)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from buildkit_migrate import check_root
from buildkit_migrate.bolt import Builder, Database
from checking import check, found
from ondisk import sample
from planting import cut, damage, damage_page, edit, page_size
from v2_roots import NAMES, V2Root, healed, v2_root

pytestmark = pytest.mark.slow

RECORDS, CONTAINERD, SNAPSHOTS, CACHE, HISTORY = STORES = (
    "records",
    "containerd",
    "snapshots",
    "cache",
    "history",
)


@pytest.fixture
def root(tmp_path: Path) -> V2Root:
    return healed(tmp_path)


def path_of(root: V2Root, store: str) -> Path:
    path: Path = getattr(root, store)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_found_in_a_healthy_root(name: str, tmp_path: Path) -> None:
    checked = check(v2_root(name, tmp_path))
    assert checked.findings == ()
    assert checked.exit_code == 0
    assert checked.not_tested == ()


# --- C1


@pytest.mark.parametrize(
    ("store", "severity"), [(RECORDS, "S"), (CONTAINERD, "S"), (SNAPSHOTS, "P"), (CACHE, "H"), (HISTORY, "H")]
)
def test_garbage_in_both_meta_pages(root: V2Root, store: str, severity: str) -> None:
    path = path_of(root, store)
    damage(path, 0, b"\xa5" * 2 * page_size(path))
    assert found(root) == [("C1", severity, path.name, "")]
    assert check(root).exit_code == 5


@pytest.mark.parametrize(
    ("store", "severity"), [(RECORDS, "S"), (CONTAINERD, "S"), (SNAPSHOTS, "P"), (CACHE, "S"), (HISTORY, "S")]
)
def test_garbage_in_any_page_of_a_tree(root: V2Root, store: str, severity: str) -> None:
    path = path_of(root, store)
    whole = path.read_bytes()
    for page in sampled(tree_pages(path)):
        damage_page(path, page)
        assert found(root) == [("C1", severity, path.name, "")], page
        assert check(root).exit_code == 5
        path.write_bytes(whole)
    assert found(root) == []


def tree_pages(path: Path) -> list[int]:
    """By the flags of the pages, without those that the free list names."""
    size = page_size(path)
    data = path.read_bytes()
    with Database.open(path) as database:
        freelist, end = database.reader.freelist, database.reader.high_water
    assert freelist is not None
    start = freelist * size
    count = int.from_bytes(data[start + 10 : start + 12], "little")
    free = {
        int.from_bytes(data[at : at + 8], "little") for at in range(start + 16, start + 16 + 8 * count, 8)
    }
    pages = []
    page = 2
    while page < end:
        flags = int.from_bytes(data[page * size + 8 : page * size + 10], "little")
        if page not in free and flags in (1, 2):
            pages.append(page)
            page += int.from_bytes(data[page * size + 12 : page * size + 16], "little")
        page += 1
    return pages


def sampled(pages: list[int]) -> list[int]:
    return pages[:: max(1, len(pages) // 6)]


def test_what_needs_a_damaged_store_is_not_tested_and_that_is_said(root: V2Root) -> None:
    damage(root.records, 0, b"\xa5" * 2 * page_size(root.records))
    checked = check(root)
    untested = {rule for one in checked.not_tested for rule in one.rules}
    assert all(str(root.records) in one.reason for one in checked.not_tested)
    assert not untested & {"C1", "C2", "C3", "C4", "C5", "C7"}
    assert not untested & {finding.rule for finding in checked.findings}


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("meta", [0, 1])
def test_one_meta_page_is_enough(root: V2Root, store: str, meta: int) -> None:
    path = path_of(root, store)
    with Database.open(path) as database:
        newest = database.reader.transaction % 2
    damage(path, meta * page_size(path) + 16, b"\xa5" * 64)
    findings = found(root)
    assert findings[0] == ("C1", "H", path.name, "")
    assert check(root).exit_code == 15
    # Without the newest a store is behind the others.
    assert len(findings) == 1 or meta == newest


@pytest.mark.parametrize("store", STORES)
def test_a_free_list_that_is_none(root: V2Root, store: str) -> None:
    path = path_of(root, store)
    with Database.open(path) as database:
        freelist = database.reader.freelist
    assert freelist is not None
    damage(path, freelist * page_size(path) + 8, b"\x02\x00")
    # Go looks at it while it opens the file, when daemons still move these two aside.
    severity = {SNAPSHOTS: "P", CACHE: "H", HISTORY: "H"}.get(store, "S")
    assert found(root) == [("C1", severity, path.name, "")]
    (finding,) = check(root).findings
    assert finding.repair is not None
    assert "compact" in finding.repair
    assert check(root).exit_code == 5


def test_a_directory_in_the_place_of_a_store(root: V2Root) -> None:
    root.records.unlink()
    root.records.mkdir()
    assert found(root) == [("C1", "S", "metadata_v2.db", "")]


# --- C3


@pytest.mark.parametrize(
    ("store", "severity"), [(RECORDS, "S"), (CONTAINERD, "S"), (SNAPSHOTS, "S"), (CACHE, "H"), (HISTORY, "H")]
)
def test_a_file_that_was_cut_short(root: V2Root, store: str, severity: str) -> None:
    path = path_of(root, store)
    whole = path.read_bytes()
    with Database.open(path) as database:
        end = database.reader.high_water * page_size(path)
    for size in (end - 1, end - page_size(path), end // 2, page_size(path), 1000, 100):
        cut(path, size)
        assert found(root) == [("C3", severity, path.name, "")], size
        assert check(root).exit_code == 5
        path.write_bytes(whole)


def test_a_small_file_that_never_was_a_database(root: V2Root) -> None:
    root.cache.write_bytes(b"hello, this is not a database")
    assert found(root) == [("C1", "H", "cache.db", "")]


# --- C4


@pytest.mark.parametrize("store", STORES)
def test_a_page_in_use_in_the_free_list(root: V2Root, store: str) -> None:
    path = path_of(root, store)
    plant_in_free_list(path, tree_pages(path)[-1])
    assert found(root) == [("C4", "S", path.name, "")]
    checked = check(root)
    assert checked.exit_code == 5
    assert checked.not_tested == ()  # the trees are whole


def test_a_page_in_use_in_the_place_of_a_free_one_is_one_fault(root: V2Root) -> None:
    path = root.records
    with Database.open(path) as database:
        freelist = database.reader.freelist
    assert freelist is not None
    damage(path, freelist * page_size(path) + 16, tree_pages(path)[0].to_bytes(8, "little"))
    assert found(root) == [("C4", "S", path.name, "")]


def plant_in_free_list(path: Path, page: int) -> None:
    """Adds a page to the free list, in its place in the order."""
    size = page_size(path)
    data = path.read_bytes()
    with Database.open(path) as database:
        freelist = database.reader.freelist
    assert freelist is not None
    start = freelist * size
    count = int.from_bytes(data[start + 10 : start + 12], "little")
    ids = [int.from_bytes(data[at : at + 8], "little") for at in range(start + 16, start + 16 + 8 * count, 8)]
    assert len(ids) + 1 < (size - 16) // 8
    listed = b"".join(id.to_bytes(8, "little") for id in sorted([*ids, page]))
    damage(path, start + 10, (count + 1).to_bytes(2, "little"))
    damage(path, start + 16, listed)


def test_a_page_that_is_neither_in_use_nor_free_is_leaked(root: V2Root) -> None:
    size = page_size(root.history)
    with Database.open(root.history) as database:
        freelist = database.reader.freelist
    assert freelist is not None
    count = int.from_bytes(root.history.read_bytes()[freelist * size + 10 : freelist * size + 12], "little")
    assert count > 1
    damage(root.history, freelist * size + 10, (count - 1).to_bytes(2, "little"))
    assert found(root) == [("C1", "L", "history.db", "")]
    checked = check(root)
    assert checked.findings[0].bytes == size
    assert checked.exit_code == 15


# --- C5


def test_a_file_of_mostly_free_pages(root: V2Root) -> None:
    grow(root.cache, 257 << 20)
    assert found(root) == [("C5", "L", "cache.db", "")]
    size = check(root).findings[0].bytes
    assert size is not None
    assert 256 << 20 <= size <= 258 << 20


def test_free_pages_of_less_than_256_mib_are_sound(root: V2Root) -> None:
    grow(root.cache, 250 << 20)
    assert found(root) == []


def grow(path: Path, free: int) -> None:
    """Adds free pages at the end: a file that has no stored list derives it."""
    size = page_size(path)
    with Database.open(path) as database:
        reader = database.reader
        pages, newest = reader.high_water + free // size, reader.transaction % 2
    os.truncate(path, pages * size)
    data = bytearray(path.read_bytes()[newest * size : newest * size + 80])
    data[48:56] = b"\xff" * 8
    data[56:64] = pages.to_bytes(8, "little")
    data[72:80] = fnv(bytes(data[16:72])).to_bytes(8, "little")
    damage(path, newest * size, bytes(data))


def fnv(data: bytes) -> int:
    hash = 0xCBF29CE484222325
    for byte in data:
        hash = (hash ^ byte) * 0x100000001B3 % 2**64
    return hash


# --- C2


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("lose", [remove, empty])
@pytest.mark.parametrize("store", STORES)
def test_a_store_missing_or_empty_beside_others(
    root: V2Root, store: str, lose: Callable[[Path], None]
) -> None:
    path = path_of(root, store)
    lose(path)
    assert found(root) == [("C2", "L", path.name, "")]
    assert check(root).exit_code == 15


@pytest.mark.parametrize("store", [CONTAINERD, SNAPSHOTS])
def test_a_store_that_was_made_anew(root: V2Root, store: str) -> None:
    path = path_of(root, store)
    path.write_bytes(new_database())
    assert found(root) == [("C2", "L", path.name, "")]


def new_database() -> bytes:
    pages = bytearray()
    metas = Builder(pages.extend, 4096).finish()
    return bytes(metas + pages[len(metas) :])


def test_a_root_that_was_never_used_is_sound(tmp_path: Path) -> None:
    worker = tmp_path / "root" / "runc-overlayfs"
    worker.mkdir(parents=True)
    snapshots = worker / "snapshots" / "metadata.db"
    fresh = V2Root(tmp_path / "root", "fresh", worker, worker / "containerdmeta.db", snapshots, "overlayfs")
    assert found(fresh) == []


def test_history_is_missed_only_where_there_were_builds(root: V2Root) -> None:
    root.history.unlink()
    edit(root.containerd, {b"v1": {b"buildkit_history": None}})
    assert {it[0] for it in found(root)} == {"C46"}  # their blobs


def test_a_lone_worker_directory_has_no_solver_cache(root: V2Root, tmp_path: Path) -> None:
    alone = tmp_path / "elsewhere" / root.worker.name
    alone.parent.mkdir()
    root.worker.rename(alone)
    moved = V2Root(
        alone, "alone", alone, alone / "containerdmeta.db", alone / "snapshots/metadata.db", "overlayfs"
    )
    assert [it for it in found(moved) if it[2] == "cache.db"] == []


# --- C7


def test_a_v2_store_under_the_name_of_a_v1_store(root: V2Root) -> None:
    root.records.rename(root.worker / "metadata.db")
    assert found(root) == [("C7", "S", "metadata.db", "")]
    (finding,) = check(root).findings
    assert "v2 store" in finding.message


def test_a_v1_store_beside_a_v2_store_is_sound(root: V2Root) -> None:
    (root.worker / "metadata.db").write_bytes(root.records.read_bytes())
    assert found(root) == []


def test_a_v1_root_asks_for_a_migration(tmp_path: Path) -> None:
    v1 = sample(tmp_path)
    checked = check_root(v1.root)
    assert next((it.rule, it.severity, it.file) for it in checked.findings) == ("C7", "S", v1.v1)
    v1.migrate_here()
    assert "C7" not in check_root(v1.root).counts
