"""What a repair put is lost, or the place from which it moved something: the originals are all that is left.
They come back, and are not deleted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import hand_made
import pytest
from test_repair_faults import tree

from buildkit_migrate import discard_kept_repairs, repair_root, repairs_kept, undo_maintenance
from buildkit_migrate.errors import Error, UndoRefusedError
from buildkit_migrate.files.fingerprint import fingerprint
from buildkit_migrate.maintenance import repair_root as functions
from buildkit_migrate.maintenance.repair_journal import Item
from buildkit_migrate.maintenance.repair_places import Kind
from dicts import file_of
from ondisk import OnDisk

pytestmark = pytest.mark.slow


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OnDisk:
    """A root in which repairs find something to do of every kind."""
    monkeypatch.setattr(functions, "plan_repair", hand_made.plan_all)
    return hand_made.planted(tmp_path)


LOST: dict[str, Callable[[OnDisk], Path]] = {
    "the record store": lambda root: root.v2,
    "containerd's database": lambda root: root.containerd,
    "a database of the state directory": lambda root: root.root / "history.db",
    "a small file": lambda root: root.worker / "workerid",
    "the place of a directory": lambda root: root.worker / "executor",
}


@pytest.mark.parametrize("lost", LOST)
def test_what_is_lost_comes_back(lost: str, planted: OnDisk) -> None:
    (planted.worker / "executor").chmod(0o751)
    before = tree(planted)
    repair_root(planted.root)
    path = LOST[lost](planted)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    (entry,) = repairs_kept(planted.root).entries
    assert entry.reasons() == ()
    undo_maintenance(planted.root)
    assert tree(planted) == before


@pytest.mark.parametrize("lost", ["the record store", "containerd's database"])
def test_originals_of_what_is_lost_are_not_deleted_and_the_hint_helps(lost: str, planted: OnDisk) -> None:
    before = tree(planted)
    repair_root(planted.root)
    path = LOST[lost](planted)
    path.unlink()
    with pytest.raises(Error) as raised:
        discard_kept_repairs(planted.root)
    assert str(path) in str(raised.value) and "undo puts them back" in raised.value.hint
    undo_maintenance(planted.root)
    assert tree(planted) == before


def test_lost_with_its_original_is_refused_before_anything_is_changed(planted: OnDisk) -> None:
    repair_root(planted.root)
    planted.v2.unlink()
    planted.v2.with_name("metadata_v2.db.before-repair").unlink()
    before = tree(planted)
    with pytest.raises(UndoRefusedError, match=r"the original of .* is gone"):
        undo_maintenance(planted.root)
    assert tree(planted) == before


def test_a_directory_without_any_place_is_refused_before_anything_is_changed(planted: OnDisk) -> None:
    repair_root(planted.root)
    journal = planted.root / "repair.journal"
    text = journal.read_text()
    journal.write_text(
        text.replace("/executor/", "/gone/executor/").replace("/executor.b", "/gone/executor.b")
    )
    before = tree(planted)
    with pytest.raises(UndoRefusedError, match=r"where .* was, is gone") as raised:
        undo_maintenance(planted.root)
    assert str(planted.worker / "gone") in raised.value.reasons[0]
    assert tree(planted) == before


def test_a_new_file_that_an_undo_of_the_migration_took_away_is_not_lost(tmp_path: Path) -> None:
    kept = tmp_path / "metadata_v2.db.before-repair"
    kept.write_bytes(file_of({}))
    item = Item(Kind.REPLACED, tmp_path / "metadata_v2.db", kept, fingerprint(kept))
    assert item.why_not() == "", "lost: all that is left then is the original"
    (tmp_path / "metadata_v2.db.undone").touch()
    assert "was taken away by an undo of the migration" in item.why_not()
