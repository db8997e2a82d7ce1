"""The command without ROOT: one root on the host, several, or all of them."""

from __future__ import annotations

import fcntl
import itertools
import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import ondisk
from buildkit_migrate import errors
from buildkit_migrate.cli.exit_statuses import EXIT_STATUSES, worst
from ondisk import OnDisk


class Host:
    """A home directory with rootless Docker's volumes, the only place where the command finds roots."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environ = {"HOME": str(home), "XDG_DATA_HOME": "", "XDG_CONFIG_HOME": ""}

    def volume(self, name: str) -> OnDisk:
        """A new root in the volume of a builder."""
        data = self.home / ".local/share/docker/volumes" / f"buildx_buildkit_{name}_state" / "_data"
        data.parent.mkdir(parents=True)
        made = ondisk.sample(data.parent)
        made.root.rename(data)
        return ondisk.oci(data, made.snapshotter)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return ondisk.run(*arguments, **self.environ)


@pytest.fixture
def host(tmp_path: Path, no_other_roots: None) -> Host:
    return Host(tmp_path / "home")


def document(result: subprocess.CompletedProcess[str], status: int = 0) -> dict[str, Any]:
    assert result.returncode == status, result.stderr
    assert "Traceback" not in result.stderr
    whole = json.loads(result.stdout)
    assert isinstance(whole, dict)
    return whole


def test_no_root_on_the_host_exits_with_3_unless_missing_ok(host: Host) -> None:
    for command in (("migrate",), ("migrate", "--all"), ("status",), ("verify", "--all"), ("undo",)):
        assert host.run(*command).returncode == 3
    for command in (("migrate",), ("migrate", "--all"), ("status",)):
        assert host.run(*command, "--missing-ok").returncode == 0


def test_only_root_on_the_host_is_migrated(host: Host) -> None:
    root = host.volume("one")
    result = host.run("migrate")
    assert result.returncode == 0
    assert f"using {root.root}, the only one on this host" in result.stderr
    assert f"{root.worker}: migrated 287 of 287" in result.stdout


def test_several_roots_are_listed_with_their_commands(host: Host) -> None:
    roots = [host.volume("a b"), host.volume("c")]
    for command in ("migrate", "verify", "undo"):
        result = host.run(command)
        assert result.returncode == 3
        for root in roots:
            assert f"    buildkit-migrate {command} {shlex.quote(str(root.root))}\n" in result.stderr
        assert "--all" in result.stderr
    error = document(host.run("migrate", "--format", "json"), 3)["error"]
    assert error["candidates"] == [str(root.root) for root in roots]
    assert not any(root.v2.exists() for root in roots)


def test_status_lists_all_roots(host: Host) -> None:
    roots = [host.volume("a"), host.volume("b")]
    roots[1].migrate_here()
    result = host.run("status")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        f"{roots[0].root}: runc-overlayfs not-migrated",
        f"{roots[1].root}: runc-overlayfs migrated",
    ]
    assert "  next: migrate" in host.run("status", "-v").stdout
    found = document(host.run("status", "--format", "json"))["roots"]
    assert [root["root"] for root in found] == [str(root.root) for root in roots]
    assert [root["workers"][0]["stage"] for root in found] == ["not-migrated", "migrated"]


def test_dockers_own_builder_is_a_root_like_others(host: Host) -> None:
    """Without ROOT, BuildKit's own roots come first."""
    volume = host.volume("a")
    data = host.home / ".local/share/docker"
    builder = ondisk.docker_sample(host.home)
    for part in (builder.root, builder.root.parent / "image"):
        part.rename(data / part.name)
    builder = ondisk.docker(data)
    assert host.run("status").stdout.splitlines() == [
        f"{volume.root}: runc-overlayfs not-migrated",
        f"{builder.root}: buildkit not-migrated",
    ]
    assert f"using {volume.root}, the only one" in host.run("migrate").stderr
    result = host.run("migrate", "--all")
    assert (result.returncode, result.stderr) == (0, "")
    assert builder.v2.exists()
    shutil.rmtree(volume.root)
    assert f"using {builder.root}, the only one" in host.run("verify").stderr


def test_all_option_migrates_and_verifies_every_root(host: Host) -> None:
    roots = [host.volume("a"), host.volume("b")]
    planned = host.run("migrate", "--all", "--dry-run")
    assert planned.returncode == 0
    assert planned.stdout.count("would migrate 287 of 287") == 2
    assert not any(root.v2.exists() for root in roots)
    result = host.run("migrate", "--all")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-2:] == [f"{root.root}: done" for root in roots]
    verified = document(host.run("verify", "--all", "--format", "json"))["roots"]
    assert [root["workers"][0]["verdict"] for root in verified] == ["ok", "ok"]


