"""How findings name things."""

from __future__ import annotations

from pathlib import Path

from buildkit_migrate.workspace.stores import Store

__all__ = ["path_of", "subject"]


def subject(name: bytes | None) -> str:
    """Of an id, key or digest: its exact bytes, as paths have them."""
    return (name or b"").decode(errors="surrogateescape")


def path_of(store: Store) -> Path:
    """Of a store that is open."""
    assert store.path is not None
    return store.path
