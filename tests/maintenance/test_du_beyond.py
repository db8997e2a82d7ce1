"""What `du` says beyond what a daemon shows: where data is, what keeps it, what all the bytes are for."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import planting
import v2_roots
from buildkit_migrate import open_usage
from buildkit_migrate.maintenance.grouping import group
from buildkit_migrate.maintenance.state_bytes import Share
from ondisk import run
from v2_roots import V2Root

pytestmark = pytest.mark.slow

DAY = 86_400_000_000_000


def document(root: V2Root, *arguments: str) -> dict[str, Any]:
    done = run("du", "--format", "json", *root.options, *arguments, str(root.root))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def shares(root: V2Root, *arguments: str) -> dict[str, int]:
    disk = document(root, "--disk", *arguments)["disk"]
    counted = int(
        subprocess.run(["du", "-s", "-B1", root.root], check=True, capture_output=True).stdout.split()[0]
    )
    assert disk["total"] == sum(one["bytes"] for one in disk["shares"]) == counted
    assert disk["unread"] == []
    return {one["name"]: one["bytes"] for one in disk["shares"]}


@pytest.mark.parametrize("spelling", ["relative", "link", "worker"])
def test_the_root_may_be_spelled_in_any_way(
    spelling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = v2_roots.healed(tmp_path)
    place = root.worker if spelling == "worker" else root.root
    expected = document_at(place)
    monkeypatch.chdir(place)
    (tmp_path / "link").symlink_to(place)
    given = {"relative": Path(), "link": tmp_path / "link", "worker": place}[spelling]
    found = document_at(given)
    assert found["shares"] == expected["shares"]
    assert {one["name"]: one["bytes"] for one in found["shares"]}["snapshots"] > 10**6


def document_at(path: Path) -> dict[str, Any]:
    done = run("du", "--format", "json", "--disk", str(path))
    assert done.returncode == 0, done.stderr
    disk = json.loads(done.stdout)["disk"]
    assert isinstance(disk, dict)
    return disk


def blocks(path: Path) -> int:
    """Of a file or directory alone."""
    return path.lstat().st_blocks * 512


@pytest.mark.parametrize("name", v2_roots.NAMES)
def test_the_table_adds_up_to_what_du_says(name: str, tmp_path: Path) -> None:
    root = v2_roots.v2_root(name, tmp_path)
    found = shares(root)
    assert [found[share.name.lower()] for share in (Share.LEAKED, Share.ORPHANS, Share.UNKNOWN)] == [0, 0, 0]
    databases = [path for path in root.databases if path.is_relative_to(root.root)]
    assert found["live"] + found["free"] == sum(map(blocks, databases))
    assert found["free"] > 0


def test_bytes_that_no_record_has_are_told_apart(tmp_path: Path) -> None:
    root = v2_roots.healed(tmp_path)
    before = shares(root)
    strange = root.directories / "7777"
    strange.mkdir()
    (strange / "big").write_bytes(b"x" * 100_000)
    os.link(strange / "big", strange / "again")
    (root.root / "cache.db.0123456789abcdefghijklmno.bak").write_bytes(b"x" * 50_000)
    other = root.root / "runc-native.bak2"
    other.mkdir()
    (other / "metadata_v2.db").write_bytes(b"x" * 30_000)
    blob = root.worker / "content" / "blobs" / "sha256" / ("0" * 64)
    blob.write_bytes(b"x" * 20_000)
    kept = [
        root.root / "cache.db.before-compact",
        root.worker / "metadata_v2.db.before-repair.2",
        root.worker / "snapshots" / "metadata.db.before-v2",
        root.worker / "executor.before-repair" / "of a container",
    ]
    kept[-1].parent.mkdir()
    for path in kept:
        path.write_bytes(b"x" * 10_000)
    (strange / "file.before-repair").write_bytes(b"x" * 5_000)
    found = shares(root)
    grown = {name: size - before[name] for name, size in found.items() if size != before[name]}
    assert grown == {
        "orphans": blocks(strange)
        + blocks(strange / "big")
        + blocks(blob)
        + blocks(strange / "file.before-repair"),
        "kept": sum(map(blocks, (*kept, kept[-1].parent))),
        "backups": blocks(root.root / "cache.db.0123456789abcdefghijklmno.bak"),
        "other_workers": blocks(other) + blocks(other / "metadata_v2.db"),
    }


def test_what_only_a_lease_without_record_holds_is_leaked(tmp_path: Path) -> None:
    root = v2_roots.healed(tmp_path)
    before = shares(root)
    mount = next(one for one in document(root)["records"] if one["recordType"] == "exec.cachemount")
    with root.open() as stores:
        from buildkit_migrate.maintenance.facts import Facts

        loading = Facts(stores).workers[0].loading
        assert loading is not None
        row = loading.records.index.row(mount["id"].encode())
        partner = loading.records.ids[loading.pair[row]]
        assert partner is not None
    planting.edit(root.records, {b"_main": {mount["id"].encode(): None, partner: None}})
    found = shares(root)
    assert found["leaked"] > 0
    assert found["snapshots"] == before["snapshots"] - found["leaked"]


def test_a_record_tells_where_its_data_is_and_what_keeps_it(tmp_path: Path) -> None:
    root = v2_roots.healed(tmp_path)
    records = {one["id"]: one for one in document(root, "--details")["records"]}
    parents = {parent for one in records.values() for parent in one["parents"] or ()}
    for id, one in records.items():
        assert any("child" in reason for reason in one["keptBy"]) == (id in parents)
        assert one["leases"][:1] == [id] or one["leases"] == []
        assert (one["path"] is None) == (one["snapshot"] is None)
        if one["path"] is not None:
            assert Path(one["path"]) == root.directories / str(one["snapshot"]) / "fs"
            assert Path(one["path"]).is_dir()
        assert one["dropped"] is None
    assert sum(one["blob"] is not None for one in records.values()) > 20


def test_a_record_tells_why_it_is_dropped(tmp_path: Path) -> None:
    root = v2_roots.v2_root("rich", tmp_path)
    dropped = {one["id"]: one["dropped"] for one in document(root, "--details")["records"] if one["dropped"]}
    lazy = "is lazy: neither its blob nor its snapshot is here"
    assert dropped == {
        "n7q94o1av6fh3hkv149sec2vh": lazy,
        "p1llv042yt9aldpixczmkl06p": f"n7q94o1av6fh3hkv149sec2vh {lazy}",
    }


def test_the_largest_are_the_last_of_the_list(tmp_path: Path) -> None:
    root = v2_roots.healed(tmp_path)
    every, largest = document(root), document(root, "--top", "5")
    assert largest["records"] == every["records"][-5:]
    assert largest["totals"] == every["totals"]
    assert document(root, "--top", "1000")["records"] == every["records"]


def test_a_tree_has_each_record_once_below_its_first_parent(tmp_path: Path) -> None:
    root = v2_roots.healed(tmp_path)
    done = run("du", "--tree", str(root.root))
    lines = done.stdout.splitlines()
    records = document(root)["records"]
    path: list[str] = []
    found: dict[str, str | None] = {}
    for line in lines:
        text = line.lstrip("│├└─ ")
        depth = (len(line) - len(text)) // 4
        id = text.split()[0].rstrip("*")
        path[depth:] = [id]
        found[id] = path[depth - 1] if depth else None
    assert len(lines) == len(found)
    assert found == {one["id"]: (one["parents"] or [None])[0] for one in records}


@pytest.mark.parametrize("by", ["type", "image", "age"])
def test_groups_add_up(by: str, tmp_path: Path) -> None:
    root = v2_roots.healed(tmp_path)
    found = document(root, "--by", by)
    assert sum(one["records"] for one in found["groups"]) == len(found["records"])
    assert sum(one["bytes"] for one in found["groups"]) == found["totals"]["total"]
    if by == "type":
        assert {one["name"] for one in found["groups"]} == {one["recordType"] for one in found["records"]}
    if by == "image":
        assert any(one["name"].startswith("127.0.0.1:5077/tiny:latest") for one in found["groups"])


def test_ages_are_those_of_the_last_use(tmp_path: Path) -> None:
    root = v2_roots.healed(tmp_path)
    with open_usage(root.root) as usage:
        last = max(record.last_used_at or 0 for _, record in usage)
        names = [
            {one.name for one in group(usage, "age", last + age)}
            for age in (0, 2 * DAY, 10 * DAY, 60 * DAY, 200 * DAY, 500 * DAY)
        ]
    never = {"never used"}
    assert [found - never for found in names] == [
        {"used in the last day"},
        {"in the last 7 days"},
        {"in the last 30 days"},
        {"in the last 90 days"},
        {"in the last 365 days"},
        {"before that"},
    ]
    assert all(never <= found for found in names)


def test_a_state_directory_with_damage_is_counted_all_the_same(tmp_path: Path) -> None:
    root = v2_roots.healed(tmp_path)
    planting.damage(root.containerd, 0, b"\xa5" * 2 * planting.page_size(root.containerd))
    done = run("du", "--format", "json", "--disk", str(root.root))
    assert done.returncode == 5
    disk = json.loads(done.stdout)["disk"]
    counted = subprocess.run(["du", "-s", "-B1", root.root], check=True, capture_output=True).stdout
    assert disk["total"] == int(counted.split()[0])
    assert {one["name"]: one["bytes"] for one in disk["shares"]}["unknown"] > 0
    (damaged,) = [one for one in disk["databases"] if one["free"] is None]
    assert damaged["path"] == str(root.containerd)


def test_the_page_has_all_rows_of_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "du.md").read_text()
    assert {share.name.lower() for share in Share if f"`{share.name.lower()}`" not in page} == set()
