"""bbolt for Go accepts files made by `Builder`: they pass its check, hold what was put, can be updated."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from buildkit_migrate._native.bolt import check
from judge import Judge
from trees import PlainBucket, read, rows, rows_of, write

pytestmark = [pytest.mark.real, pytest.mark.slow]

PAGE_SIZES = [1024, 2048, 4096, 8192, 16384, 32768, 65536]


def assert_go_accepts(judge: Judge, path: Path, tree: PlainBucket, transactions: int = 200) -> None:
    """Go finds the tree and no fault, before and after updating the file; then our reader agrees with Go."""
    assert judge.check(path) == []
    assert judge.dump(path) == list(rows(tree))
    for seed in (1, 2):
        assert judge.update(path, seed, transactions // 2) == []
    reader = read(path)
    assert check(reader) == []
    assert list(rows_of(reader.root)) == judge.dump(path)


def flat(count: int, rnd: random.Random) -> PlainBucket:
    return PlainBucket(
        {b"%032x" % rnd.getrandbits(128): rnd.randbytes(rnd.randrange(200)) for _ in range(count)}
    )


def record(rnd: random.Random, depth: int) -> PlainBucket:
    """A small bucket, perhaps with nested ones."""
    tree = PlainBucket(sequence=rnd.choice([0, 0, 1, 2**63]))
    for _ in range(rnd.randrange(5)):
        tree.items[rnd.randbytes(rnd.randint(1, 30))] = rnd.randbytes(rnd.choice([0, 10, 100, 900]))
    for _ in range(rnd.randrange(3) if depth else 0):
        tree.items[rnd.randbytes(rnd.randint(1, 30))] = record(rnd, depth - 1)
    return tree


@pytest.mark.parametrize("page_size", PAGE_SIZES)
@pytest.mark.parametrize("count", [0, 1, 2, 50, 3000])
def test_any_number_of_keys_is_accepted(judge: Judge, tmp_path: Path, count: int, page_size: int) -> None:
    tree = PlainBucket({b"bucket": flat(count, random.Random(count))})
    write(tmp_path / "db", tree, page_size)
    assert_go_accepts(judge, tmp_path / "db", tree)


def test_file_without_buckets_is_accepted(judge: Judge, tmp_path: Path) -> None:
    write(tmp_path / "db", PlainBucket())
    assert_go_accepts(judge, tmp_path / "db", PlainBucket())


def test_bucket_of_200000_keys_is_accepted(judge: Judge, tmp_path: Path) -> None:
    tree = PlainBucket({b"bucket": flat(200_000, random.Random(7))})
    write(tmp_path / "db", tree)
    assert_go_accepts(judge, tmp_path / "db", tree, transactions=600)


@pytest.mark.parametrize("page_size", PAGE_SIZES)
@pytest.mark.parametrize("fill", [0.5, 0.75, 1.0])
def test_nested_buckets_are_accepted(judge: Judge, tmp_path: Path, fill: float, page_size: int) -> None:
    rnd = random.Random(page_size)
    tree = PlainBucket()
    for name in (b"_external", b"_index", b"_main"):
        tree.items[name] = PlainBucket(
            {rnd.randbytes(25): record(rnd, 3) for _ in range(400)}, sequence=len(name)
        )
    write(tmp_path / "db", tree, page_size, fill)
    assert_go_accepts(judge, tmp_path / "db", tree, transactions=300)


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_buckets_are_inline_up_to_the_limit(judge: Judge, tmp_path: Path, page_size: int) -> None:
    """A bucket is inline up to a quarter page with its headers, unless there is a bucket in it."""
    largest = page_size // 4 - 16 - 16 - len(b"key")
    tree = PlainBucket(
        {
            b"empty": PlainBucket(),
            b"fits": PlainBucket({b"key": b"x" * largest}, sequence=3),
            b"too large": PlainBucket({b"key": b"x" * (largest + 1)}, sequence=4),
            b"with a bucket": PlainBucket({b"bucket": PlainBucket(sequence=5)}),
        }
    )
    write(tmp_path / "db", tree, page_size)
    assert judge.inline(tmp_path / "db") == {(b"empty",), (b"fits",), (b"with a bucket", b"bucket")}
    assert_go_accepts(judge, tmp_path / "db", tree)


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_values_around_page_boundaries_are_accepted(judge: Judge, tmp_path: Path, page_size: int) -> None:
    """Values that fill one, two or eleven pages to the byte, and one byte less or more, among small ones."""
    values = {}
    for pages in (1, 2, 11):
        for surplus in (-1, 0, 1):
            size = pages * page_size - 16 - 16 - len(b"00/0") + surplus
            values[b"%02d/%d" % (pages, surplus + 1)] = b"v" * size
            values[b"%02d/%d small" % (pages, surplus + 1)] = b"small"
    nested: dict[bytes, bytes | PlainBucket] = {
        key: PlainBucket({key: value}) for key, value in values.items()
    }
    tree = PlainBucket({b"large": PlainBucket(dict(values)), b"rows": PlainBucket(nested)})
    write(tmp_path / "db", tree, page_size)
    assert_go_accepts(judge, tmp_path / "db", tree)


@pytest.mark.parametrize("page_size", [1024, 4096, 65536])
@pytest.mark.parametrize("fill", [0.5, 1.0])
@pytest.mark.parametrize("key_size", [500, 3000, 32768])
def test_long_keys_are_accepted(
    judge: Judge, tmp_path: Path, key_size: int, fill: float, page_size: int
) -> None:
    """Long keys get into branch pages, which hold at least two of them, even if longer than a page."""
    keys = {b"%06d" % i + b"k" * (key_size - 6): b"v" * (i % 50) for i in range(300)}
    tree = PlainBucket(
        {
            b"long": PlainBucket(dict(keys)),
            b"rows": PlainBucket({key: PlainBucket({b"a": b"b"}) for key in keys}),
        }
    )
    write(tmp_path / "db", tree, page_size, fill)
    assert_go_accepts(judge, tmp_path / "db", tree, transactions=100)


@pytest.mark.parametrize("seed", range(12))
def test_keys_of_mixed_lengths_are_accepted(judge: Judge, tmp_path: Path, seed: int) -> None:
    """Keys of all lengths side by side, so that every way of closing a page occurs."""
    rnd = random.Random(seed)
    page_size, fill = rnd.choice(PAGE_SIZES), rnd.uniform(0.5, 1.0)
    tree = PlainBucket({b"mixed": PlainBucket()})
    mixed = tree.items[b"mixed"]
    assert isinstance(mixed, PlainBucket)
    for _ in range(1500):
        key = rnd.randbytes(rnd.choice([1, 8, 25, 25, 71, 300, page_size // 2, min(2 * page_size, 32768)]))
        mixed.items[key] = rnd.randbytes(rnd.choice([0, 20, 20, 200, page_size // 3, 2 * page_size]))
    write(tmp_path / "db", tree, page_size, fill)
    assert_go_accepts(judge, tmp_path / "db", tree)
