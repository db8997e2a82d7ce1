"""The stages of an offline migration, each prepared for timing.

A stage leaves its root unchanged: it writes beside the root, and deletes what it wrote. Inputs are prepared
before the clock starts.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from buildkit_migrate._native.facts import Records, Survey
from buildkit_migrate._native.plan import Plan
from buildkit_migrate.api import migrate_root
from buildkit_migrate.bench.synthetic import CONTAINERD, DATABASES, SNAPSHOTTER, V1, WORKER
from buildkit_migrate.bolt import BucketView, Database
from buildkit_migrate.containerd.offline import MetadataDatabase
from buildkit_migrate.containerd.plain import read_state
from buildkit_migrate.migration import oracle
from buildkit_migrate.migration.plan import read_records
from buildkit_migrate.migration.verify import plain_records
from buildkit_migrate.store import bolt_store
from buildkit_migrate.values.times import stored_time, text_time

__all__ = ["STAGES", "Stage", "Work"]

Work = Callable[[], object]


@dataclass(frozen=True)
class Stage:
    """``ready``: prepares the stage for a root, and gives the function to be timed.

    ``reads``: databases of the worker that the stage reads. ``hashes``: its floor includes hashing all chain
    ids.
    """

    title: str
    reads: tuple[str, ...]
    ready: Callable[[Path], AbstractContextManager[Work]]
    hashes: bool = False


class _Inputs:
    """The databases of a root, and what is derived from them on demand."""

    def __init__(self, root: Path, held: ExitStack) -> None:
        self.worker = root / WORKER
        self.v1, self.containerd, self.snapshots = (
            held.enter_context(Database.open(self.worker / name)) for name in DATABASES
        )

    def records(self) -> Records:
        return read_records(self.v1.reader)

    def survey(self) -> Survey:
        return Survey.offline(self.containerd.reader, self.snapshots.reader, "buildkit", SNAPSHOTTER)

    def plan(self) -> Plan:
        return Plan(self.records(), self.survey())


@contextmanager
def _scan_v1(root: Path) -> Iterator[Work]:
    with ExitStack() as held:
        yield _Inputs(root, held).records


@contextmanager
def _scan_survey(root: Path) -> Iterator[Work]:
    with ExitStack() as held:
        yield _Inputs(root, held).survey


@contextmanager
def _plan(root: Path) -> Iterator[Work]:
    with ExitStack() as held:
        inputs = _Inputs(root, held)
        records, survey = inputs.records(), inputs.survey()
        yield lambda: Plan(records, survey)


@contextmanager
def _build_v2(root: Path) -> Iterator[Work]:
    with ExitStack() as held:
        inputs = _Inputs(root, held)
        plan = inputs.plan()
        aside = Path(held.enter_context(_scratch(root))) / "metadata_v2.db"
        yield lambda: bolt_store.write_store(
            aside, inputs.v1.root, plan.store_edits(), like=inputs.v1.path
        ).close()


@contextmanager
def _rewrite_containerd(root: Path) -> Iterator[Work]:
    with ExitStack() as held:
        plan = _Inputs(root, held).plan()
        held.close()  # releases the lock for the rewrite
        copy = held.enter_context(linked_copy(root))
        database = MetadataDatabase(copy / WORKER / CONTAINERD, exclusive=True)
        held.callback(database.close)
        now = time.time_ns()
        created, flat = stored_time(now), text_time(now)
        yield lambda: database.rewrite(plan.containerd_edits(created, flat))


@contextmanager
def _dry_run(root: Path) -> Iterator[Work]:
    yield lambda: migrate_root(root, dry_run=True)


@contextmanager
def _migrate(root: Path) -> Iterator[Work]:
    with linked_copy(root) as copy:
        yield lambda: migrate_root(copy)


@contextmanager
def _oracle(root: Path) -> Iterator[Work]:
    with ExitStack() as held:
        inputs = _Inputs(root, held)

        def work() -> None:
            survey = read_state(inputs.containerd.root, inputs.snapshots.root, "buildkit", SNAPSHOTTER)
            oracle.plan(plain_records(BucketView(inputs.v1.root)), survey)

        yield work


def _scratch(root: Path) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(dir=root.parent, prefix=f"{root.name}.")


@contextmanager
def linked_copy(root: Path) -> Iterator[Path]:
    """A copy of a root made of hard links. A migration replaces files, and so leaves the originals alone."""
    with _scratch(root) as scratch:
        copy = Path(scratch) / root.name
        for name in DATABASES:
            path = copy / WORKER / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.hardlink_to(root / WORKER / name)
        yield copy


STAGES: Final = {
    "v1": Stage("reading v1", (V1,), _scan_v1),
    "survey": Stage("asking containerd", DATABASES[1:], _scan_survey),
    "plan": Stage("planning", (), _plan, hashes=True),
    "v2": Stage("writing v2", (V1,), _build_v2),
    "containerd": Stage("rewriting containerd's database", (CONTAINERD,), _rewrite_containerd),
    "dry-run": Stage("dry run", DATABASES, _dry_run, hashes=True),
    "migrate": Stage("whole migration", DATABASES, _migrate),
    "oracle": Stage("dry run in plain Python", DATABASES, _oracle),
}
"""Stages by the names that `measure` takes."""
