"""Faults for stopped roots: edits of a database that keep all else, damaged bytes, changed sequences."""

from __future__ import annotations

from pathlib import Path

from buildkit_migrate.bolt.edits import Edits
from ondisk import edit, set_sequence

__all__ = ["below", "cut", "damage", "damage_page", "edit", "page_size", "set_sequence"]


def below(path: tuple[bytes, ...], edits: Edits) -> Edits:
    """The same edits, of the bucket at ``path``."""
    for name in reversed(path):
        edits = {name: edits}
    return edits


def damage(path: Path, offset: int, data: bytes) -> None:
    """Writes over bytes of a file."""
    content = bytearray(path.read_bytes())
    content[offset : offset + len(data)] = data
    path.write_bytes(content)


def page_size(path: Path) -> int:
    return int.from_bytes(path.read_bytes()[24:28], "little")


def damage_page(path: Path, page: int) -> None:
    """Makes garbage of a page, header and all."""
    size = page_size(path)
    damage(path, page * size, b"\xa5" * size)


def cut(path: Path, size: int) -> None:
    """Cuts a file to its first bytes."""
    path.write_bytes(path.read_bytes()[:size])
