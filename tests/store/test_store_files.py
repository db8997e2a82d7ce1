"""A store and its file: closed, reached over links, replaced, or no store at all; for every engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import stores
from buildkit_migrate.errors import (
    BusyError,
    CorruptDatabaseError,
    StorageError,
)
from buildkit_migrate.store.engines import Engine, open_store
from buildkit_migrate.store.interface import MetadataStore
from buildkit_migrate.values.gojson import Value
from stores import INDEX, TREE, ids

# --- Closed


def methods(store: MetadataStore) -> dict[str, Callable[[], object]]:
    """One call of every public method that reads or writes."""

    def update() -> None:
        with store.update(b"r1"):
            pass

    calls: dict[str, Callable[[], object]] = {
        "get": lambda: store.get(b"r1"),
        "view": lambda: store.view(b"r1"),
        "all": store.all,
        "ids": store.ids,
        "search": lambda: store.search(INDEX),
        "probe": lambda: store.probe(INDEX),
        "external": lambda: store.external(b"r1", b"name"),
        "update": update,
        "get_and_set": lambda: store.get_and_set(b"r1", b"a", lambda value: Value.of(2)),
        "clear": lambda: store.clear(b"r1"),
        "clear_index": lambda: store.clear_index(b"r1", INDEX),
        "set_external": lambda: store.set_external(b"r1", b"name", b"x"),
    }
    public = {name for name in dir(MetadataStore) if not name.startswith("_")}
    assert calls.keys() == public - {"close"}
    return calls


def test_closed_store_refuses_every_method(store: MetadataStore, tmp_path: Path) -> None:
    """Nothing is read or written without the lock: another process may use the file now."""
    store.close()
    path = tmp_path / "store"
    with open_store(path) as other:
        other.clear(b"r1")
    before = path.read_bytes()
    for name, call in methods(store).items():
        with pytest.raises(ValueError, match="store is closed"):
            call()
            pytest.fail(name)
    with pytest.raises(ValueError, match="is closed"), store:
        pass
    store.close()
    assert path.read_bytes() == before


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("begin", ["all", "ids", "search"])
def test_iterators_end_with_their_store(store: MetadataStore, begin: str, steps: int) -> None:
    rows: Iterator[object] = (
        store.search(b"the", prefix_only=True) if begin == "search" else getattr(store, begin)()
    )
    for _ in range(steps):
        next(rows)
    store.close()
    with pytest.raises(ValueError, match="is closed"):
        next(rows)


def test_update_of_a_closed_store_is_not_written(store: MetadataStore, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is closed"), store.update(b"r1") as record:
        record.set(b"a", Value.of(2))
        store.close()
        with open_store(tmp_path / "store") as other:
            other.set_external(b"r1", b"name", b"other")
    with pytest.raises(KeyError), open_store(tmp_path / "store") as again, again.update(b"r1") as record:
        record.set(b"a", Value.of(2))
        again.close()
        raise KeyError
    with open_store(tmp_path / "store") as again:
        assert again.get(b"r1").values[b"a"] == Value(b"1")
        assert again.external(b"r1", b"name") == b"other"


def test_items_outlive_their_store(store: MetadataStore) -> None:
    item = store.get(b"r1")
    store.close()
    assert item.values[b"a"] == Value(b"1")


# --- Names


@pytest.mark.parametrize("chain", ["absolute", "relative", "link to link", "directory"])
def test_writing_through_a_link_keeps_the_link(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chain: str
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "links").mkdir()
    path = stores.make(tmp_path / "real", engine, TREE)
    link = tmp_path / "links" / "link"
    match chain:
        case "absolute":
            link.symlink_to(path)
        case "relative":
            link.symlink_to("../real/store")
        case "link to link":
            (tmp_path / "links" / "other").symlink_to("../real/store")
            link.symlink_to("other")
        case "directory":
            link = tmp_path / "links" / "directory" / "store"
            link.parent.symlink_to("../real")
    monkeypatch.chdir(tmp_path / "links")
    with open_store(link.relative_to(tmp_path / "links")) as store:
        monkeypatch.chdir("/")
        store.clear(b"r1")
        store.clear(b"r2")
    assert link.is_symlink() == (chain != "directory")
    assert not path.is_symlink()
    with open_store(path) as store:
        assert ids(store.all()) == []
    assert {file.name for file in (tmp_path / "links").iterdir()} <= {"link", "other", "directory"}
    assert {file.name for file in (tmp_path / "real").iterdir()} <= {"store", "store-lock"}


def test_creating_through_a_dangling_link_makes_its_target(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    with open_store(tmp_path / "link", create=engine) as store, store.update(b"r"):
        pass
    assert (tmp_path / "link").is_symlink()
    assert not (tmp_path / "target").is_symlink()
    with open_store(tmp_path / "target") as store:
        assert ids(store.all()) == [b"r"]


def test_circular_link_is_refused(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("link")
    for create in (None, engine):
        with pytest.raises(StorageError):
            open_store(tmp_path / "link", create=create)


def test_replaced_file_is_not_overwritten(tmp_path: Path) -> None:
    """The lock is on the file, not on its name."""
    path = stores.make(tmp_path, "bolt", TREE)
    with open_store(path) as store:
        path.rename(tmp_path / "away")
        path.write_bytes(b"of somebody else")
        with pytest.raises(BusyError, match="replaced"):
            store.clear(b"r1")
    assert path.read_bytes() == b"of somebody else"


def test_what_is_not_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        open_store(tmp_path / "missing")
    with pytest.raises(CorruptDatabaseError, match="not a regular file"):
        open_store(tmp_path)
    (tmp_path / "garbage").write_bytes(b"garbage" * 1000)
    with pytest.raises(CorruptDatabaseError, match="neither"):
        open_store(tmp_path / "garbage")
