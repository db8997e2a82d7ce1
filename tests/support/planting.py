"""Faults for stopped roots: edits of a database that keep all else, damaged bytes, changed sequences."""

from __future__ import annotations

import struct
from pathlib import Path

import crafted
from buildkit_migrate.bolt import Database
from buildkit_migrate.bolt.edits import below
from ondisk import edit, set_sequence

__all__ = [
    "below",
    "break_free_list",
    "cut",
    "damage",
    "damage_page",
    "edit",
    "grow",
    "page_size",
    "set_sequence",
]


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


def grow(path: Path, pages: int) -> None:
    """Adds free pages, which the free list names, and one that the file has behind its last page."""
    edit(path, {})  # so that the list is one page without entries, the last one
    size = page_size(path)
    with Database.open(path) as database:
        end, freelist = database.reader.high_water, database.reader.freelist
    assert freelist == end - 1
    assert pages <= size // 8 - 2
    content = bytearray(path.read_bytes())
    page = crafted.freelist(freelist, range(end, end + pages))
    content[freelist * size : freelist * size + len(page)] = page
    for meta in (0, size):
        struct.pack_into("<Q", content, meta + 56, end + pages)
    crafted.sign(content, size)
    path.write_bytes(content + b"\xff" * size * (pages + 1))


def break_free_list(path: Path) -> None:
    """Makes the free list name a page that is in use."""
    with Database.open(path) as database:
        freelist = database.reader.freelist
    assert freelist is not None
    damage(path, freelist * page_size(path) + 16, (2).to_bytes(8, "little"))
