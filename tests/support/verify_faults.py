"""Faults to plant in a migrated root, and the differences that `verify` must name for each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import fixtures
import ondisk
from buildkit_migrate.bolt import Database, check
from buildkit_migrate.bolt.edits import Edits
from buildkit_migrate.migration.verify import DifferenceKind
from buildkit_migrate.model import Kind
from fixtures import FLAT_LABEL, NAMESPACE, ROOT_LABEL, bucket, buckets
from ondisk import OnDisk


class Sample:
    """The content of the migrated sample root, and objects in it to spoil."""

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
    """Gives a page that is in use an invalid type."""
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
