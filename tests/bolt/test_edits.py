"""A stream of edits changes a tree as the same edits change a dict."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildkit_migrate._native.bolt import Reader, check
from buildkit_migrate.bolt import encode, rewrite, same_content
from buildkit_migrate.bolt.edits import DELETE, ENTER, LEAVE, SEQUENCE, Edits, Sequences, merged
from buildkit_migrate.errors import EditConflictError
from dicts import Image, edited, file_of
from judge import Judge
from plain_bbolt import BucketDict
from trees import PlainBucket, Row, read, rows, rows_of, write

# Values and buckets have different names: an edit of one as the other is an error.
values = st.integers(0, 6).map(lambda n: b"v%d" % n)
names = st.integers(0, 3).map(lambda n: b"b%d" % n)
data = st.binary(max_size=5)


trees: st.SearchStrategy[BucketDict] = st.recursive(
    st.dictionaries(values, data, max_size=5),
    lambda inner: st.builds(
        lambda leaves, buckets: {**leaves, **buckets},
        st.dictionaries(values, data, max_size=5),
        st.dictionaries(names, inner, max_size=3),
    ),
    max_leaves=8,
)
changes: st.SearchStrategy[dict[bytes, bytes | Edits | None]] = st.recursive(
    st.dictionaries(values, data | st.none(), max_size=5),
    lambda inner: st.builds(
        lambda leaves, gone, entered: {**leaves, **gone, **entered},
        st.dictionaries(values, data | st.none(), max_size=5),
        st.dictionaries(names, st.none(), max_size=2),
        st.dictionaries(names, inner, max_size=3),
    ),
    max_leaves=8,
)


def apply_to_dict(tree: BucketDict, edits: Edits) -> BucketDict:
    for key, edit in edits.items():
        if edit is None:
            tree.pop(key, None)
        elif isinstance(edit, bytes):
            tree[key] = edit
        else:
            child = tree.setdefault(key, {})
            assert isinstance(child, dict)
            apply_to_dict(child, edit)
    return tree


@given(trees, changes)
def test_edits_change_a_tree_like_a_dict(tree: BucketDict, edits: Edits) -> None:
    assert edited(Reader(file_of(tree)), encode(edits)) == apply_to_dict(copy.deepcopy(tree), edits)


@given(trees, changes)
def test_comparison_with_edits_sees_what_they_make(tree: BucketDict, edits: Edits) -> None:
    """And whether anything else was made."""
    stream = b"".join(encode(edits))
    wanted = apply_to_dict(copy.deepcopy(tree), edits)
    source = Reader(file_of(tree))
    assert same_content(source, Reader(file_of(wanted)), stream)
    for other in ({**wanted, b"z": b""}, {**wanted, b"a": {}}):
        assert not same_content(source, Reader(file_of(other)), stream)
    for key in wanted:
        less = {k: v for k, v in wanted.items() if k != key}
        assert not same_content(source, Reader(file_of(less)), stream)
    assert same_content(source, Reader(file_of(tree)), stream) == (wanted == tree)


def test_no_edits_give_an_empty_stream() -> None:
    assert list(encode({})) == []


def test_chunks_hold_whole_operations() -> None:
    edits = {b"%05d" % number: bytes(100) for number in range(3000)}
    chunks = list(encode(edits))
    assert len(chunks) > 1
    operation = 1 + 4 + 5 + 4 + 100
    assert all(len(chunk) % operation == 0 for chunk in chunks)
    assert sum(map(len, chunks)) == operation * len(edits)


def test_stream_has_the_documented_form() -> None:
    stream = b"".join(encode({b"b": {b"k": b"", b"a": b"v"}, b"a": None}))
    assert stream == (b"\x02\x01\0\0\0a\x03\x01\0\0\0b\x01\x01\0\0\0a\x01\0\0\0v\x01\x01\0\0\0k\0\0\0\0\x04")


# --- Sequences

LARGE = PlainBucket({b"%05d" % number: bytes(90) for number in range(500)}, sequence=7)
TREE = PlainBucket({b"b": PlainBucket({b"in": PlainBucket({b"k": b"v"}, 3)}, 5), b"large": LARGE, b"v": b"v"})

SEQUENCES: dict[str, tuple[Edits, Sequences, PlainBucket]] = {
    "no edit enters": (
        {},
        {(b"large",): 2**64 - 1},
        PlainBucket({**TREE.items, b"large": PlainBucket(LARGE.items, 2**64 - 1)}),
    ),
    "an inline one, lowered": (
        {},
        {(b"b", b"in"): 0},
        PlainBucket({**TREE.items, b"b": PlainBucket({b"in": PlainBucket({b"k": b"v"}, 0)}, 5)}),
    ),
    "entered, and the one above": (
        {b"b": {b"in": {b"k": b"new"}}},
        {(b"b", b"in"): 9, (b"b",): 8},
        PlainBucket({**TREE.items, b"b": PlainBucket({b"in": PlainBucket({b"k": b"new"}, 9)}, 8)}),
    ),
    "missing": (
        {},
        {(b"c", b"new"): 4},
        PlainBucket({**TREE.items, b"c": PlainBucket({b"new": PlainBucket({}, 4)})}),
    ),
    "deleted": (
        {b"b": None},
        {(b"b", b"in"): 4},
        PlainBucket({b"large": LARGE, b"v": b"v"}),
    ),
}


def edited_rows(tree: PlainBucket, stream: list[bytes], path: Path) -> tuple[int, list[Row]]:
    """How many edits changed something, and the rows of the file at ``path``, made by these."""
    write(path.with_name("source"), tree)
    image = Image()
    changes = rewrite(read(path.with_name("source")).root, image.builder, stream)
    path.write_bytes(image.finish())
    assert check(read(path)) == []
    return changes, list(rows_of(read(path).root))


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequence_is_set_and_nothing_else(name: str, tmp_path: Path) -> None:
    edits, sequences, wanted = SEQUENCES[name]
    stream = b"".join(encode(edits, sequences))
    _, found = edited_rows(TREE, [stream], tmp_path / "db")
    assert found == list(rows(wanted))
    source, made = read(tmp_path / "source"), read(tmp_path / "db")
    assert same_content(source, made, stream)
    assert same_content(source, made, b"".join(encode(edits))) == (name == "deleted")


@pytest.mark.real
@pytest.mark.parametrize("name", SEQUENCES)
def test_go_reads_the_sequence(name: str, judge: Judge, tmp_path: Path) -> None:
    edits, sequences, wanted = SEQUENCES[name]
    edited_rows(TREE, list(encode(edits, sequences)), tmp_path / "db")
    assert judge.check(tmp_path / "db") == []
    assert judge.dump(tmp_path / "db") == list(rows(wanted))
    assert judge.update(tmp_path / "db", 1, 50) == []


def test_only_another_sequence_is_a_change(tmp_path: Path) -> None:
    for number, changes in ((5, 0), (6, 1)):
        assert edited_rows(TREE, list(encode({}, {(b"b",): number})), tmp_path / "db")[0] == changes


def test_operations_may_be_in_chunks_of_their_own(tmp_path: Path) -> None:
    """A key is in the chunk of its operation, which is gone when the next one is read."""
    (stream,) = encode({b"b": {b"in": {b"k": b"new"}}}, {(b"b", b"in"): 9})
    enter, rest = stream[:6], stream[6:]
    sequence, rest = rest[: 1 + 4 + 2 + 4 + 8], rest[1 + 4 + 2 + 4 + 8 :]
    put, leaves = rest[:-2], rest[-2:]
    assert (enter[0], sequence[0], leaves) == (ENTER, SEQUENCE, bytes([LEAVE, LEAVE]))
    chunks = [enter, sequence, put, bytes([LEAVE]), bytes([LEAVE])]
    wanted = edited_rows(TREE, [stream], tmp_path / "db")
    assert edited_rows(TREE, chunks, tmp_path / "other") == wanted


@pytest.mark.parametrize(
    ("edits", "sequences"),
    [
        ({}, {(): 1}),
        ({}, {(b"b",): -1}),
        ({}, {(b"b",): 2**64}),
        ({b"v": b""}, {(b"v",): 1}),
        ({b"v": b""}, {(b"v", b"in"): 1}),
    ],
)
def test_sequences_that_can_not_be_are_refused(edits: Edits, sequences: Sequences) -> None:
    with pytest.raises(ValueError, match="sequence"):
        encode(edits, sequences)


def operation(number: int, *fields: bytes) -> bytes:
    return bytes([number]) + b"".join(len(field).to_bytes(4, "little") + field for field in fields)


WHOLE = operation(SEQUENCE, b"b", bytes(8))


@pytest.mark.parametrize(
    "stream",
    [
        *(WHOLE[:size] for size in range(1, len(WHOLE))),
        *(operation(SEQUENCE, b"b", bytes(size)) + bytes([LEAVE]) for size in (0, 7, 9, 16)),
        WHOLE[:6] + b"\xff\xff\xff\xff" + bytes(8) + bytes([LEAVE]),
        WHOLE,
        WHOLE + operation(DELETE, b"c"),
        operation(7, b"b", bytes(8)) + bytes([LEAVE]),
    ],
)
def test_malformed_sequences_are_refused(stream: bytes) -> None:
    file = file_of({b"b": {}})
    with pytest.raises(ValueError, match="malformed"):
        edited(Reader(file), [stream])
    with pytest.raises(ValueError, match="malformed"):
        same_content(Reader(file), Reader(file), stream)


def test_sequence_of_a_value_is_a_conflict() -> None:
    file = file_of({b"v": b"v"})
    stream = b"".join(encode({}, {(b"v",): 1}))
    with pytest.raises(EditConflictError):
        edited(Reader(file), [stream])
    with pytest.raises(ValueError, match="where a bucket is"):
        same_content(Reader(file), Reader(file), stream)


def test_merged_edits() -> None:
    one: Edits = {b"a": b"1", b"b": {b"x": b"1", b"y": None}, b"c": None, b"d": b"1", b"e": {b"x": b"1"}}
    other: Edits = {b"a": b"2", b"b": {b"y": b"1", b"z": {}}, b"c": {b"x": b"1"}, b"d": {}, b"e": None}
    result = {b"a": b"2", b"b": {b"x": b"1", b"y": None, b"z": {}}, b"c": None, b"d": {}, b"e": None}
    assert merged(one, other) == result
    assert merged(one, other, one) == {**result, b"a": b"1", b"d": b"1"}
    assert merged(one) == one
    assert one[b"b"] == {b"x": b"1", b"y": None}
    assert merged() == {}
