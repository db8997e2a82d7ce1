"""What a garbage collection of containerd keeps: against a plain statement, and against containerd."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from faults import FLAT, TIME
from hypothesis import given, settings
from hypothesis import strategies as st

import v2_roots
from buildkit_migrate.bolt import Reader
from buildkit_migrate.maintenance.collection import Collection, Objects
from buildkit_migrate.schema.columns import Mask
from buildkit_migrate.schema.containerd import Namespace
from buildkit_migrate.values.times import nanoseconds, stored_time
from containerd_daemon import Containerd, why_missing
from dicts import file_of
from plain_bbolt import BucketDict
from planting import below, edit

NOW_TEXT = b"2026-06-01T12:00:00Z"
NOW = nanoseconds(NOW_TEXT) or 0
BEFORE, AFTER = b"2026-06-01T11:00:00+00:00", b"2026-06-01T13:30:00.5+01:00"
SNAPSHOTTERS = (b"overlayfs", b"native")

Node = tuple[str, bytes]
"""A kind of object, for snapshots with the name of the snapshotter after it, and a key."""


# --- A plain statement


def objects_of(tree: BucketDict) -> dict[Node, BucketDict]:
    found: dict[Node, BucketDict] = {}
    for kind, path in KINDS.items():
        bucket = tree
        for name in path:
            bucket = bucket.get(name, {})
        found.update(((kind, key), value) for key, value in bucket.items())
    return found


KINDS: dict[str, tuple[bytes, ...]] = {
    "blob": (b"content", b"blob"),
    "ingest": (b"content", b"ingests"),
    "image": (b"images",),
    "container": (b"containers",),
    "sandbox": (b"sandboxes",),
    **{f"snapshot {name.decode()}": (b"snapshots", name) for name in SNAPSHOTTERS},
}


def labels_of(entry: BucketDict) -> dict[bytes, bytes]:
    return entry.get(b"labels", {})


def named_by_labels(entry: BucketDict) -> Iterator[Node]:
    for label, value in labels_of(entry).items():
        if label.startswith(b"containerd.io/gc.ref.snapshot."):
            name = label.split(b".", 4)[4].split(b"/")[0].decode()
            yield f"snapshot {name}", value
        for kind, word in (("blob", b"content"), ("image", b"image")):
            prefix = b"containerd.io/gc.ref." + word
            if label == prefix or label.startswith((prefix + b".", prefix + b"/")):
                yield kind, value


def named_by(node: Node, entry: BucketDict, flat: bool) -> Iterator[Node]:
    kind, _ = node
    if kind.startswith("snapshot") and b"parent" in entry:
        yield kind, entry[b"parent"]
    if kind == "image" and b"target" in entry:
        yield "blob", entry[b"target"][b"digest"]
    if flat:
        return
    if kind == "ingest" and b"expected" in entry:
        yield "blob", entry[b"expected"]
    if kind == "container" and b"snapshotKey" in entry:
        yield f"snapshot {entry[b'snapshotter'].decode()}", entry[b"snapshotKey"]
    if kind != "ingest":
        yield from named_by_labels(entry)


def is_over(entry: BucketDict) -> bool:
    end = labels_of(entry).get(b"containerd.io/gc.expire")
    return end == BEFORE


def listed_by(lease: BucketDict) -> Iterator[Node]:
    for kind, path in (("blob", b"content"), ("ingest", b"ingests"), ("image", b"images")):
        yield from ((kind, key) for key in lease.get(path, {}))
    for name, keys in lease.get(b"snapshots", {}).items():
        yield from ((f"snapshot {name.decode()}", key) for key in keys)


def kept_plainly(tree: BucketDict, without: set[bytes]) -> set[Node]:
    everything = objects_of(tree)
    waiting: list[tuple[Node, bool]] = []
    for id, lease in tree.get(b"leases", {}).items():
        if id not in without and not is_over(lease):
            waiting += ((node, FLAT in labels_of(lease)) for node in listed_by(lease))
    for node, entry in everything.items():
        kind, _ = node
        rooted = kind in ("container", "sandbox")
        rooted |= kind == "image" and not is_over(entry)
        rooted |= kind == "ingest" and entry.get(b"expireat", b"") == stored_time(NOW + 1)
        rooted |= kind.startswith(("blob", "snapshot")) and any(
            label.startswith(b"containerd.io/gc.root") for label in labels_of(entry)
        )
        if rooted:
            waiting.append((node, False))
    seen: set[tuple[Node, bool]] = set()
    while waiting:
        node, flat = waiting.pop()
        if node in everything and (node, flat) not in seen:
            seen.add((node, flat))
            waiting += ((named, flat) for named in named_by(node, everything[node], flat))
    return {node for node, _ in seen if node[0] not in ("container", "sandbox")}


# --- Random namespaces

KEYS = st.sampled_from([b"a", b"b", b"c", b"d", b"e"])
LABELS = st.dictionaries(
    st.sampled_from(
        [
            b"containerd.io/gc.root",
            b"containerd.io/gc.root.x",
            b"containerd.io/gc.ref.content",
            b"containerd.io/gc.ref.content.0",
            b"containerd.io/gc.ref.content/x",
            b"containerd.io/gc.ref.contents",
            b"containerd.io/gc.ref.snapshot.overlayfs",
            b"containerd.io/gc.ref.snapshot.native/x",
            b"containerd.io/gc.ref.image.x",
            b"containerd.io/uncompressed",
        ]
    ),
    KEYS,
    max_size=2,
)
EXPIRE = st.sampled_from([{}, {}, {b"containerd.io/gc.expire": BEFORE}, {b"containerd.io/gc.expire": AFTER}])
BROKEN = st.just({b"containerd.io/gc.expire": b"soon"})
FLATNESS = st.sampled_from([{}, {FLAT: b"1"}])


def merged(*parts: Mapping[bytes, bytes]) -> BucketDict:
    return {b"labels": {key: value for part in parts for key, value in part.items()}}


def some(entries: st.SearchStrategy[BucketDict]) -> st.SearchStrategy[BucketDict]:
    return st.dictionaries(KEYS, entries, max_size=5)


def listing() -> st.SearchStrategy[BucketDict]:
    return st.dictionaries(KEYS, st.just(b""), max_size=2)


PLAIN = st.builds(merged, LABELS)
SNAPSHOTS = st.builds(
    lambda labels, parent: {**merged(labels), **parent},
    LABELS,
    st.one_of(st.just({}), st.builds(lambda key: {b"parent": key}, KEYS)),
)
INGESTS = st.builds(
    lambda expected, end: {**expected, **end},
    st.one_of(st.just({}), st.builds(lambda key: {b"expected": key}, KEYS)),
    st.sampled_from([{}, {b"expireat": stored_time(NOW - 1)}, {b"expireat": stored_time(NOW + 1)}]),
)
IMAGES = st.builds(
    lambda key, labels, expire: {**merged(labels, expire), b"target": {b"digest": key}}, KEYS, LABELS, EXPIRE
)
CONTAINERS = st.builds(
    lambda name, key, labels: {**merged(labels), b"snapshotter": name, b"snapshotKey": key},
    st.sampled_from(SNAPSHOTTERS),
    KEYS,
    LABELS,
)
LEASES = st.builds(
    lambda flat, expire, blobs, over, native, ingests, images: {
        **merged(flat, expire),
        b"content": blobs,
        b"snapshots": {b"overlayfs": over, b"native": native},
        b"ingests": ingests,
        b"images": images,
    },
    FLATNESS,
    st.one_of(EXPIRE, BROKEN),
    listing(),
    listing(),
    listing(),
    listing(),
    listing(),
)
NAMESPACES = st.builds(
    lambda blobs, ingests, images, containers, sandboxes, over, native, leases: {
        b"content": {b"blob": blobs, b"ingests": ingests},
        b"images": images,
        b"containers": containers,
        b"sandboxes": sandboxes,
        b"snapshots": {b"overlayfs": over, b"native": native},
        b"leases": leases,
    },
    some(PLAIN),
    some(INGESTS),
    some(IMAGES),
    st.dictionaries(KEYS, CONTAINERS, max_size=1),
    st.dictionaries(KEYS, PLAIN, max_size=1),
    some(SNAPSHOTS),
    some(SNAPSHOTS),
    some(LEASES),
)


def collection_of(tree: BucketDict) -> Collection:
    reader = Reader(file_of({b"v1": {b"buildkit": tree}}))
    return Collection(Namespace(reader.root, b"buildkit"), NOW)


def nodes_of(collection: Collection, objects: Objects) -> set[Node]:
    of = collection.namespace
    masks = [("blob", of.blobs, objects.blobs), ("ingest", of.ingests, objects.ingests)]
    masks.append(("image", of.images, objects.images))  # type: ignore[arg-type]
    for name, table in collection.snapshots.items():
        masks.append((f"snapshot {name.decode()}", table, objects.snapshots[name]))  # type: ignore[arg-type]
    return {(kind, table.keys[row] or b"") for kind, table, mask in masks for row in mask}


@settings(max_examples=300)
@given(NAMESPACES, st.sets(KEYS))
def test_kept_objects_equal_a_plain_collection(tree: BucketDict, without: set[bytes]) -> None:
    collection = collection_of(tree)
    leases = collection.namespace.leases
    gone = Mask(len(leases), (row for row, id in enumerate(leases.keys) if id in without))
    assert nodes_of(collection, collection.kept()) == kept_plainly(tree, set())
    assert nodes_of(collection, collection.kept(gone)) == kept_plainly(tree, without)


@settings(max_examples=300)
@given(NAMESPACES, st.sets(KEYS))
def test_what_leases_alone_hold_is_what_is_freed_without_them(tree: BucketDict, asked: set[bytes]) -> None:
    collection = collection_of(tree)
    leases = collection.namespace.leases
    rows = [row for row, id in enumerate(leases.keys) if id in asked]
    endless = {
        id: {**lease, b"labels": {k: v for k, v in labels_of(lease).items() if id not in asked or k == FLAT}}
        for id, lease in tree[b"leases"].items()
    }
    freed = kept_plainly({**tree, b"leases": endless}, set()) - kept_plainly(tree, asked)
    held = collection.held_only_by(Mask(len(leases), rows))
    assert set(held) == set(rows)
    told = [("blob", collection.namespace.blobs.keys[row]) for it in held.values() for row in it.blobs]
    for it in held.values():
        for name, found in it.snapshots.items():
            told += [(f"snapshot {name.decode()}", collection.snapshots[name].keys[row]) for row in found]
    assert len(told) == len(set(told))
    assert set(told) == {node for node in freed if not node[0].startswith(("ingest", "image"))}


# --- containerd itself


@pytest.mark.skipif(bool(why_missing()), reason=why_missing())
def test_containerd_keeps_what_is_computed(tmp_path: Path) -> None:
    root = v2_roots.v2_root("containerd", tmp_path)
    chosen = random.Random(7)
    with root.open() as stores:
        namespace = Namespace(stores.workers[0].containerd.root, b"buildkit")  # type: ignore[arg-type]
        ids = [id for id in namespace.leases.keys if id is not None]
        blobs, snapshots = namespace.blobs.keys, namespace.snapshots(b"overlayfs").keys
        some = [(blobs[row] or b"", blobs[-row - 1] or b"", snapshots[row] or b"") for row in range(0, 40, 9)]
    leases: BucketDict = dict.fromkeys(chosen.sample(ids, 60))
    leases[b"over"] = {**lease_of(some[0]), b"labels": {b"containerd.io/gc.expire": b"2020-01-01T00:00:00Z"}}
    leases[b"full"] = lease_of(some[1])
    leases[b"flat"] = {**lease_of(some[2]), b"labels": {FLAT: b"1"}}
    linked = {
        some[1][0]: {b"labels": {b"containerd.io/gc.ref.content.x": some[1][1]}},
        some[2][0]: {b"labels": {b"containerd.io/gc.ref.content.x": some[2][1]}},
        some[3][0]: {b"labels": {b"containerd.io/gc.root": b"1"}},
        some[4][0]: {b"labels": {b"containerd.io/gc.ref.snapshot.overlayfs/x": some[4][2]}},
    }
    edits = below((b"v1", b"buildkit"), {b"leases": leases, b"content": {b"blob": linked}, b"images": None})
    edit(root.containerd, edits)
    with root.open() as stores:
        collection = Collection(
            Namespace(stores.workers[0].containerd.root, b"buildkit"),  # type: ignore[arg-type]
            nanoseconds(b"2026-12-01T00:00:00Z") or 0,
        )
        computed = nodes_of(collection, collection.kept())
        before = len(collection.namespace.blobs), len(collection.snapshots[b"overlayfs"])
    with Containerd(Path(root.options[1])) as containerd:
        left = {("blob", digest.encode()) for digest in containerd.content()}
        left |= {("snapshot overlayfs", name.encode()) for name in containerd.snapshots("overlayfs")}
    assert left == computed
    kinds = [sum(node[0] == kind for node in left) for kind in ("blob", "snapshot overlayfs")]
    assert all(0 < count < there for count, there in zip(kinds, before, strict=True))


def lease_of(some: tuple[bytes, bytes, bytes]) -> BucketDict:
    return {
        b"createdat": TIME,
        b"content": {some[0]: b""},
        b"snapshots": {b"overlayfs": {some[2]: b""}},
    }
