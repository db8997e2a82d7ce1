"""Repairs of what nobody owns: leases (C32 to C35), and directories of the native snapshotter (C45).

Leases are deleted, and the next collection does the rest. Only what is beyond doubt (spec
buildkit-v2-stores, section 4): the lease has the form of one of a record or of a build, and every store that
could know its owner has been looked at and was not reset.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from buildkit_migrate.bolt.edits import below
from buildkit_migrate.maintenance.disk import mount_points, number_of, why_immovable
from buildkit_migrate.maintenance.facts import Facts, WorkerFacts
from buildkit_migrate.maintenance.leases import (
    Orphan,
    Owners,
    orphans_of_builds,
    orphans_of_records,
    owners_of,
    unowned,
)
from buildkit_migrate.maintenance.mend import (
    EditStore,
    Mend,
    RemoveDirectory,
    Repair,
    RepairClass,
    root_repair,
    worker_repair,
)
from buildkit_migrate.maintenance.rule import Part
from buildkit_migrate.maintenance.rules import snapshotter
from buildkit_migrate.maintenance.rules.wording import subject

__all__ = ["ROOT_REPAIRS", "WORKER_REPAIRS"]


@root_repair("C32", "C33", needs=(Part.RECORDS, Part.CONTAINERD))
def leases_of_records(facts: Facts) -> Iterator[Mend]:
    for owners in owners_of(facts):
        if _are_known(owners, facts):
            for orphan in orphans_of_records(owners, unowned(owners, owners.namespace)):
                if orphan.rule == "C33" or not owners.of_docker:
                    yield _released(orphan)


@root_repair("C34", "C35", needs=(Part.RECORDS, Part.CONTAINERD, Part.HISTORY))
def leases_of_builds(facts: Facts) -> Iterator[Mend]:
    for orphan in orphans_of_builds(facts):
        if _are_known(orphan.owners, facts):
            yield _released(orphan)


def _are_known(owners: Owners, facts: Facts) -> bool:
    """Whether all is known of the root that could own a lease. Of other roots nobody here can know."""
    root = facts.stores.root
    whole = root.is_whole
    return owners.reset is None and (whole or not owners.shared)


def _released(orphan: Orphan) -> Mend:
    store = orphan.owners.workers[0].stores.containerd
    ids = [lease.id for lease in orphan.leases]
    edits = below((b"v1", orphan.namespace.name, b"leases"), dict.fromkeys(ids))
    return Mend(
        orphan.rule,
        RepairClass.RELEASE_LEAKS,
        orphan.owners.file,
        subject(ids[0]),
        "deletes the lease" + (", and the one for variants" if len(ids) > 1 else ""),
        (EditStore(store, edits, last=True),),
        freed=orphan.bytes,
    )


@worker_repair("C45", needs=(Part.CONTAINERD, Part.SNAPSHOTS, Part.DIRECTORIES))
def directories(facts: WorkerFacts) -> Iterator[Mend]:
    """Directories of no snapshot, where no collection removes them.

    Where numbers are wrong (C43) none is touched, and none with a number where snapshots were lost.
    """
    found = facts.directories
    if found is None or not found.plain:
        return
    if any(finding.file == facts.stores.snapshots.path for finding in snapshotter.sequences.find(facts)):
        return
    points = mount_points()
    for finding in snapshotter.directories.find(facts):
        place = found.path / finding.subject
        if (
            finding.rule == "C45"
            and not (_lost_some(facts) and number_of(finding.subject) is not None)
            and not why_immovable(place, found.path.parent, points)
        ):
            change = RemoveDirectory(place)
            yield Mend(
                "C45",
                RepairClass.RELEASE_LEAKS,
                finding.file,
                finding.subject,
                "removes the directory",
                (change,),
                freed=finding.bytes,
            )


def _lost_some(facts: WorkerFacts) -> bool:
    """Whether the snapshotter has lost snapshots: then a directory may be all that is left of one."""
    return bool(facts.unbacked) or (facts.data is not None and bool(facts.data.missing_keys))


WORKER_REPAIRS: Final[tuple[Repair[WorkerFacts], ...]] = (directories,)
ROOT_REPAIRS: Final[tuple[Repair[Facts], ...]] = (leases_of_records, leases_of_builds)
