"""`verify` of roots on disk: fresh ones are right, and every single fault in them is named."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import fixtures
import ondisk
from buildkit_migrate import errors, verify_root
from buildkit_migrate.bolt import Database, check
from buildkit_migrate.bolt.edits import Edits
from buildkit_migrate.cli import render
from buildkit_migrate.containerd.offline import OfflineContainerd
from buildkit_migrate.migration.verification import Verdict, verify_new_store
from buildkit_migrate.migration.verify import DifferenceKind
from buildkit_migrate.model import Kind
from buildkit_migrate.store.lmdb_store import LmdbStore
from dicts import file_of
from fixtures import FLAT_LABEL, ROOT_LABEL, bucket, buckets
from ondisk import OnDisk
from test_locks import HELD, held

NAMESPACE = (b"v1", b"buildkit")


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> OnDisk:
    root = ondisk.sample(tmp_path_factory.mktemp("migrated"))
    root.migrate_here()
    return root


@pytest.fixture
def root(migrated: OnDisk, tmp_path: Path) -> OnDisk:
    """A migrated root of one's own."""
    shutil.copytree(migrated.root, tmp_path / "root")
    return ondisk.oci(tmp_path / "root", migrated.snapshotter)


# --- Right ones


@pytest.mark.parametrize("name", sorted(fixtures.REAL_ROOTS))
def test_real_root(name: str, tmp_path: Path) -> None:
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
def test_what_the_reference_made_of_a_real_root(name: str, tmp_path: Path) -> None:
    """It had its garbage collected meanwhile: no view is left."""
    root = ondisk.real(name, tmp_path)
    expected = fixtures.real_root(name)
    root.v2.write_bytes(file_of(expected.metadata_v2))
    root.containerd.write_bytes(file_of(expected.containerd_after))
    # The dump has no sequences of buckets.
    ondisk.set_sequence(root.containerd, (*NAMESPACE, b"snapshots", root.snapshotter.encode()), 1000)
    result = root.verify()
    assert (result.returncode, result.stderr) == (0, "")
    assert f"not checked: containerd's database as a whole: there is no {root.kept}\n" in result.stdout


def test_state_is_the_survey_of_another_reader(root: OnDisk) -> None:
    containerd = ondisk.tree(root.containerd)
    survey = fixtures.survey_of(containerd, ondisk.tree(root.snapshots), root.snapshotter)
    with OfflineContainerd.open(root.containerd, root.snapshots, exclusive=False) as offline:
        state = offline.state([b"some"])
    assert state.snapshots == survey.snapshots
    assert state.blobs == survey.blobs
    assert state.leases == survey.leases
    leases = buckets(bucket(containerd, *NAMESPACE, b"leases"))
    assert state.flat_leases == {id for id, lease in leases.items() if FLAT_LABEL in bucket(lease, b"labels")}


def test_records_that_were_dropped(tmp_path: Path) -> None:
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


def test_lmdb_store(tmp_path: Path) -> None:
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


# --- Wrong ones


