"""Odd but legal content: kept byte for byte, or refused with the name of the record."""

from __future__ import annotations

import json

import pytest

import ondisk
from buildkit_migrate.bolt.edits import Edits
from fixtures import ROOT_LABEL, bucket, buckets
from ondisk import OnDisk
from plain_bbolt import BucketDict


def committed(root: OnDisk) -> list[bytes]:
    """Records whose blob exists, which get all the keys that v2 adds."""
    blobs = buckets(bucket(ondisk.tree(root.containerd), b"v1", b"buildkit", b"content", b"blob"))
    found = []
    for id, record in buckets(bucket(ondisk.tree(root.v1), b"_main")).items():
        mapping = record.get(b"blobmapping.blob")
        if isinstance(mapping, bytes) and json.loads(mapping)["value"]["Blobsum"].encode() in blobs:
            found.append(id)
    return found


KEPT: dict[str, Edits] = {
    "huge value": {b"cache.description": b'{"value":"' + b"x" * 12_000_000 + b'"}'},
    "long key": {b"k" * 32768: b'{"value":1}'},
    "null values": {b"snapshot.size": b'{"value":null}', b"cache.description": b'{"value":null}'},
    "null": {b"cache.unknown": b"null", b"cache.other": b"{}"},
    "numbers out of range": {b"snapshot.size": b'{"value":1e400}', b"cache.usageCount": b'{"value":-0.5}'},
    "invalid UTF-8": {b"cache.description": b'{"value":"\xff\xfe\xed\xa0\x80"}'},
    "unknown keys": {b"\x00": b'{"value":[{"a":[]}]}', b"\xff\xff": b'{"x":1}'},
    "cleared": {b"cache.description": b"", b"cache.parent": b""},
    "duplicate members": {b"cache.description": b'{"value":"a","VALUE":"b","index":"i","Index":"j"}'},
    "nested bucket": {b"nested": {b"a": {b"b": b"c"}}},
    "white space": {b"cache.description": b' {\n"value" : "a" }\t'},
}


@pytest.mark.parametrize("name", KEPT)
def test_odd_values_are_kept(name: str, root: OnDisk) -> None:
    record = committed(root)[0]
    ondisk.edit(root.v1, {b"_main": {record: KEPT[name]}})
    v1 = ondisk.tree(root.v1)
    root.migrate_here()
    values = bucket(ondisk.tree(root.v2), b"_main", record)
    before = bucket(v1, b"_main", record)
    added = values.keys() - before.keys()
    # The parent comes from the snapshot, whatever was stored.
    assert {**values, b"cache.parent": b""}.items() >= {**before, b"cache.parent": b""}.items()
    assert {b"cache.chainID", b"cache.blobChainID", b"cache.snapshot", b"cache.diffID"} <= added
    root.verify_here()


def test_foreign_buckets_are_kept(root: OnDisk) -> None:
    deep: Edits = {b"x": b"y"}
    for depth in range(60):
        deep = {b"bucket%d" % depth: deep, b"value": b"v" * depth}
    others: Edits = {b"aaa": deep, b"zzz": {b"key": b"\x00" * 9000}}
    ondisk.edit(
        root.v1,
        {
            **others,
            b"_main": {b"plain": b"no bucket"},
            b"_index": {
                b"dangling::nobody": b"",
                b"no separator": b"odd",
                b"twice::a": b"",
                b"twice::b": b"",
            },
            b"_external": {b"nobody": {b"data": b"\x00\xff" * 3000}},
        },
    )
    v1 = ondisk.tree(root.v1)
    root.migrate_here()
    v2 = ondisk.tree(root.v2)
    for name in (b"aaa", b"zzz", b"_external"):
        assert v2[name] == v1[name]
    assert bucket(v2, b"_main")[b"plain"] == b"no bucket"
    assert bucket(v1, b"_index").items() <= bucket(v2, b"_index").items()
    root.verify_here()


def test_blob_with_a_hundred_thousand_labels_is_migrated(root: OnDisk) -> None:
    before = ondisk.tree(root.containerd)
    blobs = bucket(before, b"v1", b"buildkit", b"content", b"blob")
    digest = next(name for name, row in buckets(blobs).items() if ROOT_LABEL in bucket(row, b"labels"))
    many: BucketDict = {b"label/%06d" % i: b"value" for i in range(100_000)}
    ondisk.edit(root.containerd, {b"v1": {b"buildkit": {b"content": {b"blob": {digest: {b"labels": many}}}}}})
    root.migrate_here()
    after = ondisk.tree(root.containerd)
    labels = bucket(after, b"v1", b"buildkit", b"content", b"blob", digest, b"labels")
    assert many.items() <= labels.items()
    assert ROOT_LABEL not in labels


REFUSED: dict[str, tuple[Edits, str]] = {
    "bucket where a value must go": ({b"cache.diffID": {b"a": b"b"}}, "key-is-bucket"),
    "not JSON": ({b"cache.description": b"\x00\x01"}, "undecodable-value"),
    "a list": ({b"cache.description": b"[]"}, "undecodable-value"),
    "text behind": ({b"cache.description": b'{"value":1}x'}, "undecodable-value"),
    "NaN": ({b"snapshot.size": b'{"value":NaN}'}, "undecodable-value"),
    "blob of another type": ({b"blobmapping.blob": b'{"value":7}'}, "undecodable-value"),
    "self as target": ({b"cache.equalMutable": b'{"value":"%b"}'}, "cycle"),
    "no target": ({b"cache.equalMutable": b'{"value":"gone"}'}, "equal-mutable-target-gone"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_record_that_can_not_be_migrated_is_named(name: str, root: OnDisk) -> None:
    edits, reason = REFUSED[name]
    record = committed(root)[0]
    own = {
        key: value.replace(b"%b", record) if isinstance(value, bytes) else value
        for key, value in edits.items()
    }
    ondisk.edit(root.v1, {b"_main": {record: own}})
    before = ondisk.listing(root.worker)
    refused = root.migrate("--format", "json")
    assert refused.returncode == 6
    problems = json.loads(refused.stdout)["error"]["problems"]
    assert (record.decode(), reason) in {(problem["record"], problem["reason"]) for problem in problems}
    assert ondisk.listing(root.worker) == before
    assert root.migrate("--on-broken", "drop").returncode == 0
    root.verify_here()
    kept = reason == "equal-mutable-target-gone"
    assert (record in bucket(ondisk.tree(root.v2), b"_main")) == kept
