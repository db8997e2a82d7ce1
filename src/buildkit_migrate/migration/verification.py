"""Verifications of files: their own soundness, and then what is in them."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from buildkit_migrate.bolt import BucketView, Database, check
from buildkit_migrate.containerd.services import Containerd
from buildkit_migrate.errors import DifferencesError
from buildkit_migrate.migration.content import content_differences
from buildkit_migrate.migration.report import named_text, problem_as_dict
from buildkit_migrate.migration.verify import (
    Difference,
    DifferenceKind,
    Findings,
    record_ids,
    store_differences,
    verify,
)

__all__ = ["Verdict", "Verification", "verify_files", "verify_new_store"]


class Verdict(enum.StrEnum):
    OK = "ok"
    DIFFERENT = "different"
    NOT_MIGRATED = "not-migrated"
    """There is a v1 store only."""
    NOTHING_TO_VERIFY = "nothing-to-verify"
    """There is no v1 store."""


@dataclass(frozen=True)
class Verification:
    """Of one worker's stores. ``findings``: empty where there was nothing to compare."""

    from_path: Path
    to_path: Path
    verdict: Verdict
    findings: Findings = field(default=Findings(0, (), ()))
    seconds: float = 0.0

    @property
    def worker(self) -> Path:
        """The directory that the stores are in."""
        return self.to_path.parent

    @property
    def is_good(self) -> bool:
        return self.verdict in (Verdict.OK, Verdict.NOTHING_TO_VERIFY)

    def as_dict(self) -> dict[str, Any]:
        """For JSON, in the form of `Report.as_dict`."""
        return {
            **named_text("worker", os.fsencode(self.worker)),
            **named_text("from", os.fsencode(self.from_path)),
            **named_text("to", os.fsencode(self.to_path)),
            "verdict": str(self.verdict),
            "records": self.findings.records,
            "problems": [problem_as_dict(problem) for problem in self.findings.problems],
            "differences": [_difference_as_dict(difference) for difference in self.findings.differences],
            "seconds": self.seconds,
        }


def _difference_as_dict(difference: Difference) -> dict[str, str]:
    texts = {
        "subject": difference.subject,
        "key": difference.key or None,
        "expected": difference.expected,
        "found": difference.found,
    }
    document = {"kind": str(difference.kind)}
    for name, text in texts.items():
        if text is not None:
            document |= named_text(name, text)
    return document


def verify_files(
    source: Database,
    target: Database,
    containerd: Containerd,
    databases: Iterable[Database],
    progress: Callable[[str], object],
    *,
    content: Path | None = None,
) -> Findings:
    """Compares a migrated store, and containerd, with v1; hashes its blobs if a content directory is given.

    ``databases``: those behind ``containerd``. If any file is damaged, what is in it is not looked at.
    Raises ContainerdStateError, StorageError.
    """
    damages = tuple(_damages([source, target, *databases], progress))
    if damages:
        return Findings(0, (), damages)
    v1 = BucketView(source.root)
    progress("asking containerd")
    state = containerd.state(record_ids(v1))
    progress(f"comparing {target.path}")
    findings = verify(v1, BucketView(target.root), state)
    if content is None:
        return findings
    files = content_differences(content, state.blobs, progress)
    return Findings(findings.records, findings.problems, (*findings.differences, *files))


def verify_new_store(source: Database, new: Database, containerd: Containerd) -> None:
    """For a migration between writing the new store aside and anything else: is the new store right?

    ``containerd`` must be as it was when the migration was planned. Raises DifferencesError,
    ContainerdStateError, CorruptDatabaseError (if ``source`` or containerd's files are damaged).
    """
    differences = [*_damages([new], lambda step: None)]
    if not differences:
        v1 = BucketView(source.root)
        differences += store_differences(v1, BucketView(new.root), containerd.state(record_ids(v1)))
    if differences:
        raise DifferencesError(
            f"{new.path}: the new store has {len(differences)} differences from what it must have; "
            "it was not put in use",
            differences,
        )


def _damages(databases: Iterable[Database], progress: Callable[[str], object]) -> Iterator[Difference]:
    for database in databases:
        progress(f"checking {database.path}")
        path = os.fsencode(database.path)
        for page, rule in check(database.reader):
            where = b"page %d" % page if page >= 0 else b""
            yield Difference(DifferenceKind.DAMAGED, path, where, found=rule.encode())
