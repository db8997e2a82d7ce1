"""Rules about leases: each has an owner (C31 to C36, C39), and about labels that hold without one (C38).

C37, that what a lease lists exists, is no finding: daemons leave such leases.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from buildkit_migrate.maintenance.collection import Collection
from buildkit_migrate.maintenance.facts import Facts
from buildkit_migrate.maintenance.finding import Finding, Severity
from buildkit_migrate.maintenance.leases import (
    Kind,
    Lease,
    Owners,
    orphans_of_builds,
    orphans_of_records,
    owners_of,
    unowned,
    weighed,
)
from buildkit_migrate.maintenance.rule import Part, RootRule, root_rule
from buildkit_migrate.maintenance.rules.wording import path_of, subject
from buildkit_migrate.schema.containerd import GC_ROOT, Blobs, Namespace, Snapshots

__all__ = ["RULES"]

_DOCKER: Final = b"moby"
"""Docker Engine has leases of its own there."""


@root_rule("C31", "C32", "C33", "C36", "C39", needs=(Part.RECORDS, Part.CONTAINERD))
def orphans(facts: Facts) -> Iterator[Finding]:
    """Each lease belongs to a record or a build, or is one that daemons leave for a while."""
    for owners in owners_of(facts):
        for namespace in _namespaces(owners):
            rows = unowned(owners, namespace)
            if namespace is owners.namespace:
                yield from _of_records(owners, rows)
            if namespace.name == _DOCKER:
                continue
            for lease in weighed(owners, namespace, rows[Kind.PASSING]):
                message = f"it goes at the next start or when it expires; it alone holds {_count(lease)}"
                yield _finding("C31", Severity.HARMLESS, owners, [lease], message)
            for lease in weighed(owners, namespace, rows[Kind.OTHER]):
                message = f"it belongs to no record and no build; it alone holds {_count(lease)}"
                yield _finding("C36", Severity.LEAK, owners, [lease], message)


def _namespaces(owners: Owners) -> Iterator[Namespace]:
    yield owners.namespace
    if owners.history is not None:
        yield owners.history


def _of_records(owners: Owners, rows: Mapping[Kind, list[int]]) -> Iterator[Finding]:
    """A record's second lease belongs to the finding about its first one."""
    if owners.reset is not None:
        if rows[Kind.RECORD]:
            leases = weighed(owners, owners.namespace, sorted(rows[Kind.RECORD] + rows[Kind.VARIANTS]))
            message = f"there are no records, and {len(leases)} leases of records"
            file = path_of(owners.reset.stores.records)
            yield Finding("C39", Severity.LEAK, file, "", message, sum(lease.bytes for lease in leases))
        return
    for orphan in orphans_of_records(owners, rows):
        repair = None
        if owners.of_docker and orphan.rule == "C32":
            repair = "`repair` does nothing, as only Docker itself removes the layers that the lease holds."
        elif owners.shared:
            repair = (
                "`repair` does nothing by itself, as other state directories may use this containerd: "
                "`repair --release-leaks` deletes the lease."
            )
        message = f"there is no such record; the lease alone holds {_count(*orphan.leases)}"
        yield _finding(orphan.rule, Severity.LEAK, owners, orphan.leases, message, repair)


def _count(*leases: Lease) -> str:
    """What only these leases hold, as the end of a sentence."""
    counts = (
        ("snapshot", sum(lease.snapshots for lease in leases)),
        ("blob", sum(lease.blobs for lease in leases)),
    )
    named = [f"{count} {what}{'s' if count != 1 else ''}" for what, count in counts if count]
    return " and ".join(named) or "no data"


def _finding(
    rule: str,
    severity: Severity,
    owners: Owners,
    leases: Sequence[Lease],
    message: str,
    repair: str | None = None,
) -> Finding:
    """Named by the first lease."""
    size = sum(lease.bytes for lease in leases)
    return Finding(rule, severity, owners.file, subject(leases[0].id), message, size, repair)


@root_rule("C34", "C35", needs=(Part.CONTAINERD, Part.HISTORY))
def builds(facts: Facts) -> Iterator[Finding]:
    """A lease of a build is in the history's own namespace, and the build is in the history."""
    for orphan in orphans_of_builds(facts):
        state = "there is no such build in the history"
        if orphan.rule == "C35":
            state = "it is not where builds have their leases"
        message = f"{state}; it alone holds {_count(*orphan.leases)}"
        yield _finding(orphan.rule, Severity.LEAK, orphan.owners, orphan.leases, message)


@root_rule("C38", needs=(Part.RECORDS, Part.CONTAINERD))
def rooted(facts: Facts) -> Iterator[Finding]:
    """An object with a ``gc.root`` label is held by something else as well, or belongs to a record."""
    for owners in owners_of(facts):
        namespace = owners.namespace
        tables: dict[bytes, Blobs | Snapshots] = {b"": namespace.blobs}
        tables.update((name, namespace.snapshots(name)) for name in namespace.snapshotters)
        labels = {name: table.below(b"labels", prefix=GC_ROOT) for name, table in tables.items()}
        if owners.reset is not None or namespace.name == _DOCKER or not any(labels.values()):
            continue
        kept = Collection(namespace, owners.now).kept_without_roots()
        used: set[bytes | None] = set()
        for worker in owners.workers:
            if worker.data is not None:
                used.update(worker.data.keys)
                used.update(worker.data.digests)
        for name, table in tables.items():
            held = kept.snapshots[name] if name else kept.blobs
            for row in sorted(set(labels[name].rows)):
                if row not in held and table.keys[row] not in used:
                    what = "snapshot" if name else "blob"
                    message = f"no lease and no record holds this {what}, but its label `gc.root` does"
                    yield Finding("C38", Severity.LEAK, owners.file, subject(table.keys[row]), message)


RULES: Final[tuple[RootRule, ...]] = (orphans, builds, rooted)
