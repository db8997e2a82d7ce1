"""What `repair` does about findings: a mend is a set of changes that make one finding go away.

@repair_of("C18", needs=(Part.RECORDS,))
def dangling_entries(facts: WorkerFacts) -> Iterator[Mend]: ...
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from buildkit_migrate.bolt.edits import Edits
from buildkit_migrate.maintenance.facts import Facts, WorkerFacts
from buildkit_migrate.maintenance.rule import Part
from buildkit_migrate.workspace.stores import Store

__all__ = [
    "Change",
    "DropRecord",
    "EditStore",
    "FreedBy",
    "MakeDirectory",
    "Mend",
    "MoveAside",
    "RemoveDirectory",
    "Repair",
    "RepairClass",
    "RewriteStore",
    "WriteFile",
    "root_repair",
    "worker_repair",
]

F = TypeVar("F", Facts, WorkerFacts)


class RepairClass(enum.StrEnum):
    """What a repair may do, from harmless to destructive. Each but the first has to be asked for."""

    PROTECT = "protect"
    """Only adds protection, or puts right what describes the data. Nothing is lost."""
    RELEASE_LEAKS = "release-leaks"
    """Gives up what nothing names, so that its space is freed."""
    DROP = "drop"
    """Removes records that the daemon drops or stumbles over, with what is built on them."""
    SET_ASIDE = "set-aside"
    """Renames a whole store, as the daemon itself would."""


class FreedBy(enum.StrEnum):
    """Who frees the space of what a repair gives up."""

    COLLECTION = "collection"
    """The daemon's next garbage collection."""
    DISCARD_KEPT = "discard-kept"
    """`repair --discard-kept`: until then it is there for an undo."""


@dataclass(frozen=True)
class EditStore:
    """Edits of one store. ``last``: they give something up, so that they come after all else.

    ``sequences``: what the sequence of the bucket at a path is raised to.
    """

    store: Store
    edits: Edits
    last: bool = False
    sequences: Mapping[tuple[bytes, ...], int] = field(default_factory=dict)


@dataclass(frozen=True)
class RewriteStore:
    """A store written anew without edits: its trees are copied, its free list is made.

    ``previous``: from the state before its newest transaction.
    """

    store: Store
    previous: bool = False


@dataclass(frozen=True)
class DropRecord:
    """A record goes, and all that is built on it: values, index entries, external data, then the leases."""

    worker: WorkerFacts
    row: int


@dataclass(frozen=True)
class MakeDirectory:
    """An empty directory. ``like``: one whose owner and mode it gets."""

    path: Path
    like: Path


@dataclass(frozen=True)
class WriteFile:
    """A small file, made or replaced. ``like``: a file whose owner and mode it gets."""

    path: Path
    content: bytes
    like: Path


@dataclass(frozen=True)
class RemoveDirectory:
    """A directory tree, in which nothing is mounted, goes. It is moved aside, so that an undo has it."""

    path: Path


@dataclass(frozen=True)
class MoveAside:
    """A file gets another name, as the daemon would give it, so that a new one is made in its place."""

    path: Path


Change = EditStore | RewriteStore | DropRecord | MakeDirectory | WriteFile | RemoveDirectory | MoveAside


@dataclass(frozen=True)
class Mend:
    """``rule``, ``subject``, ``file``: those of the finding. ``kind``: what has to be asked for.

    ``does``: in one sentence without a subject ("makes its lease, with a snapshot and a blob"). ``loses``:
    what it costs, "" if nothing is lost. ``freed``: bytes that `freed_by` then frees, None if that is not
    what it is for. ``record``: the worker and the id of the record that it is for; if that one
    is dropped, there is nothing to mend.
    """

    rule: str
    kind: RepairClass
    file: Path
    subject: str
    does: str
    changes: tuple[Change, ...]
    loses: str = ""
    freed: int | None = None
    record: tuple[WorkerFacts, bytes] | None = None

    @property
    def freed_by(self) -> FreedBy | None:
        """What frees the bytes: a directory that was removed is kept, and no daemon knows of it."""
        if self.freed is None:
            return None
        is_kept = any(isinstance(change, RemoveDirectory) for change in self.changes)
        return FreedBy.DISCARD_KEPT if is_kept else FreedBy.COLLECTION


@dataclass(frozen=True)
class Repair(Generic[F]):
    """``numbers``: of the rules whose findings ``mends`` is for. ``needs``: as for `Rule`."""

    numbers: tuple[str, ...]
    needs: tuple[Part, ...]
    mends: Callable[[F], Iterator[Mend]]


def worker_repair(
    *numbers: str, needs: Sequence[Part]
) -> Callable[[Callable[[WorkerFacts], Iterator[Mend]]], Repair[WorkerFacts]]:
    """Makes a function a repair of each worker."""
    return lambda mends: Repair(numbers, tuple(needs), mends)


def root_repair(
    *numbers: str, needs: Sequence[Part]
) -> Callable[[Callable[[Facts], Iterator[Mend]]], Repair[Facts]]:
    """Makes a function a repair of the whole root."""
    return lambda mends: Repair(numbers, tuple(needs), mends)
