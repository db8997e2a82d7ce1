"""Properties of the LMDB engine alone: processes, growth, long keys, damage, bulk loading."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stores
from buildkit_migrate._native.packing import Packer, check_lmdb, push, unpack, unpack_items
from buildkit_migrate.bolt import Builder, Database
from buildkit_migrate.errors import BusyError, CorruptDatabaseError, StorageError
from buildkit_migrate.lmdb.file import check_file
from buildkit_migrate.store import lmdb_bulk
from buildkit_migrate.store.convert import convert
from buildkit_migrate.store.engines import open_store
from buildkit_migrate.store.lmdb_store import LmdbStore
from buildkit_migrate.values.gojson import Value, encode_value
from trees import PlainBucket, rows

SMALL = PlainBucket(
    {b"_main": PlainBucket({b"r%03d" % n: PlainBucket({b"k": encode_value(n)}) for n in range(300)})}
)

# --- Lossless

short = st.binary(min_size=1, max_size=6)
long_keys = st.builds(lambda n, end: b"x" * n + end, st.integers(505, 515), st.binary(max_size=3))
some_values = st.binary(max_size=30) | st.integers(1000, 9000).map(lambda n: b"v" * n)
keys = short | long_keys


def buckets(inner: st.SearchStrategy[bytes | PlainBucket]) -> st.SearchStrategy[PlainBucket]:
    return st.builds(PlainBucket, st.dictionaries(keys, inner, max_size=8), st.integers(0, 2**64 - 1))


nodes: st.SearchStrategy[bytes | PlainBucket] = st.recursive(some_values, buckets, max_leaves=20)
NAMES = (b"_main", b"_index", b"_external")
roots = st.builds(
    lambda own, other: PlainBucket({**other, **own}),
    st.dictionaries(st.sampled_from(NAMES), buckets(nodes) | some_values),
    st.dictionaries(keys, nodes, max_size=4),
)


@settings(max_examples=50)
@given(root=roots)
def test_any_tree_survives_lmdb(tmp_path_factory: pytest.TempPathFactory, root: PlainBucket) -> None:
    directory = tmp_path_factory.mktemp("store")
    assert stores.content(stores.make(directory, "lmdb", root)) == list(rows(root))


def test_bucket_with_more_keys_than_a_bolt_page_holds_survives(tmp_path: Path) -> None:
    many = PlainBucket({b"%06d" % n: b"" for n in range(70_000)}, sequence=1)
    root = PlainBucket({b"foreign": many, b"_main": PlainBucket({b"r": many})})
    assert stores.content(stores.make(tmp_path, "lmdb", root)) == list(rows(root))


# --- Processes


def read_many(path: Path, wanted: int) -> None:
    """Reads until all records are there; each must be complete whenever it is seen."""
    with open_store(path, read_only=True) as store:
        count = 0
        while count < wanted:
            items = list(store.all())
            for item in items:
                value = item.values[b"a"]
                assert value == item.values[b"b"]
            assert len(items) >= count
            count = len(items)


def test_one_process_reads_while_another_writes(tmp_path: Path) -> None:
    path = tmp_path / "store"
    count = 60
    with open_store(path, create="lmdb") as store:
        reader = multiprocessing.get_context("spawn").Process(target=read_many, args=(path, count))
        reader.start()
        for n in range(count):
            with store.update(b"r%d" % n) as record:
                # This grows the map under the reader.
                record.set(b"a", Value.of(b"x" * 400_000 + b"%d" % n))
                record.set(b"b", Value.of(b"x" * 400_000 + b"%d" % n))
        reader.join(60)
        assert reader.exitcode == 0
    assert path.stat().st_size > 16 << 20


def add_many(path: Path, prefix: bytes) -> None:
    with open_store(path) as store:
        for n in range(40):
            with store.update(prefix + b"%d" % n) as record:
                record.set(b"k", Value.of(b"x" * 300_000))
            store.get_and_set(b"shared", b"n", lambda old: Value.of(1 + int(old.raw or b"0") if old else 1))


def test_two_processes_write_without_losing_updates(tmp_path: Path) -> None:
    path = tmp_path / "store"
    open_store(path, create="lmdb").close()
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=add_many, args=(path, prefix)) for prefix in (b"a", b"b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    with open_store(path, read_only=True) as store:
        assert len(list(store.all())) == 81
        assert store.get(b"shared").values[b"n"] == Value.of(80)


KILLED = """
import os, signal, sys
from pathlib import Path
from buildkit_migrate.store.engines import open_store
from buildkit_migrate.values.gojson import Value
store = open_store(Path(sys.argv[1]))
with store.update(b"r000") as record:
    record.set(b"k", Value.of(b"never"))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_transaction_of_a_killed_writer_is_dropped(tmp_path: Path) -> None:
    path = stores.make(tmp_path, "lmdb", SMALL)
    with open_store(path) as store:
        killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False, timeout=60)
        assert killed.returncode == -signal.SIGKILL
        with store.update(b"r001") as record:
            record.set(b"k", Value.of(b"later"))
        assert store.get(b"r000").values[b"k"] == Value.of(0)
        assert store.get(b"r001").values[b"k"] == Value.of(b"later")


