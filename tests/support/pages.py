"""The pages of the documentation: their code blocks, headings and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["PAGES", "REPOSITORY", "Block", "anchors", "blocks", "links", "name"]

REPOSITORY: Final = Path(__file__).parents[2]
PAGES: Final = sorted(page for at in ("*.md", "docs/**/*.md", "fuzz/*.md") for page in REPOSITORY.glob(at))

_FENCE: Final = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```$", re.M | re.S)
_COMMENT: Final = re.compile(r"<!-- ([^\n]*) -->\n\Z")
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")


def name(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


@dataclass(frozen=True)
class Block:
    """A code block. ``comment``: the text of the HTML comment right before it."""

    line: int
    language: str
    text: str
    comment: str

    @property
    def why_not_run(self) -> str:
        return self.comment.removeprefix("not run: ") if self.comment.startswith("not run: ") else ""


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for match in _FENCE.finditer(text):
        comment = _COMMENT.search(text[: match.start()])
        line = text.count("\n", 0, match.start()) + 1
        yield Block(line, match[2], match[3], comment[1] if comment else "")


def _prose(page: Path) -> str:
    return re.sub(r"`[^`\n]*`", "", _FENCE.sub("", page.read_text()))


def links(page: Path) -> Iterator[str]:
    """Targets of links, but for those in code."""
    return (match[1] for match in _LINK.finditer(_prose(page)))


def anchors(page: Path) -> set[str]:
    """Names of a page's headings, as Markdown makes them for links."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", page.read_text()), re.M)
    return {
        re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", re.sub(r"\]\([^)]*\)", "", heading)).strip().lower())
        for heading in headings
    }
