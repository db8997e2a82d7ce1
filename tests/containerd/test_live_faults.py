"""A containerd that fails, goes away or is the wrong one: a clear error or the full result."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

import containerd_daemon
import grpc_proxy
import ondisk
from containerd_daemon import Containerd
from fixtures import ROOT_LABEL
from grpc_proxy import Proxy
from live_root import Expected, Live, error_of
from terminal import ending_message

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(bool(containerd_daemon.why_missing()), reason=containerd_daemon.why_missing()),
    pytest.mark.slow,
]

PHASES = ("Leases.Create", "Leases.AddResource", "Snapshots.Update", "Content.Update")
CODES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
RETRIED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


@pytest.mark.parametrize("phase", PHASES)
def test_migration_survives_a_restart_of_containerd(phase: str, live: Live, expected: Expected) -> None:
    """The daemon is killed with calls in flight; the run continues when it is back."""

    def restart() -> None:
        live.daemon.kill()
        threading.Thread(target=live.daemon.start).start()

    with Proxy(live.daemon.address, grpc_proxy.once(phase, 60, restart)) as proxy:
        result = live.migrate("--connect-timeout", "60", address=proxy.address)
        assert (result.returncode, result.stderr) == (0, "")
        assert proxy.calls[phase] > 60
    expected.check(live)


def test_migration_survives_a_restart_without_the_proxy(live: Live, expected: Expected) -> None:
    """The same over the daemon's own socket."""

    def restart() -> None:
        while not (live.root.worker / "metadata_v2.db.tmp").exists():
            time.sleep(0.001)
        time.sleep(0.15)
        live.daemon.kill()
        time.sleep(0.2)
        live.daemon.start()

    thread = threading.Thread(target=restart)
    thread.start()
    result = live.migrate("--connect-timeout", "60", "--concurrency", "2")
    thread.join()
    assert (result.returncode, result.stderr) == (0, "")
    expected.check(live)


@pytest.mark.parametrize("phase", ["Leases.AddResource", "Snapshots.Update"])
def test_containerd_that_stays_away_is_an_error_and_the_next_run_finishes(
    phase: str, live: Live, expected: Expected
) -> None:
    with Proxy(live.daemon.address, grpc_proxy.once(phase, 60, live.daemon.kill)) as proxy:
        error = error_of(live.migrate("--connect-timeout", "0.5", address=proxy.address))
    assert error["type"] == "ContainerdUnavailableError"
    assert proxy.address in error["message"]
    assert "again" in error["hint"]
    assert not live.root.v2.exists()
    assert live.root.left_behind == []
    assert live.root.v1.read_bytes() == expected.v1
    live.daemon.start()
    assert live.migrate().returncode == 0
    expected.check(live)


@pytest.mark.parametrize("code", CODES, ids=lambda code: str(code.name))
def test_only_transient_status_codes_are_retried(
    code: grpc.StatusCode, live: Live, expected: Expected
) -> None:
    """In the lease phase, where most calls are; a second run always finishes."""
    with Proxy(live.daemon.address, grpc_proxy.nth("Leases.AddResource", {50}, code)) as proxy:
        result = live.migrate(address=proxy.address)
    if code in RETRIED:
        assert (result.returncode, result.stderr) == (0, "")
    else:
        error = error_of(result)
        assert error["type"] == "ContainerdCallError"
        assert "Leases.AddResource" in error["message"]
        assert code.name in error["message"]
        assert error["subject"] in error["message"]
        assert error["subject"].encode() in expected.v1
        assert not live.root.v2.exists()
        assert proxy.calls["Snapshots.Update"] == proxy.calls["Content.Update"] == 0
        assert live.migrate().returncode == 0
    expected.check(live)


@pytest.mark.parametrize("phase", PHASES)
def test_calls_with_lost_answers_are_repeated(phase: str, live: Live, expected: Expected) -> None:
    """The call has its effect but its answer is lost, so it is made again."""
    fault = grpc_proxy.nth(phase, set(range(0, 200, 9)), grpc.StatusCode.UNAVAILABLE)
    with Proxy(live.daemon.address, fault, lose=True) as proxy:
        result = live.migrate(address=proxy.address)
        assert (result.returncode, result.stderr) == (0, "")
    expected.check(live)


def test_call_that_always_fails_is_given_up(live: Live) -> None:
    """The success of other calls must not keep this one retrying for ever."""
    fault = grpc_proxy.nth("Leases.Create", {3, *range(287, 10_000)}, grpc.StatusCode.UNAVAILABLE)
    with Proxy(live.daemon.address, fault) as proxy:
        error = error_of(live.migrate("--connect-timeout", "1", address=proxy.address))
    assert error["type"] == "ContainerdUnavailableError"


