"""The exit statuses of the command: what each means, and which of several is the worst."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Final

__all__ = ["EXIT_STATUSES", "epilog", "worst"]

EXIT_STATUSES: Final = {
    0: "done, or nothing to do",
    # What may be gone when the command is run again.
    3: "no BuildKit root found, or several and no --all",
    4: "a daemon, or another migration, holds the root",
    11: "containerd does not answer, or does not let us in",
    12: "containerd refused a call",
    8: "the system refused to read or write (disk full, no permission, I/O error)",
    # What asks for a decision.
    14: "going back to v1 would lose what was done since",
    6: "broken records, and --on-broken fail; or nothing but broken records",
    9: "what is at metadata_v2.db is not a metadata store, or not of the engine asked for; DST of convert "
    "exists, or SRC has that engine already",
    7: "containerd's state for a worker is missing, or is not that of its v1 store",
    13: "the journal of an earlier run is of another migration, missing, or can't be read; nothing leads "
    "back to v1",
    # What is damaged.
    10: "a verification found differences, or a worker that is not migrated; clean found damage, or a worker "
    "without a store",
    15: "check has findings",
    5: "a database file is damaged, is not laid out as expected, or was cut short while it was read",
    1: "unexpected failure",
    # What ends the command as a whole.
    2: "wrong usage",
    129: "ended by SIGHUP",
    130: "interrupted (Ctrl-C)",
    143: "ended by SIGTERM",
}
"""From bad to worse."""


def worst(statuses: Iterable[int]) -> int:
    """The one of several exit statuses that is the command's; 0 if there are none."""
    return max(statuses, key=list(EXIT_STATUSES).index, default=0)


def epilog() -> str:
    """The table as ``--help`` shows it."""
    lines = ["exit codes:"]
    for status, meaning in sorted(EXIT_STATUSES.items()):
        lines += textwrap.wrap(
            meaning, 90, initial_indent=f"  {status:<5}", subsequent_indent=" " * 7, break_on_hyphens=False
        )
    return "\n".join(lines) + "\n"
