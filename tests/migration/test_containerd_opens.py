"""A real containerd opens the rewritten database, collects garbage, and loses nothing that is leased."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import containerd_daemon
import ondisk
from buildkit_migrate._native.bolt import Bucket
from buildkit_migrate.bolt import Database
from containerd_daemon import Containerd
from dicts import file_of
from fixtures import ROOT_LABEL

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(bool(containerd_daemon.why_missing()), reason=containerd_daemon.why_missing()),
]

SNAPSHOTTER = "overlayfs"


def leases_on_disk(path: Path) -> dict[str, set[tuple[str, str]]]:
    """Resources by lease, as the rewritten database has them."""
    found: dict[str, set[tuple[str, str]]] = {}
    with Database.open(path) as database:
        leases = database.root.bucket(b"v1", b"buildkit", b"leases")
        assert leases is not None
        for name, lease in leases.items():
            assert isinstance(lease, Bucket)
            resources = found.setdefault(name.decode(), set())
            for kind in ((b"content",), (b"snapshots", SNAPSHOTTER.encode())):
                bucket = lease.bucket(*kind)
                resources |= (
                    {("/".join(map(bytes.decode, kind)), key.decode()) for key, _ in bucket.items()}
                    if bucket
                    else set()
                )
    return found


def check_opened(
    daemon: Containerd,
    leases: dict[str, set[tuple[str, str]]],
    snapshots: dict[str, containerd_daemon.Snapshot],
    content: set[str],
) -> None:
    """Checks that only leased objects are left after a start, which collects garbage, and a collection."""
    daemon.collect_garbage()
    assert daemon.leases().keys() == leases.keys()
    assert all("containerd.io/gc.flat" in labels for labels in daemon.leases().values())
    named = {name for resources in leases.values() for kind, name in resources}
    needed = {name for name in named if name in snapshots}
    for name in list(needed):
        while name := snapshots[name].parent:
            needed.add(name)
    left = daemon.snapshots(SNAPSHOTTER)
    assert left == {name: snapshots[name] for name in needed}
    assert not any(snapshot.kind == "View" for snapshot in left.values())
    assert daemon.content().keys() == named & content


def test_containerd_opens_its_own_state_after_migration(tmp_path: Path) -> None:
    worker = tmp_path / "root" / f"containerd-{SNAPSHOTTER}"
    worker.mkdir(parents=True)
    with Containerd(tmp_path / "ctd") as daemon:
        records: dict[bytes, dict[bytes, bytes]] = {}
        blobs: set[str] = set()
        parent = ""
        for i in range(6):
            daemon.prepare(SNAPSHOTTER, f"active{i}", parent)
            daemon.commit(SNAPSHOTTER, f"layer{i}", f"active{i}")
            parent = f"layer{i}"
            record: dict[bytes, bytes] = {b"snapshot.size": b'{"value":4096}'}
            if i != 3:
                digest = daemon.ingest(b"blob %d" % i, f"{ROOT_LABEL.decode()}=now", "other=kept")
                blobs.add(digest)
                mapping = f'{{"Blobsum":"{digest}","DiffID":"sha256:{i:064x}"}}'
                record[b"blobmapping.blob"] = f'{{"value":{mapping},"index":"blobmap::{digest}"}}'.encode()
            records[parent.encode()] = record
        daemon.prepare(SNAPSHOTTER, "mutable", parent)
        records[b"mutable"] = {}
        records[b"equal"] = {b"cache.equalMutable": b'{"value":"mutable"}'}
        daemon.view(SNAPSHOTTER, "leaked", parent)
        unused = daemon.ingest(b"of no record")
        snapshots, content = daemon.snapshots(SNAPSHOTTER), set(daemon.content())
        daemon.stop()
        (worker / "metadata.db").write_bytes(file_of({b"_main": records}))

        result = ondisk.run("migrate", "--containerd-root", str(tmp_path / "ctd"), str(tmp_path / "root"))
        assert (result.returncode, result.stderr) == (0, "")
        leases = leases_on_disk(tmp_path / "ctd" / "io.containerd.metadata.v1.bolt" / "meta.db")
        daemon.start()

        assert leases.keys() == {id.decode() for id in records}
        check_opened(daemon, leases, snapshots, content)
        assert "leaked" in snapshots
        assert daemon.content().keys() == blobs
        assert unused not in daemon.content()
        for labels in daemon.content().values():
            assert ROOT_LABEL.decode() not in labels
            assert labels["other"] == "kept"
        daemon.prepare(SNAPSHOTTER, "next", "layer5")  # names and numbers continue
        assert daemon.snapshots(SNAPSHOTTER)["next"].parent == "layer5"


def test_containerd_opens_a_migrated_real_root(tmp_path: Path) -> None:
    root = ondisk.sample(tmp_path)
    state = tmp_path / "ctd"
    metadata = state / "io.containerd.metadata.v1.bolt" / "meta.db"
    backend = state / f"io.containerd.snapshotter.v1.{SNAPSHOTTER}" / "metadata.db"
    assert root.migrate().returncode == 0
    leases = leases_on_disk(root.containerd)
    assert len(leases) == 287
    snapshots, content = {}, set()
    with Database.open(root.containerd) as database, Database.open(root.snapshots) as own:
        kinds = {b"\1": "View", b"\2": "Active", b"\3": "Committed"}
        namespace = database.root.bucket(b"v1", b"buildkit")
        assert namespace is not None
        for name, row in namespace.bucket(b"snapshots", SNAPSHOTTER.encode()).items():
            kind = own.root.bucket(b"v1", b"snapshots", row.get(b"name")).get(b"kind")
            snapshots[name.decode()] = containerd_daemon.Snapshot(
                kinds[kind], (row.get(b"parent") or b"").decode()
            )
        content = {name.decode() for name, _ in namespace.bucket(b"content", b"blob").items()}
    for source, target in ((root.containerd, metadata), (root.snapshots, backend)):
        target.parent.mkdir(parents=True)
        shutil.copy(source, target)
    with Containerd(state) as daemon:
        check_opened(daemon, leases, snapshots, content)
