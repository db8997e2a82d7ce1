"""``repair --salvage FILE --output NEW``: what it prints, and what a fault at any call leaves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import faulty
import v2_roots
from fault_points import check_status, points
from judge import Judge
from ondisk import run
from plain_traversal import Traversal
from planting import cut, damage_page
from salvaged import tree
from trees import PlainBucket, read, rows, rows_of, write

pytestmark = pytest.mark.slow

MANY = PlainBucket({b"%04d" % number: b"v" * 90 for number in range(200)}, sequence=3)
TREE = PlainBucket({b"_main": MANY, b"odd\xff": MANY})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "db", TREE)
    return tmp_path / "db"


def salvage(path: Path, *arguments: str, new: str = "new") -> subprocess.CompletedProcess[str]:
    return run("repair", "--salvage", str(path), "--output", str(path.with_name(new)), *arguments)


def test_whole_file_gives_0(path: Path) -> None:
    result = salvage(path)
    assert result.returncode == 0, result.stderr
    new = path.with_name("new")
    assert result.stdout.splitlines() == [
        f"{path}: 2 buckets and 400 keys are in {new} ({new.stat().st_size:,} bytes)",
        "nothing was lost",
    ]
    assert list(rows_of(read(new).root)) == list(rows(TREE))


def test_losses_give_15_and_are_named(path: Path) -> None:
    damage_page(path, 2)
    result = salvage(path)
    assert result.returncode == 15
    kept = len([row for row in rows_of(read(path.with_name("new")).root) if row[1] is not None])
    assert f"2 buckets and {kept} keys are in" in result.stdout
    assert "lost:\n  _main: keys from 0000 up to 00" in result.stdout
    assert "page header names another page (page 2)" in result.stdout
    assert "1 pages are neither in use nor free" in result.stdout


def test_losses_in_json(path: Path) -> None:
    damage_page(path, 2)
    found = json.loads(salvage(path, "--format", "json").stdout)
    (lost,) = found["lost"]
    assert (lost["bucket"], lost["page"], lost["from"]) == (["_main"], 2, "0000")
    assert (found["lost_count"], found["buckets"], found["error"]) == (1, 2, None)


def test_long_lists_are_complete_with_v(tmp_path: Path) -> None:
    """Each page is lost that holds one bucket."""
    path = tmp_path / "db"
    write(path, PlainBucket({b"%02d" % number: PlainBucket({b"k": b"v" * 2000}) for number in range(30)}))
    for page in range(2, 32):
        damage_page(path, page)
    brief, full = salvage(path), salvage(path, "-v", new="other")
    assert "... and 10 more (-v shows all)" in brief.stdout
    assert all(f"  {number:02}: all keys: " in full.stdout for number in range(30))
    assert brief.returncode == full.returncode == 15


def test_damaged_meta_page_is_noted(path: Path) -> None:
    damage_page(path, 0)
    result = salvage(path)
    assert result.returncode == 0
    assert "note: one of the two meta pages is invalid" in result.stdout


def test_lost_root_page_gives_5_and_no_file(path: Path) -> None:
    cut(path, 5 * 4096)
    result = salvage(path)
    assert result.returncode == 5
    assert "truncated" in result.stderr
    assert "no file was written" in result.stderr
    assert not path.with_name("new").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--salvage", "db"),
        ("--output", "new"),
        ("--salvage", "db", "--output", ""),
        ("--salvage", "db", "--output", "new", "--drop"),
        ("--salvage", "db", "--output", "new", "--dry-run"),
        ("--salvage", "db", "--output", "new", "/var/lib/buildkit"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments: tuple[str, ...]) -> None:
    assert run("repair", *arguments).returncode == 2


@pytest.mark.parametrize("store", ["records", "containerd", "snapshots", "cache", "history"])
def test_salvaged_store_takes_the_place_of_the_damaged_one(store: str, tmp_path: Path) -> None:
    """Of a real root: what is left passes the rules about files, whatever the others find missing."""
    root = v2_roots.healed(tmp_path)
    path: Path = getattr(root, store)
    damage_page(path, next(page for page in _leaves(path) if page != _root_page(path)))
    assert run("check", str(root.root), "--rules", "C1-C4").returncode == 5
    result = salvage(path, new="salvaged")
    assert result.returncode == 15, result.stderr
    path.with_name("salvaged").rename(path)
    assert run("check", str(root.root), "--rules", "C1-C4").returncode == 0


def _leaves(path: Path) -> list[int]:
    """Pages that the tree of this database uses."""
    data = path.read_bytes()
    return sorted(Traversal(data, 4096, _root_page(path)).visited)


def _root_page(path: Path) -> int:
    data = path.read_bytes()
    newer = max((0, 4096), key=lambda at: int.from_bytes(data[at + 64 : at + 72], "little"))
    return int.from_bytes(data[newer + 32 : newer + 40], "little")


@pytest.mark.real
def test_go_accepts_the_new_file(path: Path, judge: Judge) -> None:
    damage_page(path, 2)
    salvage(path)
    new = path.with_name("new")
    assert judge.check(new) == []
    assert judge.dump(new) == list(rows_of(read(new).root))
    assert judge.update(new, 1, 50) == []


# --- Faults


def with_fault(index: int, fault: str, path: Path) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, faulty.__file__, str(index), fault]
    command = ["repair", "--salvage", str(path), "--output", str(path.with_name("new")), "--format", "json"]
    return subprocess.run([*program, *command], capture_output=True, text=True, timeout=120, check=False)


def test_fault_at_any_call_leaves_a_whole_file_or_none(path: Path) -> None:
    damage_page(path, 2)
    before, new = path.read_bytes(), path.with_name("new")
    names = tuple(with_fault(-1, "none", path).stderr.split())
    whole = tree(new.read_bytes())
    assert {"open", "write", "fsync", "link", "mmap", "flock"} <= set(names)
    for index, fault in points(names):
        new.unlink(missing_ok=True)
        result = with_fault(index, fault, path)
        where = f"{index} {names[index]} {fault}: {result.stderr}"
        if result.returncode != 15:  # a failing unlock at the end does no harm
            check_status(result, fault, names[index])
        assert path.read_bytes() == before, where
        if new.exists():
            assert tree(new.read_bytes()) == whole, where
        if fault != "kill" and names[index] != "unlink":
            assert {entry.name for entry in path.parent.iterdir()} <= {"db", "new"}, where
        new.unlink(missing_ok=True)
        assert salvage(path).returncode == 15, where
        assert tree(new.read_bytes()) == whole, where
        assert not path.with_name("new.tmp").exists(), where


def test_short_writes_are_continued(path: Path) -> None:
    assert with_fault(-1, "short", path).returncode == 0
    assert list(rows_of(read(path.with_name("new")).root)) == list(rows(TREE))
