"""Calls in a running event loop are refused before anything changes, and without a warning."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

import ondisk
from buildkit_migrate import (
    ensure_migrated,
    errors,
    migrate_root,
    migrate_v2,
    root_status,
    undo_root,
    verify_root,
)
from buildkit_migrate.containerd.connection import Connection
from buildkit_migrate.containerd.live import LiveContainerd
from buildkit_migrate.containerd.services import ConnectionOptions
from ondisk import OnDisk

NOWHERE = ConnectionOptions("/nowhere/containerd.sock", connect_timeout=0.1)


def with_services(root: Path) -> None:
    with LiveContainerd.open(options=NOWHERE) as services:
        parts = services.content_store, services.snapshotter, services.lease_manager
        migrate_v2(root / "metadata.db", root / "metadata_v2.db", *parts)


CALLS: dict[str, Callable[[Path], object]] = {
    "ensure_migrated": lambda root: ensure_migrated(root, containerd=NOWHERE),
    "migrate_root": lambda root: migrate_root(root, containerd=NOWHERE),
    "a dry run": lambda root: migrate_root(root, containerd=NOWHERE, dry_run=True),
    "skipping": lambda root: migrate_root(root, containerd=NOWHERE, skip_unreachable=True),
    "verify_root": lambda root: verify_root(root, containerd=NOWHERE),
    "undo_root": lambda root: undo_root(root, containerd=NOWHERE),
    "migrate_v2": with_services,
}


@pytest.fixture
def root(tmp_path: Path) -> OnDisk:
    return ondisk.sample_of_containerd(tmp_path)


def call_in_event_loop(call: Callable[[], object]) -> None:
    async def main() -> None:
        call()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(main())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", CALLS)
def test_calls_in_a_running_event_loop_are_refused(root: OnDisk, name: str) -> None:
    if name in ("verify_root", "undo_root"):
        root.migrate_here()
        (root.root / "buildkitd.lock").unlink()
    before = ondisk.listing(root.root)
    with pytest.raises(errors.EventLoopError, match="event loop") as raised:
        call_in_event_loop(lambda: CALLS[name](root.root))
    assert isinstance(raised.value, RuntimeError)
    assert "asyncio.to_thread" in raised.value.hint
    assert ondisk.listing(root.root) == before


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", CALLS)
def test_calls_in_another_thread_are_allowed(root: OnDisk, name: str) -> None:
    """As the hint says; what fails there is only that no containerd is at the address."""
    if name in ("verify_root", "undo_root"):
        root.migrate_here()

    async def main() -> None:
        await asyncio.to_thread(CALLS[name], root.root)

    if name == "skipping":
        asyncio.run(main())
        return
    with pytest.raises(errors.ContainerdUnavailableError):
        asyncio.run(main())


def test_calls_without_a_running_containerd_are_allowed(tmp_path: Path, root: OnDisk) -> None:
    """They only block."""
    oci = ondisk.sample(tmp_path / "oci")
    call_in_event_loop(lambda: migrate_root(oci.root))
    call_in_event_loop(lambda: verify_root(oci.root))
    call_in_event_loop(lambda: undo_root(oci.root))
    call_in_event_loop(lambda: undo_root(root.root, containerd=NOWHERE))
    root.migrate_here()
    call_in_event_loop(lambda: root_status(root.root))
    assert migrate_root(root.root, containerd=NOWHERE)
    call_in_event_loop(lambda: migrate_root(root.root, containerd=NOWHERE))


@pytest.mark.filterwarnings("error")
def test_connection_refuses_to_run_in_an_event_loop() -> None:
    connection = Connection.__new__(Connection)
    began = []

    async def work() -> None:
        began.append(True)

    with pytest.raises(errors.EventLoopError):
        call_in_event_loop(lambda: connection.run(work()))
    gc.collect()  # a coroutine that is never awaited warns when it is destroyed
    assert began == []
