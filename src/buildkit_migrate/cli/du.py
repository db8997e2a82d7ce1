"""``buildkit-migrate du``: the records of a stopped root, as `buildctl du` lists them."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from buildkit_migrate.cli import du_text as text
from buildkit_migrate.cli import options as shared
from buildkit_migrate.cli import output, tables, targets

if TYPE_CHECKING:
    from buildkit_migrate.maintenance.details import RecordDetails
    from buildkit_migrate.maintenance.du import DiskUsage, UsageRecord, WorkerUsage
    from buildkit_migrate.maintenance.grouping import Group
    from buildkit_migrate.maintenance.state_bytes import StateBytes
    from buildkit_migrate.progress import Progress
    from buildkit_migrate.workspace.layout import Root

__all__ = ["DOCUMENT", "add_parser", "run"]

DOCUMENT: Final[Mapping[str, Any]] = {
    "root": None,
    "records": [],
    "totals": None,
    "groups": [],
    "disk": None,
    "workers": [],
    "incomplete": [],
}
"""What the JSON document of an error has beside it: the same names as that of a result."""


def add_parser(commands: Any, epilog: str) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "du",
        help="list the records of a stopped root and their sizes",
        description="List the records of a stopped BuildKit as buildctl du lists them: with the same names,\n"
        "sizes, order and totals. Nothing is written; what no daemon has measured yet is measured.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    shared.add_root(parser)
    targets.add_all(parser)
    add = parser.add_argument
    add("-v", "--verbose", action="store_true", help="print all of each record, as buildctl du -v does")
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
    add(
        "--details",
        action="store_true",
        help="print all of each record, and where its data is, and what keeps it",
    )
    add("--top", metavar="N", type=shared.whole_number(1, 2**31), help="only the N largest records")
    add("--tree", action="store_true", help="records below their parents, instead of a list")
    add(
        "--by",
        choices=("type", "image", "age"),
        help="sums by type, by the image that records came with or stand on, or by the time since their last "
        "use, instead of a list",
    )
    add(
        "--disk",
        action="store_true",
        help="walk the whole directory and tell what its bytes are for, in a table that adds up to what "
        "du -s says, instead of a list",
    )
    shared.add_containerd(parser)
    shared.add_storage_driver(parser)
    shared.add_progress(parser)
    shared.add_output(parser)


def run(options: argparse.Namespace) -> int:
    """Exit status: 0, or that of the worst of what could not be shown."""
    from buildkit_migrate.api import open_usage
    from buildkit_migrate.cli.exit_statuses import worst
    from buildkit_migrate.cli.failures import UsageError
    from buildkit_migrate.maintenance.filters import FilterError, parse
    from buildkit_migrate.schema.columns import give_back
    from buildkit_migrate.workspace.stores import find_state

    try:
        parse(options.filter)
    except FilterError as error:
        raise UsageError(str(error)) from error
    give_back()

    def work(root: Root, progress: Progress | None) -> targets.Result:
        usage = opened.enter_context(
            open_usage(
                root.path,
                **shared.containerd_arguments(options),
                storage_driver=shared.storage_driver(options),
                filter=options.filter,
                after_start=options.after_start,
                top=options.top,
                progress=progress,
            )
        )
        state = usage.state_bytes(progress) if options.disk else None
        statuses = [one.exit_code for one in usage.incomplete]
        statuses += [error.exit_code for error in state.unread] if state is not None else []
        return targets.Result(
            lambda: _document(usage, state, options),
            lambda: _lines(usage, state, options),
            worst(statuses),
            [*text.warning_lines(usage, options.after_start)],
        )

    # What is printed is read from the stores then.
    with contextlib.ExitStack() as opened:
        return targets.on_chosen(options, work, find_state)


def _document(usage: DiskUsage, state: StateBytes | None, options: argparse.Namespace) -> dict[str, Any]:
    from buildkit_migrate.text import named_text

    return {
        **named_text("root", usage.root),
        "records": output.Lazily(lambda: _records(usage, options.details)),
        "totals": usage.totals._asdict(),
        "groups": [one._asdict() for one in _groups(usage, options)],
        "disk": None if state is None else state.as_dict(),
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


def _records(usage: DiskUsage, detailed: bool) -> Iterator[dict[str, Any]]:
    if not detailed:
        return (record.as_dict() for _, record in usage)
    details = _details(usage)
    return ({**record.as_dict(), **details(worker, record).as_dict()} for worker, record in usage)


def _details(usage: DiskUsage) -> Callable[[WorkerUsage, UsageRecord], RecordDetails]:
    from buildkit_migrate.maintenance.details import Details

    found = {worker.path: Details(worker) for worker in usage.workers if worker.loading is not None}
    return lambda worker, record: found[worker.path].of(worker.row_of(record.id))


def _groups(usage: DiskUsage, options: argparse.Namespace) -> list[Group]:
    import time

    from buildkit_migrate.maintenance.grouping import group

    return group(usage, options.by, time.time_ns()) if options.by else []


def _lines(usage: DiskUsage, state: StateBytes | None, options: argparse.Namespace) -> Iterator[str]:
    if options.all:
        yield text.heading(usage)
    if state is not None:
        yield from text.state_lines(state)
    if options.by:
        yield from text.group_lines(_groups(usage, options))
    if options.tree:
        yield from _trees(usage)
    if state is not None or options.by or options.tree:
        return
    if options.verbose or options.details:
        details = _details(usage) if options.details else None
        for worker, record in usage:
            yield from text.record_lines(record, details(worker, record) if details else None)
    else:
        few = sum(len(worker.rows) for worker in usage.workers) <= tables.MOST_ROWS
        yield from (text.drawn_table if few and tables.on_terminal() else text.table_lines)(usage)
    if not options.filter:
        yield from text.total_lines(usage.totals)


def _trees(usage: DiskUsage) -> Iterator[str]:
    from buildkit_migrate.maintenance.details import Details

    for worker in usage.workers:
        if worker.loading is not None:
            yield from text.tree_lines(worker, Details(worker))
