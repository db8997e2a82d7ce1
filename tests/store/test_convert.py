"""``buildkit-migrate convert``, and ``migrate --to-engine``."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import faulty
import ondisk
import stores
from buildkit_migrate.bolt import Database
from buildkit_migrate.errors import UnusableTargetError
from buildkit_migrate.files import durable
from buildkit_migrate.store.convert import convert
from buildkit_migrate.store.engines import Engine, engine_of, open_store
from ondisk import OnDisk, run
from trees import PlainBucket, rows

SMALL = PlainBucket({b"_main": PlainBucket({b"r": PlainBucket({b"k": b"{}"})}), b"other": b"v"})


def error_message(*arguments: str, status: int) -> str:
    """The message, after the checks that hold for every failure."""
    result = run("convert", "--format", "json", *arguments)
    assert result.returncode == status, result.stderr
    assert "Traceback" not in result.stderr
    error = json.loads(result.stdout)["error"]
    assert error["exit_code"] == status
    message: str = error["message"]
    return message


def test_converting_there_and_back_keeps_everything(root: OnDisk, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    before = ondisk.listing(root.root)
    result = run("convert", str(root.v1), str(there))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{there}: lmdb store made from {root.v1} (bolt), ")
    result = run("convert", "--format", "json", "--to-engine", "bolt", str(there), str(back))
    document = json.loads(result.stdout)
    assert document.pop("seconds") > 0
    assert document.pop("error") is None
    assert document == {
        "schema": 1,
        "source": str(there),
        "target": str(back),
        "from_engine": "lmdb",
        "to_engine": "bolt",
        "bytes": back.stat().st_size,
    }
    assert ondisk.tree(back) == ondisk.tree(root.v1)
    assert ondisk.listing(root.root) == before
    for path in (there, back):
        assert path.stat().st_mode & 0o777 == 0o600
    assert not list(tmp_path.glob("*.tmp*"))
    with open_store(there) as converted, open_store(root.v1) as original:
        assert list(converted.all()) == list(original.all())


def test_migrating_to_lmdb_is_migrating_and_converting(root: OnDisk, tmp_path: Path) -> None:
    other = ondisk.sample(tmp_path / "other")
    assert root.migrate("--to-engine", "lmdb").returncode == 0
    assert other.migrate().returncode == 0
    assert engine_of(root.v2) == "lmdb"
    assert run("convert", str(root.v2), str(tmp_path / "bolt")).returncode == 0
    assert ondisk.tree(tmp_path / "bolt") == ondisk.tree(other.v2)
    assert root.left_behind == []
    assert not list(root.worker.glob("*.bolt"))
    again = root.migrate("--to-engine", "lmdb")
    assert again.returncode == 0
    assert "already migrated" in again.stdout


@pytest.mark.parametrize("engine", stores.ENGINES)
def test_existing_target_is_refused(tmp_path: Path, engine: Engine) -> None:
    source = stores.make(tmp_path, engine, SMALL)
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("file", "dangling"):
        assert "exists" in error_message(str(source), str(tmp_path / name), status=9)
    assert (tmp_path / "file").read_bytes() == b"mine"
    assert "already" in error_message(str(source), str(tmp_path / "new"), "--to-engine", engine, status=9)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("engine", stores.ENGINES)
def test_truncated_source_is_refused(tmp_path: Path, engine: Engine) -> None:
    source = stores.make(tmp_path, engine, SMALL)
    os.truncate(source, source.stat().st_size - 4096)
    assert "truncated" in error_message(str(source), str(tmp_path / "new"), status=5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]


def test_source_that_is_not_a_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "garbage").write_bytes(b"garbage" * 1000)
    (tmp_path / "short").write_bytes(b"g")
    os.mkfifo(tmp_path / "fifo")
    new = str(tmp_path / "new")
    assert "neither" in error_message(str(tmp_path / "garbage"), new, status=5)
    assert "neither" in error_message(str(tmp_path / "short"), new, status=5)
    assert "regular" in error_message(str(tmp_path / "fifo"), new, status=5)
    assert "regular" in error_message(str(tmp_path), new, status=5)
    assert "No such file" in error_message(str(tmp_path / "missing"), new, status=8)
    assert not Path(new).exists()


def test_locked_bolt_source_is_refused(tmp_path: Path) -> None:
    source = stores.make(tmp_path, "bolt", SMALL)
    with Database.open(source, exclusive=True):
        assert "in use" in error_message(str(source), str(tmp_path / "new"), status=4)
    with Database.open(source):
        assert run("convert", str(source), str(tmp_path / "new")).returncode == 0


def test_open_lmdb_source_is_converted(tmp_path: Path) -> None:
    source = stores.make(tmp_path, "lmdb", SMALL)
    with open_store(source) as store, store.update(b"new"):
        assert run("convert", str(source), str(tmp_path / "new")).returncode == 0
    with Database.open(tmp_path / "new") as database:
        assert list(stores.rows_of(database.root)) == list(rows(SMALL))


@pytest.mark.parametrize("engine", stores.ENGINES)
def test_leftover_of_a_killed_run_is_replaced(tmp_path: Path, engine: Engine) -> None:
    source = stores.make(tmp_path, engine, SMALL)
    (tmp_path / "new.tmp").write_bytes(b"garbage")
    assert run("convert", str(source), str(tmp_path / "new")).returncode == 0
    assert not (tmp_path / "new.tmp").exists()


def test_concurrent_run_is_refused(tmp_path: Path) -> None:
    source = stores.make(tmp_path, "bolt", SMALL)
    aside = tmp_path / "new.tmp"
    aside.write_bytes(source.read_bytes())
    with Database.open(aside, exclusive=True):
        assert "in use" in error_message(str(source), str(tmp_path / "new"), status=4)
    assert aside.exists()


@pytest.fixture(params=["links", "no links", "neither"])
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The ways in which it can create a name without replacing a file."""

    def refuse(*names: object, **options: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if request.param != "links":
        monkeypatch.setattr(os, "link", refuse)
    if request.param == "neither":
        monkeypatch.setattr(ctypes, "CDLL", lambda *name, **options: object())
    return str(request.param)


@pytest.mark.parametrize("engine", stores.ENGINES)
def test_target_that_appears_during_the_run_is_kept(
    tmp_path: Path, engine: Engine, file_system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = stores.make(tmp_path, engine, SMALL), tmp_path / "new"
    copy_access, content = durable.copy_access, b"of somebody else"

    def create(*arguments: Any, **options: Any) -> Any:
        target.write_bytes(content)
        return copy_access(*arguments, **options)

    monkeypatch.setattr(durable, "copy_access", create)  # of the new file, after all checks
    with pytest.raises(UnusableTargetError, match="exists"):
        convert(source, target)
    assert target.read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "store"]


@pytest.mark.parametrize("engine", stores.ENGINES)
def test_convert_works_without_hard_links(tmp_path: Path, engine: Engine, file_system: str) -> None:
    source = stores.make(tmp_path, engine, SMALL)
    convert(source, tmp_path / "new")
    convert(tmp_path / "new", tmp_path / "back")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "new", "store"]
    with open_store(source, read_only=True) as there, open_store(tmp_path / "back", read_only=True) as back:
        assert list(back.all()) == list(there.all())