def test_vanished_object_counts_as_unlabelled(live: Live, expected: Expected) -> None:
    """A label of an object that is gone needs no removal."""
    fault = grpc_proxy.nth("Content.Update", {0}, grpc.StatusCode.NOT_FOUND)
    with Proxy(live.daemon.address, fault) as proxy:
        assert live.migrate(address=proxy.address).returncode == 0
    labelled = [labels for labels in live.daemon.content().values() if ROOT_LABEL.decode() in labels]
    assert len(labelled) == 1


@pytest.mark.parametrize("name", ["Snapshots.List", "Content.List", "Leases.Create"])
def test_call_without_an_answer_times_out(name: str, live: Live) -> None:
    blocked = threading.Event()

    def block(called: str, number: int) -> None:
        if called == name:
            blocked.wait(60)

    with Proxy(live.daemon.address, block) as proxy:
        error = error_of(live.migrate("--timeout", "0.3", "--concurrency", "2", address=proxy.address))
        blocked.set()
    assert error["type"] == "ContainerdCallError"
    assert "DEADLINE_EXCEEDED" in error["message"]
    assert name in error["message"]


def test_slow_calls_within_the_deadline_succeed(live: Live, expected: Expected) -> None:
    with Proxy(live.daemon.address, grpc_proxy.slow(0.02)) as proxy:
        assert live.migrate("--timeout", "20", "--concurrency", "32", address=proxy.address).returncode == 0
    expected.check(live)


def test_ctrl_c_ends_the_run_and_the_next_one_finishes(live: Live, expected: Expected) -> None:
    """Ctrl-C ends the run soon, says how to go on, and the next run finishes."""
    interrupted = threading.Event()

    def interrupt(name: str, number: int) -> None:
        if (name, number) == ("Leases.AddResource", 20):
            os.kill(process.pid, signal.SIGINT)
            interrupted.wait(60)

    with Proxy(live.daemon.address, interrupt) as proxy:
        process = live.start_migration(proxy.address)
        _, stderr = process.communicate(timeout=60)
        interrupted.set()
    assert process.returncode == 130
    assert "interrupted" in stderr
    assert "again" in stderr
    assert "Traceback" not in stderr
    assert live.root.left_behind == []
    assert live.migrate().returncode == 0
    expected.check(live)


def test_sigterm_ends_the_run_with_one_message(live: Live) -> None:
    """At any call; no task of the event loop continues or complains."""
    for at in (40, 120, 200, 280, 360):
        calls = itertools.count()

        def terminate(name: str, number: int, calls: Iterator[int] = calls, at: int = at) -> None:
            if next(calls) == at:
                os.kill(process.pid, signal.SIGTERM)  # noqa: B023 - this round's

        with Proxy(live.daemon.address, terminate) as proxy:
            process = live.start_migration(proxy.address)
            out = process.communicate(timeout=60)
        assert (process.returncode, out) == (143, ("", ending_message(signal.SIGTERM))), at
        assert live.root.left_behind == []
        result = ondisk.run("undo", "--address", live.daemon.address, str(live.root.root))
        assert (result.returncode, result.stderr) == (0, "")
    assert live.migrate().returncode == 0


def test_unknown_namespace_is_refused(live: Live) -> None:
    error = error_of(live.migrate("--namespace", "elsewhere", "--on-broken", "drop"))
    assert error["type"] == "ContainerdStateError"
    assert f"{live.daemon.address} (--address), namespace elsewhere (--namespace)" in error["message"]
    assert "give --namespace buildkit" in error["hint"]
    assert "drop" not in error["hint"]


def test_unknown_snapshotter_is_refused(live: Live) -> None:
    error = error_of(live.migrate("--snapshotter", "nosuch"))
    assert error["type"] == "ContainerdStateError"
    assert "snapshotter nosuch (--snapshotter)" in error["message"]
    assert "give --snapshotter overlayfs" in error["hint"]


def test_snapshotter_without_snapshots_is_refused(live: Live) -> None:
    error = error_of(live.migrate("--dry-run", CONTAINERD_SNAPSHOTTER="native"))
    assert error["type"] == "ContainerdStateError"
    assert "snapshotter native ($CONTAINERD_SNAPSHOTTER)" in error["message"]
    assert "give --snapshotter overlayfs (it wins over $CONTAINERD_SNAPSHOTTER)" in error["hint"]


def test_unrelated_containerd_is_refused(live: Live) -> None:
    with Containerd() as daemon:
        error = error_of(live.migrate("--on-broken", "drop", address=daemon.address))
    assert error["type"] == "ContainerdStateError"
    assert "(--address)" in error["message"]
    assert "--address" in error["hint"]