class Sample:
    """What the migrated sample root holds, and things in it to spoil."""

    def __init__(self, root: OnDisk) -> None:
        self.root = root
        self.v2, self.containerd, self.backend = (
            ondisk.tree(path) for path in (root.v2, root.containerd, root.snapshots)
        )
        self.records = buckets(bucket(self.v2, b"_main"))
        survey = fixtures.survey_of(self.containerd, self.backend, root.snapshotter)
        self.snapshots = survey.snapshots
        self.leases = survey.leases
        parents = {snapshot.parent for snapshot in self.snapshots.values()}
        layers = [id for id, record in self.records.items() if b"cache.chainID" in record]
        self.layer = next(id for id in layers if id in parents and self.snapshots[id].parent)
        self.leaf = next(id for id in layers if id not in parents)
        self.mutable = next(id for id, record in self.records.items() if b"snapshot.committed" not in record)
        self.view = next(name for name, snapshot in self.snapshots.items() if snapshot.kind is Kind.VIEW)
        self.external = next(iter(buckets(bucket(self.v2, b"_external"))))
        self.blob = next(id for kind, id in self.leases[self.layer] if kind == "content")

    def edit_v2(self, edits: Edits) -> None:
        ondisk.edit(self.root.v2, edits)

    def edit_record(self, id: bytes, edits: Edits) -> None:
        self.edit_v2({b"_main": {id: edits}})

    def edit_containerd(self, edits: Edits) -> None:
        ondisk.edit(self.root.containerd, {b"v1": {b"buildkit": edits}})

    def edit_lease(self, edits: Edits | None) -> None:
        self.edit_containerd({b"leases": {self.layer: edits}})

    def edit_snapshot(self, name: bytes, edits: Edits | None) -> None:
        self.edit_containerd({b"snapshots": {b"overlayfs": {name: edits}}})

    def backend_name(self, name: bytes) -> bytes:
        backend_name = bucket(self.containerd, *NAMESPACE, b"snapshots", b"overlayfs", name)[b"name"]
        assert isinstance(backend_name, bytes)
        return backend_name

    def edit_backend(self, name: bytes, edits: Edits | None) -> None:
        ondisk.edit(self.root.snapshots, {b"v1": {b"snapshots": {self.backend_name(name): edits}}})

    def chain_key(self, prefix: bytes) -> bytes:
        keys = bucket(self.v2, b"_index")
        return next(key for key in keys if key.startswith(prefix) and key.endswith(b"::" + self.layer))


Named = tuple[DifferenceKind, bytes, bytes]
"""Kind, subject and key of the one difference that a fault makes."""

FAULTS: dict[str, Callable[[Sample], Named]] = {}


def fault(plant: Callable[[Sample], Named]) -> Callable[[Sample], Named]:
    FAULTS[plant.__name__] = plant
    return plant


OTHER_DIGEST = b"sha256:" + b"0" * 64


def text(value: bytes, index: bytes = b"") -> bytes:
    return b'{"value":"%b"%b}' % (value, b',"index":"%b"' % index if index else b"")


@fault
def wrong_chain_id(sample: Sample) -> Named:
    value = text(OTHER_DIGEST, b"chainid:" + OTHER_DIGEST)
    sample.edit_record(sample.layer, {b"cache.chainID": value})
    return DifferenceKind.VALUE_DIFFERS, sample.layer, b"cache.chainID"


@fault
def wrong_blob_chain_id(sample: Sample) -> Named:
    value = text(OTHER_DIGEST, b"blobchainid:" + OTHER_DIGEST)
    sample.edit_record(sample.leaf, {b"cache.blobChainID": value})
    return DifferenceKind.VALUE_DIFFERS, sample.leaf, b"cache.blobChainID"


@fault
def wrong_blob_size(sample: Sample) -> Named:
    sample.edit_record(sample.leaf, {b"cache.blobsize": b'{"value":1}'})
    return DifferenceKind.VALUE_DIFFERS, sample.leaf, b"cache.blobsize"


@fault
def blob_size_of_another_type(sample: Sample) -> Named:
    sample.edit_record(sample.leaf, {b"cache.blobsize": text(b"1")})
    return DifferenceKind.VALUE_DIFFERS, sample.leaf, b"cache.blobsize"


@fault
def no_blob_size(sample: Sample) -> Named:
    sample.edit_record(sample.leaf, {b"cache.blobsize": None})
    return DifferenceKind.VALUE_MISSING, sample.leaf, b"cache.blobsize"


@fault
def right_chain_id_under_no_index(sample: Sample) -> Named:
    stored = sample.records[sample.leaf][b"cache.chainID"]
    assert isinstance(stored, bytes)
    sample.edit_record(sample.leaf, {b"cache.chainID": text(json.loads(stored)["value"].encode())})
    return DifferenceKind.VALUE_DIFFERS, sample.leaf, b"cache.chainID"


@fault
def wrong_parent(sample: Sample) -> Named:
    sample.edit_record(sample.layer, {b"cache.parent": text(sample.leaf)})
    return DifferenceKind.VALUE_DIFFERS, sample.layer, b"cache.parent"


@fault
def parent_lost(sample: Sample) -> Named:
    sample.edit_record(sample.layer, {b"cache.parent": None})
    return DifferenceKind.VALUE_MISSING, sample.layer, b"cache.parent"


