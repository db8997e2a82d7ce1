"""Misused native objects raise an exception and do not crash the process."""

from __future__ import annotations

import _thread
import contextlib
import copy
import gc
import importlib
import operator
import pickle
import pkgutil
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NoReturn

import pytest

from buildkit_migrate import _native
from buildkit_migrate._native import chain, columns, guard, numbers, solver
from buildkit_migrate._native.bolt import Bucket, Column, Reader, check, items, scan
from buildkit_migrate._native.building import Builder, rewrite
from buildkit_migrate._native.cells import Cells
from buildkit_migrate._native.facts import Records, Survey
from buildkit_migrate._native.graph import Graph
from buildkit_migrate._native.packing import Packer, push, push_all
from buildkit_migrate._native.plan import Plan
from buildkit_migrate._native.salvaging import Damaged
from buildkit_migrate._native.tables import read
from buildkit_migrate.bolt.edits import encode
from buildkit_migrate.errors import CorruptDatabaseError
from dicts import Image, file_of, tree_of
from plain_bbolt import BucketDict

RECORDS: BucketDict = {b"_main": {b"r%03d" % i: {b"k": b'{"value":1}'} for i in range(300)}}
FILE = file_of(RECORDS, 1024)


def never(form: int, value: bytes) -> NoReturn:
    """Decoder of odd values, for records that have none."""
    raise AssertionError(value)


def plan() -> Plan:
    return Plan(Records(Reader(FILE), never), Survey("overlayfs", [(b"r000", 3, b"", False)], [], []))


MADE: dict[str, Callable[[], Any]] = {
    "Reader": lambda: Reader(FILE),
    "Bucket": lambda: Bucket(Reader(FILE)),
    "Bucket of a reader": lambda: Reader(FILE).root,
    "items": lambda: Reader(FILE).root.items(),
    "Column": lambda: scan(Reader(FILE).root, [])[0],
    "Builder": lambda: Builder(bytearray().extend),
    "Damaged": lambda: Damaged(FILE),
    "Packer": lambda: Packer(Reader(FILE)),
    "batches": lambda: Packer(reader := Reader(FILE)).batches(reader.root, b"t"),
    "Records": lambda: Records(Reader(FILE), never),
    "Survey": lambda: Survey("overlayfs", [], [], []),
    "Survey offline": lambda: Survey.offline(reader := Reader(FILE), reader, "buildkit", "overlayfs"),
    "Plan": plan,
    "store edits": lambda: plan().store_edits(),
    "containerd edits": lambda: plan().containerd_edits(b"", b""),
    "Batch": lambda: chain.Batch([-1], [b"d"], [b"b"]),
    "Mask": lambda: columns.Mask(3, [1]),
    "Index": lambda: columns.Index([b"a", None]),
    "Graph": lambda: Graph(3),
    "Cells": lambda: Cells(reader := Reader(FILE), reader.root.bucket(b"_main"), [(b"k", 1, True)]),
}

