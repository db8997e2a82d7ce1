"""What a rule is: its numbers, what it has to look at, and a pure function from facts to findings.

@worker_rule("C26", "C27", needs=(Part.RECORDS, Part.CONTAINERD))
def leases_hold_data(facts: WorkerFacts) -> Iterator[Finding]: ...

RULES = (leases_hold_data,)
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from buildkit_migrate.maintenance.facts import Facts, WorkerFacts
from buildkit_migrate.maintenance.finding import Finding

__all__ = ["Part", "RootRule", "Rule", "WorkerRule", "number_of", "root_rule", "worker_rule"]

F = TypeVar("F", Facts, WorkerFacts)


class Part(enum.Enum):
    """What a rule may need. A part is available only if it is neither lost nor damaged."""

    RECORDS = "records"
    """``WorkerFacts.records``, ``entries`` and ``external``."""
    CONTAINERD = "containerd"
    """``WorkerFacts.namespace`` and ``history_namespace``."""
    SNAPSHOTS = "snapshots"
    """``WorkerFacts.backend``, and with it ``snapshots``: Docker's builder has neither."""
    LAYERS = "layers"
    """``WorkerFacts.docker_snapshots``: only Docker's builder has them."""
    DIRECTORIES = "directories"
    """``WorkerStores.directories``."""
    FILES = "files"
    """Files in these directories, unless there are too many to look at."""
    CONTENT = "content"
    """``WorkerStores.content``."""
    BLOBS = "blobs"
    """Content of these files, unless it is too much to read."""
    CACHE = "cache"
    """``Facts.solver``."""
    HISTORY = "history"
    """``Facts.histories``, all of them."""


@dataclass(frozen=True)
class Rule(Generic[F]):
    """``numbers``: of all rules that ``find`` reports. ``needs``: without all of these it is not called."""

    numbers: tuple[str, ...]
    needs: tuple[Part, ...]
    find: Callable[[F], Iterator[Finding]]


WorkerRule = Rule[WorkerFacts]
"""About each worker alone."""

RootRule = Rule[Facts]
"""About all workers and the stores that they share. What it needs, it needs of each worker."""


def worker_rule(
    *numbers: str, needs: Sequence[Part]
) -> Callable[[Callable[[WorkerFacts], Iterator[Finding]]], WorkerRule]:
    """Makes a function a rule about each worker."""
    return lambda find: Rule(numbers, tuple(needs), find)


def root_rule(
    *numbers: str, needs: Sequence[Part]
) -> Callable[[Callable[[Facts], Iterator[Finding]]], RootRule]:
    """Makes a function a rule about the whole root."""
    return lambda find: Rule(numbers, tuple(needs), find)


def number_of(rule: str) -> int:
    """For sorting: 23 for "C23"."""
    return int(rule[1:])
