"""How findings name things."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from buildkit_migrate.text import printable
from buildkit_migrate.workspace.stores import Store

__all__ = ["path_of", "quoted", "subject"]

_MOST: Final = 80
"""How many characters of a value a message shows."""


def subject(name: bytes | None) -> str:
    """An id, key or digest as the subject of a finding: its exact bytes, decoded like those of a path."""
    return (name or b"").decode(errors="surrogateescape")


def path_of(store: Store) -> Path:
    """The path of an open store."""
    assert store.path is not None
    return store.path


def quoted(value: bytes | None) -> str:
    """A key or value in a message: safe to print, and shortened."""
    text = printable(value or b"")
    return text if len(text) <= _MOST else f"{text[:_MOST]}... ({len(value or b'')} bytes)"
