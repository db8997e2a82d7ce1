"""LMDB files: what can be told before one is mapped, and LMDB's errors as ours."""

from typing import Final

__all__ = ["LMDB_MAGIC"]

LMDB_MAGIC: Final = b"\xde\xc0\xef\xbe"
"""At offset 16 of a file."""
