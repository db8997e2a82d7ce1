"""Building blocks of synthetic roots: trees of layers, ids, stored times and numbers, files."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from struct import Struct
from typing import Final

from buildkit_migrate._native.building import Builder

SHAPES: Final = ("forest", "deep", "flat", "wide")
FOREST_ROOT_SHARE: Final = 1 / 11  # mean depth 10
CONTENTHASH_SHARE: Final = 0.07

START: Final = 1_572_595_200  # 2019-11-01T08:00:00Z, in seconds since 1970
GO_EPOCH: Final = 62_135_596_800  # from year 1 to 1970, in seconds

ACTIVE, COMMITTED, VIEW = b"\x02", b"\x03", b"\x01"

Put = Callable[[bytes, bytes], None]


def tree(shape: str, count: int, rnd: random.Random) -> tuple[list[int], list[int]]:
    """Parent (-1 for none) and depth of each committed snapshot."""
    if shape == "deep":
        return list(range(-1, count - 1)), list(range(count))
    if shape == "flat":
        return [-1] * count, [0] * count
    if shape == "wide":
        return [-1, *[0] * (count - 1)][:count], [0, *[1] * (count - 1)][:count]
    parents: list[int] = []
    depths: list[int] = []
    for i in range(count):
        if i == 0 or rnd.random() < FOREST_ROOT_SHARE:
            parent = -1
        elif rnd.random() < 0.3:
            parent = rnd.randrange(i)
        else:
            parent = i - 1
        parents.append(parent)
        depths.append(depths[parent] + 1 if parent >= 0 else 0)
    return parents, depths


def identities(count: int, rnd: random.Random) -> list[bytes]:
    """Random ids of 25 letters and digits."""
    letters = rnd.randbytes(25 * count).translate(b"0123456789abcdefghijklmnopqrstuvwxyz" * 7 + b"0123")
    return [letters[at : at + 25] for at in range(0, 25 * count, 25)]


def digests(count: int, rnd: random.Random) -> Iterator[bytes]:
    digits = rnd.randbytes(32 * count).hex().encode()
    return (b"sha256:" + digits[at : at + 64] for at in range(0, 64 * count, 64))


_TIME: Final = Struct(">BqIh")


@lru_cache(maxsize=2)
def _minute(minutes: int) -> bytes:
    return time.strftime("%Y-%m-%dT%H:%M:", time.gmtime(START + 60 * minutes)).encode()


def stored_time(second: int, nanoseconds: int) -> bytes:
    """The time this many seconds after START, in containerd's form (containerd-metadata-db, section 2)."""
    return _TIME.pack(1, GO_EPOCH + START + second, nanoseconds, -1)


def text_time(second: int, nanoseconds: int) -> bytes:
    """The same as text. The last digit of ``nanoseconds`` must not be 0, as Go would drop it."""
    return b"%b%02d.%09dZ" % (_minute(second // 60), second % 60, nanoseconds)


def write(path: Path, mode: int, content: Callable[[Builder], None]) -> int:
    """Writes a database. Returns its size in bytes."""
    with path.open("xb") as file:
        builder = Builder(file.write)
        content(builder)
        head = builder.finish()
        size = file.tell()
        file.seek(0)
        file.write(head)
    path.chmod(mode)
    return size


@contextmanager
def nested(builder: Builder, name: bytes, sequence: int = 0) -> Iterator[Put]:
    """Opens a bucket for puts. Only for the few outer buckets; rows of a table are opened directly."""
    builder.open_bucket(name, sequence)
    yield builder.put
    builder.close_bucket()


def write_records(
    builder: Builder,
    ids: list[bytes],
    rnd: random.Random,
    index: list[bytes],
    values: Callable[[int], Iterable[tuple[bytes, bytes]]],
) -> None:
    """Writes a metadata store: external data of some records, the index, and the values of each record."""
    noise = rnd.randbytes(2**17)
    with nested(builder, b"_external"):
        for i in in_order(ids, (i for i in range(len(ids)) if rnd.random() < CONTENTHASH_SHARE)):
            start = rnd.getrandbits(16)
            builder.open_bucket(ids[i])
            builder.put(b"buildkit.contenthash.v0", noise[start : start + rnd.randint(98, 1604)])
            builder.close_bucket()
    with nested(builder, b"_index") as put:
        for key in sorted(index):
            put(key, b"")
    with nested(builder, b"_main") as put:
        for i in in_order(ids, range(len(ids))):
            builder.open_bucket(ids[i])
            for key, value in values(i):
                put(key, value)
            builder.close_bucket()


def in_order(names: list[bytes], indices: Iterable[int]) -> list[int]:
    return sorted(indices, key=names.__getitem__)


def uvarint(number: int) -> bytes:
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def svarint(number: int) -> bytes:
    """Encodes a number that is not negative."""
    return uvarint(2 * number)
