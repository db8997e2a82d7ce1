"""Salvage after random damage of real stores, judged by a plain traversal (see plain_traversal.py)."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import ondisk
import v2_roots
from buildkit_migrate._native.bolt import Reader, check
from buildkit_migrate.errors import CorruptDatabaseError
from judge import Judge
from plain_traversal import Traversal
from salvaged import Result, is_named, rows_of, salvaged
from trees import Row

pytestmark = pytest.mark.slow

DAMAGES = 500

Key = tuple[tuple[bytes, ...], bytes | None]


@dataclass
class Store:
    """A store before the damage: its bytes, and what is in it."""

    data: bytes
    page_size: int = 0
    pages: list[int] = field(default_factory=list)
    branches: list[int] = field(default_factory=list)
    rows: dict[Key, bytes | int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        reader = Reader(self.data)
        self.page_size = reader.page_size
        self.pages = sorted(traversal(self.data, self.page_size).visited)
        self.branches = [page for page in self.pages if self.kind(page) == 1]
        self.rows = keyed(rows_of(self.data))

    def kind(self, page: int) -> int:
        found: int = struct.unpack_from("<H", self.data, page * self.page_size + 8)[0]
        return found


def keyed(rows: list[Row]) -> dict[Key, bytes | int]:
    return {(path, key): value for path, key, value in rows}


def traversal(data: bytes, page_size: int, *, newest: bool = True) -> Traversal:
    """From the root page that the newer meta page names, or the older one."""
    metas = sorted((struct.unpack_from("<QQQQQ", data, at + 32) for at in (0, page_size)), key=lambda m: m[4])
    return Traversal(data, page_size, metas[newest][0])


def previous(store: Store) -> bytes:
    """The file as the state before the newest one has it: without the newer meta page."""
    data = bytearray(store.data)
    newer = max((0, store.page_size), key=lambda at: int.from_bytes(data[at + 64 : at + 72], "little"))
    data[newer : newer + store.page_size] = bytes(store.page_size)
    return bytes(data)


# --- Damages: each changes one page, or the end of the file

Damage = Callable[[random.Random, Store, bytearray, int], None]


def garbage(chance: random.Random, store: Store, data: bytearray, page: int) -> None:
    at = page * store.page_size
    data[at : at + store.page_size] = chance.randbytes(store.page_size)


def zeros(chance: random.Random, store: Store, data: bytearray, page: int) -> None:
    at = page * store.page_size
    data[at : at + store.page_size] = bytes(store.page_size)


def swapped(chance: random.Random, store: Store, data: bytearray, page: int) -> None:
    size = store.page_size
    other = chance.choice(store.pages)
    for to, source in ((page, other), (other, page)):
        data[to * size : to * size + size] = store.data[source * size : source * size + size]


def truncated(chance: random.Random, store: Store, data: bytearray, page: int) -> None:
    del data[page * store.page_size + chance.choice([0, 77]) :]


def count(chance: random.Random, store: Store, data: bytearray, page: int) -> None:
    data[page * store.page_size + chance.choice([10, 11])] ^= 1 << chance.randrange(8)


def flipped(chance: random.Random, store: Store, data: bytearray, page: int) -> None:
    """Half of the bits are in the header and the first elements."""
    end = chance.choice([200, store.page_size])
    data[page * store.page_size + chance.randrange(end)] ^= 1 << chance.randrange(8)


def sector(chance: random.Random, store: Store, data: bytearray, page: int) -> None:
    """One sector of 512 bytes is lost."""
    at = page * store.page_size + 512 * chance.randrange(store.page_size // 512)
    data[at : at + 512] = chance.choice([bytes(512), chance.randbytes(512)])


EXACT = (garbage, zeros, swapped, truncated, count)
"""Damages that change no single key or value, so that everything is either kept as it was or lost."""
WITHIN = (flipped, sector)


def damaged(store: Store, damages: tuple[Damage, ...], seed: int) -> Iterator[tuple[str, bytes]]:
    """Damaged copies, each with a name for messages. A third of the damages hit a branch page."""
    chance = random.Random(seed)
    for number in range(DAMAGES // 5):
        damage = damages[number % len(damages)]
        page = chance.choice(store.branches if chance.random() < 0.3 else store.pages)
        data = bytearray(store.data)
        damage(chance, store, data, page)
        yield f"{damage.__name__} {number}: page {page}", bytes(data)


def expected(store: Store, data: bytes) -> Result | None:
    """The result of a salvage, which is sound; None if no root page can be read."""
    try:
        result = salvaged(data)
    except CorruptDatabaseError as error:
        root = traversal(data, store.page_size)
        assert error.page == root.root
        assert root.keys == {(): []}
        return None
    assert check(Reader(result.data)) == []
    rows = rows_of(result.data)
    assert result.keys == sum(key is not None for _, key, _ in rows)
    assert result.buckets == len(rows) - result.keys - 1
    return result


@pytest.fixture(scope="module", params=["records", "containerd", "snapshots", "cache", "v1", "shared"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A real store, without the pages behind its end. "shared": a containerd's, which has no free list."""
    place = tmp_path_factory.mktemp("root")
    if request.param == "v1":
        data = ondisk.sample(place).v1.read_bytes()
    elif request.param == "shared":
        data = v2_roots.v2_root("containerd", place).containerd.read_bytes()
    else:
        path: Path = getattr(v2_roots.healed(place), request.param)
        data = path.read_bytes()
    reader = Reader(data)
    return Store(data[: reader.high_water * reader.page_size])


