"""Native functions refuse arguments of other types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from buildkit_migrate._native import chain, columns
from buildkit_migrate._native.bolt import Reader, scan
from buildkit_migrate._native.building import rewrite
from buildkit_migrate._native.cells import Cells
from buildkit_migrate._native.facts import Survey
from buildkit_migrate._native.packing import Packer, push, push_all
from buildkit_migrate._native.tables import read
from dicts import Image, file_of


@pytest.mark.parametrize("chunk", [None, "text", 1, memoryview(b"\x04"), bytearray(b"\x04"), [b"\x04"]])
def test_edits_that_are_not_bytes_are_refused(chunk: object) -> None:
    with pytest.raises(TypeError, match="a chunk of edits must be bytes"):
        rewrite(None, Image().builder, [chunk])  # type: ignore[list-item]


@pytest.mark.parametrize("edits", [None, 1, [1], b"\x04"])
def test_edits_that_are_not_an_iterable_of_bytes_are_refused(edits: object) -> None:
    with pytest.raises(TypeError):
        rewrite(None, Image().builder, edits)  # type: ignore[arg-type]


@pytest.mark.parametrize("pair", [(None, b"\0"), (b"tk", None), (b"tk",), "tk", (1, b""), ("tk", b"\0")])
def test_entries_that_are_not_pairs_of_bytes_are_refused(pair: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        push_all(Image().builder, [pair], b"t")  # type: ignore[list-item]


@pytest.mark.parametrize("wrong", [None, "text", 1, memoryview(b"k")])
def test_keys_that_are_not_bytes_are_refused(wrong: Any) -> None:
    root = Reader(file_of({b"b": {b"k": b"v"}})).root
    builder = Image().builder
    cells = Cells(root.reader, root, [(b"k", 0, True)])
    calls: list[Callable[[], object]] = [
        lambda: root.get(wrong),
        lambda: root.bucket(wrong),
        lambda: root.items(wrong),
        lambda: scan(root, [(wrong,)]),
        lambda: builder.put(wrong, b""),
        lambda: builder.put(b"k", wrong),
        lambda: builder.open_bucket(wrong),
        lambda: push(builder, wrong, b"\0"),
        lambda: push(builder, b"k", wrong),
        lambda: Packer(root.reader).batches(root, wrong),
        lambda: Packer(root.reader).batches(root, b"t", frozenset([wrong])),
        lambda: chain.Batch([-1], [wrong], [b"b"]),
        lambda: Survey("s", [(wrong, 3, b"", False)], [], []),
        lambda: read(root, [(wrong,)], ()),
        lambda: read(root, (), [((wrong,), b"")]),
        lambda: read(root, (), [((), wrong)]),
        lambda: columns.Index([b"k"]).row(wrong),
        lambda: columns.equal_to([b"k"], wrong),
        lambda: Cells(root.reader, None, [(wrong, 0, True)]),
        lambda: cells.want(0, wrong),
        lambda: cells.texts(b"k", {0: wrong}),
    ]
    for call in calls:
        with pytest.raises(TypeError):
            call()
    builder.finish()


@pytest.mark.parametrize("row", [-1, 1, 2**31])
def test_cells_have_no_texts_of_rows_that_do_not_exist(row: int) -> None:
    root = Reader(file_of({b"b": {b"k": b"v"}})).root
    with pytest.raises(IndexError):
        Cells(root.reader, root, [(b"k", 0, True)]).texts(b"k", {row: b""})
    with pytest.raises(TypeError):
        Cells(root.reader, root, [(b"k", 0, True)]).texts(b"k", {0.5: b""})  # type: ignore[dict-item]
