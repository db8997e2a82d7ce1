"""Report of what a migration did or would do, for people and programs."""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from buildkit_migrate._native.plan import Plan
from buildkit_migrate.model import Caution, Problem
from buildkit_migrate.store.engines import Engine
from buildkit_migrate.text import named_text

if TYPE_CHECKING:
    from buildkit_migrate.files.foreseeing import Space
    from buildkit_migrate.workspace.place import Place

__all__ = ["COUNTS", "Outcome", "Report"]


COUNTS: Final = (
    "records",
    "snapshots_needed",
    "snapshots_found",
    "kept",
    "dropped",
    "committed",
    "blobs",
    "blob_sizes",
    "chains",
    "leases_to_create",
    "leases_to_keep",
    "resources_to_add",
    "unlabel_snapshots",
    "unlabel_blobs",
    "views",
    "labels_left_snapshots",
    "labels_left_blobs",
)
"""Names of the counts of a plan."""


class Outcome(enum.StrEnum):
    MIGRATED = "migrated"
    PLANNED = "planned"
    """A dry run: planned in full, nothing changed."""
    ALREADY_MIGRATED = "already-migrated"
    NOTHING_TO_MIGRATE = "nothing-to-migrate"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Report:
    """Report on one store. ``counts``: counts of the plan, empty if there was nothing to do.

    ``engine``: of the existing or planned v2 store; None if there is nothing to migrate. ``place``: what was
    processed, None if there was nothing to do. ``reason``: why it was skipped, otherwise "".
    """

    from_path: Path
    to_path: Path
    outcome: Outcome
    counts: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    """Records that can't be migrated as they are, sorted by id."""
    cautions: tuple[tuple[bytes, Caution], ...] = ()
    engine: Engine | None = None
    place: Place | None = None
    newer_in_v1: int | None = None
    """For a store migrated already: number of v1 records created since; None if unknown."""
    notes: tuple[str, ...] = ()
    """Notes about files: an owner or mode that could not be preserved, or data that nobody will free."""
    space: tuple[Space, ...] = ()
    """Of a dry run: per file system the room for new files, estimated rather too high, and what is free."""
    seconds: float = 0.0
    plan: Plan | None = field(default=None, repr=False, compare=False)
    """The underlying plan, None if there was nothing to do."""
    reason: str = ""

    @property
    def worker(self) -> Path:
        """The directory of the stores."""
        return self.to_path.parent

    @property
    def done(self) -> str:
        """What happened to the worker, for people."""
        return "was migrated"

    def as_dict(self) -> dict[str, Any]:
        """The JSON form.

        Text that is not UTF-8 is approximated, and given exactly under its name with ``_b64``. All names are
        always present; what was not counted is None.
        """
        return {
            **named_text("worker", self.worker),
            **named_text("from", self.from_path),
            **named_text("to", self.to_path),
            "outcome": str(self.outcome),
            "engine": self.engine,
            "place": self.place.as_dict() if self.place else None,
            "newer_in_v1": self.newer_in_v1,
            "records": self.counts.get("records"),
            "counts": {**dict.fromkeys(COUNTS), **self.counts},
            "problems": [problem.as_dict() for problem in self.problems],
            "cautions": [
                {**named_text("record", record), "caution": str(caution)} for record, caution in self.cautions
            ],
            "notes": [os.fsencode(note).decode(errors="replace") for note in self.notes],
            "space": [space.as_dict() for space in self.space],
            "seconds": self.seconds,
            **named_text("reason", self.reason or None),
        }
