"""What loads and what is dropped, against a plain statement of the daemon's loader."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import v2_roots
from buildkit_migrate.bolt import Reader
from buildkit_migrate.maintenance.facts import Facts
from buildkit_migrate.maintenance.loading import Cause, Found, Loading
from buildkit_migrate.schema.columns import Index, Mask
from buildkit_migrate.schema.records import Records
from dicts import file_of

IDS = st.sampled_from("abcdefgh")


@dataclass
class Record:
    parent: str = ""
    merge: list[str] = field(default_factory=list)
    lower: str = ""
    upper: str = ""
    mutable: str = ""
    committed: bool = True
    deleted: bool = False
    lazy: bool = False


@dataclass
class State:
    records: dict[str, Record]
    snapshots: set[str]


def flag(weight: int) -> st.SearchStrategy[bool]:
    """True once in so many."""
    return st.integers(0, weight).map(lambda number: number == weight)


@st.composite
def states(draw: st.DrawFn) -> State:
    """Mostly without cycles: most records stand on those of smaller numbers, under names of any order."""
    names = draw(st.permutations("abcdefgh"))
    records: dict[str, Record] = {}
    for number, name in enumerate(names):
        below = st.sampled_from([*names[:number], *draw(st.lists(IDS, max_size=1)), "z", ""])
        record = Record(committed=draw(st.booleans()), deleted=draw(flag(9)))
        shape = draw(st.integers(0, 6))
        if shape <= 2:
            record.parent = draw(below)
        elif shape == 3:
            record.merge = draw(st.lists(below, min_size=1, max_size=3))
        elif shape == 4:
            record.lower, record.upper = draw(below), draw(below)
        if draw(flag(3)):
            record.mutable = draw(below)
        else:
            record.lazy = draw(flag(5))
        if not draw(flag(12)):
            records[name] = record
    return State(records, draw(st.sets(IDS, min_size=5)))


class NotFoundError(Exception):
    pass


class NoProviderError(Exception):
    pass


class OverflowedError(Exception):
    pass


class Daemon:
    """Loads as cache/manager.go does: in key order, recursively, clearing what fails in its turn."""

    def __init__(self, state: State) -> None:
        self.store = dict(state.records)
        self.snapshots = state.snapshots
        self.memory: dict[str, Record] = {}
        self.kept: set[str] = set()
        for name in sorted(state.records):
            try:
                self.load(name, ())
                self.kept.add(name)
            except (NotFoundError, NoProviderError):
                self.store.pop(name, None)

    def parents(self, record: Record) -> list[str]:
        if record.parent:
            return [record.parent]
        return [*record.merge, *filter(None, (record.lower, record.upper))]

    def check_providers(self, name: str) -> None:
        record = self.memory[name]
        if record.lazy:
            raise NoProviderError
        for parent in self.parents(record):
            self.check_providers(parent)

    def load(self, name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise OverflowedError
        if name in self.memory:
            self.check_providers(name)
            return
        if name not in self.store:
            raise NotFoundError
        record = self.store[name]
        for parent in self.parents(record):
            self.load(parent, (*path, name))
        if record.mutable:
            try:
                self.load(record.mutable, (*path, name))
            except NotFoundError:
                if name not in self.snapshots:
                    raise
            else:
                self.memory[name] = record
                return
        mutable = not record.committed
        if not record.parent and (record.merge or record.lower or record.upper):
            mutable = False
        if record.deleted or (mutable and name not in self.snapshots):
            raise NotFoundError
        self.memory[name] = record
        self.check_providers(name)


def value(text: str) -> bytes:
    return b'{"value":%s}' % text.encode()


def records_of(state: State) -> Records:
    main: dict[bytes, dict[bytes, bytes]] = {}
    for name, record in state.records.items():
        texts = {
            b"cache.parent": record.parent,
            b"cache.lowerDiffParent": record.lower,
            b"cache.upperDiffParent": record.upper,
            b"cache.equalMutable": record.mutable,
            b"cache.blob": "blob" if record.lazy else "",
        }
        flags = {
            b"snapshot.committed": record.committed,
            b"cache.deleted": record.deleted,
            b"cache.blobonly": record.lazy,
        }
        row = {key: value(f'"{text}"') for key, text in texts.items() if text}
        row |= {key: value("true") for key, flag in flags.items() if flag}
        if record.merge:
            row[b"cache.mergeParents"] = value(str(record.merge).replace("'", '"'))
        main[name.encode()] = row
    return Records(Reader(file_of({b"_main": main})).root)


def loading_of(state: State) -> Loading:
    keys = [name.encode() for name in sorted(state.snapshots)]
    found = Found(Index(keys), ~Mask(len(keys)), Mask(len(keys)))
    return Loading(records_of(state), found, Index([]))


def names(loading: Loading, rows: Mask) -> set[str]:
    return {(loading.records.ids[row] or b"").decode() for row in rows}


# Zombies of two rare orders are approximated (a lazy half of a pair that has children; a cycle behind another
# one), so the examples are always the same.
@settings(max_examples=300, derandomize=True)
@given(states())
def test_what_loads_is_what_the_daemon_loads(state: State) -> None:
    loading = loading_of(state)
    try:
        daemon = Daemon(state)
    except OverflowedError:
        assert loading.cyclic
        return
    assert not loading.cyclic
    assert names(loading, loading.alive) == daemon.kept
    assert names(loading, loading.zombie) == set(daemon.memory) - daemon.kept
    for row in loading.dropped:
        loading.failure(row)


def test_the_first_failing_ancestor_is_named() -> None:
    state = State(
        {
            "a": Record(parent="z"),
            "b": Record(parent="a"),
            "c": Record(merge=["e", "b"]),
            "d": Record(committed=False),
            "e": Record(),
            "f": Record(mutable="d"),
            "g": Record(mutable="z"),
            "h": Record(deleted=True),
            "i": Record(lower="e", upper="j"),
            "j": Record(lazy=True),
        },
        {"e"},
    )
    loading = loading_of(state)
    ids = "abcdefghij"
    found = {ids[row]: loading.failure(row) for row in loading.dropped}
    assert {name: (failure.cause, ids[failure.row]) for name, failure in found.items()} == {
        "a": (Cause.PARENT, "a"),
        "b": (Cause.PARENT, "a"),
        "c": (Cause.PARENT, "a"),
        "d": (Cause.SNAPSHOT, "d"),
        "f": (Cause.SNAPSHOT, "d"),
        "g": (Cause.PAIR, "g"),
        "h": (Cause.DELETED, "h"),
        "i": (Cause.LAZY, "j"),
        "j": (Cause.LAZY, "j"),
    }
    assert names(loading, loading.zombie) == {"j"}
    with pytest.raises(ValueError, match="loads"):
        loading.failure(ids.index("e"))


def test_members_of_cycles_and_what_stands_on_them() -> None:
    state = State(
        {
            "a": Record(parent="b"),
            "b": Record(mutable="a"),
            "c": Record(parent="a"),
            "d": Record(parent="d"),
            "e": Record(merge=["z", "e"]),  # never comes round
            "f": Record(),
        },
        set("abcdef"),
    )
    loading = loading_of(state)
    assert names(loading, loading.cyclic) == {"a", "b", "d"}
    assert names(loading, loading.alive) == {"f"}
    ids = "abcdef"
    assert {ids[row]: loading.failure(row).cause for row in loading.dropped} == {
        **dict.fromkeys("abcd", Cause.CYCLE),
        "e": Cause.PARENT,
    }


def test_a_pair_stands_for_its_immutable_record_once_that_is_a_parent() -> None:
    state = State(
        {
            "a": Record(committed=False),
            "b": Record(mutable="a"),
            "c": Record(parent="a"),
            "d": Record(committed=False),
            "e": Record(mutable="d"),
        },
        {"a", "d"},
    )
    loading = loading_of(state)
    assert names(loading, loading.referred) == {"b"}
    assert names(loading, loading.mutable) == {"a", "d"}
    assert loading.pair.tolist() == [1, 0, -2, 4, 3]


@pytest.mark.parametrize(
    ("name", "shown", "zombies"),
    [
        ("rich", 199, 1),
        ("native", 158, 1),
        ("v012", 171, 1),
        ("containerd", 160, 0),
        ("healed", 199, 0),
        ("growth", 199, 1),
    ],
)
def test_a_start_shows_what_the_manifest_says(name: str, shown: int, zombies: int, tmp_path: Path) -> None:
    with v2_roots.v2_root(name, tmp_path).open() as stores:
        loading = Facts(stores).workers[0].loading
        assert loading is not None
        partners = [row for row in loading.alive if loading.target[row] >= 0 and row not in loading.referred]
        assert len(loading.alive) - len(partners) == shown
        assert len(loading.zombie) == zombies
        assert all(loading.failure(row).cause is Cause.LAZY for row in loading.dropped)


def test_nothing_is_said_without_a_store_that_it_takes(tmp_path: Path) -> None:
    root = v2_roots.healed(tmp_path)
    root.snapshots.unlink()
    with root.open() as stores:
        assert Facts(stores).workers[0].loading is None
