"""Repairs that delete builds of the history: the build, then its lease (C56, C57)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from buildkit_migrate.bolt.edits import below
from buildkit_migrate.maintenance.facts import Facts
from buildkit_migrate.maintenance.finding import Finding
from buildkit_migrate.maintenance.mend import EditStore, Mend, Repair, RepairClass, root_repair
from buildkit_migrate.maintenance.rule import Part
from buildkit_migrate.maintenance.rules import history

__all__ = ["REPAIRS"]


@root_repair("C56", "C57", needs=(Part.HISTORY, Part.CONTAINERD))
def builds(facts: Facts) -> Iterator[Mend]:
    """Builds that can't be shown, or whose logs are gone."""
    stores = {store.path: store for store in facts.stores.histories}
    findings = list(history.builds_decode.find(facts))
    if facts.all_workers:  # else a lease that was not found may be that of a worker that was not looked at
        findings += history.builds_have_leases.find(facts)
    for finding in findings:
        key = finding.subject.encode(errors="surrogateescape")
        leases = tuple(_leases(facts, finding, key))
        yield Mend(
            finding.rule,
            RepairClass.DROP,
            finding.file,
            finding.subject,
            "deletes the build" + (", and then its lease" if leases else ""),
            (EditStore(stores[finding.file], {b"_records": {key: None}}), *leases),
            "the build in the history, with what is left of its logs",
        )


def _leases(facts: Facts, finding: Finding, key: bytes) -> Iterator[EditStore]:
    """Deletions of the leases of a build, unless another history has a build of that name."""
    if any(
        key in found.undecodable or any(key == build.key for build in found.builds)
        for file, found in facts.histories.items()
        if file != finding.file
    ):
        return
    id = b"ref_" + key
    for worker, namespace in history.places_of_leases(facts, facts.histories[finding.file]):
        if namespace.leases.index.row(id) >= 0:
            edits = below((b"v1", namespace.name, b"leases"), {id: None})
            yield EditStore(worker.stores.containerd, edits, last=True)


REPAIRS: Final[tuple[Repair[Facts], ...]] = (builds,)
