"""Verification of files: first their soundness, then their content."""

from __future__ import annotations

import contextlib
import enum
import os
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from buildkit_migrate.bolt import Bucket, BucketView, Builder, Database, Reader, Tree, check
from buildkit_migrate.containerd.services import Containerd
from buildkit_migrate.errors import DifferencesError
from buildkit_migrate.migration.content import DIRECTORIES, blob_differences, directory_differences
from buildkit_migrate.migration.findings import Difference, DifferenceKind, Findings
from buildkit_migrate.migration.kept import Kept
from buildkit_migrate.migration.snapshot_rules import snapshot_numbers
from buildkit_migrate.migration.verify import Files, needed_snapshots, record_ids, store_differences, verify
from buildkit_migrate.model import Kind, PlainState
from buildkit_migrate.progress import Progress, reading
from buildkit_migrate.store.engines import engine_of
from buildkit_migrate.text import named_text

__all__ = [
    "Stopped",
    "Verdict",
    "Verification",
    "open_migrated",
    "verify_files",
    "verify_new_store",
]


class Verdict(enum.StrEnum):
    OK = "ok"
    DIFFERENT = "different"
    NOT_MIGRATED = "not-migrated"
    """Only a v1 store exists."""
    NOTHING_TO_VERIFY = "nothing-to-verify"
    """There is no v1 store."""
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Verification:
    """Verification of one worker's stores. ``findings``: empty if there was nothing to compare.

    ``reason``: why it was skipped, otherwise "".
    """

    from_path: Path
    to_path: Path
    verdict: Verdict
    findings: Findings = field(default=Findings(0, (), ()))
    seconds: float = 0.0
    reason: str = ""

    @property
    def worker(self) -> Path:
        """The directory of the stores."""
        return self.to_path.parent

    @property
    def is_good(self) -> bool:
        return self.verdict in (Verdict.OK, Verdict.NOTHING_TO_VERIFY, Verdict.SKIPPED)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, in the style of `Report.as_dict`."""
        return {
            **named_text("worker", self.worker),
            **named_text("from", self.from_path),
            **named_text("to", self.to_path),
            "verdict": str(self.verdict),
            "upstream_exact": self.findings.upstream_exact,
            "records": self.findings.records,
            "records_in_v1": self.findings.total,
            "left_out": self.findings.left_out,
            "problems": [problem.as_dict() for problem in self.findings.problems],
            "differences": [difference.as_dict() for difference in self.findings.differences],
            "unchecked": [os.fsencode(text).decode(errors="replace") for text in self.findings.unchecked],
            "seconds": self.seconds,
            **named_text("reason", self.reason or None),
        }


@contextlib.contextmanager
def open_migrated(path: Path) -> Iterator[tuple[Bucket, tuple[Database, ...]]]:
    """Opens a store of any engine: its root bucket, and the bolt files behind it.

    An LMDB store is checked, and then rewritten as a bolt store in memory. Raises BusyError,
    CorruptDatabaseError, StorageError.
    """
    if engine_of(path) == "bolt":
        with Database.open(path) as database:
            yield database.root, (database,)
        return
    from buildkit_migrate.lmdb.file import check_file
    from buildkit_migrate.store.lmdb_store import LmdbStore

    check_file(path, thorough=True)
    image = bytearray()
    builder = Builder(image.extend)
    with LmdbStore.open_once(path) as store:
        store.build(builder)
    metas = builder.finish()
    image[: len(metas)] = metas
    yield Reader(image, str(path)).root, ()


def verify_files(
    v1: Bucket,
    v2: Bucket,
    containerd: Containerd,
    databases: Iterable[Database],
    progress: Progress,
    *,
    upstream_exact: bool | None = None,
    leases_before: Collection[bytes] = (),
    stopped: Stopped | None = None,
) -> Findings:
    """Compares a migrated store, and containerd, with v1. ``stopped``: containerd's files, if it is stopped.

    ``upstream_exact``: whether sizes of blobs were omitted; None to detect that from the store.
    ``leases_before``: leases that a migration of a running containerd found. ``databases``: all bolt files
    involved. If any is damaged, its content is not compared. Raises ContainerdStateError, StorageError.
    """
    if stopped is not None:
        databases = (*databases, *stopped.databases)
    damages = tuple(_damages(databases, progress))
    if damages:
        return Findings(0, (), damages)
    before, after = BucketView(v1), BucketView(v2)
    progress(reading("reading containerd's state", *containerd.readers[:-1]))
    state = containerd.state(record_ids(before))
    files = None if stopped is None else stopped.trees()
    findings = verify(
        before,
        after,
        state,
        files,
        upstream_exact=upstream_exact,
        leases_before=leases_before,
        now=time.time_ns(),
        progress=progress,
    )
    if stopped is None or files is None:
        return findings
    differences, unchecked = list(findings.differences), []
    if stopped.kept.why_not:
        unchecked.append(f"containerd's database as a whole: {stopped.kept.why_not}")
    if stopped.content is not None:
        differences += blob_differences(stopped.content, state.blobs, progress)
        if files.snapshots is None:
            unchecked.append("data of snapshots: only Docker's storage driver knows where it is")
        elif stopped.snapshotter in DIRECTORIES:
            numbers = _directories(files, files.snapshots, after, state)
            place = stopped.databases[-1].path.parent
            active = {name for name in numbers if state.snapshots[name].kind is Kind.ACTIVE}
            differences += directory_differences(place, stopped.snapshotter, numbers, active, progress)
        else:
            unchecked.append(f"directories of snapshots: nothing is known of those of {stopped.snapshotter}")
    return replace(findings, differences=tuple(differences), unchecked=tuple(unchecked))


@dataclass(frozen=True)
class Stopped:
    """The files of a stopped containerd.

    ``databases``: its own, if it exists, and the snapshotter's. ``metadata``, ``snapshots``: root buckets of
    these; see `OfflineContainerd.backend`. ``content``: directory of the content store; None to skip blob
    files and snapshot directories.
    """

    databases: tuple[Database, ...]
    metadata: Bucket
    snapshots: Bucket | None
    namespace: str
    snapshotter: str
    kept: Kept
    content: Path | None = None

    def trees(self) -> Files:
        original = self.kept.original
        return Files(
            self.namespace.encode(),
            self.snapshotter.encode(),
            BucketView(self.metadata),
            None if self.snapshots is None else BucketView(self.snapshots),
            None if original is None else BucketView(original),
            tuple(BucketView(other.root) for other in self.kept.others),
        )


def _directories(files: Files, snapshots: Tree, v2: Tree, state: PlainState) -> dict[bytes, int]:
    """Numbers of the snapshots that must have a directory.

    With native, views share their parent's directory.
    """
    names = needed_snapshots(v2, state)
    if files.snapshotter == b"native":
        names = [name for name in names if state.snapshots[name].kind is not Kind.VIEW]
    return snapshot_numbers(files.metadata, snapshots, files.namespace, files.snapshotter, names)


def verify_new_store(
    source: Database, new: Database, containerd: Containerd, *, upstream_exact: bool
) -> None:
    """Checks a new store that was written aside, before anything else is changed.

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


def _damages(databases: Iterable[Database], progress: Progress) -> Iterator[Difference]:
    for database in databases:
        progress(reading(f"checking {database.path}", database.reader))
        path = os.fsencode(database.path)
        for page, rule in check(database.reader):
            where = b"page %d" % page if page >= 0 else b""
            yield Difference(DifferenceKind.DAMAGED, path, where, found=rule.encode())