def test_leftovers_of_a_killed_migration_to_lmdb_are_removed(root: OnDisk, tmp_path: Path) -> None:
    program = [sys.executable, faulty.__file__]
    options = ["migrate", "--to-engine", "lmdb"]
    whole = subprocess.run(
        [*program, "-1", "none", *options, str(ondisk.sample(tmp_path / "whole").root)],
        capture_output=True,
        text=True,
        check=True,
    )
    names = whole.stderr.split()
    left = 0
    for index in range(names.index("fsync") - 1, names.index("mkdir")):  # of the journal, when all is written
        subprocess.run(
            [*program, str(index), "kill", *options, str(root.root)], capture_output=True, check=False
        )
        left += len([path for path in root.worker.iterdir() if ".tmp" in path.name])
        assert root.migrate().returncode == 0
        assert root.left_behind == []
        root.undo_here()
        assert not list(root.worker.glob("*.bolt"))
    assert left > 1


@pytest.mark.parametrize("fault", ["kill", "EIO"])
@pytest.mark.parametrize("engine", stores.ENGINES)
def test_fault_at_any_call_leaves_a_whole_store_or_none(tmp_path: Path, engine: Engine, fault: str) -> None:
    """There is a complete store or none; the next run replaces what a killed one left."""
    source, target = stores.make(tmp_path, engine, SMALL), tmp_path / "new"
    program = [sys.executable, faulty.__file__]

    def converted(index: int) -> subprocess.CompletedProcess[str]:
        arguments = [str(index), fault, "convert", str(source), str(target)]
        return subprocess.run([*program, *arguments], capture_output=True, text=True, check=False)

    names = converted(-1).stderr.split()
    whole = target.read_bytes()
    assert {"open", "fsync", "link", "unlink"} <= set(names)
    for index, name in enumerate(names):
        target.unlink(missing_ok=True)
        result = converted(index)
        assert "Traceback" not in result.stderr
        if name != "flock" or result.returncode:  # of unlocking
            assert result.returncode == (-9 if fault == "kill" else 8), (name, result)
        if not target.exists():
            convert(source, target)
            assert not target.with_name("new.tmp").exists()
        assert target.read_bytes() == whole


def test_missing_target_directory_is_named(tmp_path: Path) -> None:
    source = stores.make(tmp_path, "bolt", SMALL)
    assert "No such file" in error_message(str(source), str(tmp_path / "missing" / "new"), status=8)


def test_unknown_engine_exits_with_2() -> None:
    assert run("convert", "--to-engine", "sqlite", "a", "b").returncode == 2
