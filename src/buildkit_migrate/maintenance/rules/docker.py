"""Rules about the snapshots of Docker's builder, which are in ``snapshots.db`` and the engine's layer store.

The same statements as for other snapshotters (C14, C23, C30).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from buildkit_migrate.maintenance.facts import WorkerFacts
from buildkit_migrate.maintenance.finding import Finding, Severity
from buildkit_migrate.maintenance.record_data import there
from buildkit_migrate.maintenance.rule import Part, worker_rule
from buildkit_migrate.maintenance.rules.wording import path_of, quoted, subject
from buildkit_migrate.model import Kind

__all__ = ["RULES"]

_NO_REPAIR: Final = "`repair` does nothing: only the engine can remove what the record holds."


@worker_rule("C14", "C23", "C30", needs=(Part.RECORDS, Part.CONTAINERD, Part.LAYERS))
def snapshots_of_docker(facts: WorkerFacts) -> Iterator[Finding]:
    """Mutable records have an active snapshot, layers a committed one."""
    data, snapshots = facts.data, facts.docker_snapshots
    assert data is not None
    file = path_of(facts.stores.snapshots)
    ids = data.records.ids

    def finding(rule: str, severity: Severity, row: int, message: str) -> Finding:
        return Finding(rule, severity, file, subject(ids[row]), message, repair=_NO_REPAIR)

    unfinished = data.layered - data.records.flag(b"snapshot.committed") - there(data.loading.target)
    for row in unfinished - data.blob_only:
        snapshot = snapshots.get(ids[row] or b"")
        if snapshot is None:
            message = "it is mutable, and its snapshot does not exist"
            yield finding("C14", Severity.HARMLESS, row, message)
        elif snapshot.kind is not Kind.ACTIVE:
            message = "it is mutable, and its snapshot is committed, not active"
            yield finding("C14", Severity.BUILD, row, message)
    for row in (data.immutable & data.layered) - data.blob_only:
        key = data.keys[row] or b""
        snapshot = snapshots.get(key)
        if snapshot is None:
            message = f"its snapshot {quoted(key)}, or the layer that this has become, does not exist"
            yield finding("C23", Severity.BUILD, row, message)
        elif snapshot.kind is not Kind.COMMITTED:
            yield finding("C30", Severity.BUILD, row, f"its snapshot {quoted(key)} is active, not committed")


RULES = (snapshots_of_docker,)
