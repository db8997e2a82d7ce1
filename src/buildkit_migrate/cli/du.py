"""``buildkit-migrate du``: the records of a stopped root, as `buildctl du` lists them."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from buildkit_migrate.cli import options as shared
from buildkit_migrate.cli import output, targets

if TYPE_CHECKING:
    from buildkit_migrate.maintenance.du import DiskUsage, Totals, UsageRecord
    from buildkit_migrate.model import Progress
    from buildkit_migrate.workspace.layout import Root

__all__ = ["DOCUMENT", "add_parser", "run"]

DOCUMENT: Final[Mapping[str, Any]] = {
    "root": None,
    "records": [],
    "totals": None,
    "workers": [],
    "incomplete": [],
}
"""What the JSON document of an error has beside it: the same names as that of a result."""

_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_TAB: Final = 8  # columns


def add_parser(commands: Any, epilog: str) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "du",
        help="list the records of a stopped root and their sizes",
        description="List the records of a stopped BuildKit as buildctl du lists them: with the same names,\n"
        "sizes, order and totals. Records whose size no daemon has measured yet are measured: their\n"
        "directories are walked. Nothing is written.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    shared.add_root(parser)
    targets.add_all(parser)
    add = parser.add_argument
    add("-v", "--verbose", action="store_true", help="print all that is known of each record")
    add(
        "-f",
        "--filter",
        metavar="FILTER",
        action="append",
        default=[],
        help="only records that match, as for buildctl: id, parents, description, type, inuse, mutable, "
        "immutable, shared, private; with ==, !=, ~= (regular expression) or @= (part) and a value; several "
        "with commas must all match, of several options one",
    )
    add(
        "--after-start",
        action="store_true",
        help="as the daemon lists them after its next start: without lazy records that it then drops",
    )
    shared.add_containerd(parser)
    shared.add_output(parser)


def run(options: argparse.Namespace) -> int:
    """Exit status: 0, or that of the worst of what could not be shown."""
    from buildkit_migrate.api import open_usage
    from buildkit_migrate.cli.exit_statuses import worst
    from buildkit_migrate.cli.failures import UsageError
    from buildkit_migrate.maintenance.filters import FilterError, parse
    from buildkit_migrate.workspace.stores import find_state

    try:
        parse(options.filter)
    except FilterError as error:
        raise UsageError(str(error)) from error

    def work(root: Root, progress: Progress | None) -> targets.Result:
        usage = opened.enter_context(
            open_usage(
                root.path,
                **shared.containerd_arguments(options),
                filter=options.filter,
                after_start=options.after_start,
                progress=progress,
            )
        )
        return targets.Result(
            lambda: _document(usage),
            lambda: _lines(usage, options),
            worst(one.exit_code for one in usage.incomplete),
            [*_told(usage, options)],
        )

    # What is printed is read from the stores then.
    with contextlib.ExitStack() as opened:
        return targets.on_all(options, work) if options.all else targets.on_one(options, work, find_state)


# --- JSON


def _document(usage: DiskUsage) -> dict[str, Any]:
    from buildkit_migrate.text import named_text

    return {
        **named_text("root", usage.root),
        "records": output.Lazily(lambda: (record.as_dict() for _, record in usage)),
        "totals": usage.totals._asdict(),
        "workers": [
            {
                **named_text("path", worker.path),
                "records": len(worker),
                "dropped_at_next_start": worker.dropped,
                "totals": worker.totals._asdict(),
            }
            for worker in usage.workers
        ],
        "incomplete": [one.as_dict() for one in usage.incomplete],
    }


# --- Text, as buildctl lays it out


def _lines(usage: DiskUsage, options: argparse.Namespace) -> Iterator[str]:
    if options.verbose:
        for _, record in usage:
            yield from _record_lines(record)
    else:
        yield from _table(usage)
    if not options.filter:
        yield from _total_lines(usage.totals)


def _record_lines(record: UsageRecord) -> Iterator[str]:
    values: dict[str, object] = {"ID": _shown(record.id)}
    if record.parents:
        values["Parents"] = ";".join(map(_shown, record.parents))
    if record.created_at is not None:
        values["Created at"] = _time(record.created_at)
    values["Mutable"] = _flag(record.mutable)
    values["Reclaimable"] = _flag(not record.in_use)
    values["Shared"] = _flag(record.shared)
    values["Size"] = size_text(record.size)
    if record.description:
        values["Description"] = _shown(record.description)
    values["Usage count"] = record.usage_count
    if record.last_used_at is not None:
        values["Last used"] = _time(record.last_used_at)
    values["Type"] = _shown(record.record_type)
    yield from (_line(name, value) for name, value in values.items())
    yield ""


def _line(name: str, value: object) -> str:
    """The names take two tabs."""
    return f"{name}:\t" + ("\t" if len(name) + 1 < _TAB else "") + str(value)


def _table(usage: DiskUsage) -> Iterator[str]:
    """In columns of whole tabs, as wide as what is in them."""
    rows = ((_shown(record.id) + "*" * record.mutable, record) for _, record in usage)
    widest, longest = 71, 4
    for worker in usage.workers:
        for record in worker:
            widest = max(widest, len(_shown(record.id)) + record.mutable)
            longest = max(longest, len(size_text(record.size)))
    yield _cell("ID", widest) + _cell("RECLAIMABLE", 11) + _cell("SIZE", longest) + "LAST ACCESSED"
    for id, record in rows:
        reclaimable = _flag(not record.in_use)
        yield (
            _cell(f"{id:<71}", widest)
            + _cell(f"{reclaimable:<11}", 11)
            + _cell(size_text(record.size), longest)
        )


def _cell(text: str, widest: int) -> str:
    width = (widest + 1 + _TAB - 1) // _TAB * _TAB
    return text + "\t" * ((width - len(text) + _TAB - 1) // _TAB)


def _total_lines(totals: Totals) -> Iterator[str]:
    if totals.shared:
        yield _line("Shared", size_text(totals.shared))
        yield _line("Private", size_text(totals.private))
    yield _line("Reclaimable", size_text(totals.reclaimable))
    yield _line("Total", size_text(totals.total))


def _told(usage: DiskUsage, options: argparse.Namespace) -> Iterator[str]:
    """For stderr: what buildctl does not say."""
    from buildkit_migrate.text import printable

    for one in usage.incomplete:
        yield f"buildkit-migrate: not shown, or in part: {printable(str(one.place))}: {one.reason}"
    for worker in usage.workers:
        if worker.dropped and not options.after_start:
            yield (
                f"buildkit-migrate: {printable(str(worker.path))}: the next start of the daemon drops "
                f"{worker.dropped} records (--after-start lists what is left)"
            )


def _shown(value: bytes) -> str:
    from buildkit_migrate.text import printable

    return printable(value)


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _time(ns: int) -> str:
    """As Go prints a time."""
    from buildkit_migrate.values.times import text_time

    return text_time(ns).decode().replace("T", " ").removesuffix("Z") + " +0000 UTC"


def size_text(size: int) -> str:
    """In units of 1000, as buildctl prints sizes."""
    unit = 0
    scale = 1
    while abs(size) >= scale * 1000 and unit < len(_UNITS) - 1:
        unit += 1
        scale *= 1000
    return f"{size / scale:.2f}{_UNITS[unit]}" if unit else f"{size}B"