def test_one_failing_root_does_not_stop_the_others(host: Host) -> None:
    """The command exits with the worst status."""
    busy, damaged, sound, plain = (host.volume(name) for name in "abcd")
    damaged.containerd.write_bytes(bytes(damaged.containerd.stat().st_size))
    with busy.v1.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        result = host.run("migrate", "--all", "--format", "json")
    found = document(result, errors.CorruptDatabaseError.exit_code)["roots"]
    assert [root["exit_code"] for root in found] == [4, 5, 0, 0]
    assert [root["error"] and root["error"]["type"] for root in found] == [
        "BusyError",
        "CorruptDatabaseError",
        None,
        None,
    ]
    assert [root.v2.exists() for root in (busy, damaged, sound, plain)] == [False, False, True, True]
    assert str(damaged.containerd) in result.stderr

    again = host.run("migrate", "--all")
    assert again.returncode == 5
    assert again.stdout.splitlines()[-4:] == [
        f"{busy.root}: done",
        f"{damaged.root}: exit status 5",
        f"{sound.root}: done",
        f"{plain.root}: done",
    ]


def test_all_option_compacts_every_root_that_can_be(host: Host) -> None:
    roots = [host.volume(name) for name in ("a", "b")]
    for root in roots:
        assert root.migrate().returncode == 0
    before = [root.v2.read_bytes() for root in roots]
    with (roots[0].root / "buildkitd.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = document(host.run("compact", "--all", "--format", "json"), errors.BusyError.exit_code)
    assert [one["root"] for one in found["roots"]] == [str(root.root) for root in roots]
    assert [one["exit_code"] for one in found["roots"]] == [errors.BusyError.exit_code, 0]
    assert roots[0].v2.read_bytes() == before[0]
    assert [one["saved"] is None for one in found["roots"]] == [True, False]
    assert document(host.run("compact", "--all", "--dry-run", "--format", "json"))["roots"]
    assert document(host.run("compact", "--all", "--undo", "--format", "json"))["roots"]
    assert [root.v2.read_bytes() for root in roots] == before


def test_all_option_repairs_every_root_that_can_be(host: Host) -> None:
    roots = [host.volume(name) for name in ("a", "b")]
    for root in roots:
        assert root.migrate().returncode == 0
        ondisk.edit(root.v2, {b"_index": {b"cache-dir:x::nothing": b""}})
    before = [root.v2.read_bytes() for root in roots]
    with (roots[0].root / "buildkitd.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = document(host.run("repair", "--all", "--format", "json"), 15)
    assert [one["exit_code"] for one in found["roots"]] == [errors.BusyError.exit_code, 15]
    assert [one["root"] for one in found["roots"]] == [str(root.root) for root in roots]
    assert roots[0].v2.read_bytes() == before[0] != roots[1].v2.read_bytes()
    assert [[one["kind"] for one in root["changes"]] for root in found["roots"]] == [[], ["replaced"]]


def test_all_option_and_root_exclude_each_other(host: Host) -> None:
    root = host.volume("a")
    assert host.run("migrate", "--all", str(root.root)).returncode == 2


@pytest.mark.parametrize("given", ["..", "../..", "runc-overlayfs/snapshots", "runc-overlayfs/metadata.db"])
def test_root_near_the_given_path_is_found(host: Host, given: str) -> None:
    root = host.volume("a")
    path = f"{root.root}/{given}"
    result = host.run("migrate", path)
    assert result.returncode == 0, result.stderr
    assert f"{path} is not a BuildKit root; using " in result.stderr
    assert root.v2.exists()


def test_several_roots_near_the_given_path_are_candidates(host: Host) -> None:
    roots = [host.volume("a"), host.volume("b")]
    error = document(host.run("migrate", "--format", "json", str(roots[0].root.parents[1])), 3)["error"]
    assert error["candidates"] == [str(root.root) for root in roots]


def test_worst_exit_status_does_not_depend_on_the_order() -> None:
    for one, other in itertools.permutations(EXIT_STATUSES, 2):
        assert worst([one, other]) == worst([other, one]) in {one, other}
        assert worst([0, one, one]) == one
    assert worst([]) == 0
    assert worst([4, 5, 11]) == 5
