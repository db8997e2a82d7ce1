"""Wrong options of the library are rejected before anything changes, with the valid choices."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, get_args

import pytest

import ondisk
from buildkit_migrate import ensure_migrated, migrate_root, migrate_v2, root_status
from buildkit_migrate.choices import ENGINES, ON_BROKEN
from buildkit_migrate.containerd.offline import OfflineContainerd
from buildkit_migrate.containerd.services import ConnectionOptions
from buildkit_migrate.migration.migrate import OnBroken
from buildkit_migrate.store.engines import Engine
from ondisk import OnDisk


def from_files(root: OnDisk, **options: Any) -> object:
    with OfflineContainerd.open(root.containerd, root.snapshots) as services:
        parts = services.content_store, services.snapshotter, services.lease_manager
        return migrate_v2(root.v1, root.v2, *parts, **options)


ENTRIES: dict[str, Callable[..., object]] = {
    "migrate_root": lambda root, **options: migrate_root(root.root, **options),
    "ensure_migrated": lambda root, **options: ensure_migrated(root.root, **options),
    "migrate_v2": from_files,
}


def test_choices_equal_their_types() -> None:
    assert get_args(Engine) == ENGINES
    assert get_args(OnBroken) == ON_BROKEN


@pytest.mark.parametrize("migrated", [False, True])
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            ({"engine": wrong}, "engine must be 'bolt' or 'lmdb'")
            for wrong in ("sqlite", None, "", "BOLT", 1)
        ),
        *(({"on_broken": wrong}, "on_broken must be 'fail' or 'drop'") for wrong in ("Fail", None, True)),
        ({"engine": "lmdb", "verify": True}, "verify requires engine 'bolt'"),
    ],
)
def test_invalid_options_are_rejected_before_anything_changes(
    root: OnDisk, entry: str, options: dict[str, Any], message: str, migrated: bool
) -> None:
    if migrated:
        root.migrate_here()
    before = ondisk.listing(root.root)
    with pytest.raises(ValueError, match=message):
        ENTRIES[entry](root, **options)
    assert ondisk.listing(root.root) == before


@pytest.mark.parametrize("engine", ["sqlite", None, ""])
def test_status_rejects_an_unknown_engine(root: OnDisk, engine: Any) -> None:
    with pytest.raises(ValueError, match="engine must be 'bolt' or 'lmdb'"):
        root_status(root.root, engine=engine)


@pytest.mark.parametrize("path", [b"bytes", 3, 1.5, ["list"]])
def test_path_of_another_type_is_rejected(root: OnDisk, monkeypatch: pytest.MonkeyPatch, path: Any) -> None:
    monkeypatch.chdir(root.root)
    before = ondisk.listing(root.root)
    for call in (ensure_migrated, migrate_root):
        with pytest.raises(TypeError):
            call(os.fsencode(root.root) if path == b"bytes" else path)
    with pytest.raises(TypeError):
        ensure_migrated(None)  # type: ignore[arg-type]
    assert ondisk.listing(root.root) == before


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 1e7, "5", None])
@pytest.mark.parametrize("name", ["timeout", "connect_timeout"])
def test_impossible_timeouts_are_rejected(name: str, seconds: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be a positive number of seconds"):
        ConnectionOptions(**{name: seconds})


@pytest.mark.parametrize("calls", [0, -3, 2.5, "16", None])
def test_impossible_concurrency_is_rejected(calls: Any) -> None:
    """Without calls in flight a migration would write no lease and switch nevertheless."""
    with pytest.raises(ValueError, match="concurrency must be a positive number"):
        ConnectionOptions(concurrency=calls)


def test_address_of_another_type_is_rejected() -> None:
    with pytest.raises(TypeError, match="not bytes"):
        ConnectionOptions(address=b"/run/containerd.sock")  # type: ignore[arg-type]
