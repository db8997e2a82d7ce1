"""C60, C61: what lies in a root beside its stores."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from faults import check, found

import v2_roots


@pytest.fixture
def root(tmp_path: Path) -> v2_roots.V2Root:
    return v2_roots.healed(tmp_path)


def test_bundle_of_a_container_that_is_gone(root: v2_roots.V2Root) -> None:
    bundle = root.worker / "executor" / "w3ng0ol6"
    bundle.mkdir()
    (bundle / "config.json").write_bytes(b" " * 5000)
    (finding,) = check(root)
    assert (finding.rule, finding.severity, finding.subject) == ("C60", "L", bundle.name)
    assert finding.bytes is not None
    assert finding.bytes >= 5000


def test_mount_point_of_a_cache_mount(root: v2_roots.V2Root) -> None:
    (root.worker / "cachemounts" / "buildkit123").mkdir()
    assert found(root) == {("C60", "H", "buildkit123")}


def test_what_is_mounted_is_left_alone(root: v2_roots.V2Root) -> None:
    place = root.worker / "executor" / "in use" / "rootfs"
    place.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], capture_output=True).returncode != 0:
        pytest.skip("this process may not mount anything")
    try:
        (place / "large").write_bytes(b" " * 100_000)
        (finding,) = check(root)
    finally:
        subprocess.run(["umount", str(place)], check=True)
    assert (finding.rule, finding.subject, finding.bytes) == ("C60", "in use", None)
    assert finding.repair is not None
    assert "unmount" in finding.repair


def test_worker_directory_that_no_result_names(root: v2_roots.V2Root) -> None:
    other = root.root / "containerd-stargz"
    other.mkdir()
    (other / "workerid").write_bytes(b"0123456789abcdefghijklmno")
    (other / "large").write_bytes(b" " * 100_000)
    (finding,) = [finding for finding in check(root) if finding.rule == "C61"]
    assert (finding.severity, finding.subject) == ("L", other.name)
    assert finding.bytes is not None
    assert finding.bytes >= 100_000


def test_without_solver_cache_the_newest_worker_is_in_use(root: v2_roots.V2Root) -> None:
    root.cache.unlink()
    other = root.root / "runc-native"
    other.mkdir()
    (other / "metadata_v2.db").write_bytes(root.records.read_bytes())
    os.utime(other / "metadata_v2.db", (1, 1))
    assert unused(root) == [other.name]
    os.utime(root.records, (0, 0))
    assert unused(root) == [root.worker.name]


def unused(root: v2_roots.V2Root) -> list[str]:
    return [finding.subject for finding in check(root) if finding.rule == "C61"]