@fault
def wrong_snapshot_name(sample: Sample) -> Named:
    sample.edit_record(sample.mutable, {b"cache.snapshot": text(sample.layer)})
    return DifferenceKind.VALUE_DIFFERS, sample.mutable, b"cache.snapshot"


@fault
def wrong_media_type(sample: Sample) -> Named:
    value = text(b"application/vnd.oci.image.layer.v1.tar")
    sample.edit_record(sample.leaf, {b"cache.mediatype": value})
    return DifferenceKind.VALUE_DIFFERS, sample.leaf, b"cache.mediatype"


@fault
def same_value_with_a_space(sample: Sample) -> Named:
    sample.edit_record(sample.layer, {b"snapshot.committed": b'{"value": true}'})
    return DifferenceKind.VALUE_DIFFERS, sample.layer, b"snapshot.committed"


@fault
def v1_value_changed(sample: Sample) -> Named:
    sample.edit_record(sample.layer, {b"cache.createdAt": b'{"value":1}'})
    return DifferenceKind.VALUE_DIFFERS, sample.layer, b"cache.createdAt"


@fault
def v1_value_lost(sample: Sample) -> Named:
    sample.edit_record(sample.layer, {b"cache.description": None})
    return DifferenceKind.VALUE_MISSING, sample.layer, b"cache.description"


@fault
def value_too_many(sample: Sample) -> Named:
    sample.edit_record(sample.mutable, {b"cache.blobonly": b'{"value":true}'})
    return DifferenceKind.VALUE_UNEXPECTED, sample.mutable, b"cache.blobonly"


@fault
def record_missing(sample: Sample) -> Named:
    sample.edit_v2({b"_main": {sample.layer: None}})
    return DifferenceKind.RECORD_MISSING, sample.layer, b""


@fault
def record_too_many(sample: Sample) -> Named:
    sample.edit_record(b"new", {b"etag": text(b"x")})
    return DifferenceKind.RECORD_UNEXPECTED, b"new", b""


@fault
def index_entry_missing(sample: Sample) -> Named:
    key = sample.chain_key(b"blobchainid:")
    sample.edit_v2({b"_index": {key: None}})
    return DifferenceKind.INDEX_MISSING, key, b""


@fault
def index_entry_of_v1_lost(sample: Sample) -> Named:
    key = next(key for key in bucket(sample.v2, b"_index") if key.startswith(b"blobmap::"))
    sample.edit_v2({b"_index": {key: None}})
    return DifferenceKind.INDEX_MISSING, key, b""


@fault
def index_entry_of_no_record(sample: Sample) -> Named:
    key = b"chainid:" + OTHER_DIGEST + b"::nobody"
    sample.edit_v2({b"_index": {key: b""}})
    return DifferenceKind.INDEX_DANGLING, key, b""


@fault
def index_entry_of_another_value(sample: Sample) -> Named:
    key = b"chainid:" + OTHER_DIGEST + b"::" + sample.layer
    sample.edit_v2({b"_index": {key: b""}})
    return DifferenceKind.INDEX_DANGLING, key, b""


@fault
def external_data_changed(sample: Sample) -> Named:
    name = next(iter(bucket(sample.v2, b"_external", sample.external)))
    sample.edit_v2({b"_external": {sample.external: {name: b"other"}}})
    return DifferenceKind.EXTERNAL_DIFFERS, sample.external, name


@fault
def external_data_lost(sample: Sample) -> Named:
    sample.edit_v2({b"_external": {sample.external: None}})
    return DifferenceKind.EXTERNAL_DIFFERS, sample.external, b""


@fault
def foreign_bucket(sample: Sample) -> Named:
    sample.edit_v2({b"foreign": {b"key": b"value"}})
    return DifferenceKind.OTHER_DIFFERS, b"foreign", b""


@fault
def index_bucket_lost(sample: Sample) -> Named:
    sample.edit_v2({b"_index": None})
    return DifferenceKind.OTHER_DIFFERS, b"_index", b""


@fault
def lease_missing(sample: Sample) -> Named:
    sample.edit_lease(None)
    return DifferenceKind.LEASE_MISSING, sample.layer, b""


@fault
def lease_not_flat(sample: Sample) -> Named:
    sample.edit_lease({b"labels": {FLAT_LABEL: None}})
    return DifferenceKind.LEASE_NOT_FLAT, sample.layer, b""


