"""The exit statuses of the command: their meanings, and which of several is the worst."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Final

__all__ = ["EXIT_STATUSES", "STATUSES_OF", "epilog", "worst"]

EXIT_STATUSES: Final = {
    0: "done, or nothing to do",
    # Conditions that may pass if the command is run again.
    3: "no BuildKit root found, or several and no --all",
    4: "a daemon, or another migration, is using the root",
    11: "containerd does not answer, or denies access",
    12: "containerd rejected a call",
    8: "the system refused to read or write (disk full, no permission, I/O error)",
    # Conditions that need a decision.
    14: "going back, to v1 or to before a repair or compaction, would lose what was done since",
    6: "broken records with --on-broken fail, or nothing but broken records",
    9: "what is at metadata_v2.db is not a metadata store, or not of the engine asked for; DST of convert "
    "or NEW of a salvage exists, or the file to read has the wrong engine",
    7: "containerd's state for a worker is missing, or is not that of its v1 store",
    13: "the journal of an earlier run belongs to another migration, is missing, or can't be read; no way "
    "back to v1",
    # Damage.
    10: "a verification found differences, or a worker that is not migrated; clean found damage, or a worker "
    "without a store",
    15: "check has findings, repair leaves some, or repair --salvage lost something",
    5: "a database file is damaged, has an unexpected layout, or was truncated while it was being read",
    1: "unexpected failure",
    # Reasons that end the whole command.
    2: "wrong usage",
    129: "ended by SIGHUP",
    130: "interrupted (Ctrl-C)",
    143: "ended by SIGTERM",
}
"""In ascending order of severity."""


def worst(statuses: Iterable[int]) -> int:
    """The worst of several exit statuses; 0 if there are none."""
    return max(statuses, key=list(EXIT_STATUSES).index, default=0)


_OF_ALL: Final = frozenset({0, 1, 2, 8, 129, 130, 143})

STATUSES_OF: Final = {
    "migrate": _OF_ALL | {3, 4, 5, 6, 7, 9, 10, 11, 12, 13},
    "verify": _OF_ALL | {3, 4, 5, 7, 9, 10, 11, 12, 13},
    "status": _OF_ALL | {3, 5, 9, 13},
    "undo": _OF_ALL | {3, 4, 5, 7, 11, 12, 13, 14},
    "clean": _OF_ALL | {3, 4, 5, 7, 10, 13},
    "du": _OF_ALL | {3, 4, 5, 7},
    "check": _OF_ALL | {3, 4, 5, 15},
    "repair": _OF_ALL | {3, 4, 5, 7, 9, 10, 13, 14, 15},
    "compact": _OF_ALL | {3, 4, 5, 10, 14},
    "convert": _OF_ALL | {4, 5, 9},
    "bench": _OF_ALL,
}
"""Which of them a command can have."""


def epilog(command: str = "") -> str:
    """The table as shown by ``--help``: the statuses of a command, or all of them."""
    lines = ["exit codes:"]
    possible = STATUSES_OF.get(command, EXIT_STATUSES.keys())
    for status, meaning in sorted(EXIT_STATUSES.items()):
        if status not in possible:
            continue
        lines += textwrap.wrap(
            meaning, 90, initial_indent=f"  {status:<5}", subsequent_indent=" " * 7, break_on_hyphens=False
        )
    return "\n".join(lines) + "\n"