USES: dict[type, list[Callable[[Any], object]]] = {
    Reader: [
        lambda it: it.root,
        check,
        lambda it: Records(it, never),
        Packer,
        lambda it: Survey.offline(it, None, "n", "s"),
    ],
    Damaged: [lambda it: it.salvage(Image().builder, 1)],
    Bucket: [
        lambda it: it.get(b"k"),
        lambda it: it.bucket(b"k"),
        lambda it: list(it.items()),
        lambda it: scan(it, []),
        lambda it: read(it, (), ()),
        items,
        lambda it: rewrite(it, Image().builder, []),
    ],
    Column: [
        len,
        list,
        lambda it: it[0],
        columns.present,
        columns.lengths,
        numbers.times,
        numbers.links,
        columns.Index,
        lambda it: columns.Index([b"a"]).rows(it),
        lambda it: columns.take(it, [0]),
        lambda it: columns.equal(it, it),
        lambda it: columns.equal_to(it, b"a"),
        lambda it: columns.starting_with(it, b"a"),
        lambda it: columns.split_last(it, b"a"),
        lambda it: numbers.integers(it, True),
        lambda it: numbers.small(it, 3),
        numbers.counters,
        lambda it: solver.plain_results(it, it),
        solver.plain_links,
    ],
    Builder: [
        lambda it: it.put(b"k", b""),
        lambda it: it.open_bucket(b"k"),
        lambda it: it.close_bucket(),
        lambda it: it.finish(),
        lambda it: rewrite(None, it, []),
        lambda it: push(it, b"k", b"\0"),
        lambda it: push_all(it, [(b"tk", b"\0")], b"t"),
    ],
    Packer: [lambda it: list(it.batches(Reader(FILE).root, b"t"))],
    Records: [len, lambda it: list(it.ids()), lambda it: Plan(it, Survey("s", [], [], []))],
    Survey: [
        lambda it: Plan(Records(Reader(FILE), never), it),
        lambda it: it.snapshotter,
        lambda it: it.namespace,
    ],
    Plan: [lambda it: it.counts, lambda it: it.texts(0), lambda it: it.store_edits()],
    chain.Batch: [
        lambda it: it.run(),
        len,
        lambda it: it.states(),
        lambda it: it.ids(0),
        lambda it: it.results(),
    ],
    columns.Mask: [
        len,
        bool,
        list,
        lambda it: 0 in it,
        lambda it: it.add(0),
        lambda it: ~it,
        lambda it: it & columns.Mask(0),
        lambda it: columns.Mask(0) | it,
        lambda it: it == columns.Mask(0),
        lambda it: numbers.chosen(array("i"), it),
        lambda it: it.take([0]),
        lambda it: Graph(0).reached(it),
        lambda it: chain.following(it, [], [], [], [], []),
    ],
    columns.Index: [lambda it: it.row(b"a"), lambda it: it.rows([b"a"])],
    Graph: [
        lambda it: it.size,
        lambda it: it.add([0], [0]),
        lambda it: it.reached(columns.Mask(0)),
        lambda it: it.cyclic(),
    ],
    Cells: [
        len,
        lambda it: it.ids,
        lambda it: it.odd(),
        lambda it: it.want(0, b""),
        lambda it: it.compare(columns.column([])),
        lambda it: it.drop([b"k"]),
        lambda it: it.stored(b"k"),
        lambda it: it.has(b"k"),
        lambda it: it.texts(b"k", {}),
        lambda it: it.integers(b"k"),
        lambda it: it.lists(b"k"),
    ],
}


@pytest.mark.parametrize("name", MADE)
def test_object_is_initialised_once(name: str) -> None:
    made = MADE[name]()
    of_its_class: dict[type, tuple[object, ...]] = {
        Reader: (FILE,),
        Bucket: (Reader(FILE),),
        Builder: (bytearray().extend,),
        Packer: (Reader(FILE),),
        Records: (Reader(FILE), never),
        Survey: ("overlayfs", [], [], []),
        Plan: (Records(Reader(FILE), never), Survey("overlayfs", [], [], [])),
        chain.Batch: ([-1], [b"d"], [b"b"]),
    }
    for arguments in ((), (None,), *of_its_class.values()):
        with pytest.raises(TypeError):
            made.__init__(*arguments)
    if type(made) in of_its_class:
        type(made)(*of_its_class[type(made)])
        with pytest.raises(TypeError, match="once"):
            made.__init__(*of_its_class[type(made)])


