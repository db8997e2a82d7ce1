"""What was finished before the work on several workers, or several roots, ended early."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ondisk
from buildkit_migrate import api, clean_root, errors, migrate_root, undo_root
from buildkit_migrate.cli import main, output
from buildkit_migrate.migration.migrate import Migration
from buildkit_migrate.migration.undo import Undo
from buildkit_migrate.workspace import finding
from ondisk import OnDisk

Job = Callable[..., Any]


def refuse() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO), "/some/file")


def fail() -> None:
    raise errors.StorageError("disk full")


def interrupt() -> None:
    raise KeyboardInterrupt


def slip() -> None:
    raise ZeroDivisionError("not foreseen")


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()


COMMANDS: dict[str, tuple[Job, tuple[object, str], str]] = {
    "migrate": (migrate_root, (Migration, "carry_out"), "was migrated"),
    "undo": (undo_root, (Undo, "carry_out"), "is back at v1"),
    "clean": (clean_root, (api, "remove_leftovers"), "was cleaned"),
}
"""The function, what it calls for each worker, and what is said of a worker that is done."""


def prepare(two: list[OnDisk], command: str) -> None:
    if command != "migrate":
        two[0].migrate_here()


def breaking(monkeypatch: pytest.MonkeyPatch, place: tuple[object, str], breaks: Job) -> None:
    """The second call of this function fails."""
    real: Job = getattr(*place)
    calls = []

    def call(*arguments: object, **options: object) -> object:
        calls.append(arguments)
        return breaks() if len(calls) == 2 else real(*arguments, **options)

    monkeypatch.setattr(*place, call)


@pytest.fixture
def two(tmp_path: Path) -> list[OnDisk]:
    return ondisk.two_workers(tmp_path)


@pytest.mark.parametrize(
    ("breaks", "expected"),
    [
        (refuse, errors.StorageError),
        (fail, errors.StorageError),
        (interrupt, KeyboardInterrupt),
        (slip, ZeroDivisionError),
    ],
)
@pytest.mark.parametrize("command", COMMANDS)
def test_any_exception_carries_the_finished_work(
    two: list[OnDisk],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    breaks: Job,
    expected: type[BaseException],
) -> None:
    prepare(two, command)
    job, place, done = COMMANDS[command]
    breaking(monkeypatch, place, breaks)
    with pytest.raises(expected) as caught:
        job(two[0].root)
    (finished,) = errors.finished_before(caught.value)
    assert finished.done == done
    assert finished.worker == two[1 if command == "undo" else 0].worker
    if breaks is refuse:
        assert str(caught.value) == "/some/file: Input/output error"
        assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize(
    ("breaks", "status", "message"),
    [
        (refuse, 8, "/some/file: Input/output error"),
        (interrupt, 130, "interrupted"),
        (terminate, 143, "ended by SIGTERM"),
        (slip, 1, "unexpected ZeroDivisionError: not foreseen"),
    ],
)
@pytest.mark.parametrize("command", COMMANDS)
def test_command_names_the_finished_work(
    two: list[OnDisk],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    command: str,
    breaks: Job,
    status: int,
    message: str,
) -> None:
    prepare(two, command)
    _, place, done = COMMANDS[command]
    breaking(monkeypatch, place, breaks)
    assert ended(command, "--format", "json", str(two[0].root)) == status
    shown = capfd.readouterr()
    error = json.loads(shown.out)["error"]
    assert (error["message"], error["exit_code"]) == (message, status)
    worker = two[1 if command == "undo" else 0].worker
    assert [finished["worker"] for finished in error["finished"]] == [str(worker)]
    assert shown.err.splitlines()[:2] == [
        f"buildkit-migrate: {worker} {done} before that",
        f"buildkit-migrate: error: {message}",
    ]


def ended(*arguments: str) -> int:
    try:
        return main(arguments)
    except SystemExit as end:
        assert isinstance(end.code, int)
        return end.code


def test_interrupt_after_the_last_worker_names_all(
    two: list[OnDisk], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the databases are being closed."""
    close = Migration.close

    def closing(migration: Migration) -> None:
        close(migration)
        interrupt()

    monkeypatch.setattr(Migration, "close", closing)
    with pytest.raises(KeyboardInterrupt) as caught:
        migrate_root(two[0].root)
    assert [one.worker for one in errors.finished_before(caught.value)] == [root.worker for root in two]


def test_nothing_is_named_if_nothing_was_finished(two: list[OnDisk], monkeypatch: pytest.MonkeyPatch) -> None:
    """What was migrated earlier was not finished now."""
    two[0].migrate_here()
    two[1].v2.unlink()
    monkeypatch.setattr(Migration, "carry_out", lambda migration: interrupt())
    with pytest.raises(KeyboardInterrupt) as caught:
        migrate_root(two[0].root)
    assert errors.finished_before(caught.value) == ()


def test_interrupt_while_the_result_is_printed(
    root: OnDisk, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """There is one document on stdout, not a second one about the interrupt."""
    emit = output.emit_json

    def emitting(document: dict[str, Any]) -> None:
        emit(document)
        terminate()

    monkeypatch.setattr(output, "emit_json", emitting)
    assert ended("migrate", "--format", "json", str(root.root)) == 143
    shown = capfd.readouterr()
    assert json.loads(shown.out)["workers"][0]["outcome"] == "migrated"
    assert "ended by SIGTERM" in shown.err


# --- Several roots


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[OnDisk]:
    """The only ones of this host."""
    made = []
    for name in "abc":
        (tmp_path / name).mkdir()
        made.append(ondisk.sample(tmp_path / name))
    found = [finding.find_root(one.root) for one in made]
    monkeypatch.setattr(api, "find_roots", lambda: finding.Host(tuple(found), ("odd",)))
    return made


def names(document: dict[str, Any]) -> list[str]:
    assert list(document) == ["schema", "unreadable", "roots", "error"]
    return [root["root"] for root in document["roots"]]


def test_finished_roots_are_named_if_one_fails(
    roots: list[OnDisk], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    breaking(monkeypatch, (Migration, "carry_out"), refuse)
    assert main(["migrate", "--all", "--format", "json"]) == 8
    document = json.loads(capfd.readouterr().out)
    assert names(document) == [str(one.root) for one in roots]
    one, failed, other = (root["error"] for root in document["roots"])
    assert one is other is document["error"] is None
    assert failed["type"] == "StorageError"


@pytest.mark.parametrize("command", ["migrate", "verify"])
def test_finished_roots_are_named_after_an_interrupt(
    roots: list[OnDisk], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], command: str
) -> None:
    """What is known of the roots before it is shown, beside the error."""
    breaking(monkeypatch, (api, f"{command}_root"), interrupt)
    assert main([command, "--all", "--format", "json"]) == 130
    document = json.loads(capfd.readouterr().out)
    assert names(document) == [str(roots[0].root)]
    assert document["error"]["message"] == "interrupted"
    assert document["unreadable"] == ["odd"]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["migrate", "--all", "/root"], 2),
        (["migrate", "--all", "--dry"], 2),
        (["verify", "--all"], 3),
        (["status"], 3),
    ],
)
def test_nothing_is_named_before_the_first_root(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], arguments: list[str], status: int
) -> None:
    def none(**options: object) -> None:
        raise errors.RootNotFoundError("no root")

    monkeypatch.setattr(api, "find_roots", lambda: finding.Host(()))
    monkeypatch.setattr(api, "find_root", none)
    assert main([*arguments, "--format", "json"]) == status
    document = json.loads(capfd.readouterr().out)
    assert names(document) == []
    assert document["error"]["exit_code"] == status
