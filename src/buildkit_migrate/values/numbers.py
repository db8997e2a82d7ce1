"""Numbers as containerd stores them (spec containerd-metadata-db, section 2)."""

from __future__ import annotations

from typing import Final

__all__ = ["signed", "stored_unsigned", "unsigned"]

_LIMIT: Final = 10
"""Bytes of the longest number of 64 bits."""


def unsigned(stored: bytes | None) -> int | None:
    """Of base-128 groups, little-endian; None if there is no such number at the beginning.

    As containerd reads it: what follows a number does not count.
    """
    number = 0
    for place, byte in enumerate((stored or b"")[:_LIMIT]):
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return number if number < 1 << 64 else None
    return None


def signed(stored: bytes | None) -> int | None:
    """The same with the sign in the lowest bit (zig-zag)."""
    number = unsigned(stored)
    return None if number is None else number >> 1 ^ -(number & 1)


def stored_unsigned(number: int) -> bytes:
    groups = bytearray()
    while number >= 0x80:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)
