"""Both engines and a plain model go through the same operations and give the same answers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import stores
from buildkit_migrate.errors import BrokenRecordsError, EditConflictError
from buildkit_migrate.model import Problem, Reason
from buildkit_migrate.store.engines import open_store
from buildkit_migrate.store.interface import MetadataStore, RecordUpdate
from buildkit_migrate.values import gojson
from buildkit_migrate.values.gojson import Value, encode_value
from trees import PlainBucket

IDS = [b"r", b"sha256:abc", b"stray", *(b"x" * n for n in (508, 509, 510, 511, 600)), b"x" * 600 + b"1"]
KEYS = [b"a", b"b", b"nested", b"k" * 700]
INDEXES = [b"i", b"i:", b"i::j", b"", b"y" * 500, b"y" * 505, b"y" * 600, b"y" * 600 + b"::z"]
NAMES = [b"n", b"m" * 600]
STORED = [b"", encode_value(1), encode_value(b"t", b"i::j"), encode_value(b"", b"y" * 600), b"{", b"null"]

values = st.builds(
    Value,
    st.sampled_from([None, b"null", b"1", b"[1,{}]", b'"\\u003e"']),
    st.sampled_from(INDEXES),
)
ids, keys, names = st.sampled_from(IDS), st.sampled_from(KEYS), st.sampled_from(NAMES)
data = st.binary(max_size=9)
sequences = st.integers(1, 9)  # never 0, the sequence of a new bucket
seldom = st.sampled_from([True, *[False] * 7])


@st.composite
def trees(draw: st.DrawFn) -> PlainBucket:
    """A store, sound or not, with content that BuildKit would not write."""
    node = st.sampled_from(STORED) | st.builds(PlainBucket, sequence=sequences)
    record = st.builds(PlainBucket, st.dictionaries(keys, node, max_size=3), sequences)
    tree = PlainBucket()
    if not draw(seldom):
        plain_or_record = record | record | st.just(b"plain")
        main = draw(st.dictionaries(ids, plain_or_record, min_size=2, max_size=6))
        tree.items[b"_main"] = PlainBucket(dict(main), draw(sequences))
    if draw(st.booleans()):
        index_keys = st.builds(lambda index, id: index + b"::" + id, st.sampled_from(INDEXES), ids)
        index = dict.fromkeys(draw(st.lists(index_keys | ids, max_size=5)), b"")
        tree.items[b"_index"] = PlainBucket(dict(index), draw(sequences))
    if draw(st.booleans()):
        external = st.builds(PlainBucket, st.dictionaries(names, data, max_size=2), sequences)
        tree.items[b"_external"] = PlainBucket(
            dict(draw(st.dictionaries(ids, external | data, max_size=3))), draw(sequences)
        )
    tree.items |= draw(
        st.dictionaries(st.sampled_from([b"A", b"_j", b"_z", b"z" * 600]), record | data, max_size=2)
    )
    return tree


class Model:
    """The store interface on a `PlainBucket`, in the words of the specification."""

    def __init__(self, tree: PlainBucket) -> None:
        self.tree = tree

    def bucket(self, *path: bytes) -> dict[bytes, bytes | PlainBucket] | None:
        node: bytes | PlainBucket | None = self.tree
        for name in path:
            node = node.items.get(name) if isinstance(node, PlainBucket) else None
        return node.items if isinstance(node, PlainBucket) else None

    def make_bucket(self, *path: bytes) -> dict[bytes, bytes | PlainBucket]:
        node = self.tree
        for name in path:
            inner = node.items.setdefault(name, PlainBucket())
            if isinstance(inner, bytes):
                raise EditConflictError("")
            node = inner
        return node.items

    def decoded(self, id: bytes) -> tuple[dict[bytes, Value], bytes | None] | None:
        """Values up to the first that does not decode, and the key of that one."""
        record = self.bucket(b"_main", id)
        if record is None:
            return None
        found = {}
        for key, value in sorted(record.items(), key=lambda item: item[0]):
            if isinstance(value, bytes) and value:
                try:
                    found[key] = gojson.decode(value)
                except gojson.UndecodableValueError:
                    return found, key
        return found, None

    def items(self, record_ids: list[bytes]) -> Any:
        answer: list[Any] = []
        for id in record_ids:
            decoded = self.decoded(id)
            if decoded is None:
                continue
            if decoded[1] is not None:
                return Problem(id, Reason.UNDECODABLE, decoded[1])
            answer.append((id, decoded[0]))
        return answer

    def all(self) -> Any:
        return self.items(sorted(self.bucket(b"_main") or {}))

    def search(self, index: bytes, prefix_only: bool) -> Any:
        prefix = index if prefix_only else index + b"::"
        matching = [key for key in sorted(self.bucket(b"_index") or {}) if key.startswith(prefix)]
        return self.items([key.rpartition(b"::")[2] for key in matching if b"::" in key])

    def probe(self, index: bytes) -> bool:
        index_keys = self.bucket(b"_index") or {}
        return self.bucket(b"_main") is not None and any(key.startswith(index + b"::") for key in index_keys)

    def external(self, id: bytes, name: bytes) -> bytes | None:
        found = (self.bucket(b"_external", id) or {}).get(name)
        return found if isinstance(found, bytes) else None

    def put(self, value: bytes, key: bytes, *path: bytes) -> None:
        bucket = self.make_bucket(*path)
        if isinstance(bucket.get(key), PlainBucket):
            raise EditConflictError("")
        bucket[key] = value

    def delete_index(self, index: bytes, id: bytes) -> None:
        self.make_bucket(b"_index").pop(index + b"::" + id, None)

    def update(self, id: bytes, steps: list[tuple[Any, ...]]) -> None:
        decoded = self.decoded(id)
        known = {} if decoded is None else dict(decoded[0])
        self.make_bucket(b"_main", id)
        for name, *arguments in steps:
            match name:
                case "set":
                    key, value = arguments
                    self.put(gojson.encode(value), key, b"_main", id)
                    known[key] = value
                    if value.index:
                        self.put(b"", value.index + b"::" + id, b"_index")
                case "clear":
                    (key,) = arguments
                    if key in known and known[key].index:
                        self.delete_index(known[key].index, id)
                    known.pop(key, None)
                    self.put(b"", key, b"_main", id)
                case "clear_index":
                    self.delete_index(arguments[0], id)
                case _:
                    self.put(arguments[1], arguments[0], b"_external", id)

    def clear(self, id: bytes) -> None:
        if self.bucket(b"_external", id) is not None:
            self.make_bucket(b"_external").pop(id)
        decoded = self.decoded(id)
        if decoded is not None:
            for value in decoded[0].values():
                if value.index:
                    self.delete_index(value.index, id)
            self.make_bucket(b"_main").pop(id)


def plain_answer(question: Callable[[], Any]) -> Any:
    """Items in plain form, or the broken record that stopped it."""
    try:
        return [(item.id, dict(item.values)) for item in question()]
    except BrokenRecordsError as error:
        return error.problems[0]


steps = st.lists(
    st.tuples(st.just("set"), keys, values)
    | st.tuples(st.just("clear"), keys)
    | st.tuples(st.just("clear_index"), st.sampled_from(INDEXES))
    | st.tuples(st.just("set_external"), names, data),
    max_size=5,
)


class Stores(RuleBasedStateMachine):
    """Stores of both engines beside the model."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model(PlainBucket())
        self.directory = tempfile.TemporaryDirectory()
        self.paths: list[Path] = []
        self.opened: list[MetadataStore] = []

    @initialize(tree=trees())
    def make(self, tree: PlainBucket) -> None:
        self.model = Model(tree)
        for engine in stores.ENGINES:
            directory = Path(self.directory.name) / engine
            directory.mkdir()
            self.paths.append(stores.make(directory, engine, tree))
        self.opened = [open_store(path) for path in self.paths]

    def write(
        self, change: Callable[[MetadataStore], object], model_change: Callable[[Model], object]
    ) -> None:
        """Runs a transaction on all: either all carry it out, or all refuse and change nothing."""
        before = list(stores.rows(self.model.tree))
        refused = False
        try:
            model_change(self.model)
        except EditConflictError:
            refused = True
            self.model.tree = _tree_of(before)
        for store in self.opened:
            try:
                change(store)
            except EditConflictError:
                assert refused
            else:
                assert not refused

    @rule(id=ids, steps=steps)
    def update(self, id: bytes, steps: list[tuple[Any, ...]]) -> None:
        def change(store: MetadataStore) -> None:
            with store.update(id) as record:
                _carry_out(record, steps)

        self.write(change, lambda model: model.update(id, steps))

    @rule(id=ids, steps=steps)
    def update_that_fails(self, id: bytes, steps: list[tuple[Any, ...]]) -> None:
        for store in self.opened:
            try:
                with store.update(id) as record:
                    _carry_out(record, steps)
                    raise KeyError
            except KeyError:
                pass

    @rule(id=ids, key=keys, value=values | st.none())
    def get_and_set(self, id: bytes, key: bytes, value: Value | None) -> None:
        seen = []

        def change(store: MetadataStore) -> None:
            store.get_and_set(id, key, lambda old: seen.append(old) or value)  # type: ignore[func-returns-value]

        decoded = self.model.decoded(id)
        expected = None if decoded is None else decoded[0].get(key)
        step = ("clear", key) if value is None else ("set", key, value)
        self.write(change, lambda model: model.update(id, [step]))
        assert seen == [expected] * 2

    @rule(id=ids)
    def clear(self, id: bytes) -> None:
        self.write(lambda store: store.clear(id), lambda model: model.clear(id))

    @precondition(lambda self: self.model.bucket(b"_external"))
    @rule(data=st.data())
    def clear_a_record_with_external_data(self, data: st.DataObject) -> None:
        self.clear(data.draw(st.sampled_from(sorted(self.model.bucket(b"_external") or ()))))

    @rule(id=ids, index=st.sampled_from(INDEXES))
    def clear_index(self, id: bytes, index: bytes) -> None:
        self.write(lambda store: store.clear_index(id, index), lambda model: model.delete_index(index, id))

    @rule(id=ids, name=names, data=data)
    def set_external(self, id: bytes, name: bytes, data: bytes) -> None:
        self.write(
            lambda store: store.set_external(id, name, data),
            lambda model: model.put(data, name, b"_external", id),
        )

    @rule()
    def open_again(self) -> None:
        for number, path in enumerate(self.paths):
            self.opened[number].close()
            self.opened[number] = open_store(path)

    @invariant()
    def answers_are_the_same(self) -> None:
        for store in self.opened:
            for id in IDS:
                item, decoded = store.get(id), self.model.decoded(id)
                assert (item.exists, dict(item.values)) == (
                    decoded is not None,
                    decoded[0] if decoded else {},
                )
                for name in NAMES:
                    assert store.external(id, name) == self.model.external(id, name)
            assert plain_answer(store.all) == self.model.all()
            for index in [*INDEXES, b"y" * 510, b"y" * 509 + b"z"]:
                assert store.probe(index) == self.model.probe(index)
                for prefix_only in (False, True):
                    found = plain_answer(lambda: store.search(index, prefix_only=prefix_only))  # noqa: B023
                    assert found == self.model.search(index, prefix_only)

    def teardown(self) -> None:
        for store in self.opened:
            store.close()
        try:
            for path in self.paths:
                assert stores.content(path) == list(stores.rows(self.model.tree))
        finally:
            self.directory.cleanup()


def _carry_out(record: RecordUpdate, steps: list[tuple[Any, ...]]) -> None:
    for name, *arguments in steps:
        getattr(record, name)(*arguments)


def _tree_of(rows: list[Any]) -> PlainBucket:
    root = PlainBucket()
    for path, key, value in rows:
        node = root
        for name in path:
            inner = node.items.setdefault(name, PlainBucket())
            assert isinstance(inner, PlainBucket)
            node = inner
        if key is None:
            node.sequence = value
        else:
            node.items[key] = value
    return root


Stores.TestCase.settings = settings(max_examples=30, stateful_step_count=15)
TestStores = Stores.TestCase
