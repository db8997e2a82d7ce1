"""A forged journal names nothing that a repair would not change, neither by path nor by link."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildkit_migrate.errors import JournalError
from buildkit_migrate.files.fingerprint import fingerprint
from buildkit_migrate.maintenance.repair_journal import Item, RepairJournal
from buildkit_migrate.maintenance.repair_places import Kind
from ondisk import OnDisk, run

NAMES = st.sampled_from(
    (
        *("..", ".", "", "metadata_v2.db", "meta.db", "cache.db", "workerid", "snapshots", "work", "1", "x"),
        *("in", "out", "executor", "executor.before-repair", "snapshots.before-repair", "passwd"),
        "metadata_v2.db.before-repair",
    )
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory with links that stay in it (in), and that lead out of it (out)."""
    top = tmp_path_factory.mktemp("hostile")
    (top / "root" / "executor").mkdir(parents=True)
    (top / "outside" / "snapshots" / "1").mkdir(parents=True)
    (top / "root" / "in").symlink_to("executor")
    (top / "root" / "out").symlink_to(top / "outside")
    (top / "root" / "executor.before-repair").symlink_to(top / "outside")
    return top / "root"


def journal(item: dict[str, Any]) -> str:
    entry = {
        "when": "now",
        "classes": [],
        "phase": "applied",
        "changes": [item],
        "others": {},
        "compactions": {},
    }
    return json.dumps({"format": 1, "repairs": [entry]})


def real(path: Path) -> Path:
    return Path(os.path.realpath(path.parent)) / path.name


def is_harmless(item: Item, root: Path) -> bool:
    """Plainly: in the root, or with the name of what repairs change elsewhere."""
    for path in filter(None, (item.path, item.kept)):
        at = real(path)
        if root in at.parents:
            continue
        name = at.name.split(".before-repair")[0]
        allowed = {
            Kind.REPLACED: name.endswith(".db") or name == "workerid",
            Kind.MADE: name == "workerid",
            Kind.MOVED: False,
        }
        if not allowed.get(item.kind, "snapshots" in str(at.parent)):
            return False
    return True


@given(st.data())
def test_whatever_is_read_names_only_what_repairs_change(place: Path, data: st.DataObject) -> None:
    def path() -> str:
        start = data.draw(
            st.sampled_from(["", "", "/", f"{place}/", f"{place}/out/", f"{place.parent}/outside/"])
        )
        return start + "/".join(data.draw(st.lists(NAMES, min_size=1, max_size=4)))

    kind, at = data.draw(st.sampled_from(list(Kind))), path()
    above, _, name = at.rpartition("/")
    kept = {
        Kind.MADE: None,
        Kind.MADE_DIRECTORY: None,
        Kind.REMOVED: f"{above}.before-repair/{name}",
    }.get(kind, f"{at}.before-repair")
    if kept is not None and data.draw(st.integers(0, 3)) == 0:
        kept = path()
    item = {"kind": str(kind), "path": at, "kept": kept, "before": "1:2", "after": ["1:2"]}
    file = RepairJournal.of_root(place)
    file.path.write_text(journal(item))
    try:
        ((read,),) = ([*entry.items] for entry in file.entries())
    except JournalError:
        return
    assert is_harmless(read, place), item


FORGED = (
    "a file elsewhere",
    "through a link",
    "a directory elsewhere",
    "originals through a link",
    "a database elsewhere",
)


@pytest.mark.parametrize("command", ["undo", "repair --discard-kept"])
@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_journal_changes_nothing_elsewhere(
    forged: str, command: str, root: OnDisk, tmp_path: Path
) -> None:
    root.migrate_here()
    victim = tmp_path / "etc" / "dir" / "passwd"
    victim.parent.mkdir(parents=True)
    victim.write_text("content")
    (root.root / "link").symlink_to(victim.parent)
    (root.root / "place.before-repair").symlink_to(victim.parent.parent)
    (root.root / "place").mkdir()
    made = {"kind": "made", "kept": None, "before": "", "after": [fingerprint(victim)]}
    removed = {"kind": "removed", "before": "", "after": []}
    item = {
        "a file elsewhere": {**made, "path": str(victim)},
        "through a link": {**made, "path": "link/passwd"},
        "a directory elsewhere": {
            **removed,
            "path": str(tmp_path / "x" / "dir"),
            "kept": f"{tmp_path}/x.before-repair/dir",
        },
        "originals through a link": {**removed, "path": "place/dir", "kept": "place.before-repair/dir"},
        "a database elsewhere": {**made, "path": str(victim.with_name("metadata_v2.db"))},
    }[forged]
    (root.root / "repair.journal").write_text(journal(item))
    result = run(*command.split(), str(root.root))
    assert (result.returncode, victim.read_text()) == (13, "content"), result
    assert "repair.journal" in result.stderr


def test_the_journal_of_a_file_names_only_that(tmp_path: Path) -> None:
    file = RepairJournal.of_file(tmp_path / "some.db")
    item = {
        "kind": "replaced",
        "path": "some.db",
        "kept": "some.db.before-repair",
        "before": "1:2",
        "after": [],
    }
    file.path.write_text(journal(item))
    assert len(file.entries()) == 1
    file.path.write_text(journal({**item, "path": "other.db", "kept": "other.db.before-repair"}))
    with pytest.raises(JournalError, match="nothing that a repair of"):
        file.entries()
