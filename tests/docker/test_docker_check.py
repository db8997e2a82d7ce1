"""`check` of Docker's builder: its snapshots are in ``snapshots.db`` and the engine's layer store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ondisk
from buildkit_migrate.api import check_root
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
