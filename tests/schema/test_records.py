"""The records of any store, against a plain statement of how Go decodes each value."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildkit_migrate.bolt import Reader
from buildkit_migrate.schema.records import (
    KEYS,
    Cell,
    External,
    IndexEntries,
    Kind,
    Records,
    index_differences,
    kind_of,
)
from buildkit_migrate.values import gojson, keys
from dicts import file_of
from strategies import decodable_values, undecodable_values

Store = dict[bytes, "bytes | dict[bytes, bytes | dict[bytes, bytes]]"]

TEXTS = st.sampled_from([b"", b"a", b"x<y", "\u00fc\u2028".encode(), b"\xff\xe2\x82", b'"\\\n', b"r1"])
RAW = st.sampled_from(
    [
        *(b"null", b"true", b"false", b"0", b"-1", b"-0", b"1.0", b"1e3", b"01", b"[]", b"{}", b"tru", b'"'),
        *(b"9223372036854775807", b"9223372036854775808", b"-9223372036854775808", b"-9223372036854775809"),
        *(b"[null]", b'["a",null]', b"[1]", b'["a","b"', b'["a"]]', b'["\\u0041","\\ud800"]', b'["a" ,"b"]'),
        *(
            b'"\\ud83d\\ude00"',
            b'"\\ud83d"',
            b'"\\ude00\\ud83d\\u0041"',
            b'"\\x"',
            b'"\x7f"',
            b'"a\\/b\\b\\t"',
        ),
        *(b'["\\x"]', b'["\\u00"]', b'["a\x01"]', b"[,]", b'["a",]', b'[,"a"]', b'["a""b"]', b'["a"] '),
    ]
) | st.lists(TEXTS, max_size=3).map(lambda texts: b"[" + b",".join(map(gojson.encode_string, texts)) + b"]")
FORMS = st.sampled_from(
    [b'{"value":%b}', b'{"value":%b,"index":"i::j"}', b'{"index":"\\u0026","VALUE": %b }']
)
VALUES = (
    st.just(b"")
    | st.tuples(FORMS, RAW | TEXTS.map(gojson.encode_string) | st.binary(max_size=4)).map(
        lambda it: it[0] % it[1]
    )
    | decodable_values()
    | undecodable_values
)
ALL_KEYS = st.sampled_from([*KEYS, b"cache.unknown", b"cache-dir:x", b"local.sharedKey:a:", b"k"])
RECORDS = st.dictionaries(ALL_KEYS, VALUES | st.just({b"a": b"b"}), max_size=6)
STORES = st.dictionaries(st.sampled_from([b"r1", b"r2", b"a::b", b"\xff"]), RECORDS | st.just(b"plain"))


def opened(main: Mapping[bytes, object], index: Mapping[bytes, object] | None = None) -> Records:
    return Records(Reader(file_of({b"_main": main, b"_index": index or {}})).root)  # type: ignore[dict-item]


INTO: dict[Kind, Callable[[bytes | None], object]] = {
    Kind.TEXT: gojson.as_string,
    Kind.INTEGER: gojson.as_integer,
    Kind.FLAG: gojson.as_flag,
    Kind.TEXTS: gojson.as_strings,
}


def decoded(key: bytes, stored: object) -> object:
    """None where there is nothing, or nothing that decodes."""
    kind = kind_of(key)
    if not stored or not isinstance(stored, bytes) or kind is None or kind == Kind.ANY:
        return None
    try:
        return INTO[kind](gojson.decode(stored).raw)
    except gojson.UndecodableValueError:
        return None


def is_sound(stored: bytes) -> bool:
    try:
        gojson.decode(stored)
    except gojson.UndecodableValueError:
        return False
    return True


@given(STORES)
def test_values_are_what_go_decodes(store: Store) -> None:
    records = opened(store)
    rows = {id: record for id, record in sorted(store.items()) if isinstance(record, dict)}
    cells = [
        Cell(row, key, value if isinstance(value, bytes) else None)
        for row, record in enumerate(rows.values())
        for key, value in sorted(record.items())
    ]
    assert list(records.ids) == list(rows)
    assert records.plain_keys == [id for id, record in sorted(store.items()) if isinstance(record, bytes)]
    assert records.nested == [cell for cell in cells if cell.value is None]
    assert records.unknown == [cell for cell in cells if cell.value is not None and kind_of(cell.key) is None]
    assert records.undecodable == [cell for cell in cells if cell.value and not is_sound(cell.value)]
    typed = [cell for cell in cells if kind_of(cell.key) not in (None, Kind.ANY)]
    assert records.mistyped == [
        cell
        for cell in typed
        if cell.value and is_sound(cell.value) and decoded(cell.key, cell.value) is None
    ]
    for key, kind in KEYS.items():
        stored = [record.get(key) or None for record in rows.values()]
        expected = [decoded(key, value) for value in stored]
        assert list(records.has(key)) == [row for row, it in enumerate(stored) if isinstance(it, bytes)]
        if kind == Kind.ANY:
            assert list(records.stored(key)) == [it if isinstance(it, bytes) else None for it in stored]
        elif kind == Kind.TEXT:
            assert list(records.text(key)) == expected
        elif kind == Kind.INTEGER:
            values, known = records.integer(key)
            assert [values[row] if row in known else None for row in range(len(records))] == expected
            assert all(values[row] == 0 for row in ~known)
        elif kind == Kind.FLAG:
            assert list(records.flag(key)) == [row for row, flag in enumerate(expected) if flag]
        elif kind == Kind.TEXTS:
            found = records.lists(key)
            assert [*zip(found.rows, found.values, strict=True)] == [
                (row, text)
                for row, texts in enumerate(expected)
                for text in (texts if isinstance(texts, list) else ())
            ]


@given(STORES, st.data())
def test_index_entries_that_are_missing_or_nobody_s(store: Store, data: st.DataObject) -> None:
    wanted = {}
    rows = [(id, record) for id, record in sorted(store.items()) if isinstance(record, dict)]
    for row, (id, record) in enumerate(rows):
        for key, value in record.items():
            if (
                isinstance(value, bytes)
                and value
                and is_sound(value)
                and (index := gojson.decode(value).index)
            ):
                wanted[row, key, index] = keys.index_key(index, id)
    other = st.sampled_from([b"i::j::r1", b"x", b"x::r2", b"x::gone", b"::", b"i::j::a::b"])
    there = data.draw(st.sets(st.sampled_from([*wanted.values(), b"x::r1"]) | other))
    root = Reader(file_of({b"_main": store, b"_index": dict.fromkeys(there, b"")})).root  # type: ignore[dict-item]
    entries = IndexEntries(root)
    found = index_differences(Records(root), entries)
    assert list(found.missing) == sorted(value for value, entry in wanted.items() if entry not in there)
    ids = {id for id, _ in rows}
    assert list(found.stray) == [
        row
        for row, entry in enumerate(sorted(there))
        if entry not in wanted.values() and keys.record_of_index_key(entry) in ids
    ]
    assert list(entries.record) == [keys.record_of_index_key(entry) for entry in sorted(there)]


@given(
    STORES,
    st.none() | st.sets(st.sampled_from([*KEYS])),
    st.lists(st.sets(st.sampled_from([*KEYS])), max_size=2),
)
def test_columns_are_the_same_whichever_keys_are_read_at_once_or_forgotten(
    store: Store, kept: set[bytes] | None, forgotten: list[set[bytes]]
) -> None:
    root = Reader(file_of({b"_main": store})).root
    some, all_keys = Records(root, kept), Records(root, KEYS)
    for some_keys in forgotten:
        some.forget(some_keys)
        some.has(min(some_keys, default=b"cache.parent"))
    for key, kind in KEYS.items():
        assert some.has(key) == all_keys.has(key)
        if kind == Kind.ANY:
            assert list(some.stored(key)) == list(all_keys.stored(key))
        if kind == Kind.TEXT:
            assert list(some.text(key)) == list(all_keys.text(key))
    assert (some.undecodable, some.mistyped, some.unknown) == (
        all_keys.undecodable,
        all_keys.mistyped,
        all_keys.unknown,
    )


def test_only_known_keys_have_columns() -> None:
    with pytest.raises(KeyError, match="k"):
        opened({b"r": {b"k": b'{"value":1}'}}).integer(b"k")


def test_a_store_without_buckets_has_no_records() -> None:
    root = Reader(file_of({})).root
    records = Records(root)
    assert (len(records), list(records.ids), records.plain_keys) == (0, [], [])
    assert list(records.text(b"cache.parent")) == []
    assert list(records.rows_of([b"a", b"", None])) == [-1, -2, -2]
    assert index_differences(records, IndexEntries(root)) == ([], [])
    assert len(External(root)) == 0


def test_bytes_of_external_data() -> None:
    tree = {b"_external": {b"r": {b"ab": b"cde", b"f": b""}, b"s": {}, b"plain": b"x"}}
    external = External(Reader(file_of(tree)).root)
    assert list(external.ids) == [b"r", b"s"]
    assert list(external.sizes) == [6, 0]
