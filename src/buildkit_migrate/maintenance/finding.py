"""What `check` reports: a finding is a place where a rule does not hold."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Finding", "Severity"]


class Severity(enum.StrEnum):
    """What a fault does to the user (spec buildkit-v2-stores, section 8), worst first."""

    START = "S"
    """The daemon does not start, or crashes."""
    PRUNE = "P"
    """`du`, `prune` or garbage collection fails."""
    BUILD = "B"
    """Builds or exports fail."""
    CONTENT = "W"
    """Builds may get wrong content."""
    LEAK = "L"
    """Space is used that nothing will free."""
    HARMLESS = "H"
    """The daemon copes with it."""


@dataclass(frozen=True)
class Finding:
    """``rule``: its number, as ``C23``. ``file``: the store or directory that it is in.

    ``subject``: the record, lease, snapshot, digest, key or path it is about; "" for the file itself.
    ``message``: what is there, in one sentence. ``bytes``: on disk, where it costs space. ``repair``: what
    `repair` would do, if that is not what the table of rules says.
    """

    rule: str
    severity: Severity
    file: Path
    subject: str
    message: str
    bytes: int | None = None
    repair: str | None = None
