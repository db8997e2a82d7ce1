"""LMDB files: checks before they are mapped, and translation of LMDB's errors."""

from typing import Final

__all__ = ["LMDB_MAGIC"]

LMDB_MAGIC: Final = b"\xde\xc0\xef\xbe"
"""At offset 16 of a file."""
