"""Daemons that embed the package: the cost of a start on a migrated root, and starts on other roots."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from buildkit_migrate import ensure_migrated, errors, open_store
from buildkit_migrate.choices import ENGINES
from buildkit_migrate.embed import _MAGICS
from buildkit_migrate.lmdb import LMDB_MAGIC
from buildkit_migrate.migration.report import Outcome
from buildkit_migrate.store.engines import Engine, engine_of
from ondisk import OnDisk

HEAVY = ("grpc", "google.protobuf", "lmdb", "rich", "orjson", "shtab", "typing", "pathlib", "argparse")


def test_migrated_root_imports_and_opens_next_to_nothing(root: OnDisk) -> None:
    """No heavy module is imported and no engine opens the store, even one in use."""
    ensure_migrated(root.root)
    script = (
        "import json, sys\n"
        "before = set(sys.modules)\n"
        "import buildkit_migrate\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, args: opened.append(args[0]) if event == 'open' else None)\n"
        "ensure_migrated = buildkit_migrate.ensure_migrated\n"
        f"assert ensure_migrated({str(root.root)!r}) == []\n"
        "print(json.dumps([sorted(set(sys.modules) - before), [str(name) for name in opened]]))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    modules, opened = json.loads(done.stdout)
    assert all(
        importlib.util.find_spec(name) for name in HEAVY
    )  # the absence of a module that does not exist proves nothing
    assert "buildkit_migrate.embed" in modules
    assert not set(HEAVY) & set(modules)
    assert [name for name in opened if str(root.root) in name] == [str(root.v2)]


def test_root_is_migrated_once(root: OnDisk) -> None:
    (report,) = ensure_migrated(root.root)
    assert report.outcome is Outcome.MIGRATED
    assert ensure_migrated(root.root) == []
    assert ensure_migrated(root.worker) == []


def test_worker_directory_is_migrated(root: OnDisk) -> None:
    (report,) = ensure_migrated(str(root.worker))
    assert report.outcome is Outcome.MIGRATED


def test_missing_or_empty_root_is_left_alone(tmp_path: Path) -> None:
    assert ensure_migrated(tmp_path / "nowhere") == []
    assert ensure_migrated(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_dangling_link_is_refused(tmp_path: Path) -> None:
    """Its target may not be mounted yet, and the daemon would start with v1."""
    (tmp_path / "link").symlink_to("not-mounted")
    with pytest.raises(errors.RootNotFoundError):
        ensure_migrated(tmp_path / "link")


def test_empty_target_is_refused(root: OnDisk) -> None:
    root.v2.touch()
    with pytest.raises(errors.UnusableTargetError):
        ensure_migrated(root.root)


def test_file_as_root_is_refused(root: OnDisk) -> None:
    with pytest.raises(errors.RootNotFoundError):
        ensure_migrated(root.v1)


def test_daemon_can_use_the_lmdb_store(root: OnDisk) -> None:
    """The example of the docs."""
    ensure_migrated(root.root, engine="lmdb")
    with open_store(root.v2) as store:
        ids = list(store.ids())
        assert len(ids) == 287
        with store.update(ids[0]):
            pass
    assert ensure_migrated(root.root, engine="lmdb") == []


def test_store_of_the_other_engine_is_refused(root: OnDisk) -> None:
    ensure_migrated(root.root, engine="lmdb")
    for _ in range(2):
        with pytest.raises(errors.UnusableTargetError, match="BuildKit can't read") as raised:
            ensure_migrated(root.root)
        assert "convert" in raised.value.hint
        assert "undo" in raised.value.hint
    root.undo_here()
    ensure_migrated(root.root)
    with pytest.raises(errors.UnusableTargetError, match="lmdb is asked for"):
        ensure_migrated(root.root, engine="lmdb")


@pytest.mark.parametrize("head", [LMDB_MAGIC, b"\xed\xda\x0c\xed", b"text", b""])
@pytest.mark.parametrize("engine", ["bolt", "lmdb"])
def test_file_that_only_begins_like_a_store_is_refused(root: OnDisk, head: bytes, engine: Engine) -> None:
    root.v2.write_bytes(bytes(16) + head + b"garbage" * 1000)
    with pytest.raises(errors.UnusableTargetError):
        ensure_migrated(root.root, engine=engine)


def test_fifo_as_target_is_refused_without_waiting(root: OnDisk) -> None:
    os.mkfifo(root.v2)
    with pytest.raises(errors.UnusableTargetError):
        ensure_migrated(root.root)


def test_engines_are_recognised_by_the_same_magic(tmp_path: Path) -> None:
    assert set(_MAGICS) == set(ENGINES)
    for engine, magic in _MAGICS.items():
        (tmp_path / engine).write_bytes(bytes(16) + magic + bytes(2000))
        assert engine_of(tmp_path / engine) == engine
