"""Rules about the history of builds (C56 to C58; spec buildkit-v2-stores, section 6)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from buildkit_migrate.maintenance.facts import Facts, WorkerFacts
from buildkit_migrate.maintenance.finding import Finding, Severity
from buildkit_migrate.maintenance.record_data import there
from buildkit_migrate.maintenance.rule import Part, RootRule, root_rule
from buildkit_migrate.maintenance.rules.wording import path_of, subject
from buildkit_migrate.schema.containerd import Namespace
from buildkit_migrate.schema.history import Build, History
from buildkit_migrate.text import cut

__all__ = ["RULES", "cut_migrations", "places_of_leases"]

_MIGRATED: Final = b"2"
"""Version of the history whose leases are in a namespace of their own."""


@root_rule("C56", needs=(Part.HISTORY,))
def builds_decode(facts: Facts) -> Iterator[Finding]:
    """Every build decodes, and has the name that it is stored under."""
    for file, history in facts.histories.items():
        for key in history.undecodable:
            message = "this build does not decode, so that no build can be listed"
            yield Finding("C56", Severity.PRUNE, file, subject(key), message)
        for build in history.builds:
            if build.ref != build.key:
                message = f"it calls itself {cut(build.ref) or 'nothing'}"
                yield Finding("C56", Severity.HARMLESS, file, subject(build.key), message)


@root_rule("C57", needs=(Part.HISTORY, Part.CONTAINERD))
def builds_have_leases(facts: Facts) -> Iterator[Finding]:
    """Every build has a lease that lists what the build names, and all of it is there.

    Leases may be those of any worker, so nothing is said if only one was given.
    """
    if facts.stores.root.path != facts.stores.root.state:
        return
    for file, history in facts.histories.items():
        places = [namespace for _, namespace in places_of_leases(facts, history)]
        for build in history.builds:
            if build.ref == build.key and (fault := _fault(build, places)):
                severity, message = fault
                yield Finding("C57", severity, file, subject(build.key), message)


def places_of_leases(facts: Facts, history: History) -> list[tuple[WorkerFacts, Namespace]]:
    """Where leases of builds may be: containerd's own namespaces of each worker, of which one has them."""
    places = [(worker, worker.history_namespace) for worker in facts.workers]
    if history.version != _MIGRATED:
        places += [(worker, worker.namespace) for worker in facts.workers]
    return [(worker, place) for worker, place in places if place is not None]


def _fault(build: Build, places: list[Namespace]) -> tuple[Severity, str] | None:
    found = [(place, row) for place in places if (row := place.leases.index.row(b"ref_" + build.key)) >= 0]
    if not found:
        return Severity.PRUNE, "it has no lease, so that it can't be deleted"
    lists = [
        (place, place.leases.content.keys[at]) for place, row in found for at in place.leases.content.of(row)
    ]
    if not lists:
        return Severity.HARMLESS, "its lease is empty: the next start removes the build"
    held = {digest for place, digest in lists if place.blobs.index.row(digest or b"") >= 0}
    lost = sorted(build.digests - held)
    if not lost:
        return None
    listed = {digest for _, digest in lists}
    state = "does not exist" if lost[0] in listed else "is not listed by its lease"
    more = f", and {len(lost) - 1} more" if len(lost) > 1 else ""
    return Severity.HARMLESS, f"{cut(lost[0])} {state}{more}: logs or attestations of this build are lost"


@root_rule("C58", needs=(Part.HISTORY, Part.CONTAINERD))
def migration_is_whole(facts: Facts) -> Iterator[Finding]:
    """No lease of a build is in both namespaces while the history has not been migrated."""
    for worker, ref in cut_migrations(facts):
        file = path_of(worker.stores.containerd)
        message = "its lease is in both namespaces: a migration of the history was cut off here"
        yield Finding("C58", Severity.START, file, subject(ref), message)


def cut_migrations(facts: Facts) -> Iterator[tuple[WorkerFacts, bytes]]:
    """Builds with a lease in both namespaces of a worker, while the history has not been migrated."""
    told: set[tuple[Path, bytes, bytes]] = set()
    for history in facts.histories.values():
        if history.version == _MIGRATED:
            continue
        refs = [build.key for build in history.builds] + history.undecodable
        ids = [b"ref_" + ref for ref in refs]
        for worker in facts.workers:
            if worker.namespace is None or worker.history_namespace is None:
                continue
            both = there(worker.namespace.leases.index.rows(ids))
            both &= there(worker.history_namespace.leases.index.rows(ids))
            for row in both:
                place = path_of(worker.stores.containerd), worker.stores.namespace, refs[row]
                if place not in told:
                    told.add(place)
                    yield worker, refs[row]


RULES: Final[tuple[RootRule, ...]] = (builds_decode, builds_have_leases, migration_is_whole)
