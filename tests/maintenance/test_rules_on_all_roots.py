"""The same faults on roots of other snapshotters, versions and workers; random edits raise nothing."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from faults import FLAT, TIME, Healthy, check, found

import v2_roots
from buildkit_migrate.bolt import Bucket, Database
from buildkit_migrate.bolt.edits import Edits
from planting import edit, set_sequence

pytestmark = pytest.mark.slow


@pytest.fixture(params=["native", "v012", "containerd", "rich"])
def healthy(request: pytest.FixtureRequest, tmp_path: Path) -> Healthy:
    return Healthy(v2_roots.v2_root(request.param, tmp_path))


def test_a_lost_snapshot(healthy: Healthy) -> None:
    layer = next(it for it in healthy.last if not healthy.children[it.name])
    healthy.lose_snapshot(layer)
    assert found(healthy.root) == {("C23", "B", layer.text)}


def test_missing_protection(healthy: Healthy) -> None:
    bare, bad = healthy.last[0], next(it for it in healthy.last[1:] if it.digest)
    healthy.lease(bare.id, None)
    healthy.lease(bad.id, {b"content": None})
    assert found(healthy.root) == {("C26", "B", bare.text), ("C27", "B", bad.text)}


def test_an_orphan(healthy: Healthy) -> None:
    id = b"0" * 25
    digest = next(it.digest for it in healthy.last if it.digest)
    healthy.lease(id, {b"createdat": TIME, b"labels": {FLAT: b"1"}, b"content": {digest: b""}})
    (finding,) = check(healthy.root)
    assert (finding.rule, finding.severity, finding.subject) == ("C32", "L", id.decode())
    assert finding.bytes == 0  # its record holds the blob, too
    shared = finding.repair is not None and "other state directories" in finding.repair
    assert shared == (healthy.root.name == "containerd")


def test_a_lost_directory_and_a_strange_one(healthy: Healthy) -> None:
    layer = healthy.last[0]
    shutil.rmtree(healthy.directory(layer))
    (healthy.root.directories / "new-1").mkdir()
    assert found(healthy.root) == {("C44", "B", layer.text), ("C45", "L", "new-1")}


def test_a_parent_that_is_gone(healthy: Healthy) -> None:
    layer = next(it for it in healthy.last if it.parent is not None)
    healthy.in_snapshots({b"snapshots": {layer.name: {b"parent": None}}})
    assert found(healthy.root) == {("C42", "B", layer.text)}


def test_a_counter_that_is_behind(healthy: Healthy) -> None:
    set_sequence(healthy.root.snapshots, (b"v1", b"snapshots"), 3)
    assert found(healthy.root) == {("C43", "W", "v1/snapshots")}


def test_a_blob_without_file_and_a_file_without_blob(healthy: Healthy) -> None:
    digest = next(it.digest for it in healthy.last if it.digest)
    healthy.blob_file(digest).unlink()
    strange = b"sha256:" + b"3" * 64
    healthy.blob_file(strange).write_bytes(b"x")
    assert found(healthy.root) == {("C25", "B", digest.decode()), ("C46", "L", strange.decode())}


def test_what_other_namespaces_have_is_theirs(tmp_path: Path) -> None:
    healthy = Healthy(v2_roots.v2_root("containerd", tmp_path))
    digest, key = b"sha256:" + b"4" * 64, b"mine"
    healthy.blob_file(digest).write_bytes(b"x")
    name = b"k8s.io/9999/mine"
    number = healthy.sequence + 1
    fields = {b"id": healthy.stored(number), b"kind": b"\x02", b"createdat": TIME, b"updatedat": TIME}
    healthy.in_snapshots({b"snapshots": {name: fields}})
    set_sequence(healthy.root.snapshots, (b"v1", b"snapshots"), number)
    of_others: Edits = {
        b"content": {b"blob": {digest: {b"createdat": TIME, b"updatedat": TIME, b"size": b"\x02"}}},
        b"snapshots": {b"overlayfs": {key: {b"name": name, b"createdat": TIME, b"updatedat": TIME}}},
        b"leases": {b"theirs": {b"createdat": TIME}},
    }
    healthy.in_containerd(of_others, b"k8s.io")
    assert found(healthy.root) == set()


# --- Random edits


def some_edit(bucket: Bucket, chosen: random.Random) -> Edits:
    """Somewhere below a bucket a key is changed, removed, or a new one made."""
    items = list(bucket.items())
    if not items or chosen.random() < 0.05:
        return {chosen.randbytes(5): chosen.choice([b"", b"\xff" * 11, {b"x": b"y"}])}
    key, value = chosen.choice(items)
    if isinstance(value, Bucket) and chosen.random() < 0.85:
        return {key: some_edit(value, chosen)}
    if isinstance(value, bytes) and chosen.random() < 0.7:
        other = bytearray(value or b"x")
        other[chosen.randrange(len(other))] ^= 1 << chosen.randrange(8)
        return {key: chosen.choice([bytes(other), value[:-1], value + b"0", b""])}
    return {key: None}


@pytest.mark.parametrize("seed", range(25))
def test_any_edit_gives_findings_and_no_error(tmp_path: Path, seed: int) -> None:
    root = v2_roots.healed(tmp_path)
    chosen = random.Random(seed)
    for _ in range(6):
        for path in chosen.sample([root.records, root.containerd, root.snapshots, root.history], 2):
            with Database.open(path) as database:
                change = some_edit(database.root, chosen)
            edit(path, change)
        for finding in check(root):
            assert finding.message
            assert "\n" not in finding.message
