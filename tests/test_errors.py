"""Errors: their fields, how they are shown, and the one table of exit statuses."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from buildkit_migrate import errors
from buildkit_migrate.cli import _COMMANDS, _make_parser, main
from buildkit_migrate.cli.exit_statuses import EXIT_STATUSES, STATUSES_OF
from buildkit_migrate.cli.failures import InterruptedByUserError, UsageError
from buildkit_migrate.cli.parser import EXAMPLES
from buildkit_migrate.cli.render import error_lines
from buildkit_migrate.migration.findings import Difference, DifferenceKind
from buildkit_migrate.model import Problem, Reason
from buildkit_migrate.store.engines import Engine, open_store

REFERENCE = Path(__file__).parents[1] / "docs" / "reference.md"

ARGUMENTS: dict[type[errors.Error], tuple[list[Any], dict[str, Any]]] = {
    errors.RootNotFoundError: (["m"], {"candidates": ["/a b", "/c\n"]}),
    errors.CorruptDatabaseError: (["rule"], {"path": "/db\udcff", "page": 7, "detail": "why"}),
    errors.BrokenRecordsError: (["m", [Problem(b"r\xff", Reason.CYCLE, b"p")]], {}),
    errors.DifferencesError: (["m", [Difference(DifferenceKind.BLOB_MISSING, b"b", b"r", b"1", b"2")]], {}),
    errors.ContainerdUnavailableError: (["m"], {"address": "/socket"}),
    errors.ContainerdCallError: (
        ["m"],
        {"method": "Leases.Create", "code": "INTERNAL", "detail": "d", "subject": b"l\xff"},
    ),
    errors.UndoRefusedError: (["m", ["since then\n"]], {}),
}
"""Of each class that takes more than a message."""


def classes(base: type[errors.Error] = errors.Error) -> Iterator[type[errors.Error]]:
    yield base
    for cls in base.__subclasses__():
        yield from classes(cls)


ALL = sorted(set(classes()), key=lambda cls: cls.__name__)


def make(cls: type[errors.Error], **options: Any) -> errors.Error:
    positional, named = ARGUMENTS.get(cls, (["m"], {}))
    return cls(*positional, **named, **options)


def fields(cls: type[errors.Error]) -> set[str]:
    return {name for base in cls.__mro__ for name in inspect.get_annotations(base)}


@pytest.mark.parametrize("cls", ALL)
def test_fields_are_annotated_and_described(cls: type[errors.Error]) -> None:
    assert set(vars(make(cls))) <= fields(cls)
    for name in inspect.get_annotations(cls):
        assert re.search(rf"``{name}``\s+\(", cls.__doc__ or ""), name


@pytest.mark.parametrize("cls", ALL)
def test_json_shows_all_fields(cls: type[errors.Error]) -> None:
    error = make(cls, hint="do that")
    document = error.as_dict()
    names = {name for name in document if not name.endswith("_b64")}
    assert names == set(errors.Error("m").as_dict())
    assert names >= fields(cls) - {"command", "reports"}
    for name in set(vars(error)) - {"reports"}:
        assert document[name], name
    others = names - fields(cls) - {"type"}
    assert not any(document[name] for name in others)


@pytest.mark.parametrize("cls", ALL)
def test_empty_hint_is_not_shown(cls: type[errors.Error]) -> None:
    silent, default = make(cls, hint=""), make(cls)
    assert silent.as_dict()["hint"] == ""
    assert not any("hint" in line for line in error_lines(silent, verbose=False))
    shown = [line for line in error_lines(default, verbose=False) if "hint" in line]
    assert shown == ([f"buildkit-migrate: hint: {cls.hint}"] if cls.hint else [])


@pytest.mark.parametrize(
    ("cls", "lines"),
    [
        (errors.RootNotFoundError, ["'/a b'", "'/c\\n'"]),
        (errors.BrokenRecordsError, ["r\\xff: cycle (p)"]),
        (errors.DifferencesError, ["blob-missing: b r (expected 1, found 2)"]),
    ],
)
def test_error_lines_show_the_details(cls: type[errors.Error], lines: list[str]) -> None:
    error = make(cls)
    assert list(error.lines()) == lines
    assert [f"    {line}" for line in lines] == list(error_lines(error, verbose=False))[1 : 1 + len(lines)]


@pytest.mark.parametrize("verbose", [False, True])
def test_long_lists_are_shortened(verbose: bool) -> None:
    problems = [Problem(b"%d" % number, Reason.CYCLE) for number in range(30)]
    lines = list(errors.BrokenRecordsError("m", problems).lines(verbose=verbose))
    assert lines[:20] == [f"{number}: cycle" for number in range(20)]
    assert (lines[20:] == ["... and 10 more (-v shows all)"]) == (not verbose)
    assert (len(lines) == 30) == verbose


@pytest.mark.parametrize("engine", ["bolt", "lmdb"])
def test_read_only_store_does_not_blame_a_daemon(tmp_path: Path, engine: Engine) -> None:
    open_store(tmp_path / "store", create=engine).close()
    with (
        open_store(tmp_path / "store", read_only=True) as store,
        pytest.raises(errors.BusyError, match="read-only") as caught,
    ):
        store.clear(b"record")
    assert not any("daemon" in line for line in error_lines(caught.value, verbose=True))


# --- Exit statuses


def test_each_error_class_has_a_documented_status() -> None:
    assert {UsageError, InterruptedByUserError} < set(ALL)
    assert {cls.exit_code for cls in ALL} < set(EXIT_STATUSES)


def test_reference_lists_the_exit_statuses() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", REFERENCE.read_text().split("| exit status |")[1], re.M)
    rows = rows[: len(EXIT_STATUSES)]
    assert [(int(status), text.replace("`", "")) for status, text in rows] == sorted(EXIT_STATUSES.items())


def test_reference_lists_the_order_of_exit_statuses() -> None:
    (order,) = re.findall(r"status is the worst of the roots: ([^`]*)\.", REFERENCE.read_text())
    ended = {0, 2, 129, 130, 143}
    assert [int(number) for number in re.findall(r"\d+", order)] == [
        status for status in reversed(EXIT_STATUSES) if status not in ended
    ]


@pytest.mark.parametrize("command", ["", *_COMMANDS])
def test_help_lists_the_exit_statuses(command: str, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    with pytest.raises(SystemExit):
        _make_parser().parse_args([command, "--help"] if command else ["--help"])
    shown = capsysbinary.readouterr().out.decode().split("exit codes:\n")[1]
    rows = re.findall(r"^  (\d+) +(\S.*(?:\n {7}\S.*)*)", shown, re.M)
    found = {int(status): re.sub(r"\s+", " ", text) for status, text in rows}
    assert found == {
        status: text
        for status, text in EXIT_STATUSES.items()
        if not command or status in STATUSES_OF[command]
    }


def test_every_status_is_one_of_some_command() -> None:
    assert STATUSES_OF.keys() == set(_COMMANDS)
    assert set.union(*map(set, STATUSES_OF.values())) == set(EXIT_STATUSES)


# --- Wrong usage


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["migrate", "--dryrun"], "did you mean --dry-run? Else see buildkit-migrate migrate --help"),
        (
            ["migrate", "--onbroken=drop"],
            "did you mean --on-broken? Else see buildkit-migrate migrate --help",
        ),
        (["check", "--xyz"], "see buildkit-migrate check --help"),
        (["du", "a", "b"], "see buildkit-migrate du --help"),
        (["migrate", "--on-broken", "dropp"], "did you mean drop? Else see buildkit-migrate migrate --help"),
        (["migrate", "--timeout", "soon"], "see buildkit-migrate migrate --help"),
        (["migrte"], "did you mean migrate? Else see buildkit-migrate --help"),
        (["xyz"], "see buildkit-migrate --help"),
        (
            ["/path"],
            "a command comes first, such as buildkit-migrate migrate /path; see buildkit-migrate --help",
        ),
        ([], "see buildkit-migrate --help"),
        (["--format", "json"], "the command comes first: buildkit-migrate migrate --format"),
        (["--dry-run", "undo", "/path"], "the command comes first: buildkit-migrate undo --dry-run"),
        (["--versoin"], "did you mean --version? Else see buildkit-migrate --help"),
        (["--print-completion", "bsh"], "did you mean bash? Else see buildkit-migrate --help"),
        (["check", "--progress", "bars"], "did you mean bar? Else see buildkit-migrate check --help"),
        (["migrate", "--all", "/path"], "see buildkit-migrate migrate --help"),
    ],
)
def test_usage_error_leads_to_the_help_of_the_command(
    arguments: list[str], hint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capfd.readouterr().err.splitlines()[-1] == f"buildkit-migrate: hint: {hint}"


def test_every_command_has_examples_that_parse() -> None:
    assert EXAMPLES.keys() == set(_COMMANDS)
    for command, examples in EXAMPLES.items():
        for arguments, _ in examples:
            assert arguments.split()[0] == command
            _make_parser().parse_args(arguments.split())
