"""The bolt store answers as BuildKit's own (spec buildkit-metadata, section 1)."""

from __future__ import annotations

from pathlib import Path

import pytest

import ondisk
from buildkit_migrate._native.bolt import Reader
from buildkit_migrate.bolt import Database, encode
from buildkit_migrate.cli.render import error_lines
from buildkit_migrate.errors import BrokenRecordsError
from buildkit_migrate.model import Problem, Reason
from buildkit_migrate.store.bolt_store import BoltStore, write_store
from buildkit_migrate.store.interface import Item, ReadableStore
from buildkit_migrate.values.gojson import Value, encode_value
from dicts import file_of
from plain_bbolt import BucketDict

RECORD: BucketDict = {
    b"a": encode_value(1),
    b"b": encode_value(b"x", b"the::index"),
    b"cleared": b"",
    b"nested": {b"k": b"v"},
}
STORE: BucketDict = {
    b"_main": {
        b"r1": RECORD,
        b"r2": {},
        b"bad": {b"a": encode_value(1), b"b": b"{", b"c": b"{}"},
        b"stray": b"x",
    },
    b"_index": {
        b"the::index::r1": b"",
        b"the::index::sha256:abc": b"",
        b"the::index:more::r2": b"",
        b"the::index": b"",
        b"theatre": b"",
        b"only-missing::gone": b"",
    },
    b"_external": {b"r1": {b"name": b"data", b"empty": b"", b"nested": {}}},
}


def store_of(tree: BucketDict) -> ReadableStore:
    return BoltStore(Reader(file_of(tree)).root)


def without_bad() -> BucketDict:
    main = STORE[b"_main"]
    assert isinstance(main, dict)
    return {**STORE, b"_main": {id: record for id, record in main.items() if id != b"bad"}}


def ids(items: object) -> list[bytes]:
    assert hasattr(items, "__iter__")
    return [item.id for item in items]


def test_get_returns_decoded_values_and_indexes() -> None:
    item = store_of(STORE).get(b"r1")
    assert item.exists
    assert item.values == {b"a": Value(b"1"), b"b": Value(b'"x"', b"the::index")}
    assert item.indexes() == [b"the::index"]


def test_get_without_record_returns_an_empty_item() -> None:
    for tree in (STORE, {}):
        for id in (b"gone", b"stray"):
            assert store_of(tree).get(id) == Item(id, exists=False)


def test_get_ends_before_an_undecodable_value() -> None:
    item = store_of(STORE).get(b"bad")
    assert (item.exists, list(item.values)) == (True, [b"a"])


def test_all_returns_records_in_order() -> None:
    items = list(store_of(without_bad()).all())
    assert ids(items) == [b"r1", b"r2"]
    assert all(item.exists for item in items)
    assert list(store_of({}).all()) == []


def test_all_names_the_undecodable_value() -> None:
    with pytest.raises(BrokenRecordsError, match=r"bad.*'b'") as caught:
        list(store_of(STORE).all())
    assert caught.value.problems == (Problem(b"bad", Reason.UNDECODABLE, b"b"),)
    # It can be shown as any other error of this kind.
    assert caught.value.as_dict()["problems"] == [
        {"record": "bad", "reason": "undecodable-value", "detail": "b"}
    ]
    assert "    bad: undecodable-value (b)" in list(error_lines(caught.value, verbose=False))


def test_search_matches_whole_indexes() -> None:
    store = store_of(STORE)
    assert ids(store.search(b"the::index")) == [b"r1"]  # of "::index::r1", not of ":more::r2"
    assert ids(store.search(b"the::index:more")) == [b"r2"]
    assert ids(store.search(b"only-missing")) == []
    assert ids(store.search(b"nothing")) == []


def test_prefix_search_skips_keys_without_a_record() -> None:
    store = store_of(STORE)
    assert ids(store.search(b"the::index", prefix_only=True)) == [b"r1", b"r2"]
    assert ids(store.search(b"the", prefix_only=True)) == [b"r1", b"r2"]  # and "theatre" does not hang it


@pytest.mark.parametrize("missing", [b"_main", b"_index"])
def test_search_and_probe_need_both_buckets(missing: bytes) -> None:
    store = store_of({name: bucket for name, bucket in STORE.items() if name != missing})
    assert ids(store.search(b"the::index")) == []
    assert not store.probe(b"the::index")


def test_probe_needs_the_whole_index() -> None:
    store = store_of(STORE)
    assert store.probe(b"the::index")
    assert store.probe(b"only-missing")
    assert not store.probe(b"the::ind")


def test_external_returns_data_or_none() -> None:
    store = store_of(STORE)
    assert store.external(b"r1", b"name") == b"data"
    assert store.external(b"r1", b"empty") == b""
    assert store.external(b"r1", b"nested") is None
    assert store.external(b"r1", b"gone") is None
    assert store.external(b"gone", b"name") is None
    assert store_of({}).external(b"r1", b"name") is None


def test_migrated_records_are_found_by_chain_id(tmp_path: Path) -> None:
    root = ondisk.sample(tmp_path)
    assert root.migrate().returncode == 0
    with Database.open(root.v2) as database:
        store = BoltStore(database.root)
        items = list(store.all())
        assert items
        found = 0
        for item in items:
            for index in item.indexes():
                if index.startswith((b"chainid:", b"blobchainid:")):
                    assert item.id in ids(store.search(index))
                    found += 1
        assert found


def test_write_store_applies_edits(tmp_path: Path) -> None:
    source = tmp_path / "v1"
    source.write_bytes(file_of(without_bad()))
    with Database.open(source) as database:
        edits = encode({b"_main": {b"r2": {b"k": encode_value(True)}, b"r1": None}})
        write_store(tmp_path / "v2", database.root, edits, like=source).close()
    with Database.open(tmp_path / "v2") as database:
        store = BoltStore(database.root)
        assert ids(store.all()) == [b"r2"]
        assert store.get(b"r2").values == {b"k": Value(b"true")}
