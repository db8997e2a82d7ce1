"""Tables are drawn on a terminal only, and lose nothing of what is in them."""

from __future__ import annotations

import os
import re

import pytest

from buildkit_migrate.cli import main, tables
from buildkit_migrate.cli.tables import drawn
from ondisk import OnDisk
from terminal import run_into

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.mark.parametrize("width", [30, 60, 200])
def test_table_fits_and_long_cells_are_folded(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    name = "/var/lib/" + "long" * 20
    rows = [("1.00kB", name), ("9B", "[x]")]
    lines = [_CONTROL.sub("", line) for line in drawn((">SIZE", "NAME"), rows)]
    assert max(map(len, lines)) <= width
    assert lines[0].split() == ["SIZE", "NAME"]
    assert "".join(line[6:].strip() for line in lines[2:]) == f"{name}[x]"
    assert any(line.startswith("    9B") for line in lines)


def test_no_color_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", "".join(drawn(("A",), [("b",)])))


def on_a_terminal(*arguments: str) -> str:
    """What is printed to a terminal as stdout, without colours."""
    terminal, child_side = os.openpty()
    result = run_into(child_side, None, *arguments)
    os.close(child_side)
    shown = b""
    try:
        while part := os.read(terminal, 1 << 16):
            shown += part
    except OSError:  # the end of a pseudo-terminal
        pass
    os.close(terminal)
    assert result.returncode == 0, result.stderr
    return _CONTROL.sub("", shown.decode()).replace("\r\n", "\n")


@pytest.mark.parametrize("arguments", [("--top", "5"), ("--by", "type"), ("--disk",)])
def test_du_on_a_terminal_shows_the_same_words(root: OnDisk, arguments: tuple[str, ...]) -> None:
    root.migrate_here()
    terminal = on_a_terminal("du", *arguments, str(root.root))
    plain = run_into(None, None, "du", *arguments, str(root.root)).stdout.decode()
    assert "──" in terminal
    assert "──" not in plain
    lacking = set(re.findall(r"[\w.*/]+", plain)) - set(re.findall(r"[\w.*/]+", terminal)) - {"free"}
    assert not lacking


def test_long_table_is_plain(root: OnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    root.migrate_here()
    monkeypatch.setattr(tables, "MOST_ROWS", 3)
    monkeypatch.setattr(tables, "on_terminal", lambda: True)
    monkeypatch.setattr(tables, "drawn", lambda *_: pytest.fail("drawn"))
    assert main(["du", "--top", "4", str(root.root)]) == 0


def test_dumb_terminal_gets_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdout", Terminal())
    for name, expected in (("dumb", False), ("xterm", True)):
        monkeypatch.setenv("TERM", name)
        assert tables.on_terminal() is expected
