"""Rules about what lies in a root beside its stores (C60, C61)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from buildkit_migrate.files.errors import look
from buildkit_migrate.maintenance.disk import directories_in, mount_points, usage, why_immovable
from buildkit_migrate.maintenance.facts import Facts, WorkerFacts
from buildkit_migrate.maintenance.finding import Finding, Severity
from buildkit_migrate.maintenance.rule import Part, RootRule, WorkerRule, root_rule, worker_rule
from buildkit_migrate.schema.solver import workers_and_records
from buildkit_migrate.workspace.stores import WorkerStores

__all__ = ["ROOT_RULES", "WORKER_RULES", "left_by_containers"]


@worker_rule("C60", needs=(Part.RECORDS,))
def run_state(facts: WorkerFacts) -> Iterator[Finding]:
    """Nothing is left of containers that ran: no bundle, and no mount point of a cache mount."""
    for left in left_by_containers(facts.stores):
        if left.fixed:
            message = "a container that is gone left it"
            repair = f"`repair` leaves it: {left.fixed}."
            yield Finding("C60", left.severity, left.place, left.name, message, repair=repair)
            continue
        measured = usage(left.place / left.name)
        size = measured.bytes if measured is not None else None
        message = f"a container that is gone left it; {left.fate}"
        yield Finding("C60", left.severity, left.place, left.name, message, bytes=size)


class Left(NamedTuple):
    """The directory ``name`` in ``place``. ``fixed``: why it can't be moved away, "" if it can be."""

    place: Path
    name: str
    fixed: str
    severity: Severity
    fate: str


def left_by_containers(worker: WorkerStores) -> Iterator[Left]:
    """Run bundles, and mount points of cache mounts."""
    points = mount_points()
    for name, severity, fate in (
        ("executor", Severity.LEAK, "no daemon removes it"),
        ("cachemounts", Severity.HARMLESS, "the next start removes it"),
    ):
        for directory in directories_in(worker.path / name):
            fixed = why_immovable(worker.path / name / directory, worker.path, points)
            yield Left(worker.path / name, directory, fixed, severity, fate)


@root_rule("C61", needs=())
def workers_in_use(facts: Facts) -> Iterator[Finding]:
    """The daemon used every worker directory when it last ran."""
    stores = facts.stores
    if len(stores.workers) < 2:
        return
    results = workers_and_records(facts.solver.result_ids)[0] if facts.solver is not None else ()
    named = set(results)
    used = [worker for worker in stores.workers if worker.worker_id and worker.worker_id in named]
    if not used:
        used = [max(stores.workers, key=_last_written)]
    for worker in stores.workers:
        if worker in used or _last_written(worker) > max(map(_last_written, used)):
            continue
        measured = usage(worker.path)
        yield Finding(
            "C61",
            Severity.LEAK,
            stores.root.state,
            worker.path.name,
            f"the daemon last worked in {used[0].path.name}, and no result names this worker",
            bytes=measured.bytes if measured is not None else None,
        )


def _last_written(worker: WorkerStores) -> int:
    """When its records were changed last, in nanoseconds since 1970; -1 if it has none."""
    info = look(worker.records.path) if worker.records.path is not None else None
    return info.st_mtime_ns if info is not None else -1


WORKER_RULES: Final[tuple[WorkerRule, ...]] = (run_state,)
ROOT_RULES: Final[tuple[RootRule, ...]] = (workers_in_use,)
