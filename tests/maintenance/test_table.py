"""The table of rules: complete, in five sentences each, and the same as docs/rules.md.

Run as a program it writes docs/rules.md: ``python tests/maintenance/test_table.py``.
"""

from __future__ import annotations

from pathlib import Path

from buildkit_migrate.maintenance.check import ROOT_RULES, WORKER_RULES
from buildkit_migrate.maintenance.rules import files
from buildkit_migrate.maintenance.table import document, entries

PAGE = Path(__file__).parents[2] / "docs" / "rules.md"


def test_every_number_has_an_entry() -> None:
    assert list(entries()) == [f"C{number}" for number in range(1, 64)]


def test_what_is_tested_is_explained() -> None:
    numbers = {number for rule in (*WORKER_RULES, *ROOT_RULES) for number in rule.numbers}
    for number in sorted(numbers | set(files.NUMBERS)):
        heading, *sentences = entries()[number].lines()
        assert heading.startswith(f"{number} (")
        assert len(sentences) == 5
        for sentence in sentences:
            assert sentence.endswith("."), number
            assert sentence[0].isupper() or sentence[0] in "`", number


def test_the_page_is_made_from_the_table() -> None:
    assert PAGE.read_text() == document()


if __name__ == "__main__":
    PAGE.write_text(document())
