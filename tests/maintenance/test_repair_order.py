"""Undo takes back what was done last of what is named, in whatever order repairs and migrations came; and a
repair is checked before anybody else gets in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hand_made import STRAY, plan_of
from test_repair_faults import tree

import ondisk
from buildkit_migrate import repair_root, repairs_kept, undo_maintenance
from buildkit_migrate.errors import BusyError, UndoRefusedError
from buildkit_migrate.files.locks import lock
from buildkit_migrate.maintenance import repair_root as functions
from buildkit_migrate.maintenance.mend import Change, EditStore
from buildkit_migrate.maintenance.repair_journal import RepairJournal
from buildkit_migrate.maintenance.repair_undo import RepairUndone
from buildkit_migrate.workspace.stores import Stores
from ondisk import OnDisk, run
from planting import break_free_list, grow

Wanted = Callable[[Stores], Iterator[Change]]


@pytest.fixture
def root(tmp_path: Path) -> OnDisk:
    """A root with two workers."""
    root = ondisk.sample(tmp_path)
    root.migrate_here()
    shutil.copytree(root.worker, second(root))
    (root.root / "buildkitd.lock").touch()
    return root


def second(root: OnDisk) -> Path:
    return root.root / "runc-native"


def databases(root: OnDisk) -> dict[str, bytes]:
    return {name: content for name, (_, content) in tree(root).items() if name.endswith(".db")}


@pytest.fixture
def repair(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A repair of a path that changes these databases."""

    def repair(path: Path, *changed: Path) -> Any:
        def wanted(stores: Stores) -> Iterator[Change]:
            for store in stores.all:
                if store.path in changed:
                    yield EditStore(store, {STRAY: {}})

        monkeypatch.setattr(functions, "plan_repair", lambda stores, *_, **__: plan_of(stores, wanted))
        return repair_root(path)

    return repair


Repair = Callable[..., Any]


def when_named(path: Path) -> RepairUndone | None:
    found = undo_maintenance(path)
    assert found is None or isinstance(found, RepairUndone)
    return found


@pytest.mark.parametrize("whole", [True, False], ids=["root-repaired", "workers-repaired"])
def test_undo_of_a_worker_leaves_the_repair_of_another(whole: bool, root: OnDisk, repair: Repair) -> None:
    one, two = root.worker, second(root)
    before = databases(root)
    repair(root.root if whole else one, one / "metadata_v2.db")
    if whole:  # it knows the databases of both
        assert when_named(two) is None
        assert when_named(one) is not None
    else:
        repair(two, two / "metadata_v2.db")
        assert when_named(one) is not None
        (left,) = repairs_kept(root.root).entries
        assert left.items[0].path.parent == two
        assert when_named(one) is None
        assert when_named(two) is not None
    assert databases(root) == before


@pytest.mark.parametrize("named", ["worker", "file"])
def test_a_repair_that_changed_more_is_refused_and_the_hint_helps(
    named: str, root: OnDisk, repair: Repair
) -> None:
    before = databases(root)
    repair(root.root, root.v2, second(root) / "metadata_v2.db")
    repaired = tree(root)
    path = root.worker if named == "worker" else root.v2
    planned = undo_maintenance(path, dry_run=True)
    assert planned is not None and planned.exit_code == 14
    with pytest.raises(UndoRefusedError, match="it also changed") as raised:
        undo_maintenance(path)
    assert tree(root) == repaired
    assert raised.value.hint.startswith(f"undo {root.root} ")
    undo_maintenance(root.root)
    assert databases(root) == before


def test_a_later_repair_that_knows_the_files_is_in_the_way(root: OnDisk, repair: Repair) -> None:
    before = databases(root)
    repair(root.worker, root.v2)
    repair(root.root, second(root) / "metadata_v2.db")
    repaired = tree(root)
    with pytest.raises(UndoRefusedError, match="depends on what it changed") as raised:
        undo_maintenance(root.worker)
    assert tree(root) == repaired
    assert raised.value.hint.startswith(f"undo {root.root} ")
    undo_maintenance(root.root)
    undo_maintenance(root.worker)
    assert databases(root) == before


def test_a_cut_repair_of_another_worker_is_in_the_way(root: OnDisk, repair: Repair) -> None:
    repair(root.worker, root.v2)
    repair(second(root), second(root) / "metadata_v2.db")
    journal = root.root / "repair.journal"
    document = json.loads(journal.read_text())
    document["repairs"][-1]["phase"] = "applying"
    journal.write_text(json.dumps(document))
    with pytest.raises(UndoRefusedError, match="is not finished"):
        undo_maintenance(root.worker)


def test_undo_of_a_file_leaves_the_repair_of_another(root: OnDisk, repair: Repair) -> None:
    repair(root.v2, root.v2)
    assert undo_maintenance(root.containerd) is None
    assert undo_maintenance(root.v2) is not None


def test_a_repair_before_the_migration_is_not_in_the_way(tmp_path: Path) -> None:
    root = ondisk.sample(tmp_path)
    grow(root.containerd, 60)
    break_free_list(root.containerd)
    before = tree(root)
    assert repair_root(root.root).changes
    repaired = tree(root)
    root.migrate_here()
    result = run("undo", str(root.root))
    assert result.returncode == 0, result.stderr
    assert "v1" in result.stdout
    assert {name: tree(root).get(name) for name in repaired} == repaired
    assert run("undo", str(root.root)).returncode == 0
    assert {name: tree(root).get(name) for name in before} == before


def test_a_journal_that_another_undo_empties_meanwhile_is_no_error(
    root: OnDisk, repair: Repair, monkeypatch: pytest.MonkeyPatch
) -> None:
    repair(root.root, root.v2)
    real, asked = RepairJournal.entries, []

    def entries(self: RepairJournal) -> Any:
        asked.append(self)
        found = real(self)
        if len(asked) == 1:
            with lock(root.root / "buildkitd.lock", exclusive=True):  # nobody holds it yet
                self.save([])
        return found

    monkeypatch.setattr(RepairJournal, "entries", entries)
    assert undo_maintenance(root.root) is None
    assert len(asked) == 2


def test_nobody_gets_in_before_the_check(
    root: OnDisk, repair: Repair, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = functions.check_stores

    def check(stores: Stores, **told: Any) -> Any:
        for path in (root.v2, root.containerd, root.root / "buildkitd.lock"):
            with ThreadPoolExecutor(1) as thread, pytest.raises(BusyError):
                thread.submit(lock, path, exclusive=False).result()
        return real(stores, **told)

    monkeypatch.setattr(functions, "check_stores", check)
    found = repair(root.root, root.v2)
    assert found.verdict is not None and found.unchecked is None
    lock(root.v2, exclusive=True).close()


def test_a_repair_that_could_not_be_checked_is_reported(
    root: OnDisk, repair: Repair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise BusyError("it is in use")

    monkeypatch.setattr(functions, "check_stores", fails)
    found = repair(root.root, root.v2)
    assert [change.path for change in found.changes] == [root.v2]
    assert (found.verdict, found.exit_code) == (None, 4)
    assert found.as_dict()["unchecked"] == "it is in use"
    (entry,) = repairs_kept(root.root).entries
    assert entry.phase == "applied"
    from buildkit_migrate.cli import repair as command

    lines = list(command._lines(found, verbose=False))
    assert "it could not be checked afterwards: it is in use; run check" in lines
