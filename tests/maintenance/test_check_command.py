"""The command ``check``: forms of output, exit statuses, one file, what is not tested, stores in use."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from faults import Healthy
from record_faults import Planter, value

from buildkit_migrate import check_root
from buildkit_migrate.errors import BusyError
from buildkit_migrate.files.locks import lock
from ondisk import run
from planting import cut, damage, page_size
from v2_roots import V2Root, healed, v2_root

pytestmark = pytest.mark.slow


@pytest.fixture
def plant(tmp_path: Path) -> Planter:
    return Planter(tmp_path)


def documents(*arguments: str, status: int) -> dict[str, Any]:
    result = run("check", "--format", "json", *arguments)
    assert result.returncode == status, result.stderr
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def as_files(root: V2Root) -> dict[Path, tuple[int, bytes]]:
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(root.root.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def test_ok(tmp_path: Path) -> None:
    root = healed(tmp_path)
    before = as_files(root)
    result = run("check", str(root.root))
    assert (result.returncode, result.stderr) == (0, "")
    (line,) = result.stdout.splitlines()
    assert line.startswith(f"{root.root}: OK (")
    assert as_files(root) == before


def test_text_of_findings(plant: Planter) -> None:
    id = plant.tops[0].decode()
    plant.put(plant.tops[0], b"cache.parent", value("nobody"))
    result = run("check", str(plant.root.root))
    assert (result.returncode, result.stderr) == (15, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "C10: A parent is missing (1)"
    store = f"{plant.root.worker.name}/metadata_v2.db"
    assert f"    H {store}: {id}: cache.parent names nobody, which does not exist" in lines
    assert lines[-1] == f"{plant.root.root}: 1 finding (H 1)"


def test_json_of_findings(plant: Planter) -> None:
    plant.put(plant.tops[0], b"cache.parent", value("nobody"))
    plant.put(plant.tops[1], b"cache.description", b"{")
    document = documents(str(plant.root.root), status=15)
    assert document["error"] is None
    assert (document["worst"], document["counts"]) == ("S", {"C8": 1, "C10": 1})
    first, second = document["findings"]
    assert first["rule"] == "C8"
    assert second == {
        "rule": "C10",
        "severity": "H",
        "file": str(plant.root.records),
        "subject": plant.tops[0].decode(),
        "message": "cache.parent names nobody, which does not exist",
        "bytes": None,
        "meaning": second["meaning"],
        "repair": second["repair"],
    }
    assert second["meaning"] and second["repair"]


def test_rules_and_severities_are_chosen(plant: Planter) -> None:
    root = str(plant.root.root)
    plant.put(plant.tops[0], b"cache.parent", value("nobody"))
    plant.put(plant.tops[1], b"cache.description", b"{")
    assert documents(root, "--rules", "c10,C12-C13", status=15)["counts"] == {"C10": 1}
    assert documents(root, "--severity", "s,p", status=15)["counts"] == {"C8": 1}
    assert documents(root, "--severity", "P", status=0)["findings"] == []
    assert documents(root, "--rules", "C11", status=0)["tested"] == ["C11"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--rules", "C0"),
        ("--rules", "C64"),
        ("--rules", "8"),
        ("--rules", "C9-C8"),
        ("--rules", ""),
        ("--severity", "X"),
    ],
)
def test_there_is_no_such_rule(arguments: tuple[str, str]) -> None:
    result = run("check", *arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_explain() -> None:
    result = run("check", "--explain", "C23")
    assert (result.returncode, result.stderr) == (0, "")
    heading, *sentences = result.stdout.splitlines()
    assert heading == "C23 (B): The snapshot of a layer is gone"
    assert len(sentences) == 5


# --- Damaged, busy and unreadable never look alike


def test_a_damaged_store_has_a_status_of_its_own(plant: Planter) -> None:
    damage(plant.root.cache, 0, b"\0" * 2 * page_size(plant.root.cache))
    document = documents(str(plant.root.root), status=5)
    assert document["unsound"] == [str(plant.root.cache)]
    assert document["error"] is None
    assert {"C51", "C52"} <= {rule for one in document["not_tested"] for rule in one["rules"]}


@pytest.mark.parametrize("name", ["buildkitd.lock", "cache.db", "runc-overlayfs/metadata_v2.db"])
def test_a_root_in_use(plant: Planter, name: str) -> None:
    path = plant.root.root / name
    path.touch()
    with lock(path, exclusive=True):
        document = documents(str(plant.root.root), status=4)
        with pytest.raises(BusyError):
            check_root(plant.root.root)
    assert document["error"]["type"] == "BusyError"
    assert document["findings"] == []


def test_a_store_that_can_not_be_read_is_not_damaged(plant: Planter) -> None:
    plant.root.records.unlink()
    plant.root.records.symlink_to(plant.root.records)  # leads to itself
    document = documents(str(plant.root.root), status=8)
    assert document["error"]["type"] == "StorageError"


def bury(directory: Path) -> None:
    """Makes a tree in it that is too deep for a path, which even root can't look into."""
    at = os.open(directory, os.O_DIRECTORY)
    for _ in range(25):
        os.mkdir("d" * 200, dir_fd=at)
        below = os.open("d" * 200, os.O_DIRECTORY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)


