"""A database truncated while it is mapped: the command reports it, and the next run finishes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import ondisk
from buildkit_migrate._native import bus_error
from ondisk import OnDisk

COMMAND = """
import contextlib, os, sys
from buildkit_migrate import cli
from buildkit_migrate.cli import output

moment, victim, *arguments = sys.argv[1:]

@contextlib.contextmanager
def progress(choice):
    yield lambda step: os.truncate(victim, 4096) if step.startswith(moment) else None

output.progress = progress
sys.exit(cli.main(arguments))
"""


def migrate_and_cut(root: OnDisk, moment: str, victim: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", COMMAND, moment, str(victim), "migrate", "--format", "json", str(root.root)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("moment", ["reading", "planning", "writing leases"])
@pytest.mark.parametrize("name", ["v1", "containerd"])
def test_truncated_mapping_is_reported_and_the_next_run_finishes(
    root: OnDisk, moment: str, name: str
) -> None:
    victim: Path = getattr(root, name)
    if (moment, name) == ("writing leases", "v1"):
        moment = "writing"  # v1 is no longer read when leases are written
    sound = victim.read_bytes()
    result = migrate_and_cut(root, moment, victim)
    assert result.returncode == 5, result.stderr
    assert "truncated by another process" in result.stderr
    assert len(result.stderr.splitlines()) == 2
    assert json.loads(result.stdout)["error"]["exit_code"] == 5
    assert not root.v2.exists()

    victim.write_bytes(sound)
    again = root.migrate()
    assert again.returncode == 0, again.stderr
    assert root.left_behind == []
    assert ondisk.tree(root.v2)


def test_leftover_of_a_sigbus_is_removed_by_the_next_run(root: OnDisk) -> None:
    sound = root.containerd.read_bytes()
    assert migrate_and_cut(root, "writing leases", root.containerd).returncode == 5
    assert root.left_behind
    root.containerd.write_bytes(sound)
    root.migrate_here()
    assert root.left_behind == []


@pytest.mark.parametrize(
    "ending", ["os.kill(os.getpid(), signal.SIGBUS)", "signal.raise_signal(signal.SIGBUS)"]
)
def test_other_bus_errors_kill_the_process(ending: str) -> None:
    code = f"""
import os, signal
from buildkit_migrate._native import bus_error
bus_error.install(b"wrong words", b"", 5)
{ending}
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (-signal.SIGBUS, b"")


def test_sigbus_in_another_thread_is_reported_once() -> None:
    code = """
import mmap, tempfile, threading
from buildkit_migrate._native import bus_error
file = tempfile.TemporaryFile()
file.truncate(1 << 16)
data = mmap.mmap(file.fileno(), 0)
bus_error.install(b"said", b"once", 5)
file.truncate(0)
threads = [threading.Thread(target=lambda: data[5000]) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=60)
    assert (result.returncode, result.stderr, result.stdout) == (5, b"said", b"once")


def test_removed_handler_leaves_the_default_action() -> None:
    code = """
import mmap, tempfile
from buildkit_migrate._native import bus_error
file = tempfile.TemporaryFile()
file.truncate(1 << 16)
data = mmap.mmap(file.fileno(), 0)
bus_error.install(b"wrong words", b"", 5)
bus_error.remove()
bus_error.remove()
file.truncate(0)
data[5000]
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (-signal.SIGBUS, b"")


def test_handler_can_not_be_installed_twice() -> None:
    bus_error.install(b"a", b"", 5)
    try:
        with pytest.raises(RuntimeError):
            bus_error.install(b"b", b"", 5)
    finally:
        bus_error.remove()
