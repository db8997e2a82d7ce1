"""The public chain engine, compared with the plain recursion."""

from __future__ import annotations

import ctypes
import hashlib
from array import array
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import buildkit_migrate

PAGE = Path(__file__).parents[1] / "docs" / "embed.md"


def sha256(text: bytes) -> bytes:
    return b"sha256:" + hashlib.sha256(text).hexdigest().encode()


def plain(parents: list[int], diff_ids: list[bytes], blobs: list[bytes]) -> list[tuple[bytes, bytes]]:
    def ids(record: int) -> tuple[bytes, bytes]:
        if not diff_ids[record] or not blobs[record]:
            return b"", b""
        chain, blob_chain = diff_ids[record], sha256(blobs[record] + b" " + diff_ids[record])
        if parents[record] < 0:
            return chain, blob_chain
        above, blob_above = ids(parents[record])
        return sha256(above + b" " + chain), sha256(blob_above + b" " + blob_chain)

    return [ids(record) for record in range(len(parents))]


digests = st.sampled_from(
    [b"", b"sha256:" + b"5" * 64, b"sha256:" + b"a" * 64, b"x", b"sha512:" + b"0" * 128]
)


@st.composite
def forests(draw: st.DrawFn) -> tuple[list[int], list[bytes], list[bytes]]:
    """Forests without cycles, records in any order."""
    count = draw(st.integers(0, 12))
    order = draw(st.permutations(range(count)))
    parents = [-1] * count
    for place, record in enumerate(order):
        parents[record] = draw(st.sampled_from([-1, *order[:place]]))
    columns = [draw(st.lists(digests, min_size=count, max_size=count)) for _ in range(2)]
    return parents, columns[0], columns[1]


@given(forests(), st.integers(1, 3))
def test_chain_ids_equal_the_plain_recursion(
    columns: tuple[list[int], list[bytes], list[bytes]], threads: int
) -> None:
    found = buildkit_migrate.chain_ids(*columns, threads=threads)
    expected = plain(*columns)
    assert list(found) == expected
    assert len(found) == len(expected)
    assert found[1:] == expected[1:]
    assert [found[-1 - record] for record in range(len(expected))] == expected[::-1]


class FixedWidth:
    """A buffer of fixed-width strings, as NumPy makes from a list of bytes."""

    def __new__(cls, values: list[bytes], width: int) -> Any:
        data = b"".join(value.ljust(width, b"\0") for value in values)
        return memoryview(data).cast("B", (len(values), width))


def test_sequences_and_buffers_are_accepted() -> None:
    parents, diff_ids, blobs = [1, -1, 0], [b"sha256:1", b"sha256:22", b""], [b"sha256:3", b"x", b"y"]
    expected = plain(parents, diff_ids, blobs)
    for code in "bhilq":
        assert list(buildkit_migrate.chain_ids(array(code, parents), diff_ids, blobs)) == expected
    for number in (ctypes.c_int, ctypes.c_int64.__ctype_be__):  # type: ignore[attr-defined]
        assert list(buildkit_migrate.chain_ids((number * 3)(*parents), diff_ids, blobs)) == expected
    assert list(buildkit_migrate.chain_ids(tuple(parents), deque(diff_ids), blobs)) == expected
    found = buildkit_migrate.chain_ids(parents, FixedWidth(diff_ids, 9), FixedWidth(blobs, 8))
    assert list(found) == expected


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        (([-1], [b""], []), ValueError, "differ in length"),
        (([-1], [], [b""]), ValueError, "differ in length"),
        (([1], [b""], [b""]), ValueError, "parent of record 0, 1,"),
        (([-1, -2], [b"", b""], [b"", b""]), ValueError, "parent of record 1, -2,"),
        (([-1, 1 << 40], [b"", b""], [b"", b""]), ValueError, "parent of record 1"),
        (([1, 0], [b"a", b"a"], [b"b", b"b"]), ValueError, "record 0 is its own ancestor"),
        (([-1, 1], [b"a", b"a"], [b"b", b"b"]), ValueError, "record 1 is its own ancestor"),
        (([None], [b""], [b""]), TypeError, "parent of record 0"),
        ((["0"], [b""], [b""]), TypeError, "parent of record 0"),
        (([-1.0], [b""], [b""]), TypeError, "parent of record 0"),
        (([-1], ["sha256:"], [b""]), TypeError, "diff_ids of record 0"),
        (([-1], [b""], [None]), TypeError, "blobs of record 0"),
        (([-1], b"x", [b""]), TypeError, "diff_ids is one run of bytes"),
        (([-1], 5, [b""]), TypeError, "int"),
        (([-1], array("q", [5]), [b""]), TypeError, "diff_ids has elements of another type"),
        (([-1], [b""], (ctypes.c_wchar * 2 * 1)()), TypeError, "blobs has elements of another type"),
    ],
)
def test_bad_columns_are_refused(columns: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        buildkit_migrate.chain_ids(*columns)


def test_threads_must_be_at_least_one() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        buildkit_migrate.chain_ids([], [], [], threads=0)
    assert list(buildkit_migrate.chain_ids([], [], [], threads=2**40)) == []


def test_result_does_not_depend_on_later_changes_of_its_input() -> None:
    diff_ids = [b"sha256:1", b"sha256:2"]
    found = buildkit_migrate.chain_ids([-1, 0], diff_ids, [b"b", b"b"])
    expected = list(found)
    diff_ids.clear()
    assert list(found) == expected
    with pytest.raises(IndexError):
        found[2]


def test_example_of_the_docs_works() -> None:
    block = PAGE.read_text().partition("<!-- chain ids -->\n```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(compile(block, str(PAGE), "exec"), names)
    first, second = (b"sha256:" + digit * 64 for digit in (b"a", b"b"))
    assert names["chain_id"] == sha256(first + b" " + second)
