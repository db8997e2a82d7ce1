"""The table of all rules, `rules.toml`: what `check --explain` prints and docs/rules.md is made from."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources

from buildkit_migrate.maintenance.finding import Severity
from buildkit_migrate.maintenance.rule import number_of

__all__ = ["Entry", "document", "entries"]


@dataclass(frozen=True)
class Entry:
    """One rule. Each text but the title is a sentence; "" where nobody has written it.

    ``severity``: the usual one. ``statement``: what must hold. ``meaning``: what a finding means for the
    user. ``cause``: how it comes about. ``advice``: what to do. ``repair``: what `repair` would do.
    """

    number: str
    title: str
    severity: Severity
    statement: str
    meaning: str
    cause: str
    advice: str
    repair: str

    def lines(self) -> Iterator[str]:
        """The heading and the five sentences of the rule."""
        yield f"{self.number} ({self.severity}): {self.title}"
        yield from (self.statement, self.meaning, self.cause, self.advice, self.repair)


@functools.cache
def entries() -> Mapping[str, Entry]:
    """By number, in order."""
    text = resources.files(__package__).joinpath("rules.toml").read_text(encoding="utf-8")
    found = {
        number: Entry(number=number, severity=Severity(fields.pop("severity")), **fields)
        for number, fields in tomllib.loads(text).items()
    }
    return dict(sorted(found.items(), key=lambda item: number_of(item[0])))


_HEADING = """\
# Rules

What `buildkit-migrate check` tests. This page is made from the table that `check --explain` prints
(`src/buildkit_migrate/maintenance/rules.toml`), by `python tests/maintenance/test_table.py`.

| severity | what a finding does |
|---|---|
| S | the daemon does not start, or crashes |
| P | `du`, `prune` or garbage collection fails |
| B | builds or exports fail |
| W | builds may get wrong content |
| L | space is used that nothing will free |
| H | harmless: the daemon copes with it |

The severity of a rule is the usual one; a finding may have another.
"""


def document() -> str:
    """The text of docs/rules.md."""
    parts = [_HEADING]
    for entry in entries().values():
        parts.append(f"## {entry.number}: {entry.title}\n")
        parts.append(f"Severity {entry.severity}. {entry.statement}\n")
        rows = [("Meaning", entry.meaning), ("Cause", entry.cause)]
        rows += [("What to do", entry.advice), ("`repair`", entry.repair)]
        parts.append("\n".join(f"- {name}: {text}" for name, text in rows if text) + "\n")
    return "\n".join(parts)
