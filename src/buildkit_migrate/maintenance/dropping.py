"""Dropping records as a daemon does: with all that is built on them, and their leases after them."""

from __future__ import annotations

from dataclasses import dataclass

from buildkit_migrate.maintenance.facts import WorkerFacts
from buildkit_migrate.maintenance.mend import EditStore
from buildkit_migrate.schema.columns import Mask

__all__ = ["Dropped", "drop_records"]


@dataclass(frozen=True)
class Dropped:
    """``rows``: all records that go. ``changes``: of the record store, then ``last`` of containerd's."""

    rows: Mask
    changes: tuple[EditStore, ...]


def drop_records(facts: WorkerFacts, rows: Mask) -> Dropped:
    """Plans to drop records, their descendants over all kinds of parents, and their partners in pairs."""
    raise NotImplementedError
