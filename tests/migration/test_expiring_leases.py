"""Expiring leases named like records are made permanent, and undo restores the expiry."""

from __future__ import annotations

from pathlib import Path

import pytest

import fixtures
import ondisk
from fixtures import EXPIRE_LABEL, FLAT_LABEL, bucket, buckets
from ondisk import OnDisk
from plain_bbolt import BucketDict

LEASES = (b"v1", b"buildkit", b"leases")
PAST = b"2020-01-01T00:00:00Z"


def with_expiring(root: OnDisk, labels: BucketDict) -> tuple[bytes, bytes]:
    """Adds two expiring leases: an incomplete one of a record, and one of somebody else."""
    id = min(buckets(bucket(ondisk.tree(root.v1), b"_main")))
    lease: BucketDict = {
        b"createdat": b"\x01\0\0\0\x0e\xd6" + bytes(7) + b"\xff\xff",
        b"labels": labels,
        b"content": {b"sha256:" + b"0" * 64: b""},
    }
    ondisk.edit(root.containerd, {b"v1": {b"buildkit": {b"leases": {id: lease, b"other": lease}}}})
    return id, b"other"


@pytest.mark.parametrize("with_flat", [False, True])
@pytest.mark.parametrize("kind", ["oci", "containerd"])
def test_expiring_lease_of_a_record_is_made_permanent_and_restored_by_undo(
    tmp_path: Path, kind: str, with_flat: bool
) -> None:
    root = ondisk.sample(tmp_path) if kind == "oci" else ondisk.sample_of_containerd(tmp_path)
    labels: BucketDict = {EXPIRE_LABEL: PAST, **({FLAT_LABEL: b"x"} if with_flat else {})}
    id, other = with_expiring(root, labels)
    before = root.containerd.read_bytes()
    root.migrate_here()
    root.verify_here()
    leases = bucket(ondisk.tree(root.containerd), *LEASES)
    assert bucket(leases, id, b"labels") == ({FLAT_LABEL: b"x"} if with_flat else {})
    assert ("content", b"sha256:" + b"0" * 64) in fixtures.leases_of(ondisk.tree(root.containerd))[id]
    assert bucket(leases, other, b"labels") == labels
    root.undo_here()
    assert root.containerd.read_bytes() == before


def test_undo_restores_only_the_label_after_containerd_was_used(tmp_path: Path) -> None:
    """The database can't be put back as a whole, so only the label is."""
    root = ondisk.sample(tmp_path)
    id, _ = with_expiring(root, {EXPIRE_LABEL: PAST})
    before = ondisk.tree(root.containerd)
    root.migrate_here()
    ondisk.edit(root.containerd, {b"v1": {b"buildkit": {b"leases": {b"new": {}}}}})
    assert ondisk.run("undo", "--force", str(root.root)).returncode == 0
    lease = bucket(ondisk.tree(root.containerd), *LEASES, id)
    assert bucket(lease, b"labels") == {EXPIRE_LABEL: PAST}
    assert bucket(lease, b"content") == bucket(before, *LEASES, id, b"content")


def test_complete_lease_that_expires_is_made_permanent(tmp_path: Path) -> None:
    root = ondisk.sample(tmp_path)
    root.migrate_here()
    root.v2.unlink()
    id = min(buckets(bucket(ondisk.tree(root.v1), b"_main")))
    labels = {b"labels": {EXPIRE_LABEL: PAST}}
    ondisk.edit(root.containerd, {b"v1": {b"buildkit": {b"leases": {id: labels}}}})
    for path in root.v2.with_name("metadata_v2.db.journal").iterdir():
        path.unlink()
    root.migrate_here()
    assert EXPIRE_LABEL not in bucket(ondisk.tree(root.containerd), *LEASES, id, b"labels")
