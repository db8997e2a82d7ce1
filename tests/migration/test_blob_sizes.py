"""Blob sizes: written, or left out as upstream does; shown by the commands, recorded in the journal."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import lmdb
import pytest

import fault_points
import fixtures
import ondisk
from buildkit_migrate import ensure_migrated, errors, migrate_root, verify_root
from buildkit_migrate.migration import journal
from buildkit_migrate.migration.verification import Verdict
from dicts import file_of
from fault_points import calls
from fixtures import bucket, buckets
from ondisk import OnDisk

pytestmark = pytest.mark.slow

CONTENT = (b"v1", b"buildkit", b"content", b"blob")


def sizes(root: OnDisk) -> dict[bytes, bytes]:
    """The stored blob size of each record with a blob; "" without one."""
    records = buckets(bucket(ondisk.tree(root.v2), b"_main"))
    found = {
        id: record.get(b"cache.blobsize", b"") for id, record in records.items() if b"cache.blob" in record
    }
    assert found
    return {id: size for id, size in found.items() if isinstance(size, bytes)}


def blobs_of_sample(root: OnDisk) -> list[bytes]:
    return sorted(bucket(ondisk.tree(root.containerd), *CONTENT))


def set_blob_size(root: OnDisk, digest: bytes, size: bytes | None) -> None:
    ondisk.edit(root.containerd, {b"v1": {b"buildkit": {b"content": {b"blob": {digest: {b"size": size}}}}}})


def worker_of(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    (worker,) = json.loads(result.stdout)["workers"]
    return dict(worker)


def status(root: OnDisk, *arguments: str) -> subprocess.CompletedProcess[str]:
    return ondisk.run("status", *arguments, str(root.root))


def check_reports(root: OnDisk, upstream_exact: bool) -> None:
    """Checks what the commands say of a migrated root."""
    verified, told = root.verify(), status(root)
    assert verified.returncode == told.returncode == 0
    for text in (verified.stdout, told.stdout):
        assert ("blob sizes: written" in text) == (not upstream_exact)
        assert ("BuildKit v0.8 and later can't export" in text) == upstream_exact
    for result in (root.verify("--format", "json"), status(root, "--format", "json")):
        assert worker_of(result)["upstream_exact"] is upstream_exact


# --- With and without sizes


@pytest.mark.parametrize("upstream_exact", [False, True])
def test_library_writes_sizes_unless_upstream_exact(root: OnDisk, upstream_exact: bool) -> None:
    (report,) = ensure_migrated(root.root, upstream_exact=upstream_exact, verify=True)
    counts = report.counts
    assert counts["blob_sizes"] == (0 if upstream_exact else counts["blobs"])
    assert all(bool(size) != upstream_exact for size in sizes(root).values())
    check_reports(root, upstream_exact)


@pytest.mark.parametrize("arguments", [(), ("--upstream-exact",), ("--upstream-exact", "--verify")])
def test_command_writes_sizes_unless_upstream_exact(root: OnDisk, arguments: tuple[str, ...]) -> None:
    before = {path: path.read_bytes() for path in (root.v1, root.containerd)}
    dry = root.migrate("--dry-run", *arguments)
    result = root.migrate(*arguments)
    assert (result.returncode, result.stderr) == (0, "")
    for text in (dry.stdout, result.stdout):
        assert ("blobs without their size" in text) == bool(arguments)
    assert all(bool(size) != bool(arguments) for size in sizes(root).values())
    check_reports(root, bool(arguments))
    root.undo_here()
    assert {path: path.read_bytes() for path in before} == before


def test_upstream_exact_differs_only_in_sizes(tmp_path: Path) -> None:
    roots = []
    for upstream_exact in (False, True):
        (tmp_path / str(upstream_exact)).mkdir()
        roots.append(ondisk.sample(tmp_path / str(upstream_exact)))
        migrate_root(roots[-1].root, upstream_exact=upstream_exact)
    ours, exact = (ondisk.tree(root.v2) for root in roots)
    survey = fixtures.survey_of(
        ondisk.tree(roots[0].containerd), ondisk.tree(roots[0].snapshots), roots[0].snapshotter
    )
    assert ours == fixtures.with_blob_sizes(exact, survey)
    assert ondisk.timeless(ondisk.tree(roots[0].containerd)) == ondisk.timeless(
        ondisk.tree(roots[1].containerd)
    )


def test_sizes_survive_another_engine(root: OnDisk, tmp_path: Path) -> None:
    assert root.migrate("--to-engine", "lmdb").returncode == 0
    assert ondisk.run("convert", str(root.v2), str(tmp_path / "bolt.db")).returncode == 0
    converted = buckets(bucket(ondisk.tree(tmp_path / "bolt.db"), b"_main"))
    (worker,) = verify_root(root.root)
    assert (worker.verdict, worker.findings.upstream_exact) == (Verdict.OK, False)
    assert all(b"cache.blobsize" in record for record in converted.values() if b"cache.blob" in record)


# --- Sizes that containerd does not know


@pytest.mark.parametrize("size", [None, b"", b"\0", b"\x01", b"\x80"])
def test_unknown_size_is_reported(root: OnDisk, size: bytes | None) -> None:
    for digest in blobs_of_sample(root):
        set_blob_size(root, digest, size)
    result = root.migrate("--format", "json")
    assert result.returncode == 0
    worker = worker_of(result)
    assert {caution["caution"] for caution in worker["cautions"]} == {"no-blob-size"}
    assert len(worker["cautions"]) == worker["counts"]["blobs"]
    assert set(sizes(root).values()) == {b""}
    # The migration was to write sizes; containerd had none.
    assert worker_of(root.verify("--format", "json"))["upstream_exact"] is False
    assert root.verify().returncode == 0


def test_records_without_a_size_are_named(root: OnDisk) -> None:
    set_blob_size(root, blobs_of_sample(root)[0], None)
    result = root.migrate()
    (id,) = [id.decode() for id, size in sizes(root).items() if not size]
    assert f"    {id}: no-blob-size" in result.stdout.splitlines()
    assert "  blobs without their size: 1; BuildKit v0.8 and later can't export" in result.stdout


def test_size_lost_in_containerd_is_not_held_against_the_record(root: OnDisk) -> None:
    """Only the changed entry of containerd is a difference, found by the kept database."""
    root.migrate_here()
    digest = blobs_of_sample(root)[0]
    set_blob_size(root, digest, None)
    (worker,) = verify_root(root.root)
    (difference,) = worker.findings.differences
    assert difference.subject == b"v1/buildkit/content/blob/" + digest + b"/size"
    root.containerd.with_name(root.containerd.name + ".before-v2").unlink()
    assert all(not worker.findings.differences for worker in verify_root(root.root))


def test_nested_bucket_instead_of_a_size_is_refused_unless_upstream_exact(root: OnDisk) -> None:
    id = sorted(buckets(bucket(ondisk.tree(root.v1), b"_main")))[0]
    ondisk.edit(root.v1, {b"_main": {id: {b"cache.blobsize": {b"k": b"v"}}}})
    refused = root.migrate("--format", "json")
    assert refused.returncode == 6
    problems = json.loads(refused.stdout)["error"]["problems"]
    expected = {"record": id.decode(), "reason": "key-is-bucket", "detail": "cache.blobsize"}
    assert [problem for problem in problems if problem["reason"] != "descends-from-dropped"] == [expected]
    assert root.migrate("--upstream-exact").returncode == 0
    check_reports(root, upstream_exact=True)


# --- Stores made by others


def test_store_made_by_upstream_is_recognised_as_exact(tmp_path: Path) -> None:
    """Without a journal the store itself shows it."""
    root = ondisk.real("a", tmp_path)
    expected = fixtures.real_root("a")
    root.v2.write_bytes(file_of(expected.metadata_v2))
    root.containerd.write_bytes(file_of(expected.containerd_after))
    # The dump has no bucket sequences.
    snapshots = (b"v1", b"buildkit", b"snapshots", root.snapshotter.encode())
    ondisk.set_sequence(root.containerd, snapshots, 1000)
    result = root.verify()
    assert result.returncode == 0
    assert "BuildKit v0.8 and later can't export" in result.stdout
    assert worker_of(root.verify("--format", "json"))["upstream_exact"] is True
    assert worker_of(status(root, "--format", "json"))["upstream_exact"] is None
    assert "blob sizes: unknown" in status(root).stdout


@pytest.mark.parametrize("upstream_exact", [False, True])
def test_store_shows_its_sizes_without_a_journal(root: OnDisk, upstream_exact: bool) -> None:
    migrate_root(root.root, upstream_exact=upstream_exact)
    journal.discard(journal.journal_path(root.v2))
    assert worker_of(root.verify("--format", "json"))["upstream_exact"] is upstream_exact
    # If one record has its size, all must.
    ids = sorted(id for id, size in sizes(root).items() if size)
    ondisk.edit(root.v2, {b"_main": {id: {b"cache.blobsize": None} for id in ids[1:]}})
    (worker,) = verify_root(root.root)
    assert [(found.subject, found.key) for found in worker.findings.differences] == [
        (id, b"cache.blobsize") for id in ids[1:]
    ]


def test_lost_sizes_are_differences_if_the_journal_says_written(root: OnDisk) -> None:
    root.migrate_here()
    ids = sorted(sizes(root))
    ondisk.edit(root.v2, {b"_main": {id: {b"cache.blobsize": None} for id in ids}})
    (worker,) = verify_root(root.root)
    assert sorted(found.subject for found in worker.findings.differences) == ids


# --- Journals of a run with the other option


def leave_unfinished(root: OnDisk, upstream_exact: bool) -> None:
    """Leaves the root as a run does that died right before the switch."""
    migrate_root(root.root, upstream_exact=upstream_exact)
    root.v2.unlink()


def as_an_older_version_wrote_it(root: OnDisk) -> None:
    with (
        lmdb.open(str(journal.journal_path(root.v2))) as environment,
        environment.begin(write=True) as change,
    ):
        state = json.loads(change.get(b"\0") or b"")
        del state["upstream_exact"]
        change.put(b"\0", json.dumps({**state, "format": 1}).encode())


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("then", [False, True])
def test_interrupted_run_continues_only_with_the_same_option(root: OnDisk, then: bool, dry_run: bool) -> None:
    before = {path: path.read_bytes() for path in (root.v1, root.containerd)}
    leave_unfinished(root, then)
    now = ondisk.listing(root.root)
    words = ("with", "without") if then else ("without", "with")
    with pytest.raises(errors.JournalError) as refused:
        migrate_root(root.root, upstream_exact=not then, dry_run=dry_run)
    assert f"begun {words[0]} --upstream-exact" in refused.value.message
    assert f"this one is {words[1]} it" in refused.value.message
    assert "changed since" not in refused.value.message
    assert f"again {words[0]} --upstream-exact" in (refused.value.hint or "")
    assert ondisk.listing(root.root) == now
    assert f"blob sizes: {'none' if then else 'written'}" in status(root).stdout
    if dry_run:
        root.undo_here()
        assert {path: path.read_bytes() for path in before} == before
    else:
        migrate_root(root.root, upstream_exact=then)
        check_reports(root, then)


def test_journal_of_an_older_version_means_no_sizes(root: OnDisk) -> None:
    """That version wrote no sizes."""
    migrate_root(root.root, upstream_exact=True)
    as_an_older_version_wrote_it(root)
    check_reports(root, upstream_exact=True)
    root.v2.unlink()
    refused = root.migrate("--format", "json")
    assert refused.returncode == 13
    assert "or by an older version" in json.loads(refused.stdout)["error"]["message"]
    assert root.migrate("--upstream-exact").returncode == 0
    check_reports(root, upstream_exact=True)
    assert ondisk.run("undo", str(root.root)).returncode == 0


def test_run_that_changed_nothing_may_switch_the_option(root: OnDisk) -> None:
    replaced = max(index for index, name in enumerate(calls("migrate")) if name == "rename") - 1
    while calls("migrate")[replaced] != "rename":
        replaced -= 1
    assert fault_points.run(replaced, "kill", "migrate", root).returncode == -9
    assert journal.read_state(journal.journal_path(root.v2)) is not None
    assert root.migrate("--upstream-exact").returncode == 0
    check_reports(root, upstream_exact=True)
