"""The judge reports bad files and does not crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from judge import Judge
from trees import PlainBucket, write

pytestmark = pytest.mark.real


@pytest.fixture
def data(tmp_path: Path) -> bytearray:
    """A file whose page 2 is the first leaf of a bucket."""
    write(tmp_path / "db", PlainBucket({b"b": PlainBucket({b"key%04d" % i: b"v" * 100 for i in range(200)})}))
    return bytearray((tmp_path / "db").read_bytes())


def verdict(judge: Judge, tmp_path: Path, data: bytes | bytearray) -> list[str]:
    (tmp_path / "db").write_bytes(data)
    return judge.check(tmp_path / "db")


def test_garbage_is_refused(judge: Judge, tmp_path: Path) -> None:
    assert verdict(judge, tmp_path, b"x" * 10_000) == ["invalid database"]


def test_truncated_file_is_refused(judge: Judge, tmp_path: Path, data: bytearray) -> None:
    assert verdict(judge, tmp_path, data[: 4 * 4096]) != []


def test_wrong_page_type_is_found(judge: Judge, tmp_path: Path, data: bytearray) -> None:
    data[2 * 4096 + 8] = 0x10
    assert verdict(judge, tmp_path, data) != []


def test_wrong_page_number_is_found(judge: Judge, tmp_path: Path, data: bytearray) -> None:
    data[2 * 4096] = 77
    assert verdict(judge, tmp_path, data) != []


def test_wrong_order_of_keys_is_found(judge: Judge, tmp_path: Path, data: bytearray) -> None:
    at = data.index(b"key0005", 2 * 4096)
    data[at : at + 7] = b"key0001"
    assert any("key" in line for line in verdict(judge, tmp_path, data))


def test_unreachable_keys_are_found(judge: Judge, tmp_path: Path, data: bytearray) -> None:
    """A branch key above the first keys of its child: a search misses them."""
    first_in_second_leaf = data.index(b"key", 3 * 4096)
    name = bytes(data[first_in_second_leaf : first_in_second_leaf + 7])
    at = data.rindex(name)
    assert at > first_in_second_leaf
    data[at : at + 7] = name[:-1] + b"\xff"
    assert any("is not found" in line for line in verdict(judge, tmp_path, data))


def test_sound_file_passes(judge: Judge, tmp_path: Path, data: bytearray) -> None:
    assert verdict(judge, tmp_path, data) == []
