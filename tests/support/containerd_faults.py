"""Faults to plant in the databases of a migrated root's containerd, and what `verify` must say of each."""

from __future__ import annotations

import struct
from collections.abc import Callable

import ondisk
from buildkit_migrate.bolt.edits import Edits
from buildkit_migrate.migration.findings import DifferenceKind
from fixtures import bucket, buckets
from ondisk import OnDisk
from verify_faults import Sample

EXPIRE_LABEL = b"containerd.io/gc.expire"
OF_BLOB = b"containerd.io/uncompressed"
TIME = struct.pack(">BqIh", 1, 62135596800 + 1_600_000_000, 0, -1)

OTHERS: Edits = {
    b"v1": {
        b"k8s.io": {
            b"leases": {b"pod": {b"createdat": TIME, b"labels": {EXPIRE_LABEL: b"2020-09-13T12:26:40Z"}}},
            b"snapshots": {b"overlayfs": {}},
            b"content": {b"blob": {b"sha256:" + b"1" * 64: {b"size": b"\x02"}}},
            b"images": {b"pause": {b"target": {b"size": b"\x02"}}},
        },
        b"buildkit": {
            b"content": {b"ingests": {b"layer": {b"ref": b"1", b"expireat": TIME}}},
            b"images": {b"docker.io/library/a": {b"createdat": TIME}},
            b"labels": {b"owner": b"me"},
            b"leases": {b"of somebody": {b"createdat": TIME, b"content": {b"sha256:x": b""}}},
        },
    },
    b"sandboxes": {b"k8s.io": {b"one": b"more"}},
}
"""Other content of containerd, which a migration must leave alone."""


class Plants(Sample):
    """Objects of a root to spoil: those of `Sample`, and more of containerd's."""

    def __init__(self, root: OnDisk) -> None:
        super().__init__(root)
        top = bucket(self.containerd, b"v1", b"buildkit")
        self.rows = buckets(bucket(top, b"snapshots", b"overlayfs"))
        self.blob_row = bucket(top, b"content", b"blob", self.blob)
        self.parent = self.snapshots[self.layer].parent
        # Without a dangling child.
        self.only_child = next(
            (name, *children)
            for name, row in self.rows.items()
            if len(children := bucket(row, b"children")) == 1 and children.keys() <= self.rows.keys()
        )
        self.stored = buckets(bucket(self.backend, b"v1", b"snapshots"))
        self.name, self.other_name = self.backend_name(self.layer), self.backend_name(self.leaf)

    def edit_top(self, edits: Edits) -> None:
        ondisk.edit(self.root.containerd, edits)

    def edit_blob(self, edits: Edits | None) -> None:
        self.edit_containerd({b"content": {b"blob": {self.blob: edits}}})

    def edit_links(self, edits: Edits) -> None:
        ondisk.edit(self.root.snapshots, {b"v1": {b"parents": edits}})

    def set_sequence(self, sequence: int) -> None:
        ondisk.set_sequence(self.root.containerd, (b"v1", b"buildkit", b"snapshots", b"overlayfs"), sequence)

    def link(self) -> bytes:
        links = bucket(self.backend, b"v1", b"parents")
        return next(key for key, name in links.items() if name == self.name)


K = DifferenceKind
Plant = Callable[[Plants], object]
Subject = Callable[[Plants], bytes]

