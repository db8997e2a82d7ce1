"""The files in ``deploy/``: valid by the schemas of what reads them, and their commands do what they say."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import ondisk
import pages
import v2_roots
from buildkit_migrate.cli import _make_parser
from ondisk import OnDisk

DEPLOY: Final = pages.REPOSITORY / "deploy"
MANIFESTS: Final = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
UNITS: Final = sorted((DEPLOY / "systemd").glob("*.*"))
PROGRAM: Final = "/usr/local/bin/buildkit-migrate"

IN_CONTAINER: Final = """
set -e
mount -t tmpfs none /var/lib
mkdir /var/lib/buildkit
mount --bind $ROOT /var/lib/buildkit
[ $WRITABLE = 1 ] || mount -o remount,bind,ro /var/lib/buildkit
mount --bind / / && mount -o remount,bind,ro /
exec setpriv --no-new-privs --bounding-set -all "$@"
"""
"""Only the root can be written, nothing can be connected to, and all that is left of root is to own files."""


def yaml(path: Path) -> Any:
    return pytest.importorskip("yaml", reason="PyYAML is not installed (extra deploy)").safe_load(
        path.read_text()
    )


def run_in_container(root: Path, arguments: list[str], writable: bool) -> subprocess.CompletedProcess[str]:
    """Runs the command with the root where the manifests have it, and without rights that it need not."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "--net", "true"], check=False).returncode:
        pytest.skip("needs root and namespaces of mounts and networks")
    return subprocess.run(
        [
            *("unshare", "--mount", "--net", "sh", "-c", IN_CONTAINER, "sh"),
            *(sys.executable, "-m", "buildkit_migrate", *arguments),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ROOT": str(root), "WRITABLE": str(int(writable))},
    )


# --- Kubernetes, compose


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)
def test_manifest_is_valid(manifest: Path) -> None:
    validate = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate is not installed (extra deploy)"
    )
    validate.validate(yaml(manifest), "1.31", strict=True)


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("compose-spec", "deploy/compose.yaml"),
        ("dependabot", ".github/dependabot.yml"),
        ("github-workflows", ".github/workflows/ci.yml"),
        ("github-workflows", ".github/workflows/release.yml"),
    ],
)
def test_file_is_valid_by_the_schema_of_its_reader(schema: str, path: str) -> None:
    command = Path(sys.executable).with_name("check-jsonschema")
    if not command.exists():
        pytest.skip("check-jsonschema is not installed (extra deploy)")
    arguments = ("--builtin-schema", f"vendor.{schema}", pages.REPOSITORY / path)
    done = subprocess.run([command, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def containers(found: object) -> Iterator[dict[str, Any]]:
    """Our containers in a manifest or compose file."""
    if isinstance(found, dict):
        if found.get("image") == "buildkit-migrate" and ("args" in found or "command" in found):
            yield found
        for value in found.values():
            yield from containers(value)
    elif isinstance(found, list):
        for value in found:
            yield from containers(value)


@pytest.mark.parametrize("path", [*MANIFESTS, DEPLOY / "compose.yaml"], ids=lambda path: path.name)
def test_containers_do_their_work_with_the_rights_that_they_get(path: Path, tmp_path: Path) -> None:
    found = list(containers(yaml(path)))
    assert found
    for number, container in enumerate(found):
        arguments = container.get("args") or container["command"]
        directory = tmp_path / str(number)
        if arguments[0] == "check":
            root: OnDisk = v2_roots.healed(directory)
            done = run_in_container(root.root, arguments, writable=False)
            assert done.returncode == 0, done.stdout + done.stderr
        else:
            root = ondisk.sample(directory)
            for _ in range(2):  # each start of a pod runs it
                done = run_in_container(root.root, arguments, writable=True)
                assert done.returncode == 0, done.stdout + done.stderr
            root.verify_here()
            (directory / "empty").mkdir()
            assert run_in_container(directory / "empty", arguments, writable=True).returncode == 0


def test_a_volume_for_reading_is_mounted_read_only() -> None:
    for path in (*MANIFESTS, DEPLOY / "compose.yaml"):
        for container in containers(yaml(path)):
            if "check" in (container.get("args") or container["command"]):
                (volume,) = container.get("volumeMounts") or container["volumes"]
                assert volume.get("readOnly") if isinstance(volume, dict) else volume.endswith(":ro")


# --- The image


def instructions() -> list[tuple[str, str]]:
    text = (DEPLOY / "Containerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines)]


def test_image_is_slim_and_not_for_root() -> None:
    last = [number for number, (name, _) in enumerate(instructions()) if name == "FROM"][-1]
    final = dict(instructions()[last:])
    assert final["FROM"].endswith("-slim")
    assert not final["USER"].startswith("0")
    assert {"RUN", "ADD"}.isdisjoint(final)  # compilers stay in the stage before
    assert json.loads(final["ENTRYPOINT"]) == ["buildkit-migrate"]


def test_image_gets_what_a_build_needs() -> None:
    """What `.dockerignore` lets through has all that `pyproject.toml` and `setup.py` name."""
    allowed = re.findall(r"^!(.*)$", (pages.REPOSITORY / ".dockerignore").read_text(), re.M)
    assert {"src", "ext", "setup.py", "pyproject.toml", "README.md", "LICENSE"} <= set(allowed)
    assert all((pages.REPOSITORY / name).exists() for name in allowed)


# --- systemd


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units beside the one that they are for, with a program that exists."""
    (tmp_path / "buildkit.service").write_text("[Service]\nExecStart=/bin/true\n")
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace(PROGRAM, "/bin/true"))
    return tmp_path


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_unit_is_valid(unit: Path, units: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=one", unit.name],
        cwd=units,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(units) not in done.stderr


@pytest.mark.parametrize("unit", [path for path in UNITS if path.suffix == ".service"], ids=lambda p: p.name)
def test_command_of_a_unit_parses(unit: Path) -> None:
    (command,) = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.M)
    program, *arguments = shlex.split(command)
    assert program == PROGRAM
    _make_parser().parse_args(arguments)


# --- Ansible


def test_playbook_migrates(root: OnDisk, tmp_path: Path) -> None:
    """On this machine, without the steps that stop and start a service."""
    program = Path(sys.executable).with_name("ansible-playbook")
    if not program.exists():
        pytest.skip("ansible-core is not installed (extra deploy)")
    command = tmp_path / "buildkit-migrate"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m buildkit_migrate "$@"\n')
    command.chmod(0o755)
    (tmp_path / "hosts").write_text("[buildkit]\nlocalhost ansible_connection=local\n")
    variables = {
        "buildkit_root": str(root.root),
        "buildkit_migrate": str(command),
        "ansible_become": False,
        "ansible_python_interpreter": sys.executable,
    }
    for changed in (1, 0):
        done = subprocess.run(
            [
                *(program, "-i", tmp_path / "hosts", "--skip-tags", "service", "-e", json.dumps(variables)),
                DEPLOY / "ansible" / "migrate.yaml",
            ],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "HOME": str(tmp_path), "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8"},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"changed={changed} " in done.stdout
    root.verify_here()