def test_first_process_keeps_its_lock_on_a_new_lock_file(tmp_path: Path) -> None:
    """Otherwise a second one would take itself for the first, and initialise the mutexes that are in use."""
    path = stores.make(tmp_path, "lmdb", SMALL)
    lock = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    command = [sys.executable, "-c", lock, str(tmp_path / "store-lock")]
    with open_store(path):
        assert b"BlockingIOError" in subprocess.run(command, capture_output=True, check=False).stderr
    subprocess.run(command, check=True)


def test_one_process_opens_a_file_once(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with open_store(path, create="lmdb"), pytest.raises(BusyError, match="already open"):
        open_store(path)
    open_store(path).close()


# --- Growth


def test_iteration_continues_when_the_map_grows(tmp_path: Path) -> None:
    with open_store(stores.make(tmp_path, "lmdb", SMALL)) as store:
        seen = []
        for number, item in enumerate(store.all()):
            seen.append(item.id)
            if number == 100:
                store.set_external(b"r000", b"big", bytes(40 << 20))
        assert seen == [b"r%03d" % n for n in range(300)]
        assert store.external(b"r000", b"big") == bytes(40 << 20)


def test_transaction_that_grows_the_map_is_complete(tmp_path: Path) -> None:
    with open_store(tmp_path / "store", create="lmdb") as store:
        for n in range(8):
            with store.update(b"r") as record:
                record.set(b"n", Value.of(n, b"i%d" % n))
                record.set_external(b"big", bytes([n]) * (9 << 20))
            assert store.external(b"r", b"big") == bytes([n]) * (9 << 20)
        assert [item.values[b"n"] for item in store.search(b"i0")] == [Value.of(7, b"i7")]


# --- Damage


def lmdb_entry(path: Path, key: bytes, value: bytes) -> None:
    with (
        lmdb.open(str(path), subdir=False, map_size=1 << 24) as environment,
        environment.begin(write=True) as txn,
    ):
        txn.put(key, value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"Mr001", b""),
        (b"Mr001", b"\x02"),
        (b"Mr001", b"\x01\x00"),
        (b"Mr001", b"\x01" + bytes(8) + b"\xff\xff\xff\xff\xff\xff\xff\xffkey"),
        (b"Mr001", b"\x01" + bytes(8) + struct.pack("<II", 1, 0) + b"k"),
        (b"Mr001", b"\x01" + bytes(8) + 2 * (struct.pack("<II", 1, 1) + b"k\x00")),
        (b"M" + b"x" * 510, b"\x01\x02\x03"),
    ],
)
def test_malformed_entry_is_named(tmp_path: Path, key: bytes, value: bytes) -> None:
    path = stores.make(tmp_path, "lmdb", SMALL)
    lmdb_entry(path, key, value)
    with open_store(path) as store, pytest.raises(CorruptDatabaseError, match=f"{path}.*malformed"):
        list(store.all())
    with pytest.raises(CorruptDatabaseError, match=f"{path}.*malformed"):
        convert(path, tmp_path / "bolt")
    assert not list(tmp_path.glob("bolt*"))


def test_lmdb_file_that_is_not_a_store_is_refused(tmp_path: Path) -> None:
    lmdb_entry(tmp_path / "other", b"k", b"v")
    with pytest.raises(CorruptDatabaseError, match="not a metadata store"):
        open_store(tmp_path / "other")


@pytest.mark.parametrize("size", [17, 100, 4095, 4096, 5000, 8192, 12288, 30000])
def test_truncated_file_is_refused(tmp_path: Path, size: int) -> None:
    path = stores.make(tmp_path, "lmdb", SMALL)
    os.truncate(path, size)
    # When it is opened, and not by a bus error when the page is touched.
    with pytest.raises(CorruptDatabaseError):
        open_store(path)


