"""`ensure_sound`: what a look at the beginning of the files sees, and that `check` sees the same."""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import crafted
import ondisk
import v2_roots
from buildkit_migrate import Doubt, Soundness, check_root, embed, ensure_sound
from buildkit_migrate.workspace.first_look import first_look
from ondisk import OnDisk
from planting import break_free_list, cut, damage, damage_page, page_size
from test_embed import HEAVY
from v2_roots import V2Root


def seen(root: Path) -> set[tuple[str, str]]:
    """Rules and files, relative to the root."""
    return {(doubt.rule, os.path.relpath(doubt.file, root)) for doubt in ensure_sound(root).doubts}


def checked(root: Path) -> set[tuple[str, str]]:
    return {(finding.rule, os.path.relpath(finding.file, root)) for finding in check_root(root).findings}


# --- Healthy roots


@pytest.mark.parametrize("name", v2_roots.NAMES)
def test_healthy_roots_raise_no_doubts(name: str, tmp_path: Path) -> None:
    root = v2_roots.healed(tmp_path) if name == "healed" else v2_roots.v2_root(name, tmp_path)
    before = ondisk.listing(root.root)
    for path in (root.root, root.worker, str(root.root), f"{root.worker}/"):
        assert ensure_sound(path) == Soundness(())
        assert ensure_sound(path).sound
    assert ondisk.listing(root.root) == before


@pytest.mark.parametrize("engine", ["bolt", "lmdb"])
def test_migrated_roots_raise_no_doubts(root: OnDisk, engine: str) -> None:
    """The sample has no solver cache, which a BuildKit would; a program with a store of its own need not."""
    assert root.migrate("--to-engine", engine).returncode == 0
    assert seen(root.root) == ({("C2", "cache.db")} if engine == "bolt" else set())
    assert {one for one in checked(root.root) if one[1] == "cache.db"} == seen(root.root)
    assert ensure_sound(root.worker).doubts == ()


def test_migrated_builder_of_docker_raises_no_doubts(tmp_path: Path) -> None:
    root = ondisk.docker_sample(tmp_path)
    assert seen(root.worker) == {("C7", "metadata.db")}
    assert root.migrate().returncode == 0
    for path in (root.worker, root.worker.parent):
        assert ensure_sound(path).doubts == ()
    root.containerd.unlink()
    cut(root.worker / "snapshots.db", 4096)
    assert {("C2", "containerdmeta.db"), ("C3", "snapshots.db")} <= seen(root.worker)
    assert ensure_sound(root.worker.parent) == ensure_sound(root.worker)


def test_missing_or_new_root_raises_no_doubts(tmp_path: Path) -> None:
    assert ensure_sound(tmp_path / "nowhere").sound
    assert ensure_sound(tmp_path).sound
    (tmp_path / "buildkitd.lock").touch()
    assert ensure_sound(tmp_path).sound


def test_new_daemon_that_has_built_nothing_raises_no_doubts(tmp_path: Path) -> None:
    """It opens the snapshotter's database when it first needs it."""
    root = v2_roots.healed(tmp_path)
    root.snapshots.unlink()
    for entry in root.directories.iterdir():
        entry.rename(tmp_path / entry.name)
    assert ensure_sound(root.root).sound


def test_copy_of_a_worker_is_not_looked_at(tmp_path: Path) -> None:
    root = v2_roots.healed(tmp_path)
    (root.root / "runc-overlayfs.bak").mkdir()
    (root.root / "runc-overlayfs.bak" / "metadata.db").touch()
    assert ensure_sound(root.root).sound


# --- Faults


def signed(path: Path, offset: int, form: str, value: int) -> None:
    """Sets a field of both meta pages, whose checksums are right."""
    size = page_size(path)
    data = bytearray(path.read_bytes())
    for page in (0, size):
        struct.pack_into(form, data, page + offset, value)
    crafted.sign(data, size)
    path.write_bytes(data)


def field(path: Path, offset: int) -> int:
    """A field of the newer meta page."""
    data, size = path.read_bytes(), page_size(path)
    newer = max((0, size), key=lambda at: int.from_bytes(data[at + 64 : at + 72], "little"))
    return int.from_bytes(data[newer + offset : newer + offset + 8], "little")


def list_at(path: Path) -> int:
    return field(path, 48) * page_size(path)


