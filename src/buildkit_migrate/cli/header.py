"""What a plan begins with: which root and worker, where each setting is from, and the room that is needed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from buildkit_migrate.cli.du_text import size_text
from buildkit_migrate.text import printable

if TYPE_CHECKING:
    from buildkit_migrate.files.foreseeing import Space
    from buildkit_migrate.workspace.layout import Root
    from buildkit_migrate.workspace.place import Place

__all__ = ["header_lines", "place_lines", "space_lines"]

_NOT_GIVEN: Final = "  containerd: its databases are left alone without --containerd-root or --offline"


def place_lines(worker: Path, place: Place, *, files_only: bool = False) -> Iterator[str]:
    """``files_only``: for a command that does not use a running containerd."""
    kind = f"{place.kind} worker" if place.kind else "services that were given"
    yield f"{printable(str(worker))}: {kind}"
    for name, setting in place.settings():
        if name == "containerd" and files_only and not place.backend:
            yield _NOT_GIVEN
        else:
            yield f"  {name}: {printable(str(setting))}"


def space_lines(space: Iterable[Space], *, estimated: bool) -> Iterator[str]:
    """``estimated``: what is needed is rather too high."""
    for one in space:
        needed = f"{'at most about ' if estimated else ''}{size_text(one.needed)}"
        directory = printable(str(one.directory))
        yield f"  space: {needed} needed in {directory}, {size_text(one.free)} free"


def header_lines(root: Root, place: dict[str, Any], space: Iterable[Space]) -> Iterator[str]:
    """For a dry run of a command on files; nothing for a single file, which has no settings.

    ``place``: arguments of `containerd_place`, without a connection.
    """
    from buildkit_migrate.workspace.opening import Opener, containerd_place

    if not root.workers:
        return
    names = ("containerd_root", "namespace", "snapshotter", "snapshotter_root")
    settings = containerd_place(None, *(place[name] for name in names))
    with contextlib.ExitStack() as held:
        opener = Opener(held, root, settings, exclusive=False, progress=None)
        for worker in root.workers:
            yield from place_lines(worker.path, opener.place(worker), files_only=True)
    yield from space_lines(space, estimated=False)