@pytest.mark.parametrize("more", [True, False])
def test_a_directory_that_can_not_be_read_hides_nothing_else(plant: Planter, more: bool) -> None:
    healthy = Healthy(plant.root)
    bury(healthy.directory(healthy.last[0]) / "fs")
    if more:
        plant.put(plant.tops[0], b"cache.parent", value("nobody"))
    document = documents(str(plant.root.root), status=15 if more else 8)
    assert [it["rule"] for it in document["findings"]] == (["C10"] if more else [])
    (one,) = document["not_tested"]
    assert one["rules"] == ["C49"]
    assert "name too long" in one["reason"]
    assert "C49" not in document["tested"]
    lines = run("check", str(plant.root.root)).stdout.splitlines()
    assert any(line.startswith("not tested: C49: ") for line in lines)
    assert not any(": OK (" in line for line in lines)


# --- One file


@pytest.mark.parametrize("store", ["records", "containerd", "snapshots", "cache", "history"])
def test_one_file(tmp_path: Path, store: str) -> None:
    root = healed(tmp_path)
    path = getattr(root, store)
    renamed = tmp_path / "of any name"
    renamed.write_bytes(path.read_bytes())
    for file in (path, renamed):
        result = run("check", str(file))
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.splitlines()[-1].startswith(f"{file}: OK (")
        assert ": only this file was given" in result.stdout


def test_what_is_wrong_with_one_file(plant: Planter) -> None:
    plant.put(plant.tops[0], b"cache.parent", value("nobody"))
    assert documents(str(plant.root.records), status=15)["counts"] == {"C10": 1}
    cut(plant.root.records, 10_000)
    assert documents(str(plant.root.records), status=5)["counts"] == {"C3": 1}


def test_one_file_of_a_root_in_use(plant: Planter) -> None:
    held = plant.root.root / "buildkitd.lock"
    held.touch()
    with lock(held, exclusive=True):
        assert documents(str(plant.root.records), status=4)["error"]["type"] == "BusyError"


def test_one_file_that_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert documents(str(tmp_path / "empty"), status=0)["findings"] == []
    (tmp_path / "text").write_text("nothing of ours")
    assert documents(str(tmp_path / "text"), status=5)["counts"] == {"C1": 1}
    assert run("check", str(tmp_path / "missing")).returncode == 3


# --- containerd workers


def test_a_containerd_worker_without_its_containerd(tmp_path: Path) -> None:
    root = v2_root("containerd", tmp_path)
    document = documents(str(root.root), status=0)
    (reason,) = {one["reason"] for one in document["not_tested"] if "C23" in one["rules"]}
    assert "--containerd-root" in reason
    assert {"C8", "C10", "C11", "C17", "C22", "C63"} <= set(document["tested"])
    full = documents(str(root.root), *root.options, status=0)
    assert full["not_tested"] == []
    assert {"C23", "C32"} <= set(full["tested"])


def test_a_containerd_worker_in_another_namespace(tmp_path: Path) -> None:
    root = v2_root("containerd", tmp_path)
    document = documents(str(root.root), *root.options, "--namespace", "elsewhere", status=0)
    assert any("has nothing in its namespace elsewhere" in one["reason"] for one in document["not_tested"])


