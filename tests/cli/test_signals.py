"""Signals that end the command: temporary files are removed, and the next run finishes."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fault_points
import grpc_proxy
import ondisk
from buildkit_migrate.cli import signals
from live_root import Live
from ondisk import OnDisk
from terminal import ending_message

pytestmark = pytest.mark.slow

ENDINGS = {signal.SIGHUP: 129, signal.SIGTERM: 143}


def command_ignoring(ignored: tuple[int, ...], command: list[str]) -> list[str]:
    """The command with these signals ignored, as a background job ignores SIGINT and nohup SIGHUP."""
    traps = [f"trap '' {int(number)};" for number in ignored]
    return ["sh", "-c", " ".join([*traps, 'exec "$@"']), "sh", *command]


def run_with_signals(
    root: OnDisk, call: int, command: str, *numbers: int, ignored: tuple[int, ...] = ()
) -> tuple[int, str]:
    """Status and stderr of a run that is paused at a call when the signals arrive."""
    with subprocess.Popen(
        command_ignoring(ignored, fault_points.arguments(call, "stop", command, root)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        for number in numbers:
            process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        _, stderr = process.communicate(timeout=120)
    return process.returncode, stderr


def calls_to_interrupt() -> Iterator[int]:
    """The first call of each kind in a migration, and those around each rename."""
    names = fault_points.calls("migrate")
    for index, name in enumerate(names):
        if names.index(name) == index or "rename" in names[index - 1 : index + 2]:
            yield index


@pytest.mark.parametrize("ignored", [(), (signal.SIGINT,)], ids=["", "SIGINT-ignored"])
@pytest.mark.parametrize("number", ENDINGS)
def test_signal_at_many_calls_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals, ignored: tuple[int, ...]
) -> None:
    names = fault_points.calls("migrate")
    for index in itertools.islice(calls_to_interrupt(), 0 if number == signal.SIGHUP else 1, None, 2):
        root = ondisk.sample(tmp_path / str(index))
        v1 = root.v1.read_bytes()
        status, stderr = run_with_signals(root, index, "migrate", number, ignored=ignored)
        assert status == ENDINGS[number], (names[index], stderr)
        assert "Traceback" not in stderr, stderr
        assert root.left_behind == [], names[index]
        assert root.v1.read_bytes() == v1
        root.migrate_here()
        root.verify_here()


@pytest.mark.parametrize("command", ["migrate", "undo", "convert"])
def test_signal_during_a_call_leaves_nothing_behind(tmp_path: Path, command: str) -> None:
    """The signal arrives before the result of the call is known."""

    def run(fault: str, index: int, root: OnDisk) -> subprocess.CompletedProcess[str]:
        if command != "convert":
            return fault_points.run(index, fault, command, root)
        given = fault_points.arguments(index, fault, command, root)
        given[-1:] = [str(root.v1), str(root.worker / "converted")]
        return subprocess.run(given, capture_output=True, text=True, timeout=120, check=False)

    def sample(name: str) -> OnDisk:
        root = ondisk.sample(tmp_path / name)
        if command == "undo":
            root.migrate_here()
        return root

    names = run("none", -1, sample("undisturbed")).stderr.split()
    assert ("link" if command == "convert" else "rename") in names
    for index, name in enumerate(names):
        root = sample(str(index))
        v1 = root.v1.read_bytes()
        result = run("end", index, root)
        assert result.returncode == 143, (name, result.stderr)
        assert "Traceback" not in result.stderr
        assert root.left_behind == [], (index, names)
        assert root.v1.read_bytes() == v1
        if command == "migrate":
            root.migrate_here()
            root.verify_here()
        if command == "undo":
            root.undo_here()


def test_several_signals_do_not_interrupt_the_cleanup(root: OnDisk) -> None:
    """Further signals do not interrupt the cleanup."""
    call = fault_points.calls("migrate").index("write")
    status, stderr = run_with_signals(root, call, "migrate", signal.SIGHUP, signal.SIGTERM, signal.SIGHUP)
    assert (status in ENDINGS.values(), "Traceback" in stderr) == (True, False)
    assert root.left_behind == []


def test_hangup_of_the_terminal_cleans_up(root: OnDisk) -> None:
    """Its status line can't be written any more."""
    call = fault_points.calls("migrate").index("write")
    arguments = fault_points.arguments(call, "stop", "migrate", root)
    pid, terminal = os.forkpty()
    if pid == 0:
        try:
            os.execv(arguments[0], arguments)
        finally:
            os._exit(1)
    assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
    os.close(terminal)
    os.kill(pid, signal.SIGCONT)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 129
    assert root.left_behind == []
    root.migrate_here()


def test_ignored_sighup_stays_ignored(root: OnDisk) -> None:
    call = fault_points.calls("migrate").index("write")
    status, _ = run_with_signals(root, call, "migrate", signal.SIGHUP, ignored=(signal.SIGHUP,))
    assert status == 0
    root.verify_here()


def test_ignored_sigint_stays_ignored(root: OnDisk) -> None:
    call = fault_points.calls("migrate").index("write")
    status, _ = run_with_signals(root, call, "migrate", signal.SIGINT, ignored=(signal.SIGINT,))
    assert status == 0
    root.verify_here()


@pytest.mark.parametrize("number", ENDINGS)
def test_signal_while_a_thread_writes_leaves_nothing_behind(root: OnDisk, number: signal.Signals) -> None:
    """Large blocks are written by a thread while the next one is being built."""
    big = {b"k%06d" % index: os.urandom(1000) for index in range(6000)}
    ondisk.edit(root.containerd, {b"others": big})
    program = (
        "import os, signal, sys, threading\n"
        "real = os.write\n"
        "def write(fd, block):\n"
        "    if threading.current_thread() is not threading.main_thread():\n"
        f"        os.kill(os.getpid(), {int(number)})\n"
        "    return real(fd, block)\n"
        "os.write = write\n"
        "from buildkit_migrate.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, "migrate", str(root.root)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (result.returncode, result.stderr) == (ENDINGS[number], ending_message(number))
    assert root.left_behind == []
    root.migrate_here()
    root.verify_here()


@pytest.mark.real
@pytest.mark.parametrize("ignored", [(), (signal.SIGINT,)], ids=["", "SIGINT-ignored"])
@pytest.mark.parametrize("number", ENDINGS)
def test_signal_during_live_calls_ends_the_run_with_one_message(
    live: Live, number: signal.Signals, ignored: tuple[int, ...]
) -> None:
    """No task of the event loop continues or complains."""
    for at in (5, 60, 200):
        calls = itertools.count()

        def end(name: str, count: int, calls: Iterator[int] = calls, at: int = at) -> None:
            if next(calls) == at:
                os.kill(process.pid, number)  # noqa: B023 - this round's

        with grpc_proxy.Proxy(live.daemon.address, end) as proxy:
            command = [sys.executable, "-m", "buildkit_migrate", "migrate", "--address", proxy.address]
            process = subprocess.Popen(
                command_ignoring(ignored, [*command, str(live.root.root)]),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            out = process.communicate(timeout=60)
        assert (process.returncode, out) == (ENDINGS[number], ("", ending_message(number))), at
        assert live.root.left_behind == []
        result = ondisk.run("undo", "--address", live.daemon.address, str(live.root.root))
        assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.default_int_handler])
def test_signal_handlers_are_restored(handler: signal.Handlers) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    at_first = signal.signal(signal.SIGINT, handler)
    try:
        before = [signal.getsignal(number) for number in numbers]
        with signals.ending_cleanly():
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert [signal.getsignal(number) for number in numbers] == before
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.signal(signal.SIGINT, at_first)
