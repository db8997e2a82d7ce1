"""`status` and `migrate` agree on what is at the v2 path, and name the engine of a store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ondisk
from buildkit_migrate import migrate_root, open_store, root_status
from buildkit_migrate.lmdb import LMDB_MAGIC
from buildkit_migrate.migration import target
from buildkit_migrate.migration.status import Stage
from buildkit_migrate.store.engines import Engine
from dicts import file_of
from holding import held
from ondisk import OnDisk, run


def judge_by_both_commands(root: OnDisk, *options: str) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """The common exit status of both commands, the worker as status shows it, and migrate's document."""
    before = ondisk.listing(root.root, without=["lock.mdb"])
    status = run("status", "--format", "json", *options, str(root.root))
    migrate = run("migrate", "--format", "json", *options, str(root.root))
    assert status.returncode == migrate.returncode
    assert ondisk.listing(root.root, without=["lock.mdb"]) == before
    return status.returncode, json.loads(status.stdout)["workers"][0], json.loads(migrate.stdout)


@pytest.mark.parametrize(("there", "other"), [("bolt", "lmdb"), ("lmdb", "bolt")])
def test_other_engine_at_the_target_is_unusable(root: OnDisk, there: Engine, other: Engine) -> None:
    migrate_root(root.root, engine=there)
    status, shown, document = judge_by_both_commands(root, "--to-engine", there)
    assert (status, shown["stage"], shown["engine"]) == (0, "migrated", there)
    assert [worker["engine"] for worker in document["workers"]] == [there]

    status, shown, document = judge_by_both_commands(root, "--to-engine", other)
    assert (status, shown["stage"], shown["engine"]) == (9, "unusable", there)
    assert f"{other} is asked for" in shown["fault"]
    assert shown["fault"] in document["error"]["message"]
    assert shown["next_step"] == document["error"]["hint"]
    assert "convert" in shown["next_step"]
    assert "undo" in shown["next_step"]


def test_lmdb_store_is_unusable_by_default(root: OnDisk) -> None:
    """Without an engine option."""
    migrate_root(root.root, engine="lmdb")
    assert judge_by_both_commands(root)[0] == 9
    text = run("status", str(root.root)).stdout
    assert "v2 (lmdb)" in text
    assert "BuildKit can't read" in text


def lmdb_with_damaged_page(path: Path) -> None:
    with open_store(path, create="lmdb") as store, store.update(b"record"):
        pass
    data = bytearray(path.read_bytes())
    data[2 * 4096 :] = b"\xff" * (len(data) - 2 * 4096)
    path.write_bytes(data)
    Path(f"{path}-lock").unlink()


def lmdb_of_somebody_else(path: Path) -> None:
    import lmdb

    with (
        lmdb.open(str(path), subdir=False, lock=False) as environment,
        environment.begin(write=True) as transaction,
    ):
        transaction.put(b"key", b"value")


def cache_db(path: Path) -> None:
    path.write_bytes(file_of({b"_result": {b"sha256:1": {}}, b"_links": {}}))


def damaged_bolt(path: Path) -> None:
    data = bytearray(file_of({b"_main": {b"record": {}}}))
    data[2 * 4096 :] = bytes(len(data) - 2 * 4096)
    path.write_bytes(data)


NO_STORES: dict[str, Callable[[Path], object]] = {
    "empty": Path.touch,
    "garbage": lambda path: path.write_bytes(b"garbage" * 10_000),
    "LMDB magic, then garbage": lambda path: path.write_bytes(bytes(16) + LMDB_MAGIC + b"garbage" * 10_000),
    "LMDB magic, then nothing": lambda path: path.write_bytes(bytes(16) + LMDB_MAGIC),
    "LMDB pages of garbage": lmdb_with_damaged_page,
    "LMDB file of somebody else": lmdb_of_somebody_else,
    "bolt file of somebody else": cache_db,
    "bolt pages of zeros": damaged_bolt,
    "directory": Path.mkdir,
}


@pytest.mark.parametrize("engine", ["bolt", "lmdb"])
@pytest.mark.parametrize("name", NO_STORES)
def test_target_that_is_not_a_store_is_unusable(root: OnDisk, name: str, engine: Engine) -> None:
    NO_STORES[name](root.v2)
    status, shown, document = judge_by_both_commands(root, "--to-engine", engine)
    assert (status, shown["stage"], shown["engine"]) == (9, "unusable", None)
    assert shown["fault"] in document["error"]["message"]
    assert shown["next_step"] == document["error"]["hint"] != ""
    text = run("status", str(root.root)).stdout
    assert "nothing to do" not in text
    assert shown["fault"] in text


def test_locked_store_counts_as_migrated(root: OnDisk) -> None:
    root.migrate_here()
    with held(root.v2):
        assert judge_by_both_commands(root)[0] == 0


def test_empty_store_counts_as_migrated(root: OnDisk) -> None:
    root.v2.write_bytes(file_of({}))
    assert judge_by_both_commands(root)[0] == 0


def test_lmdb_store_open_in_this_process_counts_as_migrated(root: OnDisk) -> None:
    migrate_root(root.root, engine="lmdb")
    with open_store(root.v2):
        (status,) = root_status(root.root, engine="lmdb")
    assert status.stage is Stage.MIGRATED


def test_store_removed_during_the_look_counts_as_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as by an undo of another process; that is not an error."""
    monkeypatch.setattr(target, "exists", lambda path: True)
    assert target.target_at(tmp_path / "metadata_v2.db", "bolt") is None