@pytest.mark.parametrize("name", MADE)
def test_objects_can_not_be_copied_or_pickled(name: str) -> None:
    made = MADE[name]()
    copies: list[Callable[[Any], object]] = [copy.copy, copy.deepcopy, operator.methodcaller("__reduce__")]
    copies += [partial(pickle.dumps, protocol=protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for duplicate in copies:
        with pytest.raises(TypeError):
            duplicate(made)


@pytest.mark.parametrize("name", MADE)
def test_uninitialised_object_refuses_use(name: str) -> None:
    kind = type(MADE[name]())
    try:
        empty = kind.__new__(kind)
    except TypeError:
        return
    for use in [*USES.get(kind, []), *([next] if hasattr(kind, "__next__") else [])]:
        with pytest.raises(TypeError, match="not initialised"):
            use(empty)


@pytest.mark.parametrize("kind", USES)
def test_classes_can_not_be_subclassed(kind: type) -> None:
    with pytest.raises(TypeError):
        type("Derived", (kind,), {})


def test_every_native_class_is_in_the_table() -> None:
    modules = [
        importlib.import_module(f"buildkit_migrate._native.{module.name}")
        for module in pkgutil.iter_modules(_native.__path__)
    ]
    classes = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, guard.Guarded)
    } - {guard.Guarded, guard.GuardedIterator}
    made = {type(make()) for make in MADE.values()}
    assert {kind for kind in classes if not kind.__name__.startswith("_")} <= {*made} & {*USES}
    assert {kind for kind in classes if kind.__name__.startswith("_")} <= made
    assert all(issubclass(kind, guard.Guarded) for kind in made)


# --- Called from a callback, or by another thread during a call


def in_another_thread(call: Callable[[], object]) -> Callable[[], object]:
    """The same call in another thread; raises what it raised."""

    def run() -> object:
        outcome: list[BaseException] = []

        def work() -> None:
            try:
                call()
            except BaseException as error:
                outcome.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if outcome:
            raise outcome[0]
        return None

    return run