def test_undamaged_store_is_kept_whole(store: Store) -> None:
    result = salvaged(store.data)
    assert keyed(rows_of(result.data)) == store.rows
    assert result.losses == []
    assert result.unreached == (None if Reader(store.data).freelist is None else 0)


def test_all_that_a_traversal_reaches_is_kept_and_the_rest_is_named(store: Store) -> None:
    refused = 0
    for name, data in damaged(store, EXACT, 1):
        result = expected(store, data)
        if result is None:
            refused += 1
            continue
        rows = keyed(rows_of(result.data))
        before = store.rows
        if not result.is_newest:
            assert traversal(data, store.page_size).keys == {(): []}, name
            before = keyed(rows_of(salvaged(previous(store)).data))
        # Nothing is made up, ...
        assert rows.items() <= before.items(), name
        # ... what can be reached is kept, except for what only a wrong count makes an element, ...
        reached = traversal(data, store.page_size, newest=result.is_newest)
        for path, keys in reached.keys.items():
            for key, value in keys:
                assert rows.get((path, key)) == value or (path, key) not in before, (name, path, key)
        for path, sequence in reached.sequences.items():
            assert rows.get((path, None)) == sequence or (path, None) not in before, (name, path)
        # ... and what is not kept has a name.
        for path, key in before.keys() - rows.keys():
            assert is_named(result, path, key), (name, path, key)
    assert refused < DAMAGES // 5


def test_damage_within_a_page_costs_no_more_than_it_touches(store: Store) -> None:
    """What a traversal reaches is missing only where keys are out of order, and then it is named."""
    for name, data in damaged(store, WITHIN, 2):
        result = expected(store, data)
        if result is None or not result.is_newest:
            continue
        rows = keyed(rows_of(result.data))
        for path, keys in traversal(data, store.page_size).keys.items():
            order = [key for key, _ in keys]
            for key, value in keys:
                missing = rows.get((path, key)) != value
                assert not missing or result.losses, (name, path, key)
                if missing and order == sorted(set(order)) and (path, None) in rows:
                    assert is_named(result, path, key), (name, path, key)


@pytest.mark.real
def test_go_accepts_what_is_left(store: Store, judge: Judge, tmp_path: Path) -> None:
    for number, (name, data) in enumerate(damaged(store, EXACT + WITHIN, 3)):
        if number % 10 == 0 and (result := expected(store, data)) is not None:
            (tmp_path / "db").write_bytes(result.data)
            assert judge.check(tmp_path / "db") == [], name
            assert judge.update(tmp_path / "db", number, 5) == [], name