def replaced(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


DAMAGE: Mapping[str, tuple[str, Callable[[Path], object]]] = {
    "first meta page": ("C1", lambda path: damage(path, 16, b"x")),
    "checksum of the second meta page": ("C1", lambda path: damage(path, page_size(path) + 72, b"xxxxxxxx")),
    "first page": ("C1", lambda path: damage_page(path, 0)),
    "both meta pages": ("C1", lambda path: damage(path, 0, bytes(2 * page_size(path)))),
    "number of a meta page": ("C1", lambda path: damage(path, 0, b"\7")),
    "type of a meta page": ("C1", lambda path: damage(path, page_size(path) + 8, b"\2")),
    "version": ("C1", lambda path: signed(path, 20, "<I", 3)),
    "root is a meta page": ("C1", lambda path: signed(path, 32, "<Q", 1)),
    "root beyond the end": ("C1", lambda path: signed(path, 32, "<Q", 1 << 40)),
    "free list beyond the end": ("C1", lambda path: signed(path, 48, "<Q", 1 << 40)),
    "root page": ("C1", lambda path: damage_page(path, field(path, 32))),
    "free list": ("C1", lambda path: damage_page(path, field(path, 48))),
    "count of the free list": ("C1", lambda path: damage(path, list_at(path) + 10, b"\xf0\xf0")),
    "length": ("C3", lambda path: cut(path, field(path, 56) * page_size(path) - 1)),
    "begins like one": ("C3", lambda path: cut(path, 100)),
    "text": ("C1", lambda path: path.write_bytes(b"text" * 100)),
    "a long text": ("C1", lambda path: path.write_bytes(b"text" * 10_000)),
    "FIFO": ("C1", lambda path: replaced(path, os.mkfifo)),
    "directory": ("C1", lambda path: replaced(path, Path.mkdir)),
    "0 bytes": ("C2", lambda path: cut(path, 0)),
}  # fmt: skip
STORES = ("records", "containerd", "snapshots", "cache", "history")


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> V2Root:
    return v2_roots.healed(tmp_path_factory.mktemp("healthy"))


@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.parametrize("store", STORES)
def test_damage_is_seen_as_check_sees_it(name: str, store: str, healthy: V2Root) -> None:
    rule, plant = DAMAGE[name]
    path: Path = getattr(healthy, store)
    content, mode = path.read_bytes(), path.stat().st_mode
    try:
        plant(path)
        expected = (rule, str(path.relative_to(healthy.root)))
        assert seen(healthy.root) == {expected}
        if name not in ("FIFO", "directory"):
            assert expected in checked(healthy.root)
    finally:
        path.rmdir() if path.is_dir() else path.unlink()
        path.write_bytes(content)
        path.chmod(mode)
    assert ensure_sound(healthy.root).sound


@pytest.mark.parametrize("store", STORES[:-1])
def test_missing_store_is_seen_as_check_sees_it(store: str, healthy: V2Root) -> None:
    path: Path = getattr(healthy, store)
    aside = healthy.root.parent / "aside"
    path.rename(aside)
    try:
        expected = ("C2", str(path.relative_to(healthy.root)))
        assert seen(healthy.root) == {expected}
        assert expected in checked(healthy.root)
    finally:
        aside.rename(path)


def test_worker_without_its_snapshots_raises_a_doubt(tmp_path: Path) -> None:
    root = v2_roots.healed(tmp_path)
    root.snapshots.parent.rename(tmp_path / "aside")
    assert seen(root.root) == {("C2", "runc-overlayfs/snapshots/metadata.db")}


def test_store_of_v1_that_was_not_migrated_raises_a_doubt(root: OnDisk) -> None:
    (doubt,) = [doubt for doubt in ensure_sound(root.root).doubts if doubt.rule == "C7"]
    assert doubt == Doubt("C7", str(root.v1), doubt.what, "migrate_root")
    assert ("C7", str(root.v1.relative_to(root.root))) in checked(root.root)


def test_broken_free_list_is_left_to_a_check(tmp_path: Path) -> None:
    """All pages would have to be read."""
    root = v2_roots.healed(tmp_path)
    break_free_list(root.records)
    assert ensure_sound(root.root).sound


def test_several_doubts_are_all_told(tmp_path: Path) -> None:
    root = v2_roots.healed(tmp_path)
    cut(root.records, 5000)
    root.cache.unlink()
    damage_page(root.history, 0)
    assert seen(root.root) == {
        ("C3", "runc-overlayfs/metadata_v2.db"),
        ("C2", "cache.db"),
        ("C1", "history.db"),
    }


@pytest.mark.parametrize("name", ["link", "file"])
def test_root_that_can_not_be_listed_raises_a_doubt(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "link":
        path.symlink_to("not-mounted")
    else:
        path.touch()
    (doubt,) = ensure_sound(path).doubts
    assert doubt.file == str(path)


def test_empty_root_is_refused() -> None:
    with pytest.raises(ValueError, match="variable"):
        ensure_sound("")


@pytest.mark.parametrize(("free", "grown"), [(255, False), (256, True)])
def test_file_that_has_grown_raises_a_doubt(free: int, grown: bool, tmp_path: Path) -> None:
    """Pages of 1 MiB, so that a few of them are much."""
    size, end = 1 << 20, 1100
    head = crafted.file({2: crafted.leaf(2, [])}, page_size=size)
    data = bytearray(head)
    for meta in (0, size):
        struct.pack_into("<QQ", data, meta + 48, 3, end)
    crafted.sign(data, size)
    path = tmp_path / "db"
    path.write_bytes(data + crafted.freelist(3, range(4, 4 + free)))
    os.truncate(path, end * size)
    assert first_look(str(path))[2] == []  # less than a quarter
    for meta in (0, size):
        struct.pack_into("<Q", data, meta + 56, 4 + free)
    crafted.sign(data, size)
    path.write_bytes(data + crafted.freelist(3, range(4, 4 + free)))
    os.truncate(path, end * size)
    assert [rule for rule, _ in first_look(str(path))[2]] == ["C5"] * grown
    assert embed._CALLS["C5"] == "compact_root"


# --- Cost


def test_a_look_imports_and_reads_next_to_nothing(tmp_path: Path) -> None:
    root = v2_roots.healed(tmp_path)
    script = (
        "import json, sys\n"
        "before = set(sys.modules)\n"
        "import buildkit_migrate\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, args: opened.append(args[0]) if event == 'open' else None)\n"
        f"assert buildkit_migrate.ensure_sound({str(root.root)!r}).sound\n"
        "print(json.dumps([sorted(set(sys.modules) - before), [str(name) for name in opened]]))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    modules, opened = json.loads(done.stdout)
    assert all(importlib.util.find_spec(name) for name in HEAVY)
    assert not set(HEAVY) & set(modules)
    assert not any(
        name.startswith(("buildkit_migrate._native", "buildkit_migrate.maintenance")) for name in modules
    )
    tried = {str(root.root / "cache-debug.db"), str(root.root / "history_c8d.db")}
    assert {name for name in opened if str(root.root) in name} == {
        str(path) for path in root.databases
    } | tried
