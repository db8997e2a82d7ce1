"""Builder, reader, check and rewrite against nested dicts."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildkit_migrate._native.bolt import Bucket, Reader, check, scan
from buildkit_migrate._native.building import Builder, rewrite
from buildkit_migrate.bolt.edits import encode
from buildkit_migrate.errors import EditConflictError
from dicts import Image, file_of, fill, page_sizes, tree_of, trees
from plain_bbolt import BucketDict


@given(trees(), page_sizes, st.sampled_from([0.5, 0.9, 1.0]))
def test_built_file_is_sound_and_reads_back(tree: BucketDict, page_size: int, share: float) -> None:
    data = file_of(tree, page_size, share)
    reader = Reader(data)
    assert tree_of(reader.root) == tree
    assert check(reader) == []
    assert len(data) == reader.high_water * page_size
    assert data == file_of(tree, page_size, share)


@given(trees())
def test_seek_and_get_agree_with_the_order_of_keys(tree: BucketDict) -> None:
    root = Reader(file_of(tree, 1024)).root
    ordered = sorted(tree)
    for index, key in enumerate(ordered):
        assert [k for k, _ in root.items(key)] == ordered[index:]
        value = tree[key]
        assert root.get(key) == (value if isinstance(value, bytes) else None)
        assert (root.bucket(key) is not None) == (not isinstance(value, bytes))
        assert root.get(key + b"\0") == (tree.get(key + b"\0") if key + b"\0" in tree else None)


def apply(tree: BucketDict, edits: dict) -> BucketDict:
    """What rewrite must do, on a dict."""
    result = dict(tree)
    for key, edit in edits.items():
        if edit is None:
            result.pop(key, None)
        elif isinstance(edit, bytes):
            result[key] = edit
        else:
            result[key] = apply(result.get(key, {}), edit)  # type: ignore[arg-type]
    return result


@given(trees(), st.data(), page_sizes)
def test_rewrite_equals_the_model(tree: BucketDict, data: st.DataObject, page_size: int) -> None:
    def edits_of(bucket: BucketDict, depth: int) -> dict:
        edits: dict = {}
        names = sorted(bucket) + data.draw(st.lists(st.binary(min_size=1, max_size=4), max_size=4))
        for name in data.draw(st.lists(st.sampled_from(names), max_size=6)) if names else []:
            now = bucket.get(name)
            choices: list = [None]
            if not isinstance(now, dict):
                choices.append(data.draw(st.binary(max_size=30)))
            if not isinstance(now, bytes) and depth < 3:
                choices.append(edits_of(now or {}, depth + 1))
            edits[name] = data.draw(st.sampled_from(choices))
        return edits

    edits = edits_of(tree, 0)
    image = Image(page_size)
    rewrite(Reader(file_of(tree)).root, image.builder, encode(edits))
    reader = Reader(image.finish())
    assert tree_of(reader.root) == apply(tree, edits)
    assert check(reader) == []


def test_rewrite_without_edits_gives_the_same_file() -> None:
    image = Image()
    for name, sequence in ((b"inline", 7), (b"paged", 19)):
        image.builder.open_bucket(name, sequence)
        fill(image.builder, {b"%05d" % i: b"x" * 40 for i in range(3 if name == b"inline" else 3000)})
        image.builder.close_bucket()
    first = image.finish()
    copy = Image()
    assert rewrite(Reader(first).root, copy.builder, []) == 0
    second = copy.finish()
    assert second == first
    root = Reader(second).root
    assert [(name, bucket.sequence) for name, bucket in root.items() if not isinstance(bucket, bytes)] == [
        (b"inline", 7),
        (b"paged", 19),
    ]


def test_rewrite_counts_changes() -> None:
    source = Reader(file_of({b"a": b"1", b"b": {b"x": b"1"}})).root
    edits = {b"a": b"1", b"b": {b"x": b"2", b"y": None}, b"c": {}, b"d": None}
    assert rewrite(source, Image().builder, encode(edits)) == 2


@pytest.mark.parametrize("edits", [{b"a": {}}, {b"b": b""}])
def test_conflicting_edits_are_refused(edits: dict) -> None:
    source = Reader(file_of({b"a": b"1", b"b": {}})).root
    with pytest.raises(EditConflictError):
        rewrite(source, Image().builder, encode(edits))


@pytest.mark.parametrize(
    "stream",
    [
        b"\x09",
        b"\x01\xff\xff\xff\xffx",
        b"\x01\x01\0\0\0k\x10\0\0\0v",
        b"\x04",
        b"\x03\x01\0\0\0k",
        b"\x01\x01\0\0",
    ],
)
def test_malformed_stream_is_refused(stream: bytes) -> None:
    with pytest.raises(ValueError, match="malformed"):
        rewrite(None, Image().builder, [stream])


def test_errors_of_stream_and_sink_are_passed_on() -> None:
    def broken() -> Iterator[bytes]:
        yield from encode({b"b": b"2"})
        asked.append(True)
        raise KeyError("mine")

    asked: list[bool] = []
    with pytest.raises(KeyError, match="mine"):
        rewrite(Reader(file_of({b"a": b"1"})).root, Image().builder, broken())
    assert asked == [True]

    def full(_: memoryview) -> None:
        raise OSError(28, "No space left on device")

    builder = Builder(full)
    builder.put(b"a", b"1")
    with pytest.raises(OSError, match="No space left"):
        builder.finish()
    with pytest.raises(OSError, match="No space left"):
        builder.put(b"b", b"1")


def test_empty_chunk_does_not_end_the_stream() -> None:
    image = Image()
    chunks = [b"", *encode({b"a": b"1"}), b"", b"", *encode({b"b": b"2"}), b""]
    assert rewrite(None, image.builder, chunks) == 2
    assert tree_of(Reader(image.finish()).root) == {b"a": b"1", b"b": b"2"}


def test_builder_refuses_what_the_format_forbids() -> None:
    for bad in (b"", b"k" * 32769):
        with pytest.raises(ValueError, match="1 to 32768"):
            Image().builder.put(bad, b"")
    builder = Image().builder
    builder.put(b"b", b"")
    for key in (b"b", b"a"):
        with pytest.raises(ValueError, match="order"):
            builder.put(key, b"")
    with pytest.raises(ValueError, match="nested"):
        Image().builder.close_bucket()
    deep = Image().builder
    with pytest.raises(ValueError, match="nested"):
        for _ in range(100):
            deep.open_bucket(b"k")
    for page_size, share in ((512, 0.9), (5000, 0.9), (4096, 0.4), (4096, 1.1)):
        with pytest.raises(ValueError, match="must be"):
            Builder(bytearray().extend, page_size, share)


def test_buckets_are_inline_up_to_a_quarter_page() -> None:
    data = file_of({b"e": {}})
    assert struct.unpack_from("<IIII", data, 2 * 4096 + 16) == (1, 16, 1, 32)
    for value_size, is_inline in ((1024 - 16 - 16 - 1, True), (1024 - 16 - 16, False)):
        data = file_of({b"b": {b"k": b"v" * value_size}})
        leaf = 2 * 4096 if is_inline else 3 * 4096
        assert (struct.unpack_from("<I", data, leaf + 16 + 12)[0] > 16) == is_inline


def test_scan_returns_rows_and_columns() -> None:
    rows: BucketDict = {
        b"r%04d" % i: {b"v": b"%d" % i, b"labels": {b"a/b": b"x"} if i % 2 else {}} for i in range(500)
    }
    rows[b"r0003x"] = b"not a row"
    names, (value, label, none) = scan(
        Reader(file_of(rows)).root, [(b"v",), (b"labels", b"a/b"), (b"labels",)]
    )
    assert list(names) == [b"r%04d" % i for i in range(500)]
    assert list(value) == [b"%d" % i for i in range(500)]
    assert list(label) == [b"x" if i % 2 else None for i in range(500)]
    assert set(none) == {None}
    assert names[-1] == b"r0499"
    with pytest.raises(IndexError):
        names[500]


def test_finished_builder_refuses_use() -> None:
    image = Image()
    image.builder.put(b"a", b"1")
    data = image.finish()
    for use in (
        image.builder.finish,
        image.builder.close_bucket,
        lambda: image.builder.put(b"b", b"2"),
        lambda: image.builder.open_bucket(b"b"),
        lambda: rewrite(None, image.builder, encode({b"b": b"2"})),
    ):
        with pytest.raises(ValueError, match="finished"):
            use()
    assert tree_of(Reader(data).root) == {b"a": b"1"}


def test_bucket_needs_a_reader() -> None:
    for arguments in ((), (None,)):
        with pytest.raises(TypeError):
            Bucket(*arguments)
        with pytest.raises(TypeError):
            Bucket.__new__(Bucket, *arguments)
    assert tree_of(Bucket(Reader(file_of({b"a": b"1"})))) == {b"a": b"1"}