WAYS: dict[str, Callable[[Callable[[], object]], Callable[[], object]]] = {
    "itself": lambda call: call,
    "a thread": in_another_thread,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("use", range(len(USES[Builder])))
def test_builder_refuses_calls_from_its_sink(way: str, use: int) -> None:
    refused = []

    def sink(block: memoryview) -> None:
        try:
            WAYS[way](lambda: USES[Builder][use](builder))()
        except RuntimeError as error:
            refused.append(str(error))
        data.extend(block)

    data = bytearray()
    builder = Builder(sink, 1024)
    values: BucketDict = {b"%06d" % i: b"v" * 900 for i in range(9000)}  # more than one block
    for key, value in values.items():
        assert isinstance(value, bytes)
        builder.put(key, value)
    metas = builder.finish()
    data[: len(metas)] = metas
    assert len(refused) > 1
    assert all("in use" in text for text in refused)
    assert tree_of(Reader(bytes(data)).root) == values


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("use", range(len(USES[Builder])))
def test_builder_refuses_calls_from_the_edits_of_its_rewrite(way: str, use: int) -> None:
    def edits() -> Iterator[bytes]:
        yield from encode({b"a": b"1"})
        WAYS[way](lambda: USES[Builder][use](builder))()

    builder = Image().builder
    with pytest.raises(RuntimeError, match="Builder is in use"):
        rewrite(None, builder, edits())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("use", range(5))
def test_reader_refuses_use_from_the_sink_of_its_rewrite(way: str, use: int) -> None:
    uses: list[Callable[[], object]] = [
        lambda: reader.root.get(b"k"),
        lambda: list(reader.root.items()),
        lambda: check(reader),
        lambda: Records(reader, never),
        lambda: list(Packer(reader).batches(reader.root, b"t")),
    ]
    reader = Reader(file_of({b"%06d" % i: b"v" * 900 for i in range(9000)}, 1024))  # more than one block
    builder = Builder(lambda _: WAYS[way](uses[use])())
    with pytest.raises(RuntimeError, match="Reader is in use"):
        rewrite(reader.root, builder, [])


def test_edits_may_be_made_from_the_file_that_is_rewritten() -> None:
    def edits() -> Iterator[bytes]:
        yield from encode({b"_main": {id: None for id, _ in main.items()}})

    main = (reader := Reader(FILE)).root.bucket(b"_main")
    assert main is not None
    image = Image()
    assert rewrite(reader.root, image.builder, edits()) == 300
    assert tree_of(Reader(image.finish()).root) == {b"_main": {}}
    assert check(reader) == []


@pytest.fixture(scope="module")
def large_file() -> bytes:
    """A file with more pages per bucket than are read between two checks for signals."""
    rows: BucketDict = {b"r%06d" % i: {b"k": b'{"value":"%b"}' % (b"v" * 700)} for i in range(6000)}
    values: BucketDict = {b"v%06d" % i: b"v" * 700 for i in range(6000)}
    return file_of({b"_main": rows, b"v1": {b"n": {b"content": {b"blob": rows}}}, b"values": values}, 1024)


# Without a step in Python, where signals would be handled and other threads would run.
LONG: dict[str, Callable[[Reader], Callable[[], object]]] = {
    "check": lambda reader: partial(check, reader),
    "scan": lambda reader: partial(scan, reader.root.bucket(b"_main"), [(b"k",)]),
    "rewrite": lambda reader: partial(rewrite, reader.root, Builder(bytearray().extend), []),
    "Records": lambda reader: partial(Records, reader, never),
    "Survey": lambda reader: partial(Survey.offline, reader, None, "n", "overlayfs"),
    "batches": lambda reader: partial(list, Packer(reader).batches(reader.root, b"t")),
    "items": lambda reader: partial(list, reader.root.bucket(b"values").items()),  # type: ignore[union-attr]
}


@pytest.mark.parametrize("name", LONG)
def test_interrupt_ends_a_long_call(name: str, large_file: bytes) -> None:
    ended: list[bool] = []
    reader = Reader(large_file)
    calls = [_thread.interrupt_main, LONG[name](reader), partial(ended.append, True)]
    gc.disable()  # Hypothesis registers a callback in Python
    try:
        with pytest.raises(KeyboardInterrupt):
            list(map(operator.call, calls))
    finally:
        gc.enable()
    assert ended == []
    LONG[name](reader)()  # it can still be read


def is_refused_meanwhile(use: Callable[[], object], work: Callable[[], object]) -> bool:
    """Whether another thread runs while ``work`` does, and is refused the use of its object."""
    refused, stop = threading.Event(), threading.Event()

    def use_until_stopped() -> None:
        while not stop.is_set():
            try:
                use()
            except RuntimeError:
                refused.set()

    thread = threading.Thread(target=use_until_stopped)
    thread.start()
    try:
        for _ in range(1000):
            work()
            if refused.is_set():
                break
    finally:
        stop.set()
        thread.join()
    return refused.is_set()


@pytest.mark.parametrize("name", ["check", "scan", "rewrite", "Records", "Survey"])
def test_other_threads_run_during_a_long_call_and_are_refused(name: str, large_file: bytes) -> None:
    reader = Reader(large_file)
    root = reader.root
    assert is_refused_meanwhile(lambda: root.get(b"k"), lambda: LONG[name](reader)())


def test_running_graph_refuses_edges_whose_iterator_let_it_start() -> None:
    count = 1_000_000
    graph = Graph(count)
    graph.add(None, array("i", [*range(1, count), 0]))
    start, stop = columns.Mask(count, [0]), threading.Event()

    def reach_until_stopped() -> None:
        while not stop.is_set():
            graph.reached(start)

    thread = threading.Thread(target=reach_until_stopped)

    def targets() -> Iterator[int]:
        yield 0
        thread.start()
        with pytest.raises(RuntimeError, match="in use"):
            while True:
                assert graph.size == count
                time.sleep(0)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(100)  # the other thread gets the GIL from sleep() alone
    try:
        with pytest.raises(RuntimeError, match="in use"):
            graph.add([0], targets())  # type: ignore[arg-type]
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        thread.join()


def repeated_before_or_after(numbers: array[int]) -> None:
    """Either all numbers differ, or all are the same, or the array is short."""
    found = columns.repeated(numbers)
    assert len(found) in (0, found.size - 1)


@pytest.mark.parametrize("name", ["take", "repeated", "following"])
def test_another_thread_may_change_an_array_that_is_read(name: str) -> None:
    count = 1_000_000
    texts = columns.column([b"x"] * count)
    layers = columns.Mask(count, range(0, count, 100))
    reads: dict[str, tuple[str, Callable[[array[int]], object]]] = {
        "take": ("i", partial(columns.take, texts)),
        "repeated": ("q", repeated_before_or_after),
        "following": ("i", lambda above: chain.following(layers, above, texts, texts, texts, texts)),
    }
    code, read = reads[name]
    stop = threading.Event()
    rows = array(code, range(-1, count - 1))
    shared = [array(code)]
    no_rows = array(code, [2**31 - 1] * count)

    def change_until_stopped() -> None:
        while not stop.is_set():
            if len(shared[0]) == count:
                shared[0][:] = no_rows
                del shared[0][10:]  # gives memory back

    thread = threading.Thread(target=change_until_stopped)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        for _ in range(50):
            shared[0] = rows[:]
            with contextlib.suppress(IndexError, ValueError):  # it was changed before it was read
                read(shared[0])
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        thread.join()


def test_running_batch_refuses_use() -> None:
    count = 200_000
    batch = chain.Batch(range(-1, count - 1), [b"d"] * count, [b"b"] * count)
    assert is_refused_meanwhile(lambda: batch.ids(0), batch.run)


# --- After a failure


def test_graph_has_no_edge_of_a_call_that_was_refused() -> None:
    graph = Graph(3)
    with pytest.raises(IndexError):
        graph.add([0, 1], [1, 3])
    assert list(graph.reached(columns.Mask(3, [0]))) == [0]
    graph.add([0], [2])
    assert list(graph.reached(columns.Mask(3, [0]))) == [0, 2]


def damaged(depth_of_leaf: int) -> bytes:
    """A file with a bucket in which a leaf other than the first has the wrong page type."""
    data = bytearray(file_of({b"b": {b"%06d" % i: b"v" * 300 for i in range(depth_of_leaf)}}, 1024))
    data[4 * 1024 + 8] = 0x10
    return bytes(data)


FAILING: dict[str, Callable[[], Iterator[object]]] = {
    "items": lambda: Reader(damaged(200)).root.bucket(b"b").items(),  # type: ignore[union-attr]
    "batches": lambda: Packer(reader := Reader(damaged(200))).batches(reader.root.bucket(b"b"), b"t"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", FAILING)
def test_iterator_refuses_to_continue_after_it_raised(name: str) -> None:
    iterator = FAILING[name]()
    with pytest.raises(CorruptDatabaseError):
        for _ in iterator:
            pass
    for _ in range(3):
        with pytest.raises(RuntimeError, match="earlier failure"):
            next(iterator)


@pytest.mark.parametrize("name", [name for name in MADE if hasattr(MADE[name](), "__next__")])
def test_iterator_stays_at_its_end(name: str) -> None:
    iterator = MADE[name]()
    list(iterator)
    assert list(iterator) == []
    with pytest.raises(StopIteration):
        next(iterator)


def test_packer_refuses_use_after_a_failure() -> None:
    reader = Reader(damaged(200))
    packer = Packer(reader)
    with pytest.raises(CorruptDatabaseError):
        list(packer.batches(reader.root, b"t"))
    with pytest.raises(RuntimeError, match="earlier failure"):
        list(packer.batches(reader.root, b"t"))


def failing_edits() -> Iterator[bytes]:
    yield from encode({b"a": b"1"})
    raise KeyError("mine")


@pytest.mark.parametrize("use", range(len(USES[Builder])))
@pytest.mark.parametrize(
    ("edits", "error"),
    [
        (failing_edits, KeyError),
        (lambda: [*encode({b"a": b"1"}), b"\x09"], ValueError),
        (lambda: [*encode({b"a": b"1"}), None], TypeError),
    ],
)
def test_builder_refuses_use_after_a_failed_rewrite(
    use: int, edits: Callable[[], Any], error: type[Exception]
) -> None:
    builder = Image().builder
    with pytest.raises(error):
        rewrite(None, builder, edits())
    with pytest.raises(RuntimeError, match="earlier failure"):
        USES[Builder][use](builder)


def test_builder_refuses_use_after_a_malformed_node() -> None:
    builder = Image().builder
    with pytest.raises(CorruptDatabaseError):
        push(builder, b"k", b"\1" + bytes(8) + b"xyz")
    with pytest.raises(RuntimeError, match="earlier failure"):
        builder.finish()