def test_v1_without_records_is_refused(live: Live) -> None:
    live.root.v1.write_bytes(b"")
    error = error_of(live.migrate("--on-broken", "drop"))
    assert "has no records" in error["message"]
    assert "blobs with the gc.root label" in error["message"]


def test_running_buildkit_daemon_is_noticed(live: Live) -> None:
    import fcntl

    for path in (live.root.v1, live.root.root / "buildkitd.lock"):
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            error = error_of(live.migrate())
            assert error["type"] == "BusyError"
            assert str(path) in error["message"]
    assert live.daemon.leases() == {}


# The following tests need no daemon.


def root_without_daemon(tmp_path: Path, address: str, *arguments: str) -> dict[str, object]:
    root = ondisk.sample_of_containerd(tmp_path)
    result = ondisk.run(
        *("migrate", "--format", "json", "--address", address, "--connect-timeout", "0.3", *arguments),
        str(root.root),
    )
    assert not root.v2.exists()
    assert root.left_behind == []
    return error_of(result)


def test_missing_socket_is_named(tmp_path: Path) -> None:
    address = str(tmp_path / "nothing.sock")
    error = root_without_daemon(tmp_path, address)
    assert error["type"] == "ContainerdUnavailableError"
    assert f"{address} does not answer: No such file or directory" in str(error["message"])
    assert "--offline" in str(error["hint"])


def test_socket_without_a_listener_is_an_error(tmp_path: Path) -> None:
    import socket

    address = f"/tmp/bkm-refused-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)  # nobody listens
    try:
        error = root_without_daemon(tmp_path, address)
    finally:
        Path(address).unlink()
    assert error["type"] == "ContainerdUnavailableError"
    assert "Connection refused" in str(error["message"])


def test_silent_server_is_an_error(tmp_path: Path) -> None:
    """Something accepts the connection and never answers."""
    import socket

    address = f"/tmp/bkm-silent-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        try:
            error = root_without_daemon(tmp_path, address, "--timeout", "0.3")
        finally:
            Path(address).unlink()
    assert error["type"] in ("ContainerdUnavailableError", "ContainerdCallError")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_socket_without_permission_is_an_error(live: Live) -> None:
    root = live.root.root
    for path in [root, *root.rglob("*")]:
        os.chown(path, 65534, 65534)
    for path in [root, *root.parents]:
        if path == Path(tempfile.gettempdir()):
            break
        path.chmod(0o755)
    # All modules are loaded first: the other user may have no access to them.
    code = (
        "import os, shutil, sys; sys.path[:0] = {path!r}; import orjson\n"
        "from buildkit_migrate.cli import main, migrate, render\n"
        "from buildkit_migrate.containerd import live\n"
        "from buildkit_migrate import api\n"
        "os.setgid(65534); os.setuid(65534); sys.exit(main({arguments!r}))"
    )
    Path(live.daemon.address).parent.chmod(0o755)
    arguments = ["migrate", "--format", "json", "--address", live.daemon.address, str(root)]
    result = subprocess.run(
        [sys.executable, "-c", code.format(path=sys.path, arguments=arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    error = error_of(result)
    assert error["type"] == "ContainerdUnavailableError", error
    assert "Permission denied" in error["message"]


def test_address_that_is_too_long_is_an_error(tmp_path: Path) -> None:
    error = root_without_daemon(tmp_path, "/" + "x" * 200)
    assert error["type"] == "ContainerdUnavailableError"


def test_address_that_is_not_a_unix_socket_is_refused(tmp_path: Path) -> None:
    result = ondisk.run("migrate", "--format", "json", "--address", "tcp://127.0.0.1:1", str(tmp_path))
    assert error_of(result)["exit_code"] == 2


@pytest.mark.parametrize(
    "option", [("--timeout", "0"), ("--timeout", "nan"), ("--concurrency", "0"), ("--connect-timeout", "x")]
)
def test_impossible_numbers_are_refused(option: tuple[str, str], tmp_path: Path) -> None:
    result = ondisk.run("migrate", *option, str(tmp_path))
    assert result.returncode == 2
    assert option[0] in result.stderr


def test_unreachable_containerd_is_reported_as_json(tmp_path: Path) -> None:
    root = ondisk.sample_of_containerd(tmp_path)
    result = ondisk.run(
        *("migrate", "--format", "json", "--address", "/nowhere", "--connect-timeout", "0.1"), str(root.root)
    )
    assert json.loads(result.stdout)["error"]["exit_code"] == 11
