"""The function behind ``repair --salvage``: what can be read of a damaged database file, in a new file."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path

from buildkit_migrate.bolt import Database, Salvaged, salvage
from buildkit_migrate.errors import CorruptDatabaseError, UnusableTargetError
from buildkit_migrate.files.durable import Aside
from buildkit_migrate.files.errors import exists
from buildkit_migrate.files.locks import lock
from buildkit_migrate.progress import Progress, silent
from buildkit_migrate.store.engines import engine_of
from buildkit_migrate.workspace.one_file import lock_out_daemons

__all__ = ["salvage_file"]

StrPath = str | os.PathLike[str]


def salvage_file(path: StrPath, output: StrPath, *, progress: Progress | None = None) -> Salvaged:
    """Copies what can still be read of a damaged database file to ``output``, a new file. Changes nothing.

    The file is locked (shared) meanwhile, as is ``buildkitd.lock`` if it is in a root. `bolt.salvage` says
    what is kept. The new file is complete on disk before it gets its name. Raises
    UnusableTargetError if ``output`` exists or the file is an LMDB file; CorruptDatabaseError if nothing can
    be read; BusyError; StorageError.
    """
    path, output = Path(path), Path(output)
    tell = progress or silent
    if exists(output, follow_symlinks=False):
        raise _exists(output)
    with contextlib.ExitStack() as held:
        lock_out_daemons(path, held)
        source = held.enter_context(lock(path, exclusive=False))
        _refuse_lmdb(path)
        tell(f"reading what is left of {path}")
        with Aside[Database](output, exists=False) as aside:
            found: list[Salvaged] = []

            def make(to: Path) -> Database:
                salvaged, new = salvage(source, to)
                found.append(salvaged)
                return new

            new = aside.write(make)
            held.callback(new.close)
            try:
                aside.switch()
            except FileExistsError as error:  # created by somebody else meanwhile
                raise _exists(output) from error
    return replace(found[0], output=output)


def _exists(output: Path) -> UnusableTargetError:
    return UnusableTargetError(f"{output} already exists", hint="move it away, or choose another name")


def _refuse_lmdb(path: Path) -> None:
    """Raises UnusableTargetError. What is neither bbolt nor LMDB may be a damaged database."""
    with contextlib.suppress(CorruptDatabaseError):
        if engine_of(path) == "lmdb":
            raise UnusableTargetError(
                f"{path} is an LMDB file; only bbolt files can be salvaged",
                hint="LMDB files have no pages to read one by one: restore it from a backup",
            )