def test_a_containerd_that_is_elsewhere(tmp_path: Path) -> None:
    root = v2_root("containerd", tmp_path)
    document = documents(str(root.root), "--containerd-root", str(tmp_path / "nothing"), status=0)
    assert any("--containerd-root says where" in one["reason"] for one in document["not_tested"])


def test_a_containerd_that_lost_its_database(tmp_path: Path) -> None:
    root = v2_root("containerd", tmp_path)
    root.containerd.unlink()
    assert documents(str(root.root), *root.options, status=15)["counts"] == {"C2": 1}


# --- Other layouts


def test_a_copy_of_a_worker_is_not_tested_and_that_is_said(plant: Planter) -> None:
    (plant.root.root / "runc-overlayfs.bak").mkdir()
    (one,) = documents(str(plant.root.root), status=0)["not_tested"]
    assert one["rules"] == []
    assert one["place"].endswith("runc-overlayfs.bak")
    assert "runc-overlayfs.bak: " in run("check", str(plant.root.root)).stdout


def test_that_a_directory_has_no_worker_is_said(tmp_path: Path) -> None:
    document = documents(str(tmp_path), status=0)
    (one,) = document["not_tested"]
    assert "no directory of a worker" in one["reason"]
    assert "C8" in one["rules"]


@pytest.mark.parametrize("choice", [("--severity", "L"), ("--rules", "C8"), ("--rules", "C51")])
def test_a_damaged_root_is_never_ok(plant: Planter, choice: tuple[str, str]) -> None:
    cut(plant.root.records, 100_000)
    result = run("check", str(plant.root.root), *choice)
    assert result.returncode == 5
    assert "OK" not in result.stdout
    assert "damaged: runc-overlayfs/metadata_v2.db" in result.stdout


def test_nothing_that_was_asked_for_could_be_tested(plant: Planter) -> None:
    assert "nothing was tested" in run("check", str(plant.root.records), "--rules", "C52").stdout
    assert "OK (1 rule)" in run("check", str(plant.root.records), "--rules", "C8").stdout


def test_one_reason_is_one_line(plant: Planter) -> None:
    plant.root.records.write_bytes(b"\xa5" * 5000)
    lines = [line for line in run("check", str(plant.root.root)).stdout.splitlines() if "not tested" in line]
    reasons = [line.split(": ", 2)[2] for line in lines]
    assert reasons
    assert len(reasons) == len(set(reasons))


def test_a_store_of_the_other_engine_is_not_damaged(plant: Planter) -> None:
    bolt = plant.root.records.rename(plant.root.worker / "bolt.db")
    assert run("convert", str(bolt), str(plant.root.records)).returncode == 0
    document = documents(str(plant.root.root), status=0)
    (reason,) = {one["reason"] for one in document["not_tested"]}
    assert "is an LMDB store" in reason
    assert "C8" in document["not_tested"][0]["rules"]


def test_the_builder_inside_docker(plant: Planter, tmp_path: Path) -> None:
    builder = docker(plant, tmp_path)
    document = documents(str(builder), status=15)
    untested = {rule for one in document["not_tested"] for rule in one["rules"]}
    assert "C40" in untested
    assert {"C8", "C10", "C14", "C22", "C23", "C26", "C30"} <= set(document["tested"]) - untested
    damage(builder / "history.db", 0, b"\0" * 2 * page_size(builder / "history.db"))
    findings = documents(str(builder), status=5)["findings"]
    assert ("C1", "S", str(builder / "history.db")) in [
        (it["rule"], it["severity"], it["file"]) for it in findings
    ]


def docker(plant: Planter, into: Path) -> Path:
    """The stores of a worker in the places where Docker has them."""
    builder = into / "docker" / "buildkit"
    builder.mkdir(parents=True)
    root = plant.root
    for path, name in (
        (root.records, "metadata_v2.db"),
        (root.containerd, "containerdmeta.db"),
        (root.snapshots, "snapshots.db"),
        (root.cache, "cache.db"),
        (root.history, "history.db"),
    ):
        path.rename(builder / name)
    return builder
