"""Every engine does what the store interface says (spec buildkit-metadata, section 1)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stores
from buildkit_migrate.bolt import Database
from buildkit_migrate.errors import (
    BrokenRecordsError,
    BusyError,
    EditConflictError,
    RecordNotFoundError,
)
from buildkit_migrate.store.convert import convert
from buildkit_migrate.store.engines import Engine, engine_of, open_store, write_store
from buildkit_migrate.store.interface import Item, MetadataStore, RecordUpdate
from buildkit_migrate.values.gojson import Value, encode_value
from stores import INDEX, TREE, ids
from trees import PlainBucket

BAD = PlainBucket(
    {b"_main": PlainBucket({b"bad": PlainBucket({b"a": encode_value(1), b"b": b"{", b"c": b"{}"})})}
)


# --- Reading


def test_get_returns_decoded_values(store: MetadataStore) -> None:
    item = store.get(b"r1")
    assert item == Item(b"r1", True, {b"a": Value(b"1"), b"b": Value(b'"x"', INDEX)})
    assert item.indexes() == [INDEX]
    assert store.get(b"gone") == store.get(b"gone") == Item(b"gone")
    assert store.get(b"stray") == Item(b"stray")


def test_view_returns_stored_bytes(store: MetadataStore) -> None:
    assert store.view(b"r1") == {b"a": encode_value(1), b"b": encode_value(b"x", INDEX), b"cleared": b""}
    for id in (b"gone", b"stray"):
        with pytest.raises(RecordNotFoundError):
            store.view(id)


def test_all_returns_records_in_order(store: MetadataStore) -> None:
    assert ids(store.all()) == [b"r1", b"r2"]


def test_undecodable_value_ends_get_and_fails_all(engine: Engine, tmp_path: Path) -> None:
    with stores.open_made(tmp_path, engine, BAD) as store:
        assert list(store.get(b"bad").values) == [b"a"]
        with pytest.raises(BrokenRecordsError, match=r"bad.*'b'"):
            list(store.all())


def test_search_and_probe_use_the_index(store: MetadataStore) -> None:
    assert ids(store.search(INDEX)) == [b"r1"]
    assert ids(store.search(b"the::index:more")) == [b"r2"]
    assert ids(store.search(b"only-missing")) == ids(store.search(b"nothing")) == []
    assert ids(store.search(b"the", prefix_only=True)) == [b"r1", b"r2"]
    assert store.probe(b"only-missing")
    assert not store.probe(b"the::ind")


def test_external_returns_data_or_none(store: MetadataStore) -> None:
    assert store.external(b"r1", b"name") == b"data"
    assert store.external(b"r1", b"empty") == b""
    for id, name in ((b"r1", b"nested"), (b"r1", b"gone"), (b"gone", b"name")):
        assert store.external(id, name) is None


def test_new_store_is_empty(engine: Engine, tmp_path: Path) -> None:
    with open_store(tmp_path / "store", create=engine) as store:
        assert (
            list(store.all()) == list(store.search(b"x")) == list(store.search(b"", prefix_only=True)) == []
        )
        assert not store.probe(b"x")
        assert store.external(b"x", b"y") is None
    assert engine_of(tmp_path / "store") == engine
    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o600
    with open_store(tmp_path / "store", create=engine) as again:
        assert list(again.all()) == []


# --- Writing


def test_update_is_visible_when_it_ends(store: MetadataStore) -> None:
    with store.update(b"new") as record:
        record.set(b"k", Value.of(b"text", b"found"))
        record.set(b"n", Value.of(5))
        record.set_external(b"e", b"\x00data")
        assert record.get(b"n") == Value(b"5")
        assert not store.get(b"new").exists
    assert store.view(b"new") == {b"k": b'{"value":"text","index":"found"}', b"n": b'{"value":5}'}
    assert ids(store.search(b"found")) == [b"new"]
    assert store.external(b"new", b"e") == b"\x00data"


def test_update_creates_the_record(store: MetadataStore) -> None:
    with store.update(b"new"):
        pass
    assert store.get(b"new") == Item(b"new", True)


def test_exception_in_update_changes_nothing(store: MetadataStore, tmp_path: Path) -> None:
    with pytest.raises(KeyError), store.update(b"r1") as record:
        record.set(b"a", Value.of(2, b"i"))
        record.set_external(b"name", b"other")
        raise KeyError
    store.close()
    assert stores.content(tmp_path / "store") == list(stores.rows(TREE))


def test_set_leaves_the_index_entry_of_the_old_value(store: MetadataStore) -> None:
    with store.update(b"r1") as record:
        record.set(b"b", Value.of(b"y", b"other"))
    assert ids(store.search(INDEX)) == ids(store.search(b"other")) == [b"r1"]
    store.clear_index(b"r1", INDEX)
    assert ids(store.search(INDEX)) == []
    assert ids(store.search(b"other")) == [b"r1"]


def test_clear_empties_a_value_and_removes_its_index_entry(store: MetadataStore) -> None:
    with store.update(b"r1") as record:
        record.clear(b"b")
        record.clear(b"never-was")
        assert record.get(b"b") is None
    assert store.view(b"r1")[b"b"] == store.view(b"r1")[b"never-was"] == b""
    assert list(store.get(b"r1").values) == [b"a"]
    assert ids(store.search(INDEX)) == []
    assert store.probe(INDEX)  # of the missing record


def test_changes_are_made_in_order(store: MetadataStore) -> None:
    with store.update(b"r1") as record:
        record.set(b"k", Value.of(1, b"i"))
        record.clear(b"k")
        record.set(b"k", Value.of(2))
        record.clear(b"l")
        record.set(b"l", Value.of(3, b"j"))
    assert store.get(b"r1").values[b"k"] == Value(b"2")
    assert not store.probe(b"i")
    assert store.probe(b"j")


def test_clear_removes_a_record_with_its_data(store: MetadataStore) -> None:
    with store.update(b"r1") as record:
        record.set(b"a", Value.of(1, b"stays"))
        record.set(b"a", Value.of(1, b"goes"))
    store.clear(b"r1")
    assert not store.get(b"r1").exists
    assert store.external(b"r1", b"name") is None
    assert not store.probe(b"goes")
    assert store.probe(b"stays")
    store.clear(b"r1")
    assert ids(store.all()) == [b"r2"]


def test_get_and_set_passes_the_old_value(store: MetadataStore) -> None:
    seen = []

    def change(value: Value | None) -> Value | None:
        seen.append(value)
        return Value.of(len(seen)) if len(seen) < 3 else None

    for _ in range(3):
        store.get_and_set(b"r1", b"a", change)
    assert seen == [Value(b"1"), Value(b"1"), Value(b"2")]
    assert store.view(b"r1")[b"a"] == b""

    def fail(value: Value | None) -> Value | None:
        raise KeyError

    with pytest.raises(KeyError):
        store.get_and_set(b"r1", b"a", fail)


def test_external_data_needs_no_record(store: MetadataStore) -> None:
    store.set_external(b"no-record", b"n", b"")
    assert store.external(b"no-record", b"n") == b""
    assert not store.get(b"no-record").exists
    store.clear(b"no-record")
    assert store.external(b"no-record", b"n") is None


def test_value_in_place_of_a_bucket_is_a_conflict(store: MetadataStore, tmp_path: Path) -> None:
    with pytest.raises(EditConflictError), store.update(b"stray"):
        pass
    with pytest.raises(EditConflictError), store.update(b"r1") as record:
        record.set(b"a", Value.of(3))
        record.set(b"nested", Value.of(1))
    store.close()
    assert stores.content(tmp_path / "store") == list(stores.rows(TREE))


@pytest.mark.parametrize("key", [b"", b"k" * 32769])
def test_keys_of_impossible_length_are_refused(store: MetadataStore, key: bytes) -> None:
    with pytest.raises(ValueError, match="32768"), store.update(key):
        pass
    for change in ("set", "clear"):
        with pytest.raises(ValueError, match="32768"), store.update(b"r") as record:
            record.set(key, Value()) if change == "set" else record.clear(key)
    with pytest.raises(ValueError, match="32768"), store.update(b"r") as record:
        record.set(b"k", Value.of(1, b"i" * 32766))
    assert not store.get(b"r").exists


def test_transactions_do_not_nest(store: MetadataStore) -> None:
    with store.update(b"r2") as record:
        with pytest.raises(BusyError, match="transaction"):
            store.clear(b"r1")
        record.set(b"k", Value.of(1))
    assert store.get(b"r1").exists
    assert store.get(b"r2").values == {b"k": Value(b"1")}


def test_read_only_store_refuses_writes(engine: Engine, tmp_path: Path) -> None:
    path = stores.make(tmp_path, engine, TREE)
    before = path.read_bytes()
    with open_store(path, read_only=True) as store:
        assert store.get(b"r1").exists
        with pytest.raises(BusyError, match="read-only"):
            store.clear(b"r1")
    assert path.read_bytes() == before


def test_writing_while_iterating(store: MetadataStore) -> None:
    seen = []
    for item in store.all():
        seen.append(item.id)
        store.clear(b"r2")
        with store.update(b"r3"):
            pass
    assert seen == [b"r1", b"r2"]
    assert ids(store.all()) == [b"r1", b"r3"]


# --- Wrong arguments


@pytest.mark.parametrize("engine", ["sqlite", "", "Bolt", "LMDB", b"bolt", 1, True])
def test_unknown_engine_is_refused(tmp_path: Path, engine: Any) -> None:
    choices = "must be 'bolt' or 'lmdb'"
    path = tmp_path / "store"
    with pytest.raises(ValueError, match=f"create {choices}"):
        open_store(path, create=engine)
    assert list(tmp_path.iterdir()) == []
    stores.make(tmp_path, "bolt", TREE)
    with pytest.raises(ValueError, match=f"create {choices}"):
        open_store(path, create=engine)
    with pytest.raises(ValueError, match=f"to_engine {choices}"):
        convert(path, tmp_path / "target", engine)
    for wrong in (engine, None):
        with Database.open(path) as database, pytest.raises(ValueError, match=f"engine {choices}"):
            write_store(wrong, tmp_path / "target", database.root, [], like=path)
    assert list(tmp_path.iterdir()) == [path]


def test_create_and_read_only_exclude_each_other(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="read_only"):
        open_store(tmp_path / "store", create=engine, read_only=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [None, b"store", 3])
def test_path_of_another_type_is_refused(path: Any) -> None:
    for call in (open_store, lambda path: open_store(path, create="lmdb"), lambda path: convert(path, path)):
        with pytest.raises(TypeError):
            call(path)


@pytest.mark.parametrize("wrong", ["text", None, 1, 1.5, bytearray(b"r1"), [b"r1"]])
def test_arguments_that_are_not_bytes_are_refused(store: MetadataStore, tmp_path: Path, wrong: Any) -> None:
    update = store.update(b"r1")
    with update as record:
        calls: list[Callable[[], object]] = [
            lambda: store.get(wrong),
            lambda: store.view(wrong),
            lambda: store.search(wrong),
            lambda: store.probe(wrong),
            lambda: store.external(wrong, b"name"),
            lambda: store.external(b"r1", wrong),
            lambda: store.update(wrong).__enter__(),
            lambda: store.clear(wrong),
            lambda: store.clear_index(b"r1", wrong),
            lambda: store.set_external(b"r1", wrong, b""),
            lambda: store.set_external(b"r1", b"name", wrong),
            lambda: record.set(wrong, Value.of(1)),
            lambda: record.set(b"k", wrong),
            lambda: record.set(b"k", Value(b"1", wrong)),
            lambda: record.clear(wrong),
            lambda: record.clear_index(wrong),
            lambda: record.set_external(wrong, b""),
            lambda: record.set_external(b"name", wrong),
        ]
        for call in calls:
            with pytest.raises(TypeError, match=r"must be (bytes|a Value).* not " + type(wrong).__name__):
                call()
    store.close()
    assert stores.content(tmp_path / "store") == list(stores.rows(TREE))


def test_update_keeps_everything_else(engine: Engine, tmp_path: Path) -> None:
    path = stores.make(tmp_path, engine, TREE)
    with open_store(path) as store, store.update(b"r1") as record:
        record.set(b"a", Value.of(1))
    assert stores.content(path) == list(stores.rows(TREE))


@pytest.mark.parametrize("id", [b"r", b"x" * 600])
@pytest.mark.parametrize(
    "change",
    [
        lambda store, id: _update(store, id, lambda record: record.set(b"a", Value(b"2"))),
        lambda store, id: _update(store, id, lambda record: record.set(b"new", Value(b"2", b"index"))),
        lambda store, id: _update(store, id, lambda record: record.clear(b"a")),
        lambda store, id: _update(store, id, lambda record: record.clear_index(b"index")),
        lambda store, id: _update(store, id, lambda record: record.set_external(b"name", b"new")),
        lambda store, id: store.get_and_set(id, b"a", lambda _: Value(b"2")),
        lambda store, id: store.set_external(id, b"name", b"new"),
        lambda store, id: store.clear_index(id, b"index"),
        lambda store, id: store.clear(b"other"),
    ],
)
def test_every_change_keeps_bucket_sequences(
    engine: Engine, tmp_path: Path, change: Callable[[MetadataStore, bytes], object], id: bytes
) -> None:
    record = PlainBucket({b"a": encode_value(1), b"nested": PlainBucket({b"k": b"v"}, 2)}, 3)
    tree = PlainBucket(
        {
            b"_main": PlainBucket({id: record, b"other": PlainBucket({}, 4)}, 5),
            b"_index": PlainBucket({b"index::" + id: b"", b"index::z": b""}, 6),
            b"_external": PlainBucket(
                {id: PlainBucket({b"name": b"old"}, 7), b"other": PlainBucket({}, 8)}, 9
            ),
            b"foreign": PlainBucket({}, 10),
        }
    )
    path = stores.make(tmp_path, engine, tree)
    with open_store(path) as store:
        change(store, id)
    before, after = list(stores.rows(tree)), stores.content(path)
    assert after != before
    left = {where for where, *_ in after}
    assert [row for row in after if row[1] is None] == [
        row for row in before if row[1] is None and row[0] in left
    ]
    assert {where for where, *_ in before} - left <= {(b"_main", b"other"), (b"_external", b"other")}


def _update(store: MetadataStore, id: bytes, change: Callable[[RecordUpdate], object]) -> None:
    with store.update(id) as record:
        change(record)
