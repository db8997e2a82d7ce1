"""Output of the command: closed pipes, full disks, terminals, odd names."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import ondisk
from buildkit_migrate.text import printable
from ondisk import OnDisk
from terminal import COMMAND, on_a_terminal, run_into

pytestmark = pytest.mark.slow


def open_unread_pipe() -> int:
    """A pipe without a reader."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def open_full_device() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def use_v2(root: OnDisk) -> None:
    root.migrate_here()
    ondisk.edit(root.v2, {b"_main": {b"new": {}}})


def break_a_record(root: OnDisk) -> None:
    ondisk.edit(root.v1, {b"_main": {b"bad": {b"key": b"{"}}})


SITUATIONS: dict[str, tuple[Callable[[OnDisk], object], tuple[str, ...], int]] = {
    "migrate": (lambda root: None, ("migrate",), 0),
    "migrate, a line for each record": (lambda root: None, ("migrate", "-v"), 0),
    "dry run": (lambda root: None, ("migrate", "--dry-run", "-v"), 0),
    "dry run of what will be refused": (break_a_record, ("migrate", "--dry-run"), 6),
    "refused": (break_a_record, ("migrate",), 6),
    "verify": (OnDisk.migrate_here, ("verify",), 0),
    "verify finds differences": (use_v2, ("verify",), 10),
    "verify what is not migrated": (lambda root: None, ("verify",), 10),
    "status": (lambda root: None, ("status",), 0),
    "undo": (OnDisk.migrate_here, ("undo",), 0),
    "undo is refused": (use_v2, ("undo",), 14),
    "wrong usage": (lambda root: None, ("migrate", "--nonsense"), 2),
    "help": (lambda root: None, ("--help",), 0),
    "help of a command": (lambda root: None, ("migrate", "--help"), 0),
    "completion": (lambda root: None, ("--print-completion", "bash"), 0),
}


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("situation", SITUATIONS)
def test_closed_stdout_does_not_change_the_exit_status(root: OnDisk, situation: str, form: str) -> None:
    """The exit status is that of the work: ``migrate | head -1`` has migrated the root."""
    prepare, arguments, status = SITUATIONS[situation]
    prepare(root)
    given = (*arguments, "--format", form, str(root.root)) if arguments[0][0] != "-" else arguments
    result = run_into(open_unread_pipe(), None, *given)
    assert result.returncode == status, result.stderr
    assert b"Traceback" not in result.stderr
    assert b"Exception" not in result.stderr
    assert b"Broken pipe" not in result.stderr
    if (
        arguments[0] == "migrate"
        and "--dry-run" not in arguments
        and status == 0
        and "--help" not in arguments
    ):
        root.verify_here()


@pytest.mark.parametrize("stream", [open_unread_pipe, open_full_device], ids=["unread", "full"])
@pytest.mark.parametrize("situation", SITUATIONS)
def test_unwritable_stderr_does_not_change_the_exit_status(
    root: OnDisk, situation: str, stream: Callable[[], int]
) -> None:
    prepare, arguments, status = SITUATIONS[situation]
    prepare(root)
    given = (*arguments, "--debug", str(root.root)) if arguments[0][0] != "-" else arguments
    assert run_into(None, stream(), *given).returncode == status


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("situation", SITUATIONS)
def test_full_stdout_is_an_error(root: OnDisk, situation: str, form: str) -> None:
    """The exit status shows that there is no report, unless the work itself failed."""
    prepare, arguments, status = SITUATIONS[situation]
    prepare(root)
    given = (*arguments, "--format", form, str(root.root)) if arguments[0][0] != "-" else arguments
    result = run_into(open_full_device(), None, *given)
    error = result.stderr.decode()
    assert error.startswith("buildkit-migrate: error: ")
    assert "Traceback" not in error
    assert "Exception" not in error
    has_failed = status in (2, 14) or (status == 6 and "--dry-run" not in arguments)
    if has_failed:
        assert result.returncode == status
        assert "standard output" not in error
        return
    assert result.returncode == 8
    assert "standard output: No space left on device" in error
    if situation in ("migrate", "undo"):
        done = {"migrate": "the migration is done", "undo": "the root is back at v1"}[situation]
        assert f"error: {done}, but the report could not be printed: " in error
        assert "buildkit-migrate status" in error
    else:
        assert ("could not be printed" in error) == situation.startswith("migrate")


def test_full_stdout_after_convert_says_that_the_store_was_written(root: OnDisk, tmp_path: Path) -> None:
    result = run_into(open_full_device(), None, "convert", str(root.v1), str(tmp_path / "target"))
    assert result.returncode == 8
    assert f"{tmp_path}/target was written, but".encode() in result.stderr
    assert (tmp_path / "target").exists()


