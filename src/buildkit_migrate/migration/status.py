"""The progress of a worker's stores from v1 to v2, determined from the files alone."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from buildkit_migrate.files.errors import exists
from buildkit_migrate.migration import journal
from buildkit_migrate.migration.newer import newer_records
from buildkit_migrate.migration.outlook import Outlook, outlook_of
from buildkit_migrate.migration.target import Target, target_at
from buildkit_migrate.store.engines import Engine
from buildkit_migrate.text import named_text

__all__ = ["Stage", "Status", "status"]


class Stage(enum.StrEnum):
    EMPTY = "empty"
    """Neither store exists."""
    NOT_MIGRATED = "not-migrated"
    INTERRUPTED = "interrupted"
    """A migration was started and is not finished."""
    MIGRATED = "migrated"
    UNUSABLE = "unusable"
    """What is at the v2 path is not a store, or has another engine than requested."""
    UNDO_INTERRUPTED = "undo-interrupted"
    SKIPPED = "skipped"
    """Not a worker but, for example, a copy of one."""


_NEXT = {
    Stage.EMPTY: ("nothing to do", ""),
    Stage.NOT_MIGRATED: ("migrate", ""),
    Stage.INTERRUPTED: ("migrate continues", "undo reverses what was done"),
    Stage.MIGRATED: ("nothing to do", "undo goes back to v1"),
    Stage.UNDO_INTERRUPTED: ("", "undo continues"),
}
"""The next step; and how to go back, if possible."""


@dataclass(frozen=True)
class Status:
    """Status of one worker. ``state``: of the journal, None if there is none.

    ``has_v1``: None for a skipped directory that can't be read. ``target``: what is at the v2 path, None if
    nothing. ``finished_leases``: noted as written by a migration of a running containerd. ``reason``: why the
    worker is skipped, otherwise "". ``newer_in_v1``: number of v1 records created after the migration; None
    if unknown. ``outlook``: prediction of an undo.
    """

    from_path: Path
    to_path: Path
    stage: Stage
    has_v1: bool | None
    target: Target | None
    state: journal.State | None
    finished_leases: int = 0
    reason: str = ""
    newer_in_v1: int | None = None
    outlook: Outlook = field(default=Outlook())

    @property
    def worker(self) -> Path:
        """The directory of the stores."""
        return self.to_path.parent

    @property
    def has_v2(self) -> bool:
        """Whether there is anything at the v2 path."""
        return self.target is not None

    @property
    def upstream_exact(self) -> bool | None:
        """Whether the new store has no sizes of blobs; None without a journal."""
        return None if self.state is None else self.state.upstream_exact

    @property
    def can_undo(self) -> bool:
        """Whether there is a journal to go back with, and everything that it needs."""
        return self.state is not None and not self.outlook.obstacles

    @property
    def next_step(self) -> str:
        """The next step, for people."""
        if self.target is not None and self.stage is Stage.UNUSABLE:
            return self.target.hint
        if self.stage is Stage.SKIPPED:
            return "nothing to do"
        first, way_back = _NEXT[self.stage]
        if self.stage is Stage.INTERRUPTED and not self.outlook.goes_on:
            first = f"{self.from_path} was changed, so migrate can't continue"
        if self.state is None or not way_back:
            return first
        if self.outlook.obstacles:
            way_back = f"undo can't go back to v1: {'; '.join(self.outlook.obstacles)}"
        elif self.outlook.doubts and (self.has_v2 or self.stage is not Stage.UNDO_INTERRUPTED):
            doubts = "; ".join(self.outlook.doubts)
            way_back = f"{doubts}: undo --dry-run shows whether going back to v1 loses anything"
        return f"{first}; {way_back}" if first else way_back

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, in the style of `Report.as_dict`."""
        return {
            **named_text("worker", self.worker),
            **named_text("from", self.from_path),
            **named_text("to", self.to_path),
            "stage": str(self.stage),
            "v1": self.has_v1,
            "v2": self.has_v2,
            "engine": self.target.engine if self.target else None,
            "fault": self.target.fault if self.target else "",
            "journal": self.state.phase if self.state else None,
            "containerd": _named_texts(self.state.containerd) if self.state else None,
            "upstream_exact": self.upstream_exact,
            "previous_transaction": self.state.previous if self.state else None,
            "newer_in_v1": self.newer_in_v1,
            "finished_leases": self.finished_leases,
            "can_undo": self.can_undo,
            "undo_obstacles": [_text(text) for text in self.outlook.obstacles],
            "undo_doubts": [_text(text) for text in self.outlook.doubts],
            **named_text("next_step", self.next_step),
            **named_text("reason", self.reason or None),
        }


def _text(text: str) -> str:
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _named_texts(containerd: Mapping[str, str]) -> dict[str, str | None]:
    named: dict[str, str | None] = {}
    for name, text in containerd.items():
        named |= named_text(name, text)
    return named


def status(from_path: Path, to_path: Path, engine: Engine = "bolt", database: Path | None = None) -> Status:
    """Determines the status of a worker. ``engine``: required engine of the v2 store. ``database``: as for
    `outlook_of`.

    Changes no store, though LMDB records readers in a store's lock file if there is one. The v2 store is
    judged as `migrate` judges it, with a shared lock for that moment. Raises JournalError, StorageError.
    """
    finished = 0
    found = journal.Journal.open(journal.journal_path(to_path), read_only=True)
    if found is not None:
        with found:
            finished = len(found.finished_leases())
    state = found.state if found is not None else None
    has_v1, target = exists(from_path), target_at(to_path, engine)
    if state is not None and state.phase == journal.UNDOING:
        stage = Stage.UNDO_INTERRUPTED
    elif target is not None:
        stage = Stage.UNUSABLE if target.fault else Stage.MIGRATED
    elif state is not None:
        stage = Stage.INTERRUPTED
    else:
        stage = Stage.NOT_MIGRATED if has_v1 else Stage.EMPTY
    newer = newer_records(from_path, to_path, target.engine) if target and stage is Stage.MIGRATED else None
    outlook = Outlook() if state is None else outlook_of(state, from_path, to_path, database)
    return Status(
        from_path, to_path, stage, has_v1, target, state, finished, newer_in_v1=newer, outlook=outlook
    )
