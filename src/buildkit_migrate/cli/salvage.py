"""``buildkit-migrate repair --salvage FILE --output NEW``: what is left of a damaged file."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from buildkit_migrate.cli import options as shared
from buildkit_migrate.cli.failures import UsageError

if TYPE_CHECKING:
    from buildkit_migrate.bolt import Lost, Salvaged

__all__ = ["DOCUMENT", "add_options", "run"]

DOCUMENT: Final[Mapping[str, Any]] = {
    **dict.fromkeys(
        ("path", "output", "bytes", "page_size", "transaction", "buckets", "keys", "lost_count", "unreached")
    ),
    **dict.fromkeys(("newest", "verified", "other_meta")),
    "lost": [],
}
"""Fields of the JSON document of ``repair`` that only a salvage sets."""

_LOST: Final = 15
"""Exit status if something was lost: like findings of ``check``, it can be read in the report, and the new
file is there and sound. Where there is no new file the status is that of an error, 5 for a file of which
nothing can be read."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds --salvage and --output."""
    group = parser.add_argument_group(
        "salvage",
        "Copies what can still be read of one database file with damaged pages to a new file, and names "
        "what is lost.\nNothing else is repaired, and the damaged file stays as it is.",
    )
    salvage = group.add_argument(
        "--salvage", metavar="FILE", type=shared.not_empty, help="the damaged database file"
    )
    output = group.add_argument(
        "--output", metavar="NEW", type=shared.not_empty, help="the new file, which must not exist"
    )
    for argument in (salvage, output):
        argument.complete = shared.FILES  # type: ignore[attr-defined]


def run(options: argparse.Namespace, document: Mapping[str, Any]) -> int:
    """Returns 0, or the exit status that tells that something was lost.

    ``document``: all fields of the command's JSON document. Raises UsageError if an option is missing.
    """
    from buildkit_migrate.cli import output
    from buildkit_migrate.maintenance.salvage_file import salvage_file
    from buildkit_migrate.text import printable

    if options.salvage is None or options.output is None:
        raise UsageError("--salvage FILE and --output NEW belong together")
    with output.progress(options.progress) as progress:
        done = salvage_file(options.salvage, options.output, progress=progress)
    output.answer(
        options,
        lambda: {
            **document,
            **done.as_dict(),
            "lost": output.Lazily(lambda: (lost.as_dict() for lost in done.lost)),
        },
        lambda: _lines(done, getattr(options, "verbose", False)),
        done=f"{printable(str(done.output))} was written",
    )
    return 0 if done.is_complete else _LOST


def _lines(done: Salvaged, verbose: bool) -> Iterator[str]:
    from buildkit_migrate.text import printable, shortened

    path, new, lost = printable(str(done.path)), printable(str(done.output)), done.lost
    yield f"{path}: {done.buckets:,} buckets and {done.keys:,} keys are in {new} ({done.bytes:,} bytes)"
    if not done.is_verified:
        yield f"  both meta pages are damaged ({lost[0].reason}): this may not be the newest state"
    elif not done.is_newest:
        yield (
            f"  this is the state before the newest one, whose root page {lost[0].page} can't be read: "
            f"{lost[0].reason}"
        )
    elif done.other_meta:
        yield (
            f"  note: one of the two meta pages is invalid ({done.other_meta}); if it was the newer one, the "
            "last transaction is lost"
        )
    named = lost if done.is_newest else lost[1:]
    if named:
        yield "lost:"
        yield from (f"  {line}" for line in shortened([_line(one) for one in named], verbose))
    if verbose and done.lost_count > len(lost):
        yield f"  and {done.lost_count - len(lost):,} more, which are not named"
    if done.unreached:
        yield f"{done.unreached:,} pages are neither in use nor free: whatever they hold is lost"
    elif done.unreached is None:
        yield "the free list can't be read: whether pages are lost that nothing names is not known"
    if done.is_complete:
        yield "nothing was lost"


def _line(lost: Lost) -> str:
    from buildkit_migrate.text import cut

    bucket = "/".join(cut(name) for name in lost.bucket) or "the root bucket"
    page = "" if lost.page is None else f" (page {lost.page})"
    keys = ""
    if lost.first is not None:
        keys += f" from {cut(lost.first)}"
    if lost.end is not None:
        keys += f" up to {cut(lost.end)}"
    return f"{bucket}: {'keys' + keys if keys else 'all keys'}: {lost.reason}{page}"
