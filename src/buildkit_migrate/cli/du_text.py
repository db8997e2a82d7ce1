"""What ``du`` prints for people: as `buildctl` lays it out, and what goes beyond that."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from buildkit_migrate.cli import tables
from buildkit_migrate.text import printable
from buildkit_migrate.values.times import utc_text

if TYPE_CHECKING:
    from buildkit_migrate.maintenance.details import Details, RecordDetails
    from buildkit_migrate.maintenance.du import DiskUsage, Totals, UsageRecord, WorkerUsage
    from buildkit_migrate.maintenance.grouping import Group
    from buildkit_migrate.maintenance.state_bytes import StateBytes

__all__ = [
    "drawn_table",
    "group_lines",
    "heading",
    "record_lines",
    "size_text",
    "state_lines",
    "table_lines",
    "total_lines",
    "tree_lines",
    "warning_lines",
]

_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_TAB: Final = 8  # columns
_ID: Final = 71  # characters
_DEEPEST: Final = 100  # levels of a tree


def size_text(size: int) -> str:
    """In units of 1000, as buildctl prints sizes."""
    unit = 0
    scale = 1
    while abs(size) >= scale * 1000 and unit < len(_UNITS) - 1:
        unit += 1
        scale *= 1000
    return f"{size / scale:.2f}{_UNITS[unit]}" if unit else f"{size}B"


def heading(usage: DiskUsage) -> str:
    """What a list of one of several roots begins with."""
    return f"{printable(str(usage.root))}:"


# --- As buildctl


def record_lines(record: UsageRecord, details: RecordDetails | None) -> Iterator[str]:
    """All of one record, and a blank line."""
    values: dict[str, object] = {"ID": printable(record.id)}
    if record.parents:
        values["Parents"] = ";".join(map(printable, record.parents))
    if record.created_at is not None:
        values["Created at"] = _time(record.created_at)
    values["Mutable"] = _flag(record.mutable)
    values["Reclaimable"] = _flag(not record.in_use)
    values["Shared"] = _flag(record.shared)
    values["Size"] = size_text(record.size)
    if record.description:
        values["Description"] = printable(record.description)
    values["Usage count"] = record.usage_count
    if record.last_used_at is not None:
        values["Last used"] = _time(record.last_used_at)
    values["Type"] = printable(record.record_type)
    yield from (_line(name, value) for name, value in values.items())
    if details is not None:
        yield from _detail_lines(details)
    yield ""


def _detail_lines(details: RecordDetails) -> Iterator[str]:
    if details.snapshot is not None:
        yield _line("Snapshot", details.snapshot)
    if details.path is not None:
        yield _line("Directory", printable(str(details.path)))
    yield from (_line("Lease", printable(lease)) for lease in details.leases)
    if details.blob is not None:
        yield _line("Blob", printable(details.blob))
    yield from (_line("Kept by", reason) for reason in details.kept_by)
    if details.dropped is not None:
        yield _line("Dropped", f"at the next start, as it {details.dropped}")


def _line(name: str, value: object) -> str:
    """Names take 16 columns."""
    return f"{name}:\t" + ("\t" if len(name) + 1 < _TAB else "") + str(value)


def table_lines(usage: DiskUsage) -> Iterator[str]:
    """In columns of whole tabs, as wide as what is in them. There may be millions of lines."""
    widest, longest = _ID, len("SIZE")
    for worker in usage.workers:
        sizes = worker.sizes.values if len(worker) else ()
        longest = max(longest, *(len(size_text(size)) for size in {sizes[row] for row in worker.rows} | {0}))
        for row in worker.rows:
            id = worker.id_of(row)
            if len(id) >= _ID or not id.isalnum():
                widest = max(widest, len(printable(id)) + worker.is_mutable(row))
    reclaimable = _cell(f"{_flag(True):<11}", 11)  # at rest all are
    yield _cell("ID", widest) + _cell("RECLAIMABLE", 11) + _cell("SIZE", longest) + "LAST ACCESSED"
    ends = functools.lru_cache(maxsize=1 << 16)(lambda size: reclaimable + _cell(size_text(size), longest))
    for worker, row in usage.in_order():
        id = worker.id_of(row)
        text = id.decode() if id.isalnum() else printable(id)
        text = f"{text}*" if worker.is_mutable(row) else text
        yield _cell(f"{text:<{_ID}}", widest) + ends(worker.sizes.values[row])


def drawn_table(usage: DiskUsage) -> Iterator[str]:
    """The same columns on a terminal."""
    rows = (
        (
            printable(worker.id_of(row)) + "*" * worker.is_mutable(row),
            _flag(True),
            size_text(worker.sizes.values[row]),
            "",
        )
        for worker, row in usage.in_order()
    )
    return tables.drawn(("ID", "RECLAIMABLE", ">SIZE", "LAST ACCESSED"), rows)


def _cell(text: str, widest: int) -> str:
    return text + "\t" * (widest // _TAB + 1 - len(text) // _TAB)


def total_lines(totals: Totals) -> Iterator[str]:
    if totals.shared:
        yield _line("Shared", size_text(totals.shared))
        yield _line("Private", size_text(totals.private))
    yield _line("Reclaimable", size_text(totals.reclaimable))
    yield _line("Total", size_text(totals.total))


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _time(ns: int) -> str:
    """As Go prints a time."""
    return utc_text(ns).replace("T", " ").removesuffix("Z") + " +0000 UTC"


# --- Beyond that


def tree_lines(worker: WorkerUsage, details: Details) -> Iterator[str]:
    """Each record once, below its first parent that is listed; other parents are named.

    Very deep down, lines are not indented any more, and all parents are named.
    """
    first = {row: parents[0] for row, parents in details.parents.items() if parents}
    waiting = [(row, 0, "", "") for row in reversed(worker.rows) if row not in first]
    while waiting:
        row, depth, before, below = waiting.pop()
        deep = depth > _DEEPEST
        yield before + _node(worker, row, details.parents[row][0 if deep else 1 :])
        mark = "└── "
        for child in reversed(details.children.get(row, ())):
            if first[child] == row:
                indent = "    " if mark == "└── " else "│   "
                waiting.append((child, depth + 1, below + mark, below if deep else below + indent))
                mark = "├── "


def _node(worker: WorkerUsage, row: int, others: Sequence[int]) -> str:
    record = worker.record_at(row)
    text = f"{printable(record.id)}{'*' * record.mutable}  {size_text(record.size)}"
    if record.description:
        text += f"  {printable(record.description)}"
    if others:
        text += f"  (on {', '.join(printable(worker.id_of(other)) for other in others)})"
    return text


def group_lines(groups: Iterable[Group]) -> Iterator[str]:
    found = list(groups)
    if tables.on_terminal():
        rows = [(size_text(one.bytes), f"{one.records:,}", one.name) for one in found]
        yield from tables.drawn((">SIZE", ">RECORDS", "OF"), rows)
        return
    sizes = [size_text(one.bytes) for one in found]
    width = max((len(size) for size in sizes), default=0)
    for one, size in zip(found, sizes, strict=True):
        yield f"{size:>{width}}  {one.records:>7}  {one.name}"


def state_lines(state: StateBytes) -> Iterator[str]:
    """The table, and the databases in it."""
    if tables.on_terminal():
        yield from _drawn_state(state)
        yield from _unread_lines(state)
        return
    for share, size in state.shares.items():
        if size:
            yield f"{size_text(size):>10}  {share.value}"
    yield f"{size_text(state.total):>10}  {printable(str(state.root))}, as du -s counts: {state.total} bytes"
    for database in state.databases:
        free = "damaged" if database.free is None else f"{size_text(database.free)} free"
        yield f"{size_text(database.size):>10}  {printable(str(database.path))} ({free})"
    yield from _unread_lines(state)


def _unread_lines(state: StateBytes) -> Iterator[str]:
    for error in state.unread:
        yield f"buildkit-migrate: not counted: {printable(error.message)}"


def _drawn_state(state: StateBytes) -> Iterator[str]:
    shares = [(size_text(size), share.value) for share, size in state.shares.items() if size]
    total = f"{printable(str(state.root))}, as du -s counts: {state.total} bytes"
    yield from tables.drawn((">SIZE", "WHAT"), [*shares, (size_text(state.total), total)])
    rows = []
    for one in state.databases:
        free = "damaged" if one.free is None else size_text(one.free)
        rows.append((size_text(one.size), free, printable(str(one.path))))
    yield from tables.drawn((">SIZE", ">FREE", "DATABASE"), rows)


def warning_lines(usage: DiskUsage, after_start: bool) -> Iterator[str]:
    """Lines for stderr: what is missing from the list, and what the next start changes."""
    for one in usage.incomplete:
        yield f"buildkit-migrate: not shown, or in part: {printable(str(one.place))}: {one.reason}"
    for worker in usage.workers:
        if worker.worker.stores.old is not None:
            yield (
                f"buildkit-migrate: {printable(str(worker.path))}: a v1 store, listed as if it were migrated "
                "(buildkit-migrate migrate does that)"
            )
        if worker.abandoned:
            yield (
                f"buildkit-migrate: {printable(str(worker.path))}: there are no records, but "
                f"{worker.abandoned} snapshots (buildkit-migrate check tells more)"
            )
        if worker.dropped and not after_start:
            yield (
                f"buildkit-migrate: {printable(str(worker.path))}: the next start of the daemon drops "
                f"{worker.dropped} records (--details tells why, --after-start lists what is left)"
            )