RULES: dict[str, tuple[Plant, DifferenceKind, Subject]] = {
    "lease expired": (
        lambda s: s.edit_lease({b"labels": {EXPIRE_LABEL: b"2020-09-13T12:26:40Z"}}),
        K.LEASE_EXPIRED,
        lambda s: s.layer,
    ),
    "lease will expire": (
        lambda s: s.edit_lease({b"labels": {EXPIRE_LABEL: b"9020-09-13T12:26:40Z"}}),
        K.LEASE_EXPIRES,
        lambda s: s.layer,
    ),
    "lease without createdat": (
        lambda s: s.edit_lease({b"createdat": None}),
        K.LEASE_UNDATED,
        lambda s: s.layer,
    ),
    "createdat cut": (
        lambda s: s.edit_lease({b"createdat": TIME[:14]}),
        K.LEASE_UNDATED,
        lambda s: s.layer,
    ),
    "createdat of zero": (
        lambda s: s.edit_lease({b"createdat": b"\1" + bytes(12) + b"\xff\xff"}),
        K.LEASE_UNDATED,
        lambda s: s.layer,
    ),
    "createdat of no version": (
        lambda s: s.edit_lease({b"createdat": b"\x07" + TIME[1:]}),
        K.LEASE_UNDATED,
        lambda s: s.layer,
    ),
    "version gone": (
        lambda s: s.edit_top({b"v1": {b"version": None}}),
        K.VERSION,
        lambda s: b"v1/version",
    ),
    "version of 0": (
        lambda s: s.edit_top({b"v1": {b"version": b"\0"}}),
        K.VERSION,
        lambda s: b"v1/version",
    ),
    "version that is none": (
        lambda s: s.edit_top({b"v1": {b"version": b"\xff"}}),
        K.VERSION,
        lambda s: b"v1/version",
    ),
    "name of another snapshot": (
        lambda s: s.edit_snapshot(s.layer, {b"name": s.other_name}),
        K.SNAPSHOT_NAME,
        lambda s: s.layer,
    ),
    "name of another namespace": (
        lambda s: s.edit_snapshot(s.layer, {b"name": s.name.replace(b"buildkit/", b"k8s.io/")}),
        K.SNAPSHOT_NAME,
        lambda s: s.layer,
    ),
    "name that nobody has": (
        lambda s: s.edit_snapshot(s.layer, {b"name": b"buildkit/1/" + s.layer}),
        K.SNAPSHOT_MISSING,
        lambda s: s.layer,
    ),
    "no name": (
        lambda s: s.edit_snapshot(s.view, {b"name": None}),
        K.SNAPSHOT_NAME,
        lambda s: s.view,
    ),
    "child not listed": (
        lambda s: s.edit_snapshot(s.parent, {b"children": {s.layer: None}}),
        K.SNAPSHOT_CHILD,
        lambda s: s.parent,
    ),
    "no children": (
        lambda s: s.edit_snapshot(s.only_child[0], {b"children": None}),
        K.SNAPSHOT_CHILD,
        lambda s: s.only_child[0],
    ),
    "sequence too low": (
        lambda s: s.set_sequence(3),
        K.SEQUENCE,
        lambda s: b"v1/buildkit/snapshots/overlayfs",
    ),
    # In the snapshotter's database:
    "another parent": (
        lambda s: s.edit_backend(s.layer, {b"parent": s.other_name}),
        K.SNAPSHOT_PARENT,
        lambda s: s.layer,
    ),
    "no parent": (
        lambda s: s.edit_backend(s.layer, {b"parent": None}),
        K.SNAPSHOT_PARENT,
        lambda s: s.layer,
    ),
    "parent that nobody is": (
        lambda s: s.edit_backend(s.layer, {b"parent": b"buildkit/1/nobody"}),
        K.SNAPSHOT_PARENT,
        lambda s: s.layer,
    ),
    "parent is not committed": (
        lambda s: s.edit_backend(s.parent, {b"kind": b"\x02"}),
        K.SNAPSHOT_KIND,
        lambda s: s.backend_name(s.parent),
    ),
    "no kind": (
        lambda s: s.edit_backend(s.mutable, {b"kind": None}),
        K.SNAPSHOT_KIND,
        lambda s: s.backend_name(s.mutable),
    ),
    "kind of 9": (
        lambda s: s.edit_backend(s.mutable, {b"kind": b"\x09"}),
        K.SNAPSHOT_KIND,
        lambda s: s.backend_name(s.mutable),
    ),
    "no id": (lambda s: s.edit_backend(s.layer, {b"id": None}), K.SNAPSHOT_ID, lambda s: s.name),
    "id cut": (lambda s: s.edit_backend(s.layer, {b"id": b"\x80"}), K.SNAPSHOT_ID, lambda s: s.name),
    "id of 0": (lambda s: s.edit_backend(s.layer, {b"id": b"\0"}), K.SNAPSHOT_ID, lambda s: s.name),
    "id and more": (lambda s: s.edit_backend(s.layer, {b"id": b"\1\1"}), K.SNAPSHOT_ID, lambda s: s.name),
    "id of another": (
        lambda s: s.edit_backend(s.layer, {b"id": s.stored[s.other_name][b"id"]}),
        K.SNAPSHOT_ID,
        lambda s: max(s.name, s.other_name),
    ),
    "id too high": (
        lambda s: ondisk.set_sequence(s.root.snapshots, (b"v1", b"snapshots"), 3),
        K.SEQUENCE,
        lambda s: b"v1/snapshots",
    ),
    "time of a snapshot cut": (
        lambda s: s.edit_snapshot(s.layer, {b"createdat": TIME[:14]}),
        K.SNAPSHOT_TIME,
        lambda s: s.layer,
    ),
    "time of a snapshot empty": (
        lambda s: s.edit_snapshot(s.layer, {b"updatedat": b""}),
        K.SNAPSHOT_TIME,
        lambda s: s.layer,
    ),
    "time in the snapshotter of no version": (
        lambda s: s.edit_backend(s.layer, {b"updatedat": b"\0" + TIME[1:]}),
        K.SNAPSHOT_TIME,
        lambda s: s.name,
    ),
    "time in the snapshotter too long": (
        lambda s: s.edit_backend(s.layer, {b"createdat": TIME + b"\0"}),
        K.SNAPSHOT_TIME,
        lambda s: s.name,
    ),
    "time of a blob cut": (
        lambda s: s.edit_blob({b"createdat": TIME[:14]}),
        K.BLOB_TIME,
        lambda s: s.blob,
    ),
    "new time of a blob is none": (
        lambda s: s.edit_blob({b"updatedat": b"x" * 15}),
        K.BLOB_TIME,
        lambda s: s.blob,
    ),
    "size of a snapshot gone": (
        lambda s: s.edit_backend(s.layer, {b"size": None}),
        K.SNAPSHOT_USAGE,
        lambda s: s.name,
    ),
    "inodes of a snapshot cut": (
        lambda s: s.edit_backend(s.layer, {b"inodes": b"\x80"}),
        K.SNAPSHOT_USAGE,
        lambda s: s.name,
    ),
    "size of a snapshot below 0": (
        lambda s: s.edit_backend(s.layer, {b"size": b"\1"}),
        K.SNAPSHOT_USAGE,
        lambda s: s.name,
    ),
    "no entry in parents": (
        lambda s: s.edit_links({s.link(): None}),
        K.SNAPSHOT_LINK,
        lambda s: s.name,
    ),
    "entry in parents of another": (
        lambda s: s.edit_links({s.link(): s.other_name}),
        K.SNAPSHOT_LINK,
        lambda s: s.name,
    ),
    "entry in parents of nobody": (
        lambda s: s.edit_links({b"\x01\x00\x7f": b"buildkit/1/nobody"}),
        K.SNAPSHOT_LINK,
        lambda s: b"buildkit/1/nobody",
    ),
    "all entries in parents": (
        lambda s: ondisk.edit(s.root.snapshots, {b"v1": {b"parents": None}}),
        K.SNAPSHOT_LINK,
        lambda s: s.name,
    ),
    "parent of a view gone": (
        lambda s: s.edit_snapshot(s.snapshots[s.view].parent, None),
        K.SNAPSHOT_MISSING,
        lambda s: s.snapshots[s.view].parent,
    ),
}


