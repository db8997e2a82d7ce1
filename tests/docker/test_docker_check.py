"""`check` of Docker's builder: its snapshots are in ``snapshots.db`` and the engine's layer store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ondisk
from buildkit_migrate.api import check_root, du_root
from buildkit_migrate.bolt.edits import Edits
from fixtures import bucket, buckets
from ondisk import OnDisk

COMMITTED = b"snapshot.committed"


@pytest.fixture
def docker(tmp_path: Path) -> OnDisk:
    """A migrated root."""
    root = ondisk.docker_sample(tmp_path)
    root.migrate_here()
    return root


def found(root: OnDisk, rule: str) -> dict[str, str]:
    """Subjects and messages."""
    return {it.subject: it.message for it in check_root(root.root, rules={rule}).findings}


def record(root: OnDisk, wanted: Callable[[bytes, dict[bytes, Any]], bool]) -> bytes:
    rows = buckets(bucket(ondisk.tree(root.v2), b"_main"))
    return next(id for id, row in rows.items() if wanted(id, row))


def is_mutable(id: bytes, row: dict[bytes, Any]) -> bool:
    return COMMITTED not in row


def is_layer(id: bytes, row: dict[bytes, Any]) -> bool:
    return COMMITTED in row and not row.get(b"cache.equalMutable") and not id.startswith(b"sha256:")


def is_of_image(id: bytes, row: dict[bytes, Any]) -> bool:
    return id.startswith(b"sha256:")


def test_a_migrated_root_is_sound(docker: OnDisk) -> None:
    """But for the manifests in the content store, to which v1 records never referred."""
    checked = check_root(docker.root.parent)
    assert set(checked.counts) == {"C46"}
    untested = {rule for one in checked.not_tested for rule in one.rules}
    assert not untested & {"C14", "C23", "C30", "C52"}


@pytest.mark.parametrize(
    ("rule", "wanted"), [("C14", is_mutable), ("C23", is_layer)], ids=["mutable", "layer"]
)
def test_a_lost_snapshot_is_found(
    docker: OnDisk, rule: str, wanted: Callable[[bytes, dict[bytes, Any]], bool]
) -> None:
    lost = record(docker, wanted)
    active = bucket(ondisk.tree(docker.snapshots), lost).get(b"committed")
    edits: Edits = {lost: None, **({active: None} if isinstance(active, bytes) else {})}
    ondisk.edit(docker.snapshots, edits)
    assert list(found(docker, rule)) == [lost.decode()]
    assert "does not exist" in found(docker, rule)[lost.decode()]


def test_a_lost_layer_is_found_with_those_above_it(docker: OnDisk) -> None:
    lost = record(docker, is_of_image).decode()
    layerdb = docker.root.parent / "image" / "overlay2" / "layerdb" / "sha256"
    shutil.rmtree(layerdb / lost.partition(":")[2])
    messages = found(docker, "C23")
    assert lost in messages
    assert len(messages) > 1


def test_kinds_that_do_not_fit_are_found(docker: OnDisk) -> None:
    layer, mutable = record(docker, is_layer), record(docker, is_mutable)
    committed = bucket(ondisk.tree(docker.snapshots), layer)[b"committed"]
    assert isinstance(committed, bytes)
    edits: Edits = {
        layer: {b"committed": None, b"chainid": None, b"parent": b""},
        mutable: {b"committed": committed},
    }
    ondisk.edit(docker.snapshots, edits)
    (docker.root.parent / "overlay2" / layer.decode()).mkdir()
    assert "active, not committed" in found(docker, "C30")[layer.decode()]
    assert "committed, not active" in found(docker, "C14")[mutable.decode()]


def test_layers_of_no_known_driver_are_not_tested(docker: OnDisk) -> None:
    image = docker.root.parent / "image"
    shutil.copytree(image / "overlay2", image / "aufs")
    shutil.rmtree(docker.root.parent / "overlay2")
    checked = check_root(docker.root)
    assert "C23" not in checked.tested
    reasons = [one.reason for one in checked.not_tested if "C23" in one.rules]
    assert any("several storage drivers" in reason for reason in reasons)


def test_results_of_the_id_before_the_engine_got_one_are_named(docker: OnDisk) -> None:
    """As on the first start of 23.0.7 and 24.0.1; there is no file ``workerid``."""
    assert found(docker, "C52") == {}
    engine_id = docker.root.parent / "engine-id"
    engine_id.write_text("1111-2222")
    result = ondisk.run("check", "--format", "json", "--rules", "C52", str(docker.root))
    (finding,) = json.loads(result.stdout)["findings"]
    assert finding["file"] == str(engine_id)
    assert finding["subject"] == "moby"
    assert "1111-2222" in finding["message"]
    assert "workerid" not in finding["repair"]


def test_each_fault_of_snapshots_is_found_alone(docker: OnDisk) -> None:
    """C26, C27, C29, C41, C42, C44 and C45 in one root: each is found at its place, and nothing else."""
    rows = buckets(ondisk.tree(docker.snapshots))
    records = buckets(bucket(ondisk.tree(docker.v2), b"_main"))
    data_of = {id: row.get(b"committed", id) for id, row in rows.items()}
    upper = sorted(
        id
        for id, row in records.items()
        if is_layer(id, row) and rows.get(data_of[id], {}).get(b"parent") and row.get(b"cache.parent")
    )
    bare, unlisted, moved, standing = upper[:4]
    mount = min(id for id, row in rows.items() if id in records and set(row) == {b"parent"})
    other = next(id for id in upper[4:] if id != rows[data_of[moved]][b"parent"])
    ondisk.edit(
        docker.snapshots,
        {
            data_of[moved]: {b"parent": other},
            data_of[standing]: {b"parent": b"gone"},
            b"left over": {b"parent": b""},
        },
    )
    edits: Edits = {bare: None, unlisted: {b"snapshots": {b"default": {unlisted: None}}}}
    ondisk.edit(docker.containerd, {b"v1": {b"buildkit": {b"leases": edits}}})
    storage = docker.root.parent / "overlay2"
    shutil.rmtree(storage / mount.decode())
    (storage / "stray").mkdir()
    expected = {
        ("C26", bare.decode()),
        ("C27", unlisted.decode()),
        ("C29", moved.decode()),
        ("C41", "left over"),
        ("C42", standing.decode()),
        ("C44", mount.decode()),
        ("C45", "stray"),
    }
    checked = check_root(docker.root.parent)
    assert {(it.rule, it.subject) for it in checked.findings if it.rule != "C46"} == expected
    untested = {rule for one in checked.not_tested for rule in one.rules}
    assert untested & {rule for rule, _ in expected} == set()
    assert not any("collection" in it.message for it in checked.findings if it.rule != "C46")


def test_other_drivers_can_be_given(docker: OnDisk) -> None:
    image = docker.root.parent / "image"
    shutil.copytree(image / "overlay2", image / "aufs")
    shutil.rmtree(docker.root.parent / "overlay2")
    assert "C23" in check_root(docker.root, storage_driver="aufs").tested
    checked = ondisk.run("check", "--storage-driver", "overlay2", "--rules", "C23", str(docker.root))
    assert checked.returncode == 0, checked.stdout
    # Parents of v1 records are those of their snapshots, and of layers.
    docker.undo_here()
    told = {driver: dict(parents_of(docker, driver)) for driver in (None, "overlay2")}
    assert not any(told[None].values())
    assert any(told["overlay2"].values())
    assert " error: " not in ondisk.run("du", "--storage-driver", "overlay2", str(docker.root)).stderr


def parents_of(root: OnDisk, driver: str | None) -> Iterator[tuple[bytes, tuple[bytes, ...]]]:
    return ((it.id, tuple(it.parents)) for _, it in du_root(root.root, storage_driver=driver))


@pytest.mark.parametrize("command", ["repair", "compact"])
def test_care_works_on_dockers_builder_and_is_taken_back(docker: OnDisk, command: str) -> None:
    """What only the engine can remove stays; everything else is done as on a worker."""
    before = {path: ondisk.tree(path) for path in docker.root.glob("*.db")}
    ondisk.edit(docker.v2, {b"_index": {b"stray::nobody": b""}})
    changed = ondisk.tree(docker.v2)
    result = ondisk.run(command, str(docker.root.parent))
    assert result.returncode in (0, 15), result.stderr
    now = {path: ondisk.tree(path) for path in before}
    assert now == (before if command == "repair" else {**before, docker.v2: changed})
    assert ondisk.run("undo", str(docker.root.parent)).returncode == 0
    assert ondisk.tree(docker.v2) == changed
