"""What is shown while a command works: a bar that fits the terminal, lines elsewhere, nothing if unwanted."""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from buildkit_migrate.bolt import check
from buildkit_migrate.cli import progress
from buildkit_migrate.cli.progress import Step, figures, fitted, showing
from buildkit_migrate.progress import BYTES, Stage, reading
from trees import PlainBucket, read, write

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    @property
    def pictures(self) -> list[str]:
        """What was on the line, one after the other."""
        return [_CONTROL.sub("", picture) for picture in re.split(r"[\r\n]", self.getvalue()) if picture]


def shown_on(stream: io.StringIO, choice: str, *steps: str, until: Callable[[], bool] = lambda: True) -> str:
    """What ``stream`` has got when ``until`` is true, or at last after some seconds."""
    end = time.monotonic() + 5
    with showing(stream, choice) as told:
        for step in steps:
            if told is not None:
                told(step)
        while not until() and time.monotonic() < end:
            time.sleep(0.005)
    return stream.getvalue()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for name in ("_QUIET", "_LINE", "_FRAME"):
        monkeypatch.setattr(progress, name, 0.01)


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("plain", [False, True])
def test_bar_is_one_line_that_fits_and_is_gone_at_the_end(
    monkeypatch: pytest.MonkeyPatch, at_once: None, width: int, plain: bool
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    if plain:
        monkeypatch.setenv("NO_COLOR", "1")
    stage = Stage(f"writing /var/lib/{'long/' * 30}metadata_v2.db", 1000, "records")
    stage.advance(450)
    terminal = Terminal()
    out = shown_on(terminal, "bar", stage, until=lambda: "data_v2.db" in terminal.getvalue())
    assert max(map(len, terminal.pictures)) <= width
    assert any("data_v2.db" in picture and "45%" in picture for picture in terminal.pictures)
    assert out.endswith("\x1b[1A\x1b[2K")
    assert "\x1b[?25" not in out, "the cursor would stay hidden if the process were killed"
    assert (re.search(r"\x1b\[[0-9;]*m", out) is None) == plain


def test_step_without_an_end_is_shown_with_its_time(at_once: None) -> None:
    terminal = Terminal()
    shown_on(terminal, "auto", "planning", until=lambda: "0:00" in terminal.getvalue())
    assert any(re.search("planning .*0:00", picture) for picture in terminal.pictures)


@pytest.mark.parametrize("choice", ["auto", "plain"])
def test_elsewhere_a_line_comes_now_and_then(at_once: None, choice: str) -> None:
    log = io.StringIO()
    stage = Stage("hashing blobs", 10_000_000, BYTES)
    stage.advance(4_000_000)
    out = shown_on(log, choice, stage, until=lambda: log.getvalue().count("hashing") > 1)
    assert re.match(r"(buildkit-migrate: starting.*\n)?buildkit-migrate: hashing blobs: 40% of 10 MB", out)
    assert "\x1b" not in out
    assert "\r" not in out


def test_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch, at_once: None) -> None:
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal()
    out = shown_on(terminal, "auto", "planning", until=lambda: "planning" in terminal.getvalue())
    assert out.startswith("buildkit-migrate: ")
    assert "\x1b" not in out


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_short_work_and_unwanted_progress_print_nothing_and_leave_no_thread(
    monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for choice in ("auto", "none"):
        assert shown_on(stream(), choice, "planning") == ""
    assert "progress" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(
    ("done", "unit", "passed", "expected"),
    [
        (0, BYTES, 5.0, ("0% of 2.0 GB", "", "")),
        (500_000_000, BYTES, 0.5, ("25% of 2.0 GB", "", "")),
        (500_000_000, BYTES, 5.0, ("25% of 2.0 GB", "100 MB/s", "0:15 left")),
        (1_000, "leases", 10.0, ("0% of 2,000,000,000 leases", "100/s", "5555:33:10 left")),
        (3_000_000_000, BYTES, 6.0, ("100% of 2.0 GB", "333 MB/s", "0:00 left")),
    ],
)
def test_figures_tell_how_far_how_fast_and_how_long(
    done: int, unit: str, passed: float, expected: tuple[str, str, str]
) -> None:
    stage = Stage("", 2_000_000_000, unit)
    stage.advance(done)
    assert figures(Step(stage, began=100.0), 100.0 + passed) == expected


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [("short", 5, "short"), ("abcdefghi", 7, "ab…fghi"), ("abc", 1, "a"), ("abc", 0, ""), ("abc", -3, "")],
)
def test_long_texts_keep_their_ends(text: str, width: int, expected: str) -> None:
    assert fitted(text, width) == expected


def test_items_count_when_they_are_done_with() -> None:
    stage = Stage("reading", 3, "leases")
    assert [(item, stage.done) for item in stage.over("abc")] == [("a", 0), ("b", 1), ("c", 2)]
    assert stage.done == 3


def test_reading_is_measured_in_pages_read_once_more(tmp_path: Path) -> None:
    """Also if they were read before."""
    write(tmp_path / "store.db", PlainBucket({b"%05d" % i: b"value" * 20 for i in range(2000)}))
    reader = read(tmp_path / "store.db")
    check(reader)
    stage = reading("checking", reader, reader)
    assert (stage.done, stage.total) == (0, 2 * reader.high_water * reader.page_size)
    check(reader)
    assert 0.9 * stage.total <= stage.done <= stage.total
