"""Choosing the root that a command works on, or all roots."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from buildkit_migrate import errors
from buildkit_migrate.cli import output
from buildkit_migrate.cli.exit_statuses import worst
from buildkit_migrate.cli.failures import UsageError
from buildkit_migrate.text import named_text, printable

if TYPE_CHECKING:
    from buildkit_migrate.progress import Progress
    from buildkit_migrate.workspace.layout import Root

__all__ = ["DOCUMENT", "Result", "Work", "add_all", "is_for_all", "on_all", "on_chosen", "on_one"]


DOCUMENT: Final[Mapping[str, Any]] = {"unreadable": [], "roots": []}
"""What the JSON document of an error has beside it if a command is for all roots."""


@dataclass(frozen=True)
class Result:
    """Result of a command for one root. ``told``: lines for stderr. ``done``: as for `output.answer`."""

    document: Callable[[], dict[str, Any]]
    lines: Callable[[], Iterable[str]]
    status: int = 0
    told: Sequence[str] = ()
    done: str = ""


Work = Callable[["Root", "Progress | None"], Result]
"""Called with the root and a progress function."""

Find = Callable[[str | None], "Root"]
"""Finds the root at a path, or at one of the usual places."""


def add_all(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--all",
        action="store_true",
        help="process all roots found on this host, one by one; the exit status is the worst of theirs",
    )


def is_for_all(options: Namespace) -> bool:
    """Whether the command is for all roots of the host: by --all, or as it lists them without ROOT."""
    lists_all = getattr(options, "lists_all", False) and options.root is None
    return lists_all or getattr(options, "all", False)


def on_chosen(options: Namespace, work: Work, find: Find | None = None) -> int:
    """With --all processes all roots, otherwise one; see `on_all` and `on_one`."""
    return on_all(options, work) if options.all else on_one(options, work, find)


def on_one(options: Namespace, work: Work, find: Find | None = None) -> int:
    """Processes ROOT, or the root that is found. Returns the exit status.

    ``find``: `api.find_root` by default.
    """
    root = _chosen(options, find)
    with output.progress(options.progress) as progress:
        result = work(root, progress)
    output.answer(options, result.document, result.lines, done=result.done)
    output.tell(result.told)
    return result.status


def _chosen(options: Namespace, find: Find | None) -> Root:
    from functools import partial

    from buildkit_migrate.api import find_root
    from buildkit_migrate.settings import FOUND

    if find is None:
        find = partial(find_root, missing_ok=getattr(options, "missing_ok", False))
    try:
        root = find(options.root)
    except errors.RootNotFoundError as error:
        if options.root is None or len(error.candidates) != 1:
            error.command = f"buildkit-migrate {options.command} "
            raise
        root = find(error.candidates[0])
        _note(f"{options.root} is not a BuildKit root; using {root.path}")
    if root.origin == FOUND:
        _note(f"no root at the usual places; using {root.path}, the only one on this host")
    return root


def on_all(options: Namespace, work: Work, *, summary: bool = True) -> int:
    """Processes all roots of the host, even if some fail. Returns the worst exit status.

    ``summary``: print a line about each at the end. Sets ``options.so_far`` to what the document has so far.
    """
    from buildkit_migrate.api import find_root, find_roots

    if options.root is not None:
        raise UsageError("--all takes no ROOT")
    host = find_roots()
    documents: list[dict[str, Any]] = []
    unreadable = [printable(message) for message in host.unreadable]
    options.so_far = {"unreadable": unreadable, "roots": documents}
    # If there are none, the error tells where was searched.
    roots = host.roots or (find_root(missing_ok=getattr(options, "missing_ok", False)),)
    lines: list[str] = []
    statuses: list[int] = []
    try:
        for root in roots:
            status, document, printed = _one_of_all(root, work, options)
            statuses.append(status)
            documents.append(document)
            lines += printed
    except BaseException:
        if options.format == "text":
            output.emit(lines)
        raise
    if summary:
        lines += map(_summary, roots, statuses)
    for message in host.unreadable:
        _note(f"could not search everywhere: {message}")
    output.answer(options, lambda: options.so_far, lambda: lines, done="the work is done")
    return worst(statuses)


def _one_of_all(root: Root, work: Work, options: Namespace) -> tuple[int, dict[str, Any], list[str]]:
    """Returns exit status, document and lines for stdout. Lines for stderr are printed immediately."""
    from importlib import import_module

    from buildkit_migrate.cli import render

    try:
        with output.progress(options.progress) as progress:
            result = work(root, progress)
    except Exception as error:
        if options.debug:
            output.tell(output.traceback_lines(error))
        known = render.known_error(error)
        _note(f"{root.path}:")
        output.tell(render.error_lines(known, verbose=getattr(options, "verbose", False)))
        failed: dict[str, Any] = {
            **import_module(f"buildkit_migrate.cli.{options.command}").DOCUMENT,
            **named_text("root", root.path),
            "exit_code": known.exit_code,
            "error": known.as_dict(),
        }
        return known.exit_code, failed, []
    output.tell(result.told)
    lines = list(result.lines()) if options.format == "text" else []
    document = {**result.document(), "exit_code": result.status, "error": None}
    return result.status, document, lines


def _summary(root: Root, status: int) -> str:
    return f"{printable(str(root.path))}: " + ("done" if status == 0 else f"exit status {status}")


def _note(text: str) -> None:
    output.tell([f"buildkit-migrate: {printable(text)}"])
