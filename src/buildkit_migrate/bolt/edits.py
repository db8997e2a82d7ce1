"""Edits of a database: the stream of operations that `rewrite` merges into a tree.

A stream consists of chunks of whole operations, sorted by key within each bucket. An operation is its number
(one byte), then, except for LEAVE, the key's size (32 bits, little-endian) and the key. PUT, DEFAULT and
SEQUENCE continue with the size and bytes of the value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Union

__all__ = [
    "DEFAULT",
    "DELETE",
    "ENTER",
    "LEAVE",
    "PUT",
    "SEQUENCE",
    "Edits",
    "Sequences",
    "below",
    "encode",
    "merged",
]

PUT: Final = 1
DELETE: Final = 2  # a value or bucket, which may be missing
ENTER: Final = 3  # a bucket, created if missing
LEAVE: Final = 4
DEFAULT: Final = 5  # put only if the key is missing
SEQUENCE: Final = 6  # like ENTER; the value (64 bits, little-endian) becomes the bucket's sequence

Edits = Mapping[bytes, Union[bytes, "Edits", None]]
"""What to do with each key of a bucket: put bytes, delete (None), or edit a nested bucket (mapping)."""

Sequences = Mapping[tuple[bytes, ...], int]
"""What the sequence of the bucket at each path becomes. The path has at least one name."""

_CHUNK: Final = 1 << 16


def below(path: Sequence[bytes], edits: Edits) -> Edits:
    """The same edits, of the bucket at ``path``."""
    for name in reversed(path):
        edits = {name: edits}
    return edits


def merged(*every: Edits) -> Edits:
    """All of these edits in one. Where they disagree, a deletion wins, then the later ones."""
    result: _Mutable = {}
    for edits in every:
        _merge(result, edits)
    return result


_Mutable = dict[bytes, Union[bytes, "_Mutable", None]]


def _merge(result: _Mutable, edits: Edits) -> None:
    """Changes ``result``, which shares nothing with what was merged before."""
    for key, edit in edits.items():
        before = result.get(key, b"")
        if edit is None or before is None:
            result[key] = None
        elif isinstance(edit, bytes):
            result[key] = edit
        else:
            inner = before if isinstance(before, dict) else {}
            _merge(inner, edit)
            result[key] = inner


def encode(edits: Edits, sequences: Sequences | None = None) -> Iterator[bytes]:
    """Encodes edits as a stream, in chunks of about 64 KiB. No edits give no chunks.

    A bucket that gets a sequence is created if it is missing, but not if it is deleted. Raises ValueError for
    a sequence that is not from 0 to 2**64 - 1, or that is for a value or the root bucket.
    """
    sequences = sequences or {}
    for path, number in sequences.items():
        if not path or not 0 <= number < 1 << 64:
            raise ValueError(f"bucket {path} can't have the sequence {number}")
        edits = _entering(edits, path)
    return _chunks(_operations(edits, sequences, ()))


def _entering(edits: Edits, path: tuple[bytes, ...]) -> Edits:
    """The same edits, which now enter the bucket at ``path``, unless it is deleted."""
    if not path:
        return edits
    inner = edits.get(path[0], {})
    if inner is None:
        return edits
    if isinstance(inner, bytes):
        raise ValueError(f"{path[0]!r} is a value, which has no sequence")
    return {**edits, path[0]: _entering(inner, path[1:])}


def _chunks(operations: Iterator[bytes]) -> Iterator[bytes]:
    chunk = bytearray()
    for operation in operations:
        chunk += operation
        if len(chunk) >= _CHUNK:
            yield bytes(chunk)
            chunk.clear()
    if chunk:
        yield bytes(chunk)


def _operations(edits: Edits, sequences: Sequences, path: tuple[bytes, ...]) -> Iterator[bytes]:
    for key in sorted(edits):
        edit = edits[key]
        if edit is None:
            yield _operation(DELETE, key)
        elif isinstance(edit, bytes):
            yield _operation(PUT, key, edit)
        else:
            inside = (*path, key)
            if inside in sequences:
                yield _operation(SEQUENCE, key, sequences[inside].to_bytes(8, "little"))
            else:
                yield _operation(ENTER, key)
            yield from _operations(edit, sequences, inside)
            yield bytes([LEAVE])


def _operation(number: int, *fields: bytes) -> bytes:
    return bytes([number]) + b"".join(len(field).to_bytes(4, "little") + field for field in fields)
