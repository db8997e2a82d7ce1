"""Settings paired with their origin, so that a wrong value can be traced to where it came from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

__all__ = ["ARGUMENT", "DEFAULT", "DEFAULT_NAMESPACE", "FOUND", "Setting"]

ARGUMENT: Final = "argument"
"""Origin of a value passed by the caller of a function."""
DEFAULT: Final = "default"
FOUND: Final = "found on this host"


@dataclass(frozen=True)
class Setting:
    """A value and its origin.

    The origin is an option such as ``--namespace``, a variable such as ``$CONTAINERD_NAMESPACE``,
    ``default``, ``argument``, or another description of where the value came from.
    """

    value: str
    origin: str = ARGUMENT

    def __str__(self) -> str:
        return f"{self.value} ({self.origin})"

    @classmethod
    def of(cls, given: str | os.PathLike[str] | Setting) -> Setting:
        """Wraps an argument, unless it is a Setting already."""
        return given if isinstance(given, Setting) else cls(os.fspath(given))


DEFAULT_NAMESPACE: Final = Setting("buildkit", DEFAULT)
