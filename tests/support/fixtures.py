"""Loaders for ``tests/data/fixtures``: real roots and synthetic stores with upstream's own results.

The source distribution leaves them out; there, tests that need them are skipped. Their forms are described in
the MANIFEST.md beside them.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import plain_bbolt
from buildkit_migrate.model import Blob, Kind, PlainPlan, PlainRecords, PlainSurvey, Resource, Snapshot
from plain_bbolt import BucketDict

ROOT_LABEL = b"containerd.io/gc.root"
FLAT_LABEL = b"containerd.io/gc.flat"
EXPIRE_LABEL = b"containerd.io/gc.expire"

NAMESPACE = (b"v1", b"buildkit")
"""Path of BuildKit's bucket in containerd's database."""

REAL_ROOTS = {"a": "overlayfs", "b": "native", "c": "overlayfs"}
"""Name to snapshotter."""

SYNTHETIC_STORES = ("deep-1000-1", "flat-1000-1", "forest-1000-1", "wide-1000-1")


def directory() -> Path:
    """Where the fixtures are; skips the test if they are absent."""
    path = Path(__file__).parents[1] / "data" / "fixtures"
    if not path.is_dir():
        pytest.skip("the real roots are in the repository, not in the source distribution")
    return path


def with_blob_sizes(v2: BucketDict, survey: PlainSurvey) -> BucketDict:
    """A store that upstream made, with the blob sizes that it leaves out."""
    main: BucketDict = dict(bucket(v2, b"_main"))
    for id, record in buckets(main).items():
        blob = record.get(b"cache.blob")
        if isinstance(blob, bytes):
            digest = json.loads(blob)["value"].encode()
            main[id] = {**record, b"cache.blobsize": b'{"value":%d}' % (survey.blobs[digest].size or 0)}
    assert main != v2[b"_main"]
    return {**v2, b"_main": main}


def migrated(metadata: BucketDict, plan: PlainPlan) -> BucketDict:
    """The v2 store that a plan without dropped records makes of a v1 store."""
    index = dict(bucket(metadata, b"_index"))
    main: BucketDict = dict(bucket(metadata, b"_main"))
    for id, record in plan.records.items():
        main[id] = {**bucket(main, id), **record.puts}
        index |= dict.fromkeys(record.index, b"")
    return {**metadata, b"_main": main, b"_index": index}


# --- Dumps of real roots


def dump(root: str, moment: str, database: str) -> BucketDict:
    """A dump of a real root: ``moment`` is "before" or "after-migratev2"; bucket sequences are left out."""
    path = directory() / root / moment / f"{database}.json.gz"
    return tree_of_dump(path.read_bytes())


def tree_of_dump(packed: bytes) -> BucketDict:
    """A dump in the form of those of real roots, compressed."""
    return _tree(json.loads(gzip.decompress(packed)))


def _tree(bucket: dict[str, Any]) -> BucketDict:
    tree: BucketDict = {_name(name): _tree(child) for name, child in bucket.get("buckets", {}).items()}
    tree |= {_name(name): _value(value) for name, value in bucket.get("keys", {}).items()}
    return tree


def _name(text: str) -> bytes:
    prefix = "\0b64:"
    return base64.b64decode(text[len(prefix) :]) if text.startswith(prefix) else text.encode()


def _value(value: str | dict[str, str]) -> bytes:
    return value.encode() if isinstance(value, str) else base64.b64decode(value["b64"])


def bucket(tree: BucketDict, *path: bytes) -> BucketDict:
    """The bucket at ``path``, an empty one if it is absent."""
    for name in path:
        child = tree.get(name, {})
        assert isinstance(child, dict)
        tree = child
    return tree


def buckets(tree: BucketDict) -> dict[bytes, BucketDict]:
    """The nested buckets of a bucket, without its plain keys."""
    return {name: child for name, child in tree.items() if isinstance(child, dict)}


def records_of(tree: BucketDict) -> PlainRecords:
    """The records of a metadata store."""
    return {
        id: {key: None if isinstance(value, dict) else value for key, value in record.items()}
        for id, record in buckets(bucket(tree, b"_main")).items()
    }


def leases_of(containerd: BucketDict) -> dict[bytes, set[Resource]]:
    """Lease id to resources, from containerd's metadata database."""
    leases = {}
    for id, lease in buckets(bucket(containerd, b"v1", b"buildkit", b"leases")).items():
        resources: set[Resource] = {("content", digest) for digest in bucket(lease, b"content")}
        for snapshotter, names in buckets(bucket(lease, b"snapshots")).items():
            resources |= {(f"snapshots/{snapshotter.decode()}", name) for name in names}
        leases[id] = resources
    return leases


