"""Integers as containerd stores them (spec containerd-metadata-db, section 2)."""

from __future__ import annotations

from typing import Final

__all__ = ["signed", "stored_unsigned", "unsigned"]

_LIMIT: Final = 10
"""Length in bytes of the longest encoded 64-bit number."""


def unsigned(stored: bytes | None) -> int | None:
    """Decodes an unsigned varint (little-endian base 128). None if there is no valid one at the start.

    Bytes after the number are ignored, as containerd ignores them.
    """
    number = 0
    for place, byte in enumerate((stored or b"")[:_LIMIT]):
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return number if number < 1 << 64 else None
    return None


def signed(stored: bytes | None) -> int | None:
    """Decodes a signed varint (zig-zag: the sign is in the lowest bit). None as for `unsigned`."""
    number = unsigned(stored)
    return None if number is None else number >> 1 ^ -(number & 1)


def stored_unsigned(number: int) -> bytes:
    """Encodes an unsigned varint."""
    groups = bytearray()
    while number >= 0x80:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)
