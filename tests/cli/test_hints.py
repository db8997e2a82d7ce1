"""Messages and hints fit the situation."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

import ondisk
from buildkit_migrate import errors, migrate_root, open_store
from buildkit_migrate.bolt import Database
from buildkit_migrate.cli import _make_parser
from buildkit_migrate.files import holders
from buildkit_migrate.migration.journal import State
from buildkit_migrate.migration.resuming import check_is_the_same
from holding import held
from ondisk import OnDisk, run


def error_of(*arguments: str, status: int) -> dict[str, Any]:
    result = run(*arguments, "--format", "json")
    assert result.returncode == status, result.stderr
    error: dict[str, Any] = json.loads(result.stdout)["error"]
    return error


# --- In use


def test_locked_containerd_database_gets_a_hint_about_containerd(tmp_path: Path) -> None:
    root = ondisk.sample_of_containerd(tmp_path)
    for file in (root.containerd, root.snapshots):
        with held(file):
            error = error_of("migrate", *root.options, str(root.root), status=4)
        assert str(file) in error["message"]
        assert error["hint"].startswith("stop containerd ")
        assert "--offline" in error["hint"]
        assert "daemon" not in error["hint"]
    for file in (root.v1, root.root / "buildkitd.lock"):
        with held(file):
            error = error_of("migrate", *root.options, str(root.root), status=4)
        assert error["hint"].startswith("stop the BuildKit daemon ")


def test_locked_file_of_an_oci_worker_gets_a_hint_about_buildkit(root: OnDisk) -> None:
    for file in (root.containerd, root.snapshots, root.v1):
        with held(file):
            error = error_of("migrate", str(root.root), status=4)
        assert error["hint"].startswith("stop the BuildKit daemon ")


def test_process_that_holds_the_lock_is_named(root: OnDisk) -> None:
    with held(root.v1):
        if f":{root.v1.stat().st_ino} " not in Path("/proc/locks").read_text():
            pytest.skip("the kernel does not list this lock")
        message = error_of("migrate", str(root.root), status=4)["message"]
    assert re.search(r"is in use by python\S* \(process [0-9]+\)", message)


def test_unreadable_list_of_locks_names_no_process(root: OnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    def locker(file: object) -> int:
        raise PermissionError

    monkeypatch.setattr(holders, "_locker", locker)
    with held(root.v1), pytest.raises(errors.BusyError, match="in use by another process"):
        migrate_root(root.root)


def test_lock_of_this_process_is_named_as_such(root: OnDisk) -> None:
    """Two threads of a daemon, or a store that it has open."""
    before = dict(holders._OWN)
    with open_store(root.v1):
        found: list[BaseException] = []

        def migrate() -> None:
            try:
                migrate_root(root.root)
            except errors.BusyError as error:
                found.append(error)

        thread = threading.Thread(target=migrate)
        thread.start()
        thread.join()
        (error,) = found
        assert isinstance(error, errors.BusyError)
        assert "is in use by this process" in error.message
        assert "daemon" not in error.hint
    assert migrate_root(root.root)
    with held(root.v2), pytest.raises(errors.BusyError) as raised:
        Database.open(root.v2, exclusive=True)
    assert "this process" not in raised.value.message
    assert holders._OWN.keys() <= before.keys()


# --- Interrupted, and continued with other options

FLAGS = {"upstream_exact": False, "previous": False}
LIVE = {"mode": "live", "namespace": "buildkit", "snapshotter": "overlayfs", "place": "/run/c.sock"}
OFFLINE = {**LIVE, "mode": "offline", "place": "/var/lib/c/io.containerd.metadata.v1.bolt/meta.db"}


OTHER_NAMESPACE = {**LIVE, "namespace": "k8s.io"}
OTHER_SNAPSHOTTER = {**OFFLINE, "snapshotter": "native"}


@pytest.mark.parametrize(
    ("then", "now", "reason", "option"),
    [
        (LIVE, OFFLINE, "over a running containerd, and this one works offline", "without --offline"),
        (OFFLINE, LIVE, "was begun offline", "with --containerd-root /var/lib/c,"),
        (LIVE, OTHER_NAMESPACE, "namespace buildkit, and this one is in k8s.io", "--namespace buildkit"),
        (OFFLINE, OTHER_SNAPSHOTTER, "overlayfs, and this one is in native", "--snapshotter overlayfs"),
    ],
)
def test_changed_options_after_an_interruption_get_a_hint(
    then: dict[str, str], now: dict[str, str], reason: str, option: str
) -> None:
    state = State(v1="", plan="", containerd=then, upstream_exact=False)
    for changed in (False, True):
        with pytest.raises(errors.JournalError) as raised:
            check_is_the_same(state, Path("v1"), is_changed=changed, containerd=now, **FLAGS)
        error = raised.value
        assert reason in error.message
        assert ("the v1 store was changed since" in error.message) == changed
        assert (option in error.hint) != changed  # no option helps then
        assert "buildkit-migrate undo" in error.hint
    check_is_the_same(state, Path("v1"), is_changed=False, containerd=then, **FLAGS)


# --- What is not a store


def made(path: Path, kind: str) -> None:
    match kind:
        case "a directory":
            path.mkdir()
        case "a named pipe":
            os.mkfifo(path)
        case "a socket":
            # Its address may have 107 bytes.
            with socket.socket(socket.AF_UNIX) as bound, contextlib.chdir(path.parent):
                bound.bind(path.name)


@pytest.mark.parametrize("kind", ["a directory", "a named pipe", "a socket", "a device"])
def test_kind_of_a_file_that_is_not_regular_is_named(
    root: OnDisk, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(root.root)
    path = Path("/dev/zero") if kind == "a device" else root.root / "odd"
    if kind != "a device":
        made(path, kind)
    error = error_of("convert", str(path), "target", status=5)
    assert f"{path}: not a regular file ({kind})" in error["message"]
    assert "backup" not in error["hint"]
    with pytest.raises(errors.CorruptDatabaseError, match=kind):
        open_store(path)
    if kind != "a device":
        root.containerd.unlink()
        made(root.containerd, kind)
        error = error_of("migrate", str(root.root), status=5)
        assert f"{root.containerd}: not a regular file ({kind})" in error["message"]
        assert "backup" not in error["hint"]


def test_store_inside_a_given_directory_is_suggested(root: OnDisk, tmp_path: Path) -> None:
    for directory in (root.root, root.worker):
        assert str(root.v1) in error_of("convert", str(directory), "target", status=5)["hint"]
    assert str(tmp_path / "metadata_v2.db") in error_of("convert", str(tmp_path), "target", status=5)["hint"]


# --- Options


def typed_options() -> list[tuple[str, str]]:
    parser = _make_parser()
    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return [
        (name, action.option_strings[-1])
        for name, command in commands.choices.items()
        for action in command._actions
        if action.type is not None and action.option_strings
    ]


@pytest.mark.parametrize(("command", "option"), typed_options())
@pytest.mark.parametrize("value", ["x y", "abc", "-1", "nan", "inf", "1e400", "\udcff", "9" * 5000, ""])
def test_invalid_option_values_are_explained(command: str, option: str, value: str) -> None:
    is_number = option in ("--timeout", "--connect-timeout", "--concurrency", "--records")
    try:
        _make_parser().parse_args([command, f"{option}={value}"])
    except errors.Error as error:
        assert error.exit_code == 2
        assert "invalid" not in error.message  # argparse's own words: "invalid _seconds value"
        assert option in error.message
    else:
        assert not is_number
        assert value != ""