def survey_of(containerd: BucketDict, backend: BucketDict, snapshotter: str) -> PlainSurvey:
    """Survey from containerd's metadata database and the snapshotter's own one (for the kinds)."""
    namespace = bucket(containerd, b"v1", b"buildkit")
    kinds = buckets(bucket(backend, b"v1", b"snapshots"))
    survey = PlainSurvey(snapshotter, leases=leases_of(containerd))
    for id, lease in buckets(bucket(namespace, b"leases")).items():
        expire = bucket(lease, b"labels").get(EXPIRE_LABEL)
        if isinstance(expire, bytes):
            survey.expiring_leases[id] = expire
    for name, entry in buckets(bucket(namespace, b"snapshots", snapshotter.encode())).items():
        backend_name, parent = entry[b"name"], entry.get(b"parent", b"")
        assert isinstance(backend_name, bytes)
        assert isinstance(parent, bytes)
        kind = kinds[backend_name][b"kind"]
        assert isinstance(kind, bytes)
        survey.snapshots[name] = Snapshot(Kind(kind[0]), parent, ROOT_LABEL in bucket(entry, b"labels"))
    for digest, blob in buckets(bucket(namespace, b"content", b"blob")).items():
        size = blob[b"size"]
        assert isinstance(size, bytes)
        survey.blobs[digest] = Blob(ROOT_LABEL in bucket(blob, b"labels"), _svarint(size))
    return survey


def _svarint(stored: bytes) -> int:
    zigzag = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(stored))
    return zigzag >> 1 ^ -(zigzag & 1)


@dataclass
class RealRoot:
    """A real root before the migration, and what upstream made of it."""

    records: PlainRecords
    survey: PlainSurvey
    metadata: BucketDict
    metadata_v2: BucketDict
    containerd: BucketDict
    containerd_after: BucketDict
    survey_after: PlainSurvey


def real_root(name: str) -> RealRoot:
    metadata = dump(name, "before", "metadata")
    containerd = dump(name, "before", "containerdmeta")
    containerd_after = dump(name, "after-migratev2", "containerdmeta")
    backend = dump(name, "before", "snapshots")
    return RealRoot(
        records=records_of(metadata),
        survey=survey_of(containerd, backend, REAL_ROOTS[name]),
        metadata=metadata,
        metadata_v2=dump(name, "after-migratev2", "metadata_v2"),
        containerd=containerd,
        containerd_after=containerd_after,
        survey_after=survey_of(containerd_after, backend, REAL_ROOTS[name]),
    )


# --- Synthetic stores

Call = tuple[str, ...]
"""Name of a call that changes something, and its arguments."""


@dataclass
class SyntheticStore:
    """A generated v1 store, the world around it, and what upstream made of it."""

    records: PlainRecords
    survey: PlainSurvey
    metadata: BucketDict
    metadata_v2: BucketDict
    calls: Counter[Call]


def synthetic_store(name: str) -> SyntheticStore:
    path = directory() / "synthetic" / name
    metadata = plain_bbolt.load(gzip.decompress((path / "metadata.db.gz").read_bytes()))
    world = json.loads(gzip.decompress((path / "world.json.gz").read_bytes()))
    survey = PlainSurvey(world["snapshotter"])
    for entry in world["snapshots"]:
        survey.snapshots[entry["id"].encode()] = Snapshot(
            Kind[entry["kind"].upper()], entry.get("parent", "").encode(), "gcroot" in entry
        )
    for entry in world["content"]:
        size = len(entry["data"].encode())
        survey.blobs[entry["digest"].encode()] = Blob("gcroot" in entry, size)
    return SyntheticStore(
        records=records_of(metadata),
        survey=survey,
        metadata=metadata,
        metadata_v2=_lines_to_tree((path / "v2.dump.jsonl.gz").read_bytes()),
        calls=_changing_calls((path / "calls.sorted.jsonl.gz").read_bytes()),
    )


def _lines_to_tree(data: bytes) -> BucketDict:
    tree: BucketDict = {}
    for line in gzip.decompress(data).splitlines():
        entry = json.loads(line)
        at = tree
        for name in entry["p"]:
            child = at.setdefault(name.encode(), {})
            assert isinstance(child, dict)
            at = child
        if "v64" in entry:
            at[entry["k"].encode()] = base64.b64decode(entry["v64"])
        elif "v" in entry:
            at[entry["k"].encode()] = entry["v"].encode()
    return tree


def _changing_calls(data: bytes) -> Counter[Call]:
    calls: Counter[Call] = Counter()
    for line in gzip.decompress(data).splitlines():
        call = json.loads(line)
        match call["m"]:
            case "leases.Create" as name:
                calls[name, call["id"], *call["labels"]] += 1
            case "leases.AddResource" as name:
                calls[name, call["lease"], call["type"], call["id"]] += 1
            case "snapshots.Update" as name:
                calls[name, call["name"], *call["fieldpaths"]] += 1
            case "content.Update" as name:
                calls[name, call["digest"], *call["fieldpaths"]] += 1
    return calls