@pytest.mark.parametrize("command", ["migrate", "status"])
def test_closed_standard_streams_are_harmless(root: OnDisk, command: str) -> None:
    """No database must get their descriptors."""
    line = f"exec {' '.join(COMMAND)} {command} {root.root} <&- >&- 2>&-"
    assert subprocess.run(line, shell=True, check=False).returncode == 0
    if command == "migrate":
        root.verify_here()


def test_closed_terminal_does_not_stop_the_work(root: OnDisk) -> None:
    """As when an SSH session ends and nohup keeps the command alive."""
    terminal, child_side = os.openpty()
    os.close(terminal)
    result = run_into(None, child_side, "migrate", str(root.root))
    os.close(child_side)
    assert result.returncode == 0
    root.verify_here()


ESCAPED = rb"r\x1b]0;title\x07\x1b[31m\nbuildkit-migrate: injected\u202e[bold]:warning:\xff"
HOSTILE = "r\x1b]0;title\x07\x1b[31m\nbuildkit-migrate: injected\u202e[bold]:warning:\udcff"


@pytest.fixture
def hostile(root: OnDisk) -> OnDisk:
    moved = root.root.rename(root.root.with_name(HOSTILE))
    return ondisk.oci(moved, "overlayfs")


def assert_harmless(shown: bytes) -> None:
    assert b"\x07" not in shown
    assert b"\x1b]" not in shown
    assert b"\x1b[31m" not in shown
    assert "\u202e".encode() not in shown
    assert not any(line.startswith(b"buildkit-migrate: injected") for line in shown.splitlines())


@pytest.mark.parametrize(
    "arguments", [("migrate",), ("verify",), ("undo",), ("status",), ("migrate", "--dry-run")]
)
def test_hostile_names_are_escaped_on_a_terminal(hostile: OnDisk, arguments: tuple[str, ...]) -> None:
    if arguments[0] in ("verify", "undo"):
        hostile.migrate_here()
    status, shown, out = on_a_terminal(*arguments, str(hostile.root))
    assert status == 0
    assert_harmless(shown + out)
    assert ESCAPED in out


def test_hostile_names_are_escaped_in_progress() -> None:
    """Names are not shown as markup or emoji."""
    code = (
        f"from buildkit_migrate.cli.output import progress\nwith progress('bar') as tell: tell({HOSTILE!r})"
    )
    status, shown, _ = on_a_terminal(code, command=(sys.executable, "-c"))
    assert status == 0
    assert_harmless(shown)
    assert ESCAPED in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ("migrate", HOSTILE),
        ("migrate", f"--{HOSTILE}"),
        ("migrate", "--on-broken", HOSTILE),
        *(("migrate", f"--{option}", HOSTILE) for option in ("timeout", "concurrency", "namespace")),
        ("migrate", "--address", f"x://{HOSTILE}"),
        ("migrate", "--containerd-root", HOSTILE, "."),
        (HOSTILE,),
        ("convert", HOSTILE, HOSTILE),
        ("convert", "runc-overlayfs/metadata.db", f"{HOSTILE}/{HOSTILE}"),
        ("migrate", "--debug", HOSTILE),
    ],
)
def test_hostile_names_are_escaped_in_errors(
    hostile: OnDisk, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(hostile.root)
    if "--containerd-root" in arguments:
        hostile.worker.rename("containerd-overlayfs")
    status, shown, out = on_a_terminal(*arguments)
    assert status != 0
    assert_harmless(shown + out)
    assert b"error: " in shown


def test_hostile_names_are_escaped_in_hints(hostile: OnDisk) -> None:
    hostile.migrate_here()
    hostile.v2.write_bytes(b"garbage" * 1000)
    (hostile.root / "runc-overlayfs" / "metadata_v2.db.journal" / "lock.mdb").unlink()
    (hostile.root / "runc-overlayfs" / "metadata_v2.db.journal" / "lock.mdb").symlink_to("data.mdb")
    for arguments in (("migrate",), ("undo",), ("status",)):
        status, shown, out = on_a_terminal(*arguments, str(hostile.root))
        assert status != 0
        assert_harmless(shown + out)


def test_names_that_are_not_utf8_are_also_given_in_base64(hostile: OnDisk) -> None:
    result = run_into(None, None, "migrate", "--format", "json", str(hostile.root))
    document = json.loads(result.stdout)
    assert document["root"] == str(hostile.root).replace("\udcff", "\ufffd")
    assert os.fsencode(hostile.root) == base64.b64decode(document["root_b64"])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é", "plain é"),
        (b"\xff\x1b", r"\xff\x1b"),
        ("\udcff", r"\xff"),
        ("\ud800", r"\ud800"),
        ("a\nb\tc\u202e", r"a\nb\tc\u202e"),
    ],
)
def test_printable_escapes_control_characters_and_bad_bytes(text: bytes | str, shown: str) -> None:
    assert printable(text) == shown