@fault
def snapshot_resource_missing(sample: Sample) -> Named:
    sample.edit_lease({b"snapshots": {b"overlayfs": {sample.layer: None}}})
    return DifferenceKind.RESOURCE_MISSING, sample.layer, b"snapshots/overlayfs"


@fault
def resource_of_another_snapshotter(sample: Sample) -> Named:
    sample.edit_lease({b"snapshots": {b"overlayfs": None, b"native": {sample.layer: b""}}})
    return DifferenceKind.RESOURCE_MISSING, sample.layer, b"snapshots/overlayfs"


@fault
def content_resource_missing(sample: Sample) -> Named:
    sample.edit_lease({b"content": None})
    return DifferenceKind.RESOURCE_MISSING, sample.layer, b"content"


@fault
def label_on_snapshot(sample: Sample) -> Named:
    sample.edit_snapshot(sample.layer, {b"labels": {ROOT_LABEL: b"2020-09-13T12:26:40Z"}})
    return DifferenceKind.LABEL_ON_SNAPSHOT, sample.layer, b""


@fault
def label_on_view(sample: Sample) -> Named:
    sample.edit_snapshot(sample.view, {b"labels": {ROOT_LABEL: b"2020-09-13T12:26:40Z"}})
    return DifferenceKind.LABEL_ON_VIEW, sample.view, b""


@fault
def label_on_blob(sample: Sample) -> Named:
    sample.edit_containerd({b"content": {b"blob": {sample.blob: {b"labels": {ROOT_LABEL: b"x"}}}}})
    return DifferenceKind.LABEL_ON_BLOB, sample.blob, b""


@fault
def snapshot_gone(sample: Sample) -> Named:
    sample.edit_snapshot(sample.layer, None)
    return DifferenceKind.SNAPSHOT_MISSING, sample.layer, sample.layer


@fault
def snapshot_gone_in_the_snapshotter(sample: Sample) -> Named:
    sample.edit_backend(sample.mutable, None)
    return DifferenceKind.SNAPSHOT_MISSING, sample.mutable, sample.mutable


@fault
def snapshot_no_longer_committed(sample: Sample) -> Named:
    sample.edit_backend(sample.layer, {b"kind": b"\x02"})
    return DifferenceKind.SNAPSHOT_KIND, sample.layer, b"snapshot.committed"


@fault
def record_not_committed(sample: Sample) -> Named:
    sample.edit_record(sample.layer, {b"snapshot.committed": None})
    return DifferenceKind.SNAPSHOT_KIND, sample.layer, b"snapshot.committed"


@fault
def blob_gone(sample: Sample) -> Named:
    sample.edit_containerd({b"content": {b"blob": {sample.blob: None}}})
    user = min(id for id, resources in sample.leases.items() if ("content", sample.blob) in resources)
    return DifferenceKind.BLOB_MISSING, sample.blob, user


@fault
def page_of_v2_flipped(sample: Sample) -> Named:
    return flip_page(sample.root.v2)


@fault
def page_of_v1_flipped(sample: Sample) -> Named:
    return flip_page(sample.root.v1)


@fault
def page_of_containerd_flipped(sample: Sample) -> Named:
    return flip_page(sample.root.containerd)


@fault
def page_of_the_snapshotter_flipped(sample: Sample) -> Named:
    return flip_page(sample.root.snapshots)


