"""Values that decide what is worked on, each with who says so: a wrong one is easier to find then."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

__all__ = ["ARGUMENT", "DEFAULT", "DEFAULT_NAMESPACE", "FOUND", "Setting"]

ARGUMENT: Final = "argument"
"""Origin of what a function was given by its caller."""
DEFAULT: Final = "default"
FOUND: Final = "found on this host"


@dataclass(frozen=True)
class Setting:
    """A value and its origin.

    That is an option such as ``--namespace``, a variable such as ``$CONTAINERD_NAMESPACE``, ``default``,
    ``argument``, or what else the value was taken from.
    """

    value: str
    origin: str = ARGUMENT

    def __str__(self) -> str:
        return f"{self.value} ({self.origin})"

    @classmethod
    def of(cls, given: str | os.PathLike[str] | Setting) -> Setting:
        """Of an argument, which may be one already."""
        return given if isinstance(given, Setting) else cls(os.fspath(given))


DEFAULT_NAMESPACE: Final = Setting("buildkit", DEFAULT)
