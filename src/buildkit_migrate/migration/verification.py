"""Verifications of files: their own soundness, and then what is in them."""

from __future__ import annotations

import contextlib
import enum
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from buildkit_migrate.bolt import Bucket, BucketView, Builder, Database, Reader, check
from buildkit_migrate.containerd.services import Containerd
from buildkit_migrate.errors import DifferencesError
from buildkit_migrate.metadata.engines import engine_of
from buildkit_migrate.migration.content import content_differences
from buildkit_migrate.migration.report import named_text, problem_as_dict, reason_as_dict
from buildkit_migrate.migration.verify import (
    Difference,
    DifferenceKind,
    Findings,
    record_ids,
    store_differences,
    verify,
)

__all__ = [
    "Verdict",
    "Verification",
    "difference_as_dict",
    "opened_store",
    "verify_files",
    "verify_new_store",
]


class Verdict(enum.StrEnum):
    OK = "ok"
    DIFFERENT = "different"
    NOT_MIGRATED = "not-migrated"
    """There is a v1 store only."""
    NOTHING_TO_VERIFY = "nothing-to-verify"
    """There is no v1 store."""
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Verification:
    """Of one worker's stores. ``findings``: empty where there was nothing to compare.

    ``reason``: why it was skipped, "" if it was not.
    """

    from_path: Path
    to_path: Path
    verdict: Verdict
    findings: Findings = field(default=Findings(0, (), ()))
    seconds: float = 0.0
    reason: str = ""

    @property
    def worker(self) -> Path:
        """The directory that the stores are in."""
        return self.to_path.parent

    @property
    def is_good(self) -> bool:
        return self.verdict in (Verdict.OK, Verdict.NOTHING_TO_VERIFY, Verdict.SKIPPED)

    def as_dict(self) -> dict[str, Any]:
        """For JSON, in the form of `Report.as_dict`."""
        return {
            **named_text("worker", os.fsencode(self.worker)),
            **named_text("from", os.fsencode(self.from_path)),
            **named_text("to", os.fsencode(self.to_path)),
            "verdict": str(self.verdict),
            "upstream_exact": self.findings.upstream_exact,
            "records": self.findings.records,
            "problems": [problem_as_dict(problem) for problem in self.findings.problems],
            "differences": [difference_as_dict(difference) for difference in self.findings.differences],
            "seconds": self.seconds,
            **reason_as_dict(self.reason),
        }


def difference_as_dict(difference: Difference) -> dict[str, str]:
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


@contextlib.contextmanager
def opened_store(path: Path) -> Iterator[tuple[Bucket, tuple[Database, ...]]]:
    """The root bucket of a store of any engine, and the bolt files that it lies in.

    An LMDB store is checked here, and then rewritten as a bolt store in memory. Raises BusyError,
    CorruptDatabaseError, StorageError.
    """
    if engine_of(path) == "bolt":
        with Database.open(path) as database:
            yield database.root, (database,)
        return
    from buildkit_migrate.metadata.lmdb_file import check_file
    from buildkit_migrate.metadata.lmdb_store import LmdbStore

    check_file(path, thorough=True)
    image = bytearray()
    builder = Builder(image.extend)
    with contextlib.closing(LmdbStore.open(path, read_only=True)) as store:
        store.build(builder)
    metas = builder.finish()
    image[: len(metas)] = metas
    yield Reader(image, str(path)).root, ()


def verify_files(
    v1: Bucket,
    v2: Bucket,
    containerd: Containerd,
    databases: Iterable[Database],
    progress: Callable[[str], object],
    *,
    upstream_exact: bool | None = None,
    content: Path | None = None,
) -> Findings:
    """Compares a migrated store, and containerd, with v1; hashes its blobs if a content directory is given.

    ``upstream_exact``: whether it was a migration without sizes of blobs; None to tell from the store.
    ``databases``: all bolt files in question. If any is damaged, what is in it is not looked at.
    Raises ContainerdStateError, StorageError.
    """
    damages = tuple(_damages(databases, progress))
    if damages:
        return Findings(0, (), damages)
    before = BucketView(v1)
    progress("asking containerd")
    state = containerd.state(record_ids(before))
    progress(f"comparing {v2.reader.path}")
    findings = verify(before, BucketView(v2), state, upstream_exact=upstream_exact)
    if content is None:
        return findings
    files = content_differences(content, state.blobs, progress)
    return replace(findings, differences=(*findings.differences, *files))


def verify_new_store(
    source: Database, new: Database, containerd: Containerd, *, upstream_exact: bool
) -> None:
    """For a migration between writing the new store aside and anything else: is the new store right?

    ``containerd`` must be as it was when the migration was planned. Raises DifferencesError,
    ContainerdStateError, CorruptDatabaseError (if ``source`` or containerd's files are damaged).
    """
    differences = [*_damages([new], lambda step: None)]
    if not differences:
        v1 = BucketView(source.root)
        state = containerd.state(record_ids(v1))
        differences += store_differences(v1, BucketView(new.root), state, upstream_exact=upstream_exact)
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
