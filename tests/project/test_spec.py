"""References of the code to specifications, such as "spec bbolt-format, section 13", find the section."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import pages

SPEC: Final = pages.REPOSITORY / "docs" / "spec"
SOURCES: Final = sorted(
    path
    for where in ("src", "ext", "tests", "benches")
    for path in (pages.REPOSITORY / where).rglob("*")
    if path.suffix in {".py", ".pyi", ".pyx", ".pxd", ".c", ".h"} and path != Path(__file__)
)

_NUMBERS: Final = r"C?\d[\d.]*(?:(?:, | and | to )(?:and )?C?\d[\d.]*)*"
_REFERENCE: Final = re.compile(rf"\bspec,? \(?([a-z\d]+(?:-[a-z\d]+)+)(?:, (?:sections? )?({_NUMBERS}))?")


def references(text: str) -> Iterator[tuple[str, list[str]]]:
    """Pages and their sections; what goes on in the next line of a comment is one sentence."""
    for match in _REFERENCE.finditer(re.sub(r"\s*\n\s*(?:\*|#|//)?\s*", " ", text)):
        sections: list[str] = []
        for part in re.split(r", and |, | and ", match[2] or ""):
            first, _, last = part.rstrip(".").partition(" to ")
            sections += (
                map(str, range(int(first), int(last.rstrip(".")) + 1)) if last else [first] if first else []
            )
        yield match[1], sections


def sections_of(page: Path) -> set[str]:
    """Numbers of headings, and those of rules in the first column of tables."""
    text = page.read_text()
    rules = re.findall(r"^\| (C\d+(?:, C\d+)*) \|", text, re.M)
    return {
        *re.findall(r"^##+ (\d+(?:\.\d+)?)\b", text, re.M),
        *(one for row in rules for one in row.split(", ")),
    }


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("(spec a-b, section 13).", [("a-b", ["13"])]),
        ("see spec\n * a-b, sections 3 to 5 and 7). Dangling", [("a-b", ["3", "4", "5", "7"])]),
        ("# --- x: spec a-b, sections 1 and 2.1 ---", [("a-b", ["1", "2.1"])]),
        ("(spec a-b, section 4, pass 4)", [("a-b", ["4"])]),
        ("(spec a-b, 9).", [("a-b", ["9"])]),
        ("(spec a-b, C20)", [("a-b", ["C20"])]),
        ("the spec (a-b, sections 3 and 8; v2-faults)", [("a-b", ["3", "8"])]),
        ("(spec a-b).", [("a-b", [])]),
    ],
)
def test_a_reference_is_understood(text: str, found: list[tuple[str, list[str]]]) -> None:
    assert list(references(text)) == found


def test_references_find_their_sections() -> None:
    there = {page.stem: sections_of(page) for page in SPEC.glob("*.md")}
    used: set[str] = set()
    dangling = []
    for source in SOURCES:
        for page, sections in references(source.read_text()):
            used.add(page)
            dangling += [
                f"{pages.name(source)}: {page}, {section}"
                for section in sections or [""]
                if page not in there or (section and section not in there[page])
            ]
    assert not dangling
    assert len(used) >= 6  # else the form of references has changed


def test_a_reference_names_its_page() -> None:
    nameless = [pages.name(path) for path in SOURCES if re.search(r"\bspec,? sections? \d", path.read_text())]
    assert not nameless