WHOLE: dict[str, tuple[Plant, DifferenceKind, bytes]] = {
    "a foreign namespace": (lambda s: s.edit_top({b"v1": {b"k8s.io": None}}), K.REST_MISSING, b"v1/k8s.io"),
    "a foreign lease": (
        lambda s: s.edit_top({b"v1": {b"k8s.io": {b"leases": {b"pod": None}}}}),
        K.REST_MISSING,
        b"v1/k8s.io/leases/pod",
    ),
    "a foreign blob": (
        lambda s: s.edit_top({b"v1": {b"k8s.io": {b"content": {b"blob": None}}}}),
        K.REST_MISSING,
        b"v1/k8s.io/content/blob",
    ),
    "an image": (
        lambda s: s.edit_containerd({b"images": {b"docker.io/library/a": None}}),
        K.REST_MISSING,
        b"v1/buildkit/images/docker.io/library/a",
    ),
    "an ingest": (
        lambda s: s.edit_containerd({b"content": {b"ingests": {b"layer": {b"ref": b"2"}}}}),
        K.REST_DIFFERS,
        b"v1/buildkit/content/ingests/layer/ref",
    ),
    "labels of the namespace": (
        lambda s: s.edit_containerd({b"labels": None}),
        K.REST_MISSING,
        b"v1/buildkit/labels",
    ),
    "a lease of somebody": (
        lambda s: s.edit_containerd({b"leases": {b"of somebody": {b"createdat": None}}}),
        K.REST_MISSING,
        b"v1/buildkit/leases/of somebody/createdat",
    ),
    "a lease more": (
        lambda s: s.edit_containerd({b"leases": {b"more": {b"createdat": TIME}}}),
        K.REST_UNEXPECTED,
        b"v1/buildkit/leases/more",
    ),
    "version 4": (lambda s: s.edit_top({b"v1": {b"version": b"\x08"}}), K.REST_DIFFERS, b"v1/version"),
    "a bucket at the top": (lambda s: s.edit_top({b"sandboxes": None}), K.REST_MISSING, b"sandboxes"),
    "a key at the top": (lambda s: s.edit_top({b"new": b"key"}), K.REST_UNEXPECTED, b"new"),
    "a sequence": (lambda s: s.set_sequence(12345), K.SEQUENCE, b"v1/buildkit/snapshots/overlayfs"),
}
