"""``buildkit-migrate repair``: puts right what `check` finds in a stopped root."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from buildkit_migrate.cli import options as shared
from buildkit_migrate.cli import salvage, targets
from buildkit_migrate.cli.header import header_lines
from buildkit_migrate.text import printable, relative_text, shortened

if TYPE_CHECKING:
    from buildkit_migrate.errors import Error
    from buildkit_migrate.maintenance.mend import Mend, RepairClass
    from buildkit_migrate.maintenance.repair_root import Repaired
    from buildkit_migrate.maintenance.repair_undo import KeptRepairs, RepairUndone
    from buildkit_migrate.progress import Progress
    from buildkit_migrate.workspace.layout import Root

__all__ = ["DOCUMENT", "add_parser", "originals_lines", "run", "status_lines", "undone_lines"]

DOCUMENT: Final[Mapping[str, Any]] = {
    "root": None,
    "dry_run": None,
    "classes": [],
    "mends": [],
    "offered": [],
    "changes": [],
    "dropped": [],
    "left": [],
    "space": [],
    "verdict": None,
    "unchecked": None,
    "obstacle": None,
    "repairs": [],
    "discarded": None,
    **salvage.DOCUMENT,
}
"""Fields of the JSON document of an error: the same names as in a result."""

_CLASSES: Final = ("drop", "release-leaks", "set-aside")
"""Classes of repairs that have to be asked for; their options have their names."""


def add_parser(commands: Any, epilog: str) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "repair",
        help="put right what check finds",
        description="Check a stopped BuildKit and put right what can be: without options only what loses\n"
        "nothing (leases, indexes, descriptions, sizes, counters). Originals are kept as\n"
        "<name>.before-repair until undo or --discard-kept; the root is checked afterwards, and the exit\n"
        "status is that of the check.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    shared.add_root(parser, "; or one database file")
    targets.add_all(parser)
    add = parser.add_argument
    add("--dry-run", action="store_true", help="print everything that would be done; change nothing")
    add(
        "--drop",
        action="store_true",
        help="also remove records that the daemon drops or stumbles over, with all that is built on them",
    )
    add(
        "--release-leaks",
        action="store_true",
        help="also give up what nothing names, such as leases of lost records, so that its space is freed",
    )
    add(
        "--set-aside",
        action="store_true",
        help="also rename a whole solver cache or history that is damaged, as the daemon itself would",
    )
    add(
        "--discard-kept",
        action="store_true",
        help="only delete the originals that repairs keep; refused if a repaired database is not sound",
    )
    add("-v", "--verbose", action="store_true", help="print all lines, not the first 20 of each list")
    shared.add_containerd(
        parser,
        "The databases of a containerd are repaired only with --containerd-root or --offline: it must be\n"
        "stopped, too. Options for a running one are accepted so that all commands take the same options.",
    )
    salvage.add_options(parser)
    shared.add_progress(parser)
    shared.add_output(parser)


def run(options: argparse.Namespace) -> int:
    """Returns the exit status of the check; in a dry run that of a refusal, or of what would be left.

    A salvage has its own, see `salvage.run`.
    """
    from buildkit_migrate.cli.failures import UsageError
    from buildkit_migrate.maintenance.mend import RepairClass
    from buildkit_migrate.maintenance.repair_root import discard_kept_repairs, repair_root
    from buildkit_migrate.workspace.one_file import find_stores

    if options.salvage is not None or options.output is not None:
        return _salvage(options)
    asked = [name for name in _CLASSES if getattr(options, name.replace("-", "_"))]
    if options.discard_kept and asked:
        raise UsageError(f"--discard-kept repairs nothing, so it does not go with --{asked[0]}")
    place = shared.containerd_arguments(options)
    del place["containerd"]  # a running containerd is not needed

    def work(root: Root, progress: Progress | None) -> targets.Result:
        told = {**place, "dry_run": options.dry_run, "progress": progress}
        if options.discard_kept:
            kept = discard_kept_repairs(root.path, **told)
            return targets.Result(
                lambda: {**DOCUMENT, "dry_run": options.dry_run, **kept.as_dict()},
                lambda: _kept_lines(kept),
                kept.exit_code,
                done="" if options.dry_run else "the originals are deleted",
            )
        found = repair_root(root.path, classes=[RepairClass.PROTECT, *map(RepairClass, asked)], **told)
        return targets.Result(
            lambda: {**DOCUMENT, **found.as_dict()},
            lambda: (
                *(header_lines(root, place, found.space) if options.dry_run else ()),
                *_lines(found, options.verbose or options.dry_run),
            ),
            found.exit_code,
            done="" if options.dry_run or not found.changes else "the root is repaired",
        )

    return targets.on_chosen(options, work, find_stores)


def _salvage(options: argparse.Namespace) -> int:
    from buildkit_migrate.cli.failures import UsageError

    others = ("root", "all", "dry_run", "discard_kept", *(name.replace("-", "_") for name in _CLASSES))
    if any(getattr(options, name) for name in others):
        raise UsageError("--salvage takes no ROOT, and does not go with other kinds of repair")
    return salvage.run(options, DOCUMENT)


def _lines(found: Repaired, verbose: bool) -> Iterator[str]:
    from buildkit_migrate.cli.check import verdict_lines

    root, plan = found.root, found.plan
    would = "would be " if found.dry_run else ""
    for rule in dict.fromkeys(mend.rule for mend in plan.mends):
        yield from _rule_lines(rule, [mend for mend in plan.mends if mend.rule == rule], root, verbose)
    if plan.dropped:
        yield f"records that {'would go' if found.dry_run else 'are gone'} ({len(plan.dropped)}):"
        yield from (f"  {line}" for line in shortened([printable(id) for id in plan.dropped], verbose))
    if found.changes:
        yield "files:"
    for change in found.changes:
        where = ""
        if change.kept is not None:
            where = f"; the original {_is(found)} {relative_text(change.kept, root)}"
        yield f"  {relative_text(change.path, root)}: {would}{_DONE[change.kind]}{where}"
    if found.obstacle is not None:
        yield from _obstacle_lines(found.obstacle)
    yield from _left_lines(found, verbose)
    if not found.changes:
        yield f"{printable(str(root))}: nothing to repair{' with these options' if plan.left else ''}"
    elif found.dry_run:
        yield f"{printable(str(root))}: {_count(len(plan.mends))} would be made; nothing was changed"
    else:
        yield f"{printable(str(root))}: {_count(len(plan.mends))} made; undo takes all of it back"
    if found.unchecked is not None:
        yield f"it could not be checked afterwards: {printable(found.unchecked.message)}; run check"
    if found.verdict is not None and found.changes:
        yield "check after the repair:"
        yield from (f"  {line}" for line in verdict_lines(found.verdict, verbose))


def _count(number: int) -> str:
    return f"{number} repair{'s' if number != 1 else ''}"


def undone_lines(undone: RepairUndone) -> Iterator[str]:
    """What an undo puts back, for people."""
    root = printable(str(undone.root))
    if undone.obstacle is not None:
        yield from _obstacle_lines(undone.obstacle)
        return
    for change in undone.changes:
        yield f"{relative_text(change.path, undone.root)} {'would be' if undone.dry_run else 'is'} as before"
    taken = "would be taken back" if undone.dry_run else "is taken back"
    yield f"{root}: the repair of {printable(undone.when)} {taken}"


def status_lines(kept: KeptRepairs, in_full: bool) -> Iterator[str]:
    """The repairs of a root that are in its journal, for people."""
    root = printable(str(kept.root))
    for number, entry in enumerate(kept.entries):
        name = f"{root}: the repair of {printable(entry.when)}"
        is_last = number == len(kept.entries) - 1
        reasons = entry.reasons() if is_last else ()
        if reasons:
            yield f"{name} can't be taken back: {printable('; '.join(reasons))}"
        elif entry.phase == "applying":
            yield f"{name} was interrupted: repair finishes it, undo takes it back"
        elif entry.phase == "undoing":
            yield f"{name} is half taken back: undo continues"
        elif is_last:
            yield f"{name} can be taken back with undo"
        else:
            yield f"{name} can be taken back after the later ones"
        for item in entry.items if in_full else ():
            where = f", kept as {relative_text(item.kept, kept.root)}" if item.kept is not None else ""
            yield f"  {relative_text(item.path, kept.root)}: {_DONE[item.kind]}{where}"


def originals_lines(kept: KeptRepairs) -> Iterator[str]:
    """What repairs keep, for people."""
    if kept.entries:
        count = sum(item.kept is not None for entry in kept.entries for item in entry.items)
        yield (
            f"{printable(str(kept.root))}: {count} originals ({kept.bytes:,} bytes) are kept by repair; undo "
            "puts them back, repair --discard-kept deletes them"
        )


def _obstacle_lines(obstacle: Error) -> Iterator[str]:
    yield "this would be refused:"
    yield f"  {printable(obstacle.message)}"
    if obstacle.hint:
        yield f"  hint: {printable(obstacle.hint)}"


_DONE: Final = {
    "replaced": "written anew",
    "made": "made",
    "made-directory": "made",
    "moved": "moved aside",
    "removed": "removed",
}


_FREES: Final = {
    "collection": "the next garbage collection then frees",
    "discard-kept": "kept until repair --discard-kept, which frees",
}


def _is(found: Repaired) -> str:
    return "would be kept as" if found.dry_run else "is kept as"


def _rule_lines(rule: str, mends: Iterable[Mend], root: Path, verbose: bool) -> Iterator[str]:
    from buildkit_migrate.maintenance import table

    mends = list(mends)
    yield f"{rule}: {table.entries()[rule].title} ({len(mends)})"
    yield from (f"  {line}" for line in shortened([_mend_line(mend, root) for mend in mends], verbose))
    for frees, what in _FREES.items():
        freed = [mend.freed or 0 for mend in mends if mend.freed_by == frees]
        if freed:
            yield f"  {what} {sum(freed):,} bytes"


def _mend_line(mend: Mend, root: Path) -> str:
    about = relative_text(mend.file, root) + (f": {printable(mend.subject)}" if mend.subject else "")
    loss = f"; lost: {printable(mend.loses)}" if mend.loses else ""
    return f"{about}: {printable(mend.does)}{loss}"


def _left_lines(found: Repaired, verbose: bool) -> Iterator[str]:
    plan, root = found.plan, found.root
    offered: dict[RepairClass, list[Mend]] = {}
    for mend in plan.offered:
        offered.setdefault(mend.kind, []).append(mend)
    for kind, mends in offered.items():
        yield f"--{kind} would do more ({len(mends)}):"
        lines = [f"{mend.rule} {_mend_line(mend, root)}" for mend in mends]
        yield from (f"  {line}" for line in shortened(lines, verbose))
    possible = {(mend.rule, mend.file, mend.subject) for mend in plan.offered}
    lines = [
        f"{finding.rule} {relative_text(finding.file, root)}"
        f"{': ' + printable(finding.subject) if finding.subject else ''}: {printable(finding.message)}"
        for finding in plan.left
        if (finding.rule, finding.file, finding.subject) not in possible
    ]
    if lines:
        yield f"left, as repair does nothing about it ({len(lines)}):"
        yield from (f"  {line}" for line in shortened(lines, verbose))


def _kept_lines(kept: KeptRepairs) -> Iterator[str]:
    root = printable(str(kept.root))
    for entry in kept.entries:
        for item in entry.items:
            if item.kept is not None:
                is_deleted = "is" if kept.discarded else "would be"
                yield f"{relative_text(item.kept, kept.root)} {is_deleted} deleted"
    if kept.obstacle is not None:
        yield from _obstacle_lines(kept.obstacle)
    if not kept.entries:
        yield f"{root}: repair keeps nothing here"
