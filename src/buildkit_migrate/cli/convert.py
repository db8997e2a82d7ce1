"""``buildkit-migrate convert``: converts a metadata store from one engine to the other."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from buildkit_migrate.choices import ENGINES
from buildkit_migrate.cli.options import FILES, add_output, add_progress, not_empty
from buildkit_migrate.progress import silent
from buildkit_migrate.text import named_text, printable

if TYPE_CHECKING:
    from buildkit_migrate.store.convert import Conversion

__all__ = ["DOCUMENT", "add_parser", "run"]

DOCUMENT: Final[Mapping[str, Any]] = dict.fromkeys(
    ("source", "target", "from_engine", "to_engine", "bytes", "seconds")
)
"""Fields of the JSON document of an error: the same names as in a result."""


def add_parser(commands: Any, epilog: str) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "convert",
        help="convert a metadata store between bolt and LMDB",
        description="Convert a metadata store (v1 or v2) to a new file of the other engine, without loss.\n"
        "bolt is what BuildKit reads, lmdb is for programs that embed the store.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    source = add("source", metavar="SRC", type=not_empty, help="a metadata store, of any engine")
    target = add("target", metavar="DST", type=not_empty, help="the new file, which must not exist")
    add(
        "--to-engine",
        choices=ENGINES,
        help="engine of DST (default: the one that SRC does not have)",
    )
    add_progress(parser)
    add_output(parser)
    for argument in (source, target):
        argument.complete = FILES  # type: ignore[attr-defined]


def run(options: argparse.Namespace) -> int:
    """Returns 0."""
    from buildkit_migrate.cli import output
    from buildkit_migrate.store.convert import convert

    with output.progress(options.progress) as progress:
        (progress or silent)(f"converting {options.source}")
        done = convert(Path(options.source), Path(options.target), options.to_engine)
    target = printable(os.fspath(done.target))
    output.answer(options, lambda: _as_dict(done), lambda: _lines(done), done=f"{target} was written")
    return 0


def _as_dict(done: Conversion) -> dict[str, Any]:
    return {
        **named_text("source", done.source),
        **named_text("target", done.target),
        "from_engine": done.from_engine,
        "to_engine": done.to_engine,
        "bytes": done.size,
        "seconds": done.seconds,
    }


def _lines(done: Conversion) -> Iterator[str]:
    source, target = (printable(os.fspath(path)) for path in (done.source, done.target))
    yield (
        f"{target}: {done.to_engine} store made from {source} ({done.from_engine}), "
        f"{done.size} bytes ({done.seconds:.2f} s)"
    )
