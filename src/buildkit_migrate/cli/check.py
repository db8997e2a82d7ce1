"""``buildkit-migrate check``: checks a stopped root against all rules that can be tested."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from buildkit_migrate.cli import options as shared
from buildkit_migrate.cli import targets

if TYPE_CHECKING:
    from buildkit_migrate.maintenance.check import Checked
    from buildkit_migrate.progress import Progress
    from buildkit_migrate.workspace.layout import Root

__all__ = ["DOCUMENT", "add_parser", "run", "verdict_lines"]

DOCUMENT: Final[Mapping[str, Any]] = {
    "root": None,
    "findings": [],
    "counts": {},
    "worst": None,
    "bytes": None,
    "tested": [],
    "not_tested": [],
    "unsound": [],
    "explained": [],
}
"""Fields of the JSON document of an error: the same names as in a result."""

_MOST: Final = 63
_RANGE: Final = re.compile(r"C([1-9][0-9]?)(?:-C([1-9][0-9]?))?")


def _rules(text: str) -> frozenset[str]:
    """Parses numbers of rules, such as ``C8,C10-C22``."""
    found: set[str] = set()
    for part in shared.not_empty(text).split(","):
        match = _RANGE.fullmatch(part.strip().upper())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= _MOST:
            raise argparse.ArgumentTypeError(
                f"{part.strip()!r} is not a rule: give C1 to C{_MOST}, or ranges such as C10-C22"
            )
        found.update(f"C{number}" for number in range(first, last + 1))
    return frozenset(found)


def _severities(text: str) -> frozenset[str]:
    letters = {letter.strip().upper() for letter in shared.not_empty(text).split(",")}
    if wrong := sorted(letters - set("SPBWLH")):
        raise argparse.ArgumentTypeError(f"{wrong[0]!r} is not a severity: give some of S,P,B,W,L,H")
    return frozenset(letters)


def add_parser(commands: Any, epilog: str) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "check",
        help="tell what is wrong with the stores of a root",
        description="Test the stores of a stopped BuildKit: the pages of each database first, then all\n"
        "rules that hold in and between healthy stores. Nothing is written.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    shared.add_root(parser, "; or one database file: its pages, and the rules of it alone")
    targets.add_all(parser)
    add = parser.add_argument
    add("--rules", metavar="LIST", type=_rules, help="only these rules, such as C8,C10-C22")
    add(
        "--severity",
        metavar="LIST",
        type=_severities,
        help="only findings of these severities, such as S,P; the exit status goes by them, too. S: the "
        "daemon does not start or crashes, P: du, prune or garbage collection fails, B: builds or exports "
        "fail, W: builds may get wrong content, L: space is leaked, H: harmless",
    )
    add(
        "--content",
        action="store_true",
        help="compare the digests of all blobs and count the files of all layers, however much there is",
    )
    add("--explain", metavar="RULE", type=_rules, help="print what a rule is about, and end")
    add("-v", "--verbose", action="store_true", help="print all findings, not the first 20 of each rule")
    shared.add_containerd(parser)
    shared.add_storage_driver(parser)
    shared.add_progress(parser)
    shared.add_output(parser)


def run(options: argparse.Namespace) -> int:
    """Returns 0, the exit status of findings, or that of a damaged database."""
    from buildkit_migrate.api import check_root
    from buildkit_migrate.schema.columns import give_back
    from buildkit_migrate.workspace.one_file import find_stores

    if options.explain:
        return _explain(options)
    give_back()

    def work(root: Root, progress: Progress | None) -> targets.Result:
        checked = check_root(
            root.path,
            **shared.containerd_arguments(options),
            storage_driver=shared.storage_driver(options),
            rules=options.rules,
            severities=options.severity,
            content=options.content,
            progress=progress,
        )
        return targets.Result(
            lambda: {**DOCUMENT, **checked.as_dict()},
            lambda: verdict_lines(checked, options.verbose),
            checked.exit_code,
        )

    return targets.on_chosen(options, work, find_stores)


def _explain(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from buildkit_migrate.cli import output
    from buildkit_migrate.maintenance import table

    chosen = [entry for number, entry in table.entries().items() if number in options.explain]
    output.answer(
        options,
        lambda: {**DOCUMENT, "explained": [asdict(entry) for entry in chosen]},
        lambda: (line for entry in chosen for line in _explained(entry)),
    )
    return 0


def _explained(entry: Any) -> Iterator[str]:
    heading, *sentences = entry.lines()
    yield heading
    yield from (f"  {sentence}" for sentence in sentences if sentence)


def verdict_lines(checked: Checked, verbose: bool) -> Iterator[str]:
    """The findings of a check, and what it comes to, for people."""
    from buildkit_migrate.maintenance import table
    from buildkit_migrate.text import printable, relative_text, shortened

    root = printable(str(checked.root))
    for rule in checked.counts:
        entry = table.entries()[rule]
        found = [finding for finding in checked.findings if finding.rule == rule]
        yield f"{rule}: {entry.title} ({len(found)})"
        yield f"  {entry.meaning}"
        lines = []
        repairs = {finding.repair or entry.repair for finding in found}
        for finding in found:
            about = f"{relative_text(finding.file, checked.root)}"
            about += f": {printable(finding.subject)}" if finding.subject else ""
            size = f" ({finding.bytes} bytes)" if finding.bytes is not None else ""
            lines.append(f"{finding.severity} {about}: {printable(finding.message)}{size}")
        yield from (f"    {line}" for line in shortened(lines, verbose))
        yield from (f"  repair: {printable(repair)}" for repair in sorted(repairs) if repair)
    untested: dict[tuple[str, str], set[str]] = {}
    for one in checked.not_tested:
        place = "" if one.rules else printable(str(one.place))
        untested.setdefault((place, one.reason), set()).update(one.rules)
    for (place, reason), rules in untested.items():
        yield f"not tested: {place or _ranges(rules)}: {printable(reason)}"
    if not checked.findings and not checked.finished:
        yield f"{root}: no findings, but something could not be read ({len(checked.tested)} rules tested)"
        return
    if not checked.findings and checked.unsound:
        damaged = ", ".join(relative_text(path, checked.root) for path in checked.unsound)
        yield f"{root}: no findings of those asked for, but damaged: {damaged}"
        return
    if not checked.findings and not checked.tested:
        yield f"{root}: nothing was tested"
        return
    if not checked.findings:
        yield f"{root}: OK ({len(checked.tested)} rule{'s' if len(checked.tested) != 1 else ''})"
        return
    by_severity = Counter(finding.severity for finding in checked.findings)
    counts = ", ".join(f"{severity} {count}" for severity, count in sorted(by_severity.items()))
    number = len(checked.findings)
    yield f"{root}: {number} finding{'s' if number > 1 else ''} ({counts})"


def _ranges(rules: Iterable[str]) -> str:
    """Formats numbers of rules, such as "C8, C10 to C22"."""
    runs: list[list[int]] = []
    for number in sorted(int(rule[1:]) for rule in rules):
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"C{run[0]}" if len(run) == 1 else f"C{run[0]} to C{run[-1]}" for run in runs)
