"""Records taken together: by type, by the image that they came with, by age."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from buildkit_migrate.maintenance.du import DiskUsage, UsageRecord, WorkerUsage
from buildkit_migrate.text import printable

__all__ = ["GROUPINGS", "Group", "group"]

_DAY: Final = 86_400_000_000_000  # nanoseconds
_AGES: Final = (
    (_DAY, "used in the last day"),
    (7 * _DAY, "in the last 7 days"),
    (30 * _DAY, "in the last 30 days"),
    (90 * _DAY, "in the last 90 days"),
    (365 * _DAY, "in the last 365 days"),
)
_OLDER: Final = "before that"
_NEVER: Final = "never used"
_BUILT: Final = "(built here)"

GROUPINGS: Final = ("type", "image", "age")


class Group(NamedTuple):
    """``bytes``: of all of them."""

    name: str
    records: int
    bytes: int


def group(usage: DiskUsage, by: str, now: int) -> list[Group]:
    """The groups, largest first; those of ages in order.

    ``by``: one of GROUPINGS. ``now``: nanoseconds since 1970. A record belongs to the image that it, or the
    nearest of its first parents, was pulled as.
    """
    found: dict[str, list[int]] = {}
    for worker in usage.workers:
        if worker.loading is None:
            continue
        name_of = _naming(worker, by, now)
        for row, record in zip(worker.rows, worker, strict=True):
            counts = found.setdefault(name_of(row, record), [0, 0])
            counts[0] += 1
            counts[1] += max(record.size, 0)
    groups = [Group(name, records, size) for name, (records, size) in found.items()]
    if by == "age":
        order = [*(name for _, name in _AGES), _OLDER, _NEVER]
        return sorted(groups, key=lambda one: order.index(one.name))
    return sorted(groups, key=lambda one: (-one.bytes, one.name))


def _naming(worker: WorkerUsage, by: str, now: int) -> Callable[[int, UsageRecord], str]:
    if by == "type":
        return lambda row, record: printable(record.record_type)
    if by == "age":
        return lambda row, record: _age(record, now)
    images = _Images(worker)
    return lambda row, record: images.of(row)


def _age(record: UsageRecord, now: int) -> str:
    if record.last_used_at is None:
        return _NEVER
    age = now - record.last_used_at
    return next((name for most, name in _AGES if age <= most), _OLDER)


class _Images:
    def __init__(self, worker: WorkerUsage) -> None:
        assert worker.loading is not None
        self._loading = worker.loading
        references = worker.loading.records.lists(b"cache.imageRefs")
        self._own: dict[int, str] = {}
        for row, name in zip(references.rows, references.values, strict=True):
            self._own.setdefault(row, printable(name or b""))
        self._found: dict[int, str] = {}

    def of(self, row: int) -> str:
        passed = []
        while row not in self._found:
            passed.append(row)
            if row in self._own:
                self._found[row] = self._own[row]
                break
            parents = self._loading.shown_parents_of(row)
            if not parents:
                self._found[row] = _BUILT
                break
            row = parents[0]
        name = self._found[row]
        self._found.update(dict.fromkeys(passed, name))
        return name
