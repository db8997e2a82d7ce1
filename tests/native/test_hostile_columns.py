"""Files that would make columns larger than they may be are refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from test_hostile_sizes import EXT, HERE, build

from buildkit_migrate._native.bolt import Reader
from buildkit_migrate.errors import CorruptDatabaseError
from buildkit_migrate.schema.tables import below
from dicts import BucketDict, file_of


@pytest.fixture(scope="module")
def few_columns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = ("columns/cells.c", "columns/decode.c", "json/value.c", "bolt/rows.c", "bolt/entries.c")
    sources = [EXT / name for name in (*names, "bolt/reader.c", "core/spans.c", "core/column.c")]
    place = tmp_path_factory.mktemp("columns")
    return build(place, HERE / "few_columns_main.c", *sources, flags=["-DBKM_MAX_ROWS=5"])


@pytest.mark.parametrize(
    ("rows", "refused"),
    [
        ({b"r%d" % i: {b"k": b"1"} for i in range(5)}, 0),
        ({b"r%d" % i: {} for i in range(6)}, 3),
        ({b"r": {b"k%d" % i: b"1" for i in range(6)}}, 1),
        ({b"k%d" % i: b"1" for i in range(6)}, 1),
    ],
)
def test_too_many_rows_or_entries_are_refused(few_columns: Path, rows: BucketDict, refused: int) -> None:
    """The limit is lowered to five: a file over the real limit has a hundred gigabytes."""
    path = few_columns.with_name("file")
    path.write_bytes(file_of({b"_main": rows}))
    printed = subprocess.run([few_columns, path], capture_output=True, text=True, check=True).stdout
    assert len(printed.splitlines()) == refused


def test_rows_that_share_a_page_are_refused() -> None:
    """Otherwise a small file could fill the memory with the same entries over and over."""
    few: BucketDict = {b"x": {}}
    many: BucketDict = {b"e%03d" % i: b"" for i in range(400)}
    rows: BucketDict = {b"r%03d" % i: {b"in": many | few if i == 0 else few} for i in range(100)}
    data = bytearray(file_of(rows, 1024))
    assert len(below(Reader(bytes(data)).root, b"in").rows) == 400 + 100
    # All lead to the pages of the first, then.
    headers = [at + 2 for at in range(len(data)) if data.startswith(b"in", at)]
    assert len(headers) == 100
    for at in headers:
        data[at : at + 16] = data[headers[0] : headers[0] + 16]
    shared = Reader(bytes(data))
    with pytest.raises(CorruptDatabaseError):
        below(shared.root, b"in")
