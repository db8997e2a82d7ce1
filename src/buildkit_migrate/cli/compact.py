"""``buildkit-migrate compact``: writes the databases of a stopped root anew, without their free pages."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from buildkit_migrate.cli import options as shared
from buildkit_migrate.cli import targets
from buildkit_migrate.cli.header import header_lines

if TYPE_CHECKING:
    from buildkit_migrate.errors import Error
    from buildkit_migrate.maintenance.compact import Compacted, Compaction
    from buildkit_migrate.maintenance.kept_files import KeptFiles
    from buildkit_migrate.progress import Progress
    from buildkit_migrate.workspace.layout import Root

__all__ = ["DOCUMENT", "add_parser", "kept_lines", "run"]

DOCUMENT: Final[Mapping[str, Any]] = {
    "root": None,
    "dry_run": None,
    "files": [],
    "saved": None,
    "space": [],
    "obstacle": None,
    "kept": [],
    "kept_bytes": None,
}
"""Fields of the JSON document of an error: the same names as in a result."""

_PERCENT: Final = re.compile(r"(\d{1,3}(?:\.\d+)?)%?")


def _share(text: str) -> float:
    match = _PERCENT.fullmatch(text.strip())
    share = float(match[1]) / 100 if match else -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share: give a percentage, such as 25%")
    return share


def add_parser(commands: Any, epilog: str) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "compact",
        help="make the databases of a root small again",
        description="Write every database of a stopped BuildKit anew, without the pages that hold nothing:\n"
        "databases never shrink otherwise. What they hold stays the same: each new file is compared with\n"
        "the old one, which is kept as <name>.before-compact.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    shared.add_root(parser, "; or one database file")
    targets.add_all(parser)
    parser.add_argument("--dry-run", action="store_true", help="print what would be done; change nothing")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--min-free",
        metavar="PERCENT",
        type=_share,
        default=0.0,
        help="only databases of which at least this share is free, such as 25%%; others with damage that "
        "compaction cures, too (default: all that get smaller)",
    )
    what.add_argument(
        "--undo",
        action="store_true",
        help="put the kept files back, byte for byte; refused if a compacted database was used since",
    )
    what.add_argument(
        "--discard-kept",
        action="store_true",
        help="delete the kept files; refused if a database in use is not sound",
    )
    shared.add_containerd(
        parser,
        "The databases of a containerd are compacted only with --containerd-root or --offline: it must be\n"
        "stopped, too. Options for a running one are accepted so that all commands take the same options.",
    )
    shared.add_progress(parser)
    shared.add_output(parser)


def run(options: argparse.Namespace) -> int:
    """Returns 0, or the exit status of a refusal if a dry run predicts one."""
    from buildkit_migrate.maintenance.compact_root import compact_root, discard_kept, undo_compaction
    from buildkit_migrate.workspace.one_file import find_stores

    place = shared.containerd_arguments(options)
    del place["containerd"]  # a running containerd is not needed

    def work(root: Root, progress: Progress | None) -> targets.Result:
        told = {**place, "dry_run": options.dry_run, "progress": progress}
        if options.undo or options.discard_kept:
            kept = (undo_compaction if options.undo else discard_kept)(root.path, **told)
            done = "" if options.dry_run else "the old files are " + ("back" if options.undo else "deleted")
            return targets.Result(
                lambda: {**DOCUMENT, **kept.as_dict()},
                lambda: kept_lines(kept, options.undo),
                kept.exit_code,
                done=done,
            )
        found = compact_root(root.path, **told, min_free=options.min_free)
        done = "" if options.dry_run else "the databases are compacted"
        return targets.Result(
            lambda: {**DOCUMENT, **found.as_dict()},
            lambda: (*(header_lines(root, place, found.space) if options.dry_run else ()), *_lines(found)),
            found.exit_code,
            done=done,
        )

    return targets.on_chosen(options, work, find_stores)


def _lines(found: Compaction) -> Iterator[str]:
    from buildkit_migrate.maintenance.compact import CompactionOutcome
    from buildkit_migrate.text import printable

    root = printable(str(found.root))
    for file in found.files:
        yield from _file_lines(file, found.root)
    if found.obstacle is not None:
        yield from _refusal(found.obstacle)
    count = sum(file.outcome is CompactionOutcome.COMPACTED for file in found.files)
    if count:
        yield f"{root}: {found.saved:,} bytes saved in {count} databases; compact --discard-kept frees them"
    elif any(file.outcome is CompactionOutcome.PLANNED for file in found.files):
        yield f"{root}: {found.saved:,} bytes would be saved; nothing was changed"
    else:
        yield f"{root}: nothing to compact"


def _file_lines(file: Compacted, root: Path) -> Iterator[str]:
    from buildkit_migrate.maintenance.compact import CompactionOutcome
    from buildkit_migrate.text import printable, relative_text

    if file.path is None:
        yield f"containerd's databases: skipped: {printable(file.reason)}"
        return
    name = relative_text(file.path, root)
    if file.page_size:
        pages = f"{file.bytes // file.page_size:,} pages of {file.page_size:,} bytes"
        yield (
            f"{name}: {file.bytes:,} bytes ({pages}): {file.live_bytes:,} live, {file.free_bytes:,} free, "
            f"live pages {file.fill:.0%} full"
        )
    if file.obstacle is not None:
        yield f"{name}: can't be compacted:"
        yield from _refusal(file.obstacle)
        return
    for fault in file.cured:
        yield f"  {'cured' if file.outcome is CompactionOutcome.COMPACTED else 'would be cured'}: {fault}"
    if file.outcome is CompactionOutcome.COMPACTED:
        kept = printable(str(file.kept and file.kept.name))
        yield f"  now {file.new_bytes:,} bytes, {file.saved:,} saved; the old file is kept as {kept}"
    elif file.outcome is CompactionOutcome.PLANNED:
        yield f"  would have {file.new_bytes:,} bytes, {file.saved:,} saved"
    elif file.outcome is CompactionOutcome.LEFT:
        yield f"  left as it is: {file.reason}"
    else:
        yield f"{name}: skipped: {printable(file.reason)}"


def kept_lines(kept: KeptFiles, undo: bool) -> Iterator[str]:
    """What becomes of kept files, for people."""
    from buildkit_migrate.text import printable, relative_text

    if not kept.files:
        yield f"{printable(str(kept.root))}: compact keeps no files here"
    for file in kept.files:
        name = relative_text(file.path, kept.root)
        if file.obstacle is not None:
            yield f"{name}: would be refused:"
            yield from _refusal(file.obstacle)
        elif undo:
            is_back = "would be" if kept.dry_run else "is"
            yield f"{name} ({file.bytes:,} bytes) {is_back} {printable(file.database.name)} again"
        else:
            yield f"{name} ({file.bytes:,} bytes) {'would be' if kept.dry_run else 'is'} deleted"


def _refusal(error: Error) -> Iterator[str]:
    from buildkit_migrate.text import printable

    yield f"  {printable(error.message)}"
    if error.hint:
        yield f"  hint: {printable(error.hint)}"
