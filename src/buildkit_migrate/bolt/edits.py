"""Edits of a database: the stream of operations that `rewrite` merges into a tree.

A stream consists of chunks of whole operations, sorted by key within each bucket. An operation is its number
(one byte), then, except for LEAVE, the key's size (32 bits, little-endian) and the key. PUT and DEFAULT
continue with the size and bytes of the value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Union

__all__ = ["DEFAULT", "DELETE", "ENTER", "LEAVE", "PUT", "Edits", "encode", "merged"]

PUT: Final = 1
DELETE: Final = 2  # a value or bucket, which may be missing
ENTER: Final = 3  # a bucket, created if missing
LEAVE: Final = 4
DEFAULT: Final = 5  # put only if the key is missing

Edits = Mapping[bytes, Union[bytes, "Edits", None]]
"""What to do with each key of a bucket: put bytes, delete (None), or edit a nested bucket (mapping)."""

_CHUNK: Final = 1 << 16


def merged(one: Edits, other: Edits) -> Edits:
    """Both edits in one. Where they disagree, a deletion wins, then ``other``."""
    result = dict(one)
    for key, edit in other.items():
        before = result.get(key, edit)
        if before is None or edit is None:
            result[key] = None
        elif isinstance(before, bytes) or isinstance(edit, bytes):
            result[key] = edit
        else:
            result[key] = merged(before, edit)
    return result


def encode(edits: Edits) -> Iterator[bytes]:
    """Encodes edits as a stream, in chunks of about 64 KiB. No edits give no chunks."""
    chunk = bytearray()
    for operation in _operations(edits):
        chunk += operation
        if len(chunk) >= _CHUNK:
            yield bytes(chunk)
            chunk.clear()
    if chunk:
        yield bytes(chunk)


def _operations(edits: Edits) -> Iterator[bytes]:
    for key in sorted(edits):
        edit = edits[key]
        if edit is None:
            yield _operation(DELETE, key)
        elif isinstance(edit, bytes):
            yield _operation(PUT, key, edit)
        else:
            yield _operation(ENTER, key)
            yield from _operations(edit)
            yield bytes([LEAVE])


def _operation(number: int, *fields: bytes) -> bytes:
    return bytes([number]) + b"".join(len(field).to_bytes(4, "little") + field for field in fields)
