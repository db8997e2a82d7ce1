"""Chain ids of layers, computed in bulk by native code (spec buildkit-metadata, section 4, pass 4)."""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, cast, overload

from buildkit_migrate._native.chain import STATES, Batch

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["ChainIds", "chain_ids"]

_CYCLE: Final = STATES.index("cycle")
_BYTES: Final = ("s", "B", "c")
"""Formats of buffers: a string of bytes, or a row of single ones."""

_MOST_THREADS: Final = 2**16  # so that any number fits; the engine starts fewer anyway


class ChainIds(Sequence[tuple[bytes, bytes]]):
    """Sequence of (chainID, blobChainID) pairs, one for each record, created on access.

    Both are ``b""`` for a record that lacks a diffID or a blob.
    """

    def __init__(self, batch: Batch) -> None:
        """``batch`` must have been run."""
        self._batch = batch

    def __len__(self) -> int:
        return len(self._batch)

    @overload
    def __getitem__(self, index: int) -> tuple[bytes, bytes]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[bytes, bytes]]: ...
    def __getitem__(self, index: int | slice) -> tuple[bytes, bytes] | list[tuple[bytes, bytes]]:
        records = range(len(self._batch))[index]
        if isinstance(records, int):
            return self._batch.ids(records)
        return [self._batch.ids(record) for record in records]


def chain_ids(
    parents: Sequence[int] | ReadableBuffer,
    diff_ids: Sequence[bytes] | ReadableBuffer,
    blobs: Sequence[bytes] | ReadableBuffer,
    *,
    threads: int | None = None,
) -> ChainIds:
    """Computes the chain ids of many records, each once. Records may be in any order.

    ``parents``: index of each record's parent, -1 for none; integers, or a buffer of integers such as an
    ``array`` or a NumPy array. ``diff_ids``, ``blobs``: digests such as ``b"sha256:..."``, or ``b""`` where a
    record has none; bytes objects, or a buffer of fixed-width strings (NumPy's ``S71``), whose padding is
    ignored. Digests are hashed as they are, without validation. ``threads``: maximum number of threads; the
    default is one for each CPU available to the process. The GIL is released during the computation.

    Raises ValueError if the columns differ in length, a parent is neither -1 nor the index of a record, or a
    record that has a diffID and a blob is its own ancestor; TypeError if a column has elements of another
    type.
    """
    if threads is None:
        threads = len(os.sched_getaffinity(0))
    if threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}")
    batch = Batch(_indexes(parents), _texts("diff_ids", diff_ids), _texts("blobs", blobs))
    batch.run(min(threads, _MOST_THREADS))
    cycle = batch.states().find(_CYCLE)
    if cycle >= 0:
        raise ValueError(f"record {cycle} is its own ancestor")
    return ChainIds(batch)


def _indexes(column: Sequence[int] | ReadableBuffer) -> list[int]:
    try:
        values = memoryview(cast("ReadableBuffer", column)).tolist()
    except (TypeError, NotImplementedError):  # the latter where the format names the byte order
        values = list(cast("Sequence[int]", column))
    for record, parent in enumerate(values):
        try:
            values[record] = index = operator.index(parent)
        except TypeError:
            raise TypeError(f"the parent of record {record} is not an integer: {parent!r}") from None
        if not -1 <= index < len(values):
            raise ValueError(f"the parent of record {record}, {index}, is not the index of a record or -1")
    return values


def _texts(name: str, column: Sequence[bytes] | ReadableBuffer) -> list[bytes]:
    try:
        view = memoryview(cast("ReadableBuffer", column))
    except TypeError:
        values = list(cast("Sequence[bytes]", column))
    else:
        if view.ndim == 1 and view.itemsize == 1:
            raise TypeError(f"{name} is one run of bytes, not one digest for each record")
        if view.format.lstrip("@=<>!0123456789") not in _BYTES:
            raise TypeError(f"{name} has elements of another type than bytes: {view.format!r}")
        data, width = view.tobytes(), view.nbytes // (len(view) or 1)
        values = [data[at : at + width].rstrip(b"\0") for at in range(0, len(data), width)]
    for record, value in enumerate(values):
        if not isinstance(value, bytes):
            raise TypeError(f"{name} of record {record} is not bytes: {value!r}")
    return values
