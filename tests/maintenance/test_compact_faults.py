"""After a kill or a failing call at any point nothing is lost, and the next run comes to the same end."""

from __future__ import annotations

from pathlib import Path

import pytest

import fault_points
import ondisk
from buildkit_migrate import compact_root, discard_kept, undo_compaction
from buildkit_migrate.bolt import Database
from fault_points import calls
from ondisk import OnDisk
from trees import Row, rows_of

pytestmark = pytest.mark.slow

COMPACT, EARLY, UNDO, DISCARD = COMMANDS = (
    "compact",
    "early compact",
    "compact --undo",
    "compact --discard-kept",
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    fault_points.parametrize_commands(metafunc, COMMANDS, calls)


def databases(root: OnDisk) -> tuple[Path, ...]:
    return root.v2, root.containerd, root.snapshots


def contents(root: OnDisk) -> dict[str, bytes]:
    return {path.name + path.parent.name: path.read_bytes() for path in databases(root)}


def kept(root: OnDisk) -> set[str]:
    return {path.name for path in root.root.rglob("*before-compact*")}


def rows(path: Path) -> list[Row]:
    with Database.open(path) as database:
        return list(rows_of(database.root))


class Outcome:
    """The files before, and after an undisturbed compaction."""

    def __init__(self, directory: Path) -> None:
        self.root = ondisk.sample(directory)
        fault_points.prepare_compaction(self.root)
        self.before = contents(self.root)
        self.rows = {path.name: rows(path) for path in databases(self.root)}
        compact_root(self.root.root)
        self.after = contents(self.root)
        assert self.after != self.before


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return Outcome(tmp_path_factory.mktemp("undisturbed"))


def test_fault_at_any_call_loses_nothing_and_the_next_run_finishes(
    command: str, call: int, fault: str, outcome: Outcome, tmp_path: Path
) -> None:
    root = ondisk.copy_of(outcome.root, tmp_path)
    if command in (COMPACT, EARLY):
        undo_compaction(root.root)
        assert contents(root) == outcome.before
    result = fault_points.run(call, fault, command, root)
    fault_points.check_status(result, fault, calls(command)[call])
    for name, content in contents(root).items():
        assert content in (outcome.before[name], outcome.after[name])
    for path in databases(root):
        assert rows(path) == outcome.rows[path.name]
    assert fault == "kill" or root.left_behind == []
    if command in (COMPACT, EARLY):
        compact_root(root.root)
        assert contents(root) == outcome.after
        undo_compaction(root.root)
        assert contents(root) == outcome.before
    elif command == UNDO:
        undo_compaction(root.root)
        assert contents(root) == outcome.before
    else:
        discard_kept(root.root)
        assert contents(root) == outcome.after
    assert kept(root) == set()
    assert root.left_behind == []


def test_without_hard_links_the_old_files_are_copied(
    outcome: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULTY_LINKS", "EPERM")
    root = ondisk.copy_of(outcome.root, tmp_path)
    undo_compaction(root.root)
    assert fault_points.run(-1, "none", COMPACT, root).returncode == 0
    assert contents(root) == outcome.after
    undo_compaction(root.root)
    assert contents(root) == outcome.before


def test_injection_covers_the_calls_that_matter() -> None:
    assert {"open", "write", "fsync", "link", "rename", "flock"} <= set(calls(COMPACT))
    assert calls(COMPACT).count("rename") == calls(EARLY).count("rename") == 3  # one for each database
    assert calls(EARLY).index("rename") > max(
        index for index, name in enumerate(calls(EARLY)) if name == "write"
    )
    assert "rename" in calls(UNDO)
    assert "unlink" in calls(DISCARD)
