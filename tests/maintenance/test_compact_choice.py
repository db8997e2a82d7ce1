"""Which files are compacted: of a root, of all roots, one alone."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from compacting import compacted, contents, of, rows

from buildkit_migrate import compact_root, undo_compaction
from buildkit_migrate.bolt import Database
from buildkit_migrate.maintenance import compact
from buildkit_migrate.maintenance.compact import CompactionOutcome
from judge import Judge
from ondisk import docker_sample, listing, run, sample
from planting import grow
from trees import PlainBucket, write
from v2_roots import V2Root, healed_databases, v2_root

early_fill = compact._EARLY_FILL


pytestmark = pytest.mark.usefixtures("early")


@pytest.fixture
def root(tmp_path: Path) -> V2Root:
    return healed_databases(tmp_path)


def test_dry_run_tells_what_a_run_then_does_and_writes_nothing(root: V2Root) -> None:
    grow(root.records, 100)
    before = listing(root.root)
    planned = compact_root(root.root, dry_run=True)
    assert listing(root.root) == before
    done = compact_root(root.root)
    assert planned.saved == done.saved > 0
    for file, result in zip(planned.files, done.files, strict=True):
        assert file.path is not None
        assert file.outcome == CompactionOutcome.PLANNED
        assert file.new_bytes == result.new_bytes == file.path.stat().st_size
        assert file.live_bytes + file.free_bytes == file.bytes
        assert 0 < file.fill <= 1


def test_second_run_changes_nothing(root: V2Root) -> None:
    compacted(root)
    before = contents(root), set(listing(root.root))
    found = compacted(root)
    assert {file.outcome for file in found.files} == {CompactionOutcome.LEFT}
    assert found.saved == 0
    assert (contents(root), set(listing(root.root))) == before


def test_what_would_not_get_smaller_is_not_even_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.db"
    write(path, PlainBucket({b"b": PlainBucket({b"%06d" % n: b"v" * 200 for n in range(90_000)})}), fill=0.5)
    written = []
    real = compact.write_like

    def writes(*arguments: Any) -> Database:
        written.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(compact, "write_like", writes)
    monkeypatch.setattr(compact, "_EARLY_FILL", early_fill)
    compact_root(path)
    before = listing(tmp_path)
    compact_root(path)
    assert listing(tmp_path) == before
    assert len(written) == 1


def test_min_free_leaves_files_with_less_free(root: V2Root) -> None:
    compacted(root)
    grow(root.records, 400)
    grow(root.cache, 5)
    found = compact_root(root.root, min_free=0.25)
    assert of(found, root.records).outcome == CompactionOutcome.COMPACTED
    assert of(found, root.cache).outcome == CompactionOutcome.LEFT
    assert "free" in of(found, root.cache).reason
    assert of(compact_root(root.root), root.cache).outcome == CompactionOutcome.COMPACTED


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_impossible_share_is_refused(share: float, root: V2Root) -> None:
    with pytest.raises(ValueError, match="min_free"):
        compact_root(root.root, min_free=share)


@pytest.mark.parametrize("share", ["-1%", "101%", "a quarter", "", "25%%"])
def test_impossible_percentage_is_wrong_usage(share: str, root: V2Root) -> None:
    assert run("compact", f"--min-free={share}", str(root.root)).returncode == 2


def test_missing_and_empty_stores_are_left_alone(root: V2Root) -> None:
    root.history.unlink()
    root.cache.write_bytes(b"")
    found = compacted(root)
    assert root.history not in {file.path for file in found.files}
    assert of(found, root.cache).outcome == CompactionOutcome.SKIPPED
    assert root.cache.read_bytes() == b""


def test_containerds_files_are_only_touched_if_their_place_is_given(tmp_path: Path) -> None:
    root = v2_root("containerd", tmp_path)
    before = root.containerd.read_bytes(), root.snapshots.read_bytes()
    found = compact_root(root.root)
    assert (root.containerd.read_bytes(), root.snapshots.read_bytes()) == before
    skipped = [file for file in found.files if file.outcome == CompactionOutcome.SKIPPED]
    assert "--containerd-root" in skipped[0].reason
    assert of(found, root.records).outcome == CompactionOutcome.COMPACTED


def test_lmdb_store_is_skipped(tmp_path: Path) -> None:
    root = sample(tmp_path)
    assert root.migrate("--to-engine", "lmdb").returncode == 0
    before = root.v2.read_bytes()
    found = compact_root(root.root)
    assert "LMDB" in of(found, root.v2).reason
    assert root.v2.read_bytes() == before


def test_one_file_is_compacted_alone(root: V2Root) -> None:
    before = contents(root)
    content = rows(root.cache)
    result = run("compact", "--format", "json", str(root.cache))
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert [file["path"] for file in document["files"]] == [str(root.cache)]
    assert rows(root.cache) == content
    after = contents(root)
    assert {path for path in after if after[path] != before[path]} == {root.cache}


def test_options_for_a_containerd_change_nothing_for_one_file(root: V2Root, tmp_path: Path) -> None:
    place = ["--containerd-root", str(tmp_path / "none"), "--snapshotter", "other", "--namespace", "moby"]
    for command in ("check", "compact"):
        with_place, without = (
            run(command, "--format", "json", *given, str(root.cache)) for given in (place, [])
        )
        assert with_place.returncode == without.returncode == 0
        assert run(command, "--namespace", "", str(root.cache)).returncode == 2
    assert compact_root(root.cache).files[0].outcome == CompactionOutcome.LEFT


@pytest.mark.parametrize("path", ["buildkit", ""])
def test_databases_of_dockers_builder_are_compacted(path: str, tmp_path: Path, judge: Judge) -> None:
    """``snapshots.db`` has a layout of its own."""
    root = docker_sample(tmp_path)
    assert root.migrate().returncode == 0
    grow(root.snapshots, 20)
    paths = (root.v2, root.containerd, root.snapshots, root.root / "cache.db")
    before = {path: rows(path) for path in paths}
    found = compact_root(root.root.parent / path)
    assert {file.path for file in found.files} >= set(paths)
    assert of(found, root.snapshots).outcome == CompactionOutcome.COMPACTED
    assert {path: rows(path) for path in paths} == before
    assert all(judge.check(path) == [] for path in paths)
    assert run("verify", str(root.root.parent)).returncode == 0
    assert undo_compaction(root.root.parent / path).files
    assert {path: rows(path) for path in paths} == before


def test_one_thread_is_enough(root: V2Root, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: Thread) -> None:
        raise RuntimeError("can't start new thread")

    before = {path: rows(path) for path in root.databases}
    monkeypatch.setattr(Thread, "start", refuse)
    found = compacted(root)
    assert {file.outcome for file in found.files} == {CompactionOutcome.COMPACTED}
    assert {path: rows(path) for path in root.databases} == before
