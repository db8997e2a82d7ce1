"""Output to stdout, stderr and the terminal. Nothing else in the package prints, but for `progress`.

The exit status is that of the work, no matter who reads the output. A reader that goes away, or a stderr that
can't be written, only ends the output. The exception is a report that is lost because stdout can't be written
(full disk): that is an error.
"""

from __future__ import annotations

import contextlib
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TextIO

from buildkit_migrate.errors import StorageError
from buildkit_migrate.progress import Progress
from buildkit_migrate.text import printable

__all__ = [
    "SCHEMA",
    "Lazily",
    "answer",
    "emit",
    "emit_bytes",
    "emit_json",
    "json_text",
    "progress",
    "tell",
    "traceback_lines",
]


SCHEMA: Final = 1
"""Number of the form of JSON documents. It changes if a field goes, or gets another type or meaning."""


def answer(
    options: Namespace,
    document: Callable[[], dict[str, Any]],
    lines: Callable[[], Iterable[str]],
    *,
    done: str = "",
) -> None:
    """Prints the result of a command in the requested format.

    ``done``: what has been changed by then. Sets ``options.answered`` once anything may have been printed.
    Raises StorageError, which includes ``done``, if the result can't be printed.
    """
    try:
        if options.format == "json":
            result = {"schema": SCHEMA, **document(), "error": None}
            options.answered = True
            emit_json(result)
        else:
            emit(lines())
    except StorageError as error:
        if not done:
            raise
        raise StorageError(
            f"{done}, but the report could not be printed: {error.message}",
            hint="buildkit-migrate status shows how far the migration got",
        ) from error


def emit(lines: Iterable[str]) -> None:
    """Prints to stdout; stops if nobody reads. Raises StorageError if the system refuses."""
    with _writing_output():
        for line in lines:
            sys.stdout.buffer.write(line.encode() + b"\n")
        sys.stdout.buffer.flush()


def emit_bytes(document: bytes) -> None:
    """Prints a document of another form, like `emit`."""
    with _writing_output():
        sys.stdout.buffer.write(document)
        sys.stdout.buffer.flush()


class Lazily:
    """A list in a document whose items are made when they are printed, a line each: there may be millions."""

    def __init__(self, items: Callable[[], Iterable[dict[str, Any]]]) -> None:
        self.items = items


def emit_json(document: dict[str, Any]) -> None:
    """Prints a JSON document to stdout, like `emit`. Lists right in it may be `Lazily` made."""
    lazy = {name: value for name, value in document.items() if isinstance(value, Lazily)}
    text = json_text({**document, **dict.fromkeys(lazy)}) if lazy else json_text(document)
    with _writing_output():
        for name, value in lazy.items():
            before, key, text = text.partition(f'\n  "{name}": null'.encode())
            sys.stdout.buffer.write(before + key.removesuffix(b"null"))
            _emit_items(value)
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()


def _emit_items(lazy: Lazily) -> None:
    import orjson

    before = b"[\n    "
    for item in lazy.items():
        sys.stdout.buffer.write(before + orjson.dumps(item))
        before = b",\n    "
    sys.stdout.buffer.write(b"[]" if before.startswith(b"[") else b"\n  ]")


def json_text(document: dict[str, Any]) -> bytes:
    import orjson

    return orjson.dumps(document, _made, orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _made(value: object) -> object:
    if isinstance(value, Lazily):
        return list(value.items())
    raise TypeError


@contextlib.contextmanager
def _writing_output() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        _abandon(sys.stdout)
    except OSError as error:
        _abandon(sys.stdout)
        raise StorageError(f"standard output: {error.strerror}") from error


def _abandon(stream: TextIO) -> None:
    """Redirects pending output to /dev/null, so that Python does not fail on it again at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def tell(lines: Iterable[str]) -> None:
    """Prints to stderr if possible."""
    try:
        for line in lines:
            print(line, file=sys.stderr)
    except OSError:
        _abandon(sys.stderr)


def traceback_lines(error: Exception) -> Iterator[str]:
    """The traceback of an error, safe to print."""
    import traceback

    for part in traceback.format_exception(error):
        # A code location has two lines; a message is one line, whatever it contains.
        lines = part.splitlines() if part.startswith(" ") else [part.strip("\n")]
        yield from map(printable, lines)


@contextlib.contextmanager
def progress(choice: str) -> Iterator[Progress | None]:
    """Shows on stderr what the block tells of its steps. ``choice``: one of `choices.PROGRESS`."""
    from buildkit_migrate.cli.progress import showing

    with showing(sys.stderr, choice) as told:
        yield told
