"""``buildkit-migrate undo``: takes back the last repair or compaction, and at last the migration."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from buildkit_migrate.cli import options as shared
from buildkit_migrate.cli import targets
from buildkit_migrate.errors import UndoRefusedError
from buildkit_migrate.files.errors import is_file
from buildkit_migrate.text import named_text, printable

if TYPE_CHECKING:
    from buildkit_migrate.maintenance.kept_files import KeptFiles
    from buildkit_migrate.maintenance.repair_undo import RepairUndone
    from buildkit_migrate.migration.undo import Undone
    from buildkit_migrate.progress import Progress
    from buildkit_migrate.workspace.layout import Root

__all__ = ["DOCUMENT", "add_parser", "run"]

DOCUMENT: Final[Mapping[str, Any]] = {"root": None, "workers": [], "repair": None, "compaction": None}
"""Fields of the JSON document of an error: the same names as in a result."""


def add_parser(commands: Any, epilog: str) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "undo",
        help="take back the last repair, compaction or migration",
        description="Take back what was done last: a repair or compaction, byte for byte, as long as nobody\n"
        "used the root since; at last a finished or interrupted migration: labels are restored, leases\n"
        "deleted, and the v2 store is moved aside (never deleted). Running it again is safe.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    shared.add_root(parser, "; or one database file, to take back its last repair or compaction")
    parser.add_argument(
        "--force",
        action="store_true",
        help="go back to v1 even if the v2 store or containerd was used since; what was cached since then is "
        "lost to v1",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print what would be done, what would be lost, and why it would be refused; change nothing",
    )
    shared.add_containerd(parser)
    shared.add_storage_driver(parser)
    shared.add_progress(parser)
    shared.add_output(parser)


def run(options: argparse.Namespace) -> int:
    """Returns 0, or the exit status of a refusal if a dry run predicts one."""
    from buildkit_migrate.api import undo_root
    from buildkit_migrate.cli import render

    def work(root: Root, progress: Progress | None) -> targets.Result:
        taken_back = _of_maintenance(options, root, progress)
        if taken_back is not None:
            return taken_back
        if is_file(root.path):
            line = f"{printable(str(root.path))}: nothing to undo"
            return targets.Result(lambda: {**DOCUMENT, **named_text("root", root.path)}, lambda: [line])
        results = undo_root(
            root.path,
            **shared.containerd_arguments(options),
            storage_driver=shared.storage_driver(options),
            force=options.force,
            dry_run=options.dry_run,
            progress=progress,
        )
        return targets.Result(
            lambda: {**DOCUMENT, **render.results_as_dict(root.path, results)},
            lambda: render.undone_lines(root.path, results),
            _refusal(results, options.force) if options.dry_run else 0,
            done="" if options.dry_run else "the root is back at v1",
        )

    return targets.on_one(options, work, _find)


def _find(path: str | None) -> Root:
    from buildkit_migrate.api import find_root
    from buildkit_migrate.workspace.one_file import find_stores

    return find_stores(path) if path is not None and is_file(Path(path)) else find_root(path)


def _of_maintenance(
    options: argparse.Namespace, root: Root, progress: Progress | None
) -> targets.Result | None:
    """Takes a repair or compaction back, if that was done last; None if the migration is next."""
    from buildkit_migrate.cli import compact, repair
    from buildkit_migrate.maintenance.repair_root import undo_maintenance
    from buildkit_migrate.maintenance.repair_undo import RepairUndone
    from buildkit_migrate.migration.journal import UNDOING, journal_path, read_state

    told = {**shared.containerd_arguments(options), "progress": progress}
    del told["containerd"]  # a running containerd is not needed
    states = {worker.v2: read_state(journal_path(worker.v2)) for worker in root.workers}
    if any(state is not None and state.phase == UNDOING for state in states.values()):
        return None  # that of the migration has begun
    migrated = [path for path, state in states.items() if state is not None]
    if migrated:
        planned = undo_maintenance(root.path, **told, dry_run=True)
        if isinstance(planned, RepairUndone) and not planned.databases.issuperset(_absolute(migrated)):
            return None  # a migration came after it
        if planned is not None and planned.exit_code and (options.force or _may_be_older(planned)):
            return None
    found = undo_maintenance(root.path, **told, dry_run=options.dry_run)
    if found is None:
        return None
    if isinstance(found, RepairUndone):
        done, name, lines = "the repair is taken back", "repair", repair.undone_lines(found)
    else:
        done, name, lines = "the old files are back", "compaction", compact.kept_lines(found, True)
    document = {**DOCUMENT, **named_text("root", root.path), name: found.as_dict()}
    return targets.Result(
        lambda: document, lambda: lines, found.exit_code, done="" if options.dry_run else done
    )


def _absolute(paths: Iterable[Path]) -> Iterator[Path]:
    return (path.absolute() for path in paths)


def _may_be_older(found: RepairUndone | KeptFiles) -> bool:
    """Whether a compaction that can't be taken back may have been before the migration."""
    files = getattr(found, "files", ())
    return bool(files) and all(file.database.name != "metadata_v2.db" for file in files)


def _refusal(results: Sequence[Undone], force: bool) -> int:
    """The exit status if the whole undo is refused, otherwise 0."""
    obstacles = [result.exit_code for result in results if result.obstacle is not None]
    if obstacles:
        return obstacles[0]
    losses = any(result.losses for result in results)
    return UndoRefusedError.exit_code if losses and not force else 0
