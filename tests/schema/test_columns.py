"""What is done with whole columns, against plain statements of it."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildkit_migrate._native import numbers as native
from buildkit_migrate._native.bolt import Reader, items, scan
from buildkit_migrate.schema.columns import (
    ABSENT,
    NOT_FOUND,
    Index,
    Mask,
    Texts,
    between,
    column,
    count_rows,
    equal,
    equal_to,
    lengths,
    paired,
    present,
    repeated,
    split_last,
    starting_with,
    take,
)
from buildkit_migrate.schema.tables import below, read_table
from buildkit_migrate.values import numbers, times
from dicts import file_of

ENTRIES = st.lists(st.none() | st.sampled_from([b"", b"a", b"::", b"a::b", b"aa"]) | st.binary(max_size=30))
LARGEST = 2**63 - 1


def from_file(entries: Sequence[bytes | None]) -> Texts:
    """The same entries, as a column that lies in a file."""
    rows = {b"%06d" % row: {} if entry is None else {b"v": entry} for row, entry in enumerate(entries)}
    return scan(Reader(file_of(rows)).root, [(b"v",)])[1][0]


WAYS = pytest.mark.parametrize("made", [column, from_file, list])
Made = Callable[[list[bytes | None]], Texts]


@WAYS
@given(entries=ENTRIES, others=ENTRIES)
def test_look_ups(made: Made, entries: list[bytes | None], others: list[bytes | None]) -> None:
    index = Index(made(entries))
    expected = [
        ABSENT if entry is None else entries.index(entry) if entry in entries else NOT_FOUND
        for entry in others
    ]
    assert list(index.rows(made(others))) == expected
    for entry, row in zip(others, expected, strict=True):
        if entry is not None:
            assert index.row(entry) == row


@pytest.mark.parametrize("order", ["as they are", "shuffled", "with gaps", "in pieces"])
def test_look_ups_in_a_column_in_order(order: str) -> None:
    """They go along with what is looked up as long as that is in order, too; then they use a table."""
    keys = [b"key-%06d" % number for number in range(0, 6000, 2)]
    others: list[bytes | None] = [b"key-%06d" % number for number in range(6010)]
    if order == "shuffled":
        random.Random(1).shuffle(others)
    elif order == "with gaps":
        others = [None, *others[::41], b"", None, b"z"]
    elif order == "in pieces":
        others = others[3000:] + others[:3000] + others[::100]
    rows = {key: row for row, key in enumerate(keys)}
    index = Index(column(keys))
    found = [ABSENT if key is None else rows.get(key, NOT_FOUND) for key in others]
    assert list(index.rows(column(others))) == found
    one_by_one = [index.row(key) for key in others if key is not None]
    assert one_by_one == [row for row in found if row != ABSENT]
    assert list(index.rows(column(others))) == found


@WAYS
@given(entries=ENTRIES, data=st.data())
def test_what_rows_have(made: Made, entries: list[bytes | None], data: st.DataObject) -> None:
    found = made(entries)
    assert list(found) == entries
    assert list(present(found)) == [row for row, entry in enumerate(entries) if entry is not None]
    value = data.draw(st.sampled_from([b"", b"a", b"::", *filter(None, entries)]))
    assert list(equal_to(found, value)) == [row for row, entry in enumerate(entries) if entry == value]
    assert list(starting_with(found, value)) == [
        row for row, entry in enumerate(entries) if entry is not None and entry.startswith(value)
    ]
    other = data.draw(
        st.lists(st.sampled_from([None, b"a", *entries]), min_size=len(entries), max_size=len(entries))
    )
    assert list(equal(found, made(other))) == [
        row for row, (a, b) in enumerate(zip(entries, other, strict=True)) if a is not None and a == b
    ]
    assert list(lengths(found)) == [len(entry or b"") for entry in entries]
    before, after = split_last(found, b"::")
    parts = [entry.rpartition(b"::") if entry is not None else (b"", b"", b"") for entry in entries]
    assert list(before) == [head if mark else None for head, mark, _ in parts]
    assert list(after) == [tail if mark else None for _, mark, tail in parts]
    rows = data.draw(st.lists(st.integers(-2, len(entries) - 1)))
    taken = take(found, array("i", rows))
    assert list(taken) == [entries[row] if row >= 0 else None for row in rows]
    assert list(take(before, array("i", rows))) == [list(before)[row] if row >= 0 else None for row in rows]


PAIRS = st.lists(st.tuples(*[st.integers(-2, 4) | st.sampled_from([2**31 - 1])] * 2))


@given(PAIRS, PAIRS)
def test_pairs(pairs: list[tuple[int, int]], others: list[tuple[int, int]]) -> None:
    found = paired(
        [left for left, _ in pairs],
        [right for _, right in pairs],
        [left for left, _ in others],
        [right for _, right in others],
    )
    assert list(found) == [row for row, pair in enumerate(pairs) if min(pair) >= 0 and pair in others]


ROWS = st.lists(st.integers(-2, 20))


@given(ROWS, st.integers(-3, 21), st.integers(-3, 21), st.sampled_from("iqb"))
def test_numbers(values: list[int], low: int, high: int, code: str) -> None:
    for numbers_ in (values, array(code, values)):
        assert list(between(numbers_, low, high)) == [
            row for row, number in enumerate(values) if low <= number <= high
        ]
        assert list(repeated(numbers_)) == [
            row for row, number in enumerate(values) if number in values[:row]
        ]
    assert list(count_rows(values, 21)) == [values.count(row) for row in range(21)]
    assert len(between(values, -(2**80), 2**80)) == len(values)


@given(st.integers(0, 40), st.data())
def test_masks_are_sets(size: int, data: st.DataObject) -> None:
    rows = st.sets(st.integers(0, size - 1)) if size else st.just(set[int]())
    a, b = data.draw(rows), data.draw(rows)
    left, right = Mask(size, a), Mask(size, b)
    assert set(left & right) == a & b
    assert set(left | right) == a | b
    assert set(left ^ right) == a ^ b
    assert set(left - right) == a - b
    assert set(~left) == set(range(size)) - a
    assert (list(left), len(left), bool(left)) == (sorted(a), len(a), bool(a))
    assert (left == right) == (a == b)
    assert all((row in left) == (row in a) for row in range(-1, size + 1))
    references = data.draw(st.lists(st.integers(-2, size - 1)))
    assert list(left.take(references)) == [at for at, row in enumerate(references) if row in a]


def test_rows_that_there_are_not() -> None:
    for call in (
        lambda: Mask(3, [3]),
        lambda: Mask(3).add(-1),
        lambda: Mask(3).take([3]),
        lambda: take([b"a"], [1]),
        lambda: count_rows([4], 4),
    ):
        with pytest.raises(IndexError):
            call()
    for unequal in (
        lambda: Mask(3) & Mask(4),
        lambda: equal([b"a"], []),
        lambda: paired([1], [], [], []),
        lambda: paired([], [], [1], []),
        lambda: split_last([b"a"], b""),
        lambda: Mask(-1),
        lambda: count_rows([], -1),
        lambda: count_rows([], 2**40),
    ):
        with pytest.raises(ValueError, match=r"."):
            unequal()
    with pytest.raises(TypeError, match="an entry is bytes or None, not str"):
        present(["text"])  # type: ignore[list-item]
    assert Mask(2) != "text"


STORED = st.lists(
    st.none()
    | st.binary(max_size=18)
    | st.lists(st.integers(128, 255), max_size=11).map(bytes)
    | st.integers(0, 2**64 + 5).map(numbers.stored_unsigned)
)


@given(STORED)
def test_stored_numbers(stored: list[bytes | None]) -> None:
    for signed, read in ((True, numbers.signed), (False, numbers.unsigned)):
        values, known = native.integers(stored, signed)
        expected = [read(entry) for entry in stored]
        assert list(values) == [min(number or 0, LARGEST) for number in expected]
        assert list(known) == [row for row, number in enumerate(expected) if number is not None]
    assert list(native.small(stored, 3)) == [
        entry[0] if entry is not None and len(entry) == 1 and entry[0] <= 3 else 0 for entry in stored
    ]


TIMES = st.lists(
    st.none()
    | st.binary(max_size=17)
    | st.binary(min_size=14, max_size=14).map(lambda rest: b"\1" + rest)
    | st.binary(min_size=15, max_size=15).map(lambda rest: b"\2" + rest)
    | st.integers(-(2**62), 2**62).map(times.stored_time)
)


@given(TIMES)
def test_stored_times(stored: list[bytes | None]) -> None:
    values, known, broken = native.times(stored)
    for row, entry in enumerate(stored):
        readable = entry is not None and times.is_readable_time(entry)
        assert (row in known, row in broken) == (readable, entry is not None and not readable)
        expected = 0
        if entry is not None and readable:
            seconds = int.from_bytes(entry[1:9], "big", signed=True) - 62_135_596_800
            expected = seconds * 10**9 + int.from_bytes(entry[9:13], "big", signed=True)
        assert values[row] == max(-(2**63), min(expected, LARGEST))


@given(st.integers(-(2**62), 2**62))
def test_a_time_that_was_stored_is_read(ns: int) -> None:
    assert list(native.times([times.stored_time(ns)])[0]) == [ns]


LINKS = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))


@given(st.lists(LINKS | st.binary(max_size=25)))
def test_links(keys: list[tuple[int, int] | bytes]) -> None:
    stored = [
        key if isinstance(key, bytes) else b"\0".join(map(numbers.stored_unsigned, key)) for key in keys
    ]
    parents, children, broken = native.links(stored)
    for row, key in enumerate(keys):
        if isinstance(key, bytes):
            continue
        fits = max(key) <= LARGEST
        assert (row in broken) != fits
        assert (parents[row], children[row]) == (key if fits else (0, 0))


NAMES = st.binary(min_size=1, max_size=5)
TABLES = st.dictionaries(
    NAMES,
    st.just(b"")
    | st.dictionaries(NAMES, st.binary(max_size=5) | st.dictionaries(NAMES, st.just(b"x"), max_size=9)),
)


@given(TABLES, st.sampled_from([(), (b"a",), (b"a", b"b")]), st.binary(max_size=1))
def test_what_lies_below_rows(table: dict[bytes, object], path: tuple[bytes, ...], prefix: bytes) -> None:
    root = Reader(file_of(table)).root  # type: ignore[arg-type]
    expected = []
    rows = [table[name] for name in sorted(table) if isinstance(table[name], dict)]
    for row, at in enumerate(rows):
        for step in path:
            at = at.get(step) if isinstance(at, dict) else None
        for key in sorted(at) if isinstance(at, dict) else ():
            if key.startswith(prefix):
                value = at[key]  # type: ignore[index]
                expected.append((row, key, value if isinstance(value, bytes) else None))
    entries = below(root, *path, prefix=prefix)
    assert [*zip(entries.rows, entries.keys, entries.values, strict=True)] == expected
    for row in range(len(rows)):
        assert [entries.rows[at] for at in entries.of(row)] == [it for it, _, _ in expected if it == row]
    values, lists = [(b"a", b"b"), (b"b",), (b"a", b"a")], [(path, prefix), (path, b""), ((b"a",), prefix)]
    names, columns, found = read_table(root, values, lists)
    assert list(names) == [name for name in sorted(table) if isinstance(table[name], dict)]
    assert [list(one) for one in columns] == [list(one) for one in scan(root, values)[1]]
    for one, (place, start) in zip(found, lists, strict=True):
        alone = below(root, *place, prefix=start)
        assert one.rows == alone.rows
        assert [*zip(one.keys, one.values, strict=True)] == [*zip(alone.keys, alone.values, strict=True)]
    for one, whole in zip(read_table(root, values, lists, keys_only=True)[2], found, strict=True):
        assert (one.rows, list(one.keys), list(one.values)) == (whole.rows, list(whole.keys), [])
    keys, values_ = items(root)
    plain = {key: value if isinstance(value, bytes) else None for key, value in table.items()}
    assert [*zip(keys, values_, strict=True)] == sorted(plain.items())
