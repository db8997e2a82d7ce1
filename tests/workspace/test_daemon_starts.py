"""A daemon starts during a run and opens a database right before it gets another file: it gets that database,
and the error names the daemon. Nothing is lost, and the next run does the rest."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from buildkit_migrate import (
    compact_root,
    migrate_root,
    repair_root,
    undo_compaction,
    undo_maintenance,
    undo_root,
)
from buildkit_migrate.errors import BusyError
from ondisk import OnDisk
from openers import coming_at_the_rename, opened_by_another
from planting import break_free_list, grow

Command = Callable[[Path], object]
Cases = dict[str, tuple[Callable[[OnDisk], object], Command, Callable[[OnDisk], Path]]]


def files(root: OnDisk) -> dict[Path, bytes]:
    """All but locks and journals."""
    every = (path for path in root.root.rglob("*") if path.is_file())
    return {
        path: path.read_bytes() for path in every if "journal" not in str(path) and path.suffix != ".lock"
    }


def migrated(root: OnDisk) -> None:
    root.migrate_here()


def with_faults(root: OnDisk) -> None:
    root.migrate_here()
    grow(root.containerd, 60)
    break_free_list(root.containerd)


def repaired(root: OnDisk) -> None:
    with_faults(root)
    assert repair_root(root.root).changes


def compacted(root: OnDisk) -> None:
    with_faults(root)
    compact_root(root.root)


FORTH: Cases = {
    "migrate": (lambda _: None, migrate_root, lambda root: root.containerd),
    "repair": (with_faults, repair_root, lambda root: root.containerd),
    "compact": (with_faults, compact_root, lambda root: root.containerd),
    "undo of a migration": (migrated, undo_root, lambda root: root.v2),
}
BACK: Cases = {
    "undo of a repair": (repaired, undo_maintenance, lambda root: root.containerd),
    "undo of a compaction": (compacted, undo_compaction, lambda root: root.containerd),
}


@pytest.mark.parametrize("case", FORTH)
def test_a_daemon_that_comes_at_the_last_moment_gets_the_database(
    case: str, root: OnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, command, find = FORTH[case]
    prepare(root)
    path = find(root)
    number, before = path.stat().st_ino, path.read_bytes()
    with coming_at_the_rename(path, os.O_RDWR, monkeypatch) as came:
        with pytest.raises(BusyError) as raised:
            command(root.root)
        assert f"(process {came[0]})" in str(raised.value)
        assert (path.stat().st_ino, path.read_bytes()) == (number, before)
    command(root.root)
    assert not path.exists() or path.stat().st_ino != number


@pytest.mark.parametrize("case", FORTH | BACK)
def test_a_daemon_that_came_before_is_noticed_before_the_rename(
    case: str, root: OnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, command, find = (FORTH | BACK)[case]
    prepare(root)
    path, before = find(root), files(root)
    with opened_by_another(path, os.O_RDWR) as number, pytest.raises(BusyError, match=rf"process {number}\)"):
        command(root.root)
    assert files(root) == before
    command(root.root)
    assert not path.exists() or path.read_bytes() != before[path]


@pytest.mark.parametrize("case", BACK)
def test_undo_names_a_daemon_that_comes_at_the_last_moment(
    case: str, root: OnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, command, find = BACK[case]
    prepare(root)
    with coming_at_the_rename(find(root), os.O_RDWR, monkeypatch) as came:
        with pytest.raises(BusyError, match="is lost") as raised:
            command(root.root)
        assert f"(process {came[0]})" in str(raised.value)
