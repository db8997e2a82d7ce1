"""A journal that somebody forged names no other file as the old database than one that a migration kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from buildkit_migrate.errors import JournalError
from buildkit_migrate.migration import journal_state
from buildkit_migrate.migration.journal_state import State

STATE = State(v1="1:2", plan="plan", containerd={"mode": "offline"})
KEPT = ("", "containerdmeta.db.before-v2", "/var/lib/meta.db.before-v2-buildkit-overlayfs")
OTHERS = (
    "/etc/passwd",
    "metadata.db",
    "/",
    "..",
    ".before-v2",
    "meta.db.before-v2/other",
    "meta.db.before-v20",
)


def read(kept: str) -> State:
    stored = journal_state.encode(State(STATE.v1, STATE.plan, STATE.containerd, kept_path=kept))
    return journal_state.decode(stored, Path("metadata_v2.db.journal"))


@pytest.mark.parametrize("kept", KEPT)
def test_a_kept_database_is_read(kept: str) -> None:
    assert read(kept).kept_path == kept


@pytest.mark.parametrize("kept", OTHERS)
def test_any_other_file_is_refused(kept: str) -> None:
    with pytest.raises(JournalError):
        read(kept)
