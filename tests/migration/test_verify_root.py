"""`verify` of roots on disk: fresh ones are correct, and every single fault is named."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

import fixtures
import ondisk
from buildkit_migrate import errors, verify_root
from buildkit_migrate.bolt import Database
from buildkit_migrate.cli import render
from buildkit_migrate.containerd.offline import OfflineContainerd
from buildkit_migrate.migration.verification import Verdict, verify_new_store
from buildkit_migrate.migration.verify import DifferenceKind
from buildkit_migrate.store.lmdb_store import LmdbStore
from dicts import file_of
from fixtures import FLAT_LABEL, NAMESPACE, bucket, buckets
from holding import HELD, held
from ondisk import OnDisk
from terminal import on_a_terminal
from verify_faults import (
    FAULTS,
    FOLLOW,
    Sample,
    lease_not_flat,
    record_missing,
    snapshot_resource_missing,
    wrong_chain_id,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> OnDisk:
    root = ondisk.sample(tmp_path_factory.mktemp("migrated"))
    root.migrate_here()
    return root


@pytest.fixture
def root(migrated: OnDisk, tmp_path: Path) -> OnDisk:
    """A migrated root that the test may change."""
    return ondisk.copy_of(migrated, tmp_path)


# --- Correct roots


@pytest.mark.parametrize("name", sorted(fixtures.REAL_ROOTS))
def test_migrated_real_root_verifies(name: str, tmp_path: Path) -> None:
    root = ondisk.real(name, tmp_path)
    root.migrate_here()
    before = ondisk.listing(tmp_path)
    result = root.verify("--content")
    assert (result.returncode, result.stderr) == (0, "")
    records = len(fixtures.real_root(name).records)
    assert result.stdout.startswith(
        f"{root.worker}: OK: {records} of {records} records are in the v2 store ("
    )
    assert "not checked" not in result.stdout
    assert ondisk.listing(tmp_path) == before


@pytest.mark.parametrize("name", sorted(fixtures.REAL_ROOTS))
def test_result_of_upstream_verifies(name: str, tmp_path: Path) -> None:
    """Its garbage was collected, so no views are left."""
    root = ondisk.real(name, tmp_path)
    expected = fixtures.real_root(name)
    root.v2.write_bytes(file_of(expected.metadata_v2))
    root.containerd.write_bytes(file_of(expected.containerd_after))
    # The dump has no bucket sequences.
    ondisk.set_sequence(root.containerd, (*NAMESPACE, b"snapshots", root.snapshotter.encode()), 1000)
    result = root.verify()
    assert (result.returncode, result.stderr) == (0, "")
    assert f"not checked: containerd's database as a whole: there is no {root.kept}\n" in result.stdout


def test_state_equals_an_independent_survey(root: OnDisk) -> None:
    containerd = ondisk.tree(root.containerd)
    survey = fixtures.survey_of(containerd, ondisk.tree(root.snapshots), root.snapshotter)
    with OfflineContainerd.open(root.containerd, root.snapshots, exclusive=False) as offline:
        state = offline.state([b"some"])
    assert state.snapshots == survey.snapshots
    assert state.blobs == survey.blobs
    assert state.leases == survey.leases
    leases = buckets(bucket(containerd, *NAMESPACE, b"leases"))
    assert state.flat_leases == {id for id, lease in leases.items() if FLAT_LABEL in bucket(lease, b"labels")}


def test_dropped_records_are_reported(tmp_path: Path) -> None:
    root = ondisk.sample(tmp_path)
    records = sorted(buckets(bucket(ondisk.tree(root.v1), b"_main")))
    ondisk.edit(root.v1, {b"_main": {records[0]: {b"cache.description": b"{"}}})
    assert root.migrate("--on-broken", "drop").returncode == 0
    result = root.verify("-v")
    assert result.returncode == 0
    assert f"{records[0].decode()}: undecodable-value (cache.description)" in result.stdout
    (worker,) = json.loads(root.verify("--format", "json").stdout)["workers"]
    assert (worker["verdict"], worker["records_in_v1"]) == ("ok", len(records))
    assert (
        worker["records"] == len(bucket(ondisk.tree(root.v2), b"_main")) == len(records) - worker["left_out"]
    )
    assert (
        f"OK: {worker['records']} of {len(records)} records are in the v2 store; "
        f"{worker['left_out']} broken ones were left out ("
    ) in result.stdout


def test_lmdb_store_verifies(tmp_path: Path) -> None:
    root = ondisk.sample(tmp_path)
    assert root.migrate("--to-engine", "lmdb").returncode == 0
    (worker,) = verify_root(root.root)
    assert (worker.verdict, worker.findings.differences) == (Verdict.OK, ())
    with contextlib.closing(LmdbStore.open(root.v2)) as store:
        id = next(store.all()).id
        store.clear(id)
    (worker,) = verify_root(root.root)
    assert worker.verdict is Verdict.DIFFERENT
    assert (DifferenceKind.RECORD_MISSING, id) in {(d.kind, d.subject) for d in worker.findings.differences}


# --- Faults


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_single_fault_is_the_only_difference(name: str, root: OnDisk) -> None:
    sample = Sample(root)
    fault = FAULTS[name](sample)
    expected = {fault}
    if name in FOLLOW:
        kind, subject, key = FOLLOW[name]
        subjects = (fault[1], sample.backend_name(fault[1]))
        expected.add((kind, subject % subjects[b"/leases/" not in subject], key))
    (worker,) = verify_root(root.root)
    assert worker.verdict is Verdict.DIFFERENT
    found = [
        (difference.kind, difference.subject, difference.key) for difference in worker.findings.differences
    ]
    assert sorted(found) == sorted(expected)


def test_several_faults_are_listed_as_text(root: OnDisk) -> None:
    sample = Sample(root)
    snapshot_resource_missing(sample)
    lease_not_flat(sample)
    wrong_chain_id(sample)
    result = root.verify()
    assert (result.returncode, result.stderr) == (10, "")
    first, *lines = result.stdout.splitlines()
    assert first.startswith(f"{root.worker}: 3 differences (")
    layer = sample.layer.decode()
    assert f"  lease-without-gc.flat: {layer}" in lines
    assert f"  lease-resource-missing: {layer} snapshots/overlayfs (expected {layer})" in lines
    assert any(line.startswith(f"  value-differs: {layer} cache.chainID (expected {{") for line in lines)


def test_difference_is_reported_as_json(root: OnDisk) -> None:
    record_missing(Sample(root))
    result = root.verify("--format", "json")
    assert (result.returncode, result.stderr) == (10, "")
    document = json.loads(result.stdout)
    assert document["root"] == str(root.root)
    (worker,) = document["workers"]
    assert (worker["worker"], worker["verdict"]) == (str(root.worker), "different")
    (difference,) = worker["differences"]
    assert {name for name, text in difference.items() if text is not None} == {"kind", "subject"}


# --- Nothing to compare, or no access


def test_root_that_is_not_migrated_exits_with_10(tmp_path: Path) -> None:
    root = ondisk.sample(tmp_path)
    before = ondisk.listing(tmp_path)
    result = root.verify()
    assert (result.returncode, result.stdout) == (10, f"{root.worker}: not migrated\n")
    assert ondisk.listing(tmp_path) == before


@pytest.mark.parametrize("with_v2", [True, False])
def test_root_without_v1_has_nothing_to_verify(root: OnDisk, with_v2: bool) -> None:
    root.v1.unlink()
    if not with_v2:
        root.v2.unlink()
    result = root.verify()
    assert (result.returncode, "nothing to verify" in result.stdout) == (0, True)


def test_root_without_workers_has_nothing_to_verify(tmp_path: Path) -> None:
    result = ondisk.run("verify", str(tmp_path))
    assert (result.returncode, "nothing to verify" in result.stdout) == (0, True)


@pytest.mark.parametrize("name", [*HELD, "runc-overlayfs/metadata_v2.db"])
def test_exclusively_locked_file_is_refused_and_shared_is_read(root: OnDisk, name: str) -> None:
    (root.root / "cache.db").touch()
    with held(root.root / name):
        assert root.verify().returncode == 4
    with held(root.root / name, "shared"):
        root.verify_here()


def test_verify_writes_nothing(root: OnDisk) -> None:
    (root.root / "buildkitd.lock").unlink()
    before = ondisk.listing(root.root)
    assert root.verify("--format", "json").returncode == 0
    assert ondisk.listing(root.root) == before


def test_progress_is_shown_on_a_terminal(root: OnDisk) -> None:
    status, shown, out = on_a_terminal("verify", "--progress", "bar", "--format", "json", str(root.root))
    assert status == 0
    assert json.loads(out)["workers"]
    assert b"comparing" in shown  # the status line shows the last step before it disappears


def test_empty_containerd_is_refused(root: OnDisk) -> None:
    ondisk.empty_database(root.containerd)
    with pytest.raises(errors.ContainerdStateError, match="no snapshots of overlayfs in namespace buildkit"):
        verify_root(root.root)


def test_empty_store_verifies(tmp_path: Path) -> None:
    root = ondisk.sample(tmp_path)
    root.v1.write_bytes(b"")
    ondisk.empty_database(root.containerd)
    root.migrate_here()
    (worker,) = verify_root(root.root)
    assert (worker.verdict, worker.findings.records) == (Verdict.OK, 0)


# --- Before the switch


def verify_aside(root: OnDisk, v2: Path) -> None:
    with (
        Database.open(root.v1) as source,
        Database.open(v2) as new,
        OfflineContainerd.open(root.containerd, root.snapshots, exclusive=False) as containerd,
    ):
        verify_new_store(source, new, containerd, upstream_exact=False)


def test_new_store_is_verified_before_the_switch(root: OnDisk, tmp_path: Path) -> None:
    """As during a migration, when leases and labels are still those of v1."""
    (tmp_path / "fresh").mkdir()
    fresh = ondisk.sample(tmp_path / "fresh")
    verify_aside(fresh, root.v2)
    for name in ("wrong_chain_id", "record_missing", "page_of_v2_flipped"):
        sound = root.v2.read_bytes()
        kind, subject, _ = FAULTS[name](Sample(root))
        with pytest.raises(errors.DifferencesError) as caught:
            verify_aside(fresh, root.v2)
        assert {(found.kind, found.subject) for found in caught.value.differences} == {(kind, subject)}
        assert caught.value.exit_code == 10
        root.v2.write_bytes(sound)


def test_error_before_the_switch_names_the_differences(root: OnDisk, tmp_path: Path) -> None:
    (tmp_path / "fresh").mkdir()
    fresh = ondisk.sample(tmp_path / "fresh")
    sample = Sample(root)
    record_missing(sample)
    with pytest.raises(errors.DifferencesError) as caught:
        verify_aside(fresh, root.v2)
    assert f"    record-missing: {sample.layer.decode()}" in render.error_lines(caught.value, verbose=False)
    (difference,) = caught.value.as_dict()["differences"]
    named = {name: text for name, text in difference.items() if text is not None}
    assert named == {"kind": "record-missing", "subject": sample.layer.decode()}
