"""What the documentation says can be typed works, and its links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import ondisk
import pages
import v2_roots
from buildkit_migrate.cli import _make_parser
from buildkit_migrate.cli.failures import UsageError

LANGUAGES: Final = {"sh", "console", "python", "text", "json", "yaml", "ini", "toml", ""}


def ids(page: Path) -> str:
    return pages.name(page)


def having(language: str) -> list[Path]:
    """Pages that have a block of this language to be run."""
    return [
        page
        for page in pages.PAGES
        if any(block.language == language and not block.why_not_run for block in pages.blocks(page))
        # Their commands are for a clone of the repository; continuous integration runs what they say.
        and page.parent.name not in ("fuzz",)
        and page.name not in ("CONTRIBUTING.md", "README.md")
    ]


def lay(page: Path, directory: Path) -> Path:
    """The root that a page is about: not migrated, or one that a v2 daemon used."""
    if page.name in ("care.md", "embed.md", "repair.md"):
        return v2_roots.healed(directory).root
    return ondisk.sample(directory).root


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_other_roots: None) -> Path:
    """A place where the command is in the path, and finds no root of this machine."""
    programs = tmp_path / "bin"
    programs.mkdir()
    command = programs / "buildkit-migrate"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m buildkit_migrate "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for variable in ("CONTAINERD_ADDRESS", "CONTAINERD_NAMESPACE", "CONTAINERD_SNAPSHOTTER"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


@pytest.mark.parametrize("page", having("sh"), ids=ids)
def test_commands_of_a_page_work_one_after_the_other(page: Path, place: Path) -> None:
    """On the root that the page is about, at a usual place, each block in the directory of its worker."""
    (place / "share").mkdir()
    root = lay(page, place).rename(place / "share" / "buildkit")
    for block in pages.blocks(page):
        if block.language != "sh" or block.why_not_run:
            continue
        if "jq " in block.text and shutil.which("jq") is None:
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            cwd=root / "runc-overlayfs",
            capture_output=True,
            text=True,
            check=False,
        )
        where = f"{pages.name(page)}:{block.line}"
        assert done.returncode == 0, f"{where}\n{block.text}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", [*having("console"), pages.REPOSITORY / "README.md"], ids=ids)
def test_examples_print_what_the_page_shows(page: Path, place: Path, tmp_path: Path) -> None:
    """Of a `console` block, one after the other on the sample; but for times."""
    ondisk.sample(tmp_path / "sample")
    (place / ".venv").mkdir()
    (place / "bin").rename(place / ".venv" / "bin")
    examples = [
        example.split("\n", 1)
        for block in pages.blocks(page)
        if block.language == "console"
        for example in re.split(r"^\$ ", block.text, flags=re.M)[1:]
    ]
    assert examples
    for command, shown in examples:
        done = subprocess.run(["bash", "-c", command], cwd=place, capture_output=True, text=True, check=False)
        assert timeless(done.stdout) == timeless(shown), f"{command}: {done.stderr}"


def timeless(text: str) -> str:
    return re.sub(r"\(\d+\.\d\d s\)", "(0.00 s)", text)


@pytest.mark.parametrize("page", having("python"), ids=ids)
def test_python_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    """Each block with a root of its own in the place of those below /var/lib."""
    for number, block in enumerate(pages.blocks(page)):
        if block.language != "python" or block.why_not_run:
            continue
        directory = tmp_path / str(number)
        root = ondisk.sample(directory).root
        text = re.sub(r"/var/lib/\w+", str(root), block.text)
        done = subprocess.run(
            [sys.executable, "-c", text], cwd=directory, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{pages.name(page)}:{block.line}\n{done.stderr}"


@pytest.mark.parametrize("page", pages.PAGES, ids=ids)
def test_commands_that_are_not_run_can_at_least_be_parsed(page: Path) -> None:
    for block in pages.blocks(page):
        assert block.language in LANGUAGES, f"{pages.name(page)}:{block.line}"
        if block.language != "sh":
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            if not re.match(r"(sudo )?buildkit-migrate ", line):
                continue
            command = re.split(r" [|&>]", line)[0].removeprefix("sudo ")
            _, *arguments = shlex.split(command, comments=True)
            if arguments[0].startswith("--"):
                continue
            try:
                _make_parser().parse_args(arguments)
            except UsageError as error:
                pytest.fail(f"{pages.name(page)}:{block.line}: {line}: {error}")


@pytest.mark.parametrize("page", pages.PAGES, ids=ids)
def test_links_lead_to_a_page_and_a_heading_of_it(page: Path) -> None:
    """Within the repository; other sites are not asked."""
    for link in pages.links(page):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{pages.name(page)}: {link}"
        if anchor:
            assert anchor in pages.anchors(target), f"{pages.name(page)}: {link}"


def test_a_page_stands_in_the_navigation() -> None:
    """What is not there is never found."""
    navigation = (pages.REPOSITORY / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    listed = set(re.findall(r"([\w./-]+\.md)$", navigation, re.M))
    there = {str(page.relative_to(pages.REPOSITORY / "docs")) for page in pages.PAGES if "docs" in page.parts}
    assert listed == there