def test_unwritten_pages_may_be_missing_at_the_end(tmp_path: Path) -> None:
    path = stores.make(tmp_path, "lmdb", SMALL)
    with lmdb.open(str(path), subdir=False, map_size=1 << 24) as environment:
        with environment.begin(write=True) as txn:
            txn.put(b"Z", b"x" * 100_000)
            txn.delete(b"Z")
        pages = environment.info()["last_pgno"] + 1
    os.truncate(path, min(path.stat().st_size, (pages - 5) * 4096))
    with open_store(path) as store:
        assert len(list(store.all())) == 300


FUZZ = """
import random, sys
from pathlib import Path
from buildkit_migrate.errors import Error
from buildkit_migrate.store.convert import convert
good = Path(sys.argv[1]).read_bytes()
path, target = Path(sys.argv[1] + ".bad"), Path(sys.argv[1] + ".bolt")
rnd = random.Random(int(sys.argv[2]))
ok = 0
for _ in range(300):
    image = bytearray(good)
    for _ in range(rnd.choice([1, 1, 4])):
        # Headers and node tables more often than data.
        at = rnd.randrange(len(image) // 4096) * 4096 + rnd.choice([rnd.randrange(64), rnd.randrange(4096)])
        image[at] = rnd.choice([0, 255, rnd.randrange(256)])
    path.write_bytes(image)
    target.unlink(missing_ok=True)
    try:
        convert(path, target)
        ok += 1
    except Error:
        pass
assert 0 < ok < 300, ok
"""


@pytest.mark.parametrize("seed", range(3))
def test_random_damage_ends_in_an_error_or_not_at_all(tmp_path: Path, seed: int) -> None:
    path = stores.make(tmp_path, "lmdb", SMALL)
    result = subprocess.run([sys.executable, "-c", FUZZ, str(path), str(seed)], check=False, timeout=120)
    assert result.returncode == 0


@given(data=st.binary(max_size=200))
def test_unpacking_any_bytes_raises_only_our_error(data: bytes) -> None:
    for function in (unpack, unpack_items):
        try:
            function(data, b"key", "the path")
        except CorruptDatabaseError as error:
            assert error.path == "the path"
    builder = Builder(lambda block: None)
    with contextlib.suppress(CorruptDatabaseError):
        push(builder, b"key", data, "the path")


def test_too_deeply_nested_nodes_are_refused() -> None:
    node = b"\x00v"
    for _ in range(100):
        node = b"\x01" + bytes(8) + struct.pack("<II", 1, len(node)) + b"k" + node
    with pytest.raises(CorruptDatabaseError):
        push(Builder(lambda block: None), b"key", node)


def test_check_refuses_other_files() -> None:
    for data in (b"", b"x", bytes(10_000)):
        with pytest.raises(CorruptDatabaseError, match="not an LMDB file"):
            check_lmdb(data)


# --- Bulk loading


def test_bulk_load_does_not_overwrite(tmp_path: Path) -> None:
    source = stores.make(tmp_path, "bolt", SMALL)
    (tmp_path / "there").write_bytes(b"mine")
    with Database.open(source) as database, pytest.raises(StorageError):
        lmdb_bulk.load(tmp_path / "there", database.root)
    assert (tmp_path / "there").read_bytes() == b"mine"


def test_bulk_load_grows_the_map(tmp_path: Path) -> None:
    root = PlainBucket({b"_main": PlainBucket({b"r%03d" % n: b"v" * 1_000_000 for n in range(40)})})
    path = stores.make(tmp_path, "lmdb", root)
    assert stores.content(path) == list(rows(root))
    check_file(path, thorough=True)


def test_packer_refuses_to_read_a_page_twice(tmp_path: Path) -> None:
    with Database.open(stores.make(tmp_path, "bolt", SMALL)) as database:
        packer = Packer(database.reader)
        main = database.root.bucket(b"_main")
        assert main is not None
        assert sum(len(batch) for batch in packer.batches(main, b"M")) == 300
        with pytest.raises(CorruptDatabaseError, match="twice"):
            list(packer.batches(main, b"M"))


def test_updates_and_bulk_load_make_the_same_store(tmp_path: Path) -> None:
    with open_store(tmp_path / "store", create="lmdb") as store:
        assert isinstance(store, LmdbStore)
        for n in reversed(range(300)):
            with store.update(b"r%03d" % n) as record:
                record.set(b"k", Value.of(n))
    assert stores.content(tmp_path / "store") == list(rows(SMALL))
