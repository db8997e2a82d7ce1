"""After a kill or a failing call at any point nothing is lost; the next repair comes to the same end, and an
undo, too, takes everything back byte for byte."""

from __future__ import annotations

import functools
import re
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import hand_made
import pytest

import fault_points
import ondisk
from buildkit_migrate import repair_root, undo_maintenance
from buildkit_migrate.maintenance import repair_root as functions
from ondisk import OnDisk

pytestmark = pytest.mark.slow

REPAIR, UNDO = COMMANDS = ("repair", "undo")
Tree = dict[str, object]


def run(index: int, fault: str, command: str, root: OnDisk) -> subprocess.CompletedProcess[str]:
    arguments = fault_points.arguments(index, fault, command, root)
    arguments[1] = str(Path(hand_made.__file__))
    return subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)


@functools.cache
def calls(command: str) -> tuple[str, ...]:
    """The system calls of an undisturbed run, in order."""
    with tempfile.TemporaryDirectory() as directory:
        root = hand_made.planted(Path(directory))
        if command == UNDO:
            run(-1, "none", REPAIR, root)
        result = run(-1, "none", command, root)
    assert result.returncode in (0, 15), result.stdout
    return tuple(result.stderr.split())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    fault_points.parametrize_commands(metafunc, COMMANDS, calls)


@pytest.fixture(autouse=True)
def _plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "plan_repair", hand_made.plan_all)


def tree(root: OnDisk) -> Tree:
    """All that the root holds but the lock file, with modes; what differs from run to run is made equal."""
    found: Tree = {}
    for path in sorted(root.root.rglob("*")):
        info = path.lstat()
        name = re.sub(r"\.[0-9a-z]{25}\.bak$", ".ID.bak", str(path.relative_to(root.root)))
        content = path.read_bytes() if stat.S_ISREG(info.st_mode) else b""
        if path.name == "repair.journal":
            content = re.sub(rb'"when": "[^"]+"', b"", re.sub(rb"\.[0-9a-z]{25}\.bak", b"", content))
        if path.name != "buildkitd.lock":
            found[name] = stat.S_IMODE(info.st_mode), content
    return found


class Outcome:
    """The root before, and after an undisturbed repair."""

    def __init__(self, directory: Path) -> None:
        self.root = hand_made.planted(directory)
        self.before = tree(self.root)
        functions.plan_repair, whole = hand_made.plan_all, functions.plan_repair  # type: ignore[assignment]
        repair_root(self.root.root)
        functions.plan_repair = whole
        self.after = tree(self.root)
        shutil.copytree(self.root.root, directory / "repaired", symlinks=True)
        self.originals = {content for _, content in self.before.values()}  # type: ignore[misc]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return Outcome(tmp_path_factory.mktemp("undisturbed"))


def test_the_plan_has_changes_of_all_kinds(outcome: Outcome, tmp_path: Path) -> None:
    new = {name for name in outcome.after if name not in outcome.before}
    assert {name for name in new if not name.endswith(".before-repair")} == {
        "cache.db.ID.bak",
        "repair.journal",
        "runc-overlayfs/executor.before-repair/left",
        "runc-overlayfs/executor.before-repair/left/rootfs",
        "runc-overlayfs/executor.before-repair/left/rootfs/file",
        "runc-overlayfs/made",
        "runc-overlayfs/snapshots/snapshots/1/work",
    }
    assert {name for name in new if name.endswith(".before-repair")} == {
        "history.db.before-repair",
        "runc-overlayfs/containerdmeta.db.before-repair",
        "runc-overlayfs/executor.before-repair",
        "runc-overlayfs/metadata_v2.db.before-repair",
        "runc-overlayfs/snapshots/metadata.db.before-repair",
        "runc-overlayfs/workerid.before-repair",
    }
    assert {name for name in outcome.before if name not in outcome.after} == {
        "cache.db",
        "runc-overlayfs/executor/left",
        "runc-overlayfs/executor/left/rootfs",
        "runc-overlayfs/executor/left/rootfs/file",
    }


def test_fault_at_any_call_loses_nothing_and_both_ways_are_open(
    command: str, call: int, fault: str, outcome: Outcome, tmp_path: Path
) -> None:
    root = ondisk.copy_of(outcome.root, tmp_path)
    assert tree(root) == outcome.after
    if command == REPAIR:
        undo_maintenance(root.root)
        assert tree(root) == outcome.before
    result = run(call, fault, command, root)
    assert "Traceback" not in result.stderr
    if result.returncode not in (0, 15) or fault == "kill":
        fault_points.check_status(result, fault, calls(command)[call])
    assert outcome.originals <= {content for _, content in tree(root).values()}  # type: ignore[misc]
    assert fault == "kill" or root.left_behind == []
    cut = tree(root)
    if command == REPAIR and cut != outcome.before:
        shutil.copytree(root.root, tmp_path / "other" / "root")
        undo_maintenance(tmp_path / "other" / "root")
        assert tree(ondisk.oci(tmp_path / "other" / "root", root.snapshotter)) in (outcome.before, cut)
    repair_root(root.root)
    assert tree(root) == outcome.after
    undo_maintenance(root.root)
    assert tree(root) == outcome.before


def test_without_hard_links_the_originals_are_copied(
    outcome: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = ondisk.copy_of(outcome.root, tmp_path)
    undo_maintenance(root.root)
    monkeypatch.setenv("FAULTY_LINKS", "EPERM")
    assert run(-1, "none", REPAIR, root).returncode in (0, 15)
    assert tree(root) == outcome.after
    undo_maintenance(root.root)
    assert tree(root) == outcome.before


def test_injection_covers_the_calls_that_matter() -> None:
    assert {"open", "write", "fsync", "link", "rename", "flock", "mkdir"} <= set(calls(REPAIR))
    assert {"rename", "rmdir", "unlink"} <= set(calls(UNDO))