def flip_page(path: Path) -> Named:
    """Turns a page that is in use into one of no kind."""
    sound = path.read_bytes()
    for page in range(2, len(sound) // 4096):
        damaged = bytearray(sound)
        damaged[page * 4096 + 8] ^= 0xFF
        path.write_bytes(damaged)
        with Database.open(path) as database:
            if check(database.reader):
                return DifferenceKind.DAMAGED, bytes(path), b"page %d" % page
    raise AssertionError("no page is in use")


FOLLOW: dict[str, Named] = {
    "resource_of_another_snapshotter": (
        DifferenceKind.REST_UNEXPECTED,
        b"v1/buildkit/leases/%b/snapshots/native",
        b"",
    ),
    "snapshot_gone_in_the_snapshotter": (DifferenceKind.SNAPSHOT_LINK, b"%b", b""),
    "snapshot_no_longer_committed": (DifferenceKind.SNAPSHOT_KIND, b"%b", b"kind"),
}
"""What else is wrong after a fault; %b is the subject of the fault, or its name in the snapshotter."""


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_single_fault(name: str, root: OnDisk) -> None:
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


def test_several_faults_by_the_command(root: OnDisk) -> None:
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


def test_json(root: OnDisk) -> None:
    record_missing(Sample(root))
    result = root.verify("--format", "json")
    assert (result.returncode, result.stderr) == (10, "")
    document = json.loads(result.stdout)
    assert document["root"] == str(root.root)
    (worker,) = document["workers"]
    assert (worker["worker"], worker["verdict"]) == (str(root.worker), "different")
    (difference,) = worker["differences"]
    assert {name for name, text in difference.items() if text is not None} == {"kind", "subject"}


# --- Where there is nothing to compare, or no way to


def test_not_migrated(tmp_path: Path) -> None:
    root = ondisk.sample(tmp_path)
    before = ondisk.listing(tmp_path)
    result = root.verify()
    assert (result.returncode, result.stdout) == (10, f"{root.worker}: not migrated\n")
    assert ondisk.listing(tmp_path) == before


@pytest.mark.parametrize("with_v2", [True, False])
def test_no_v1(root: OnDisk, with_v2: bool) -> None:
    root.v1.unlink()
    if not with_v2:
        root.v2.unlink()
    result = root.verify()
    assert (result.returncode, "nothing to verify" in result.stdout) == (0, True)


def test_no_workers(tmp_path: Path) -> None:
    result = ondisk.run("verify", str(tmp_path))
    assert (result.returncode, "nothing to verify" in result.stdout) == (0, True)


@pytest.mark.parametrize("name", [*HELD, "runc-overlayfs/metadata_v2.db"])
def test_a_daemon_is_running(root: OnDisk, name: str) -> None:
    (root.root / "cache.db").touch()
    with held(root.root / name):
        assert root.verify().returncode == 4
    with held(root.root / name, "shared"):
        root.verify_here()


def test_nothing_is_written(root: OnDisk) -> None:
    (root.root / "buildkitd.lock").unlink()
    before = ondisk.listing(root.root)
    assert root.verify("--format", "json").returncode == 0
    assert ondisk.listing(root.root) == before


def test_progress_needs_a_terminal(root: OnDisk) -> None:
    terminal, child_side = os.openpty()
    process = subprocess.run(
        [sys.executable, "-m", "buildkit_migrate", "verify", "--format", "json", str(root.root)],
        stdout=subprocess.PIPE,
        stderr=child_side,
        env={**os.environ, "TERM": "xterm"},
        check=False,
    )
    os.close(child_side)
    shown = os.read(terminal, 1 << 16)
    os.close(terminal)
    assert process.returncode == 0
    assert json.loads(process.stdout)["workers"]
    assert b"checking" in shown or b"comparing" in shown or b"starting" in shown


def test_containerd_of_somebody_else(root: OnDisk) -> None:
    ondisk.empty_database(root.containerd)
    with pytest.raises(errors.ContainerdStateError, match="no snapshots of overlayfs in namespace buildkit"):
        verify_root(root.root)


def test_empty_store(tmp_path: Path) -> None:
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


def test_new_store_before_the_switch(root: OnDisk, tmp_path: Path) -> None:
    """As in the middle of a migration: leases and labels are still those of v1."""
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


def test_error_names_the_differences(root: OnDisk, tmp_path: Path) -> None:
    (tmp_path / "fresh").mkdir()
    fresh = ondisk.sample(tmp_path / "fresh")
    sample = Sample(root)
    record_missing(sample)
    with pytest.raises(errors.DifferencesError) as caught:
        verify_aside(fresh, root.v2)
    assert f"  record-missing: {sample.layer.decode()}" in render.error_lines(caught.value, verbose=False)
    (difference,) = render.error_as_dict(caught.value)["differences"]
    named = {name: text for name, text in difference.items() if text is not None}
    assert named == {"kind": "record-missing", "subject": sample.layer.decode()}
