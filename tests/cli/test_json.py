"""Documents of ``--format json``: all of a command have the same fields, errors included."""

from __future__ import annotations

import json
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import json_schemas
import jsonschema
import pytest

import ondisk
import v2_roots
from buildkit_migrate.cli import _COMMANDS
from buildkit_migrate.migration.report import COUNTS
from ondisk import OnDisk, run
from planting import damage_page
from trees import PlainBucket, write

Found = tuple[int, dict[str, Any]]


def document(*arguments: str) -> Found:
    result = run(*arguments, "--format", "json")
    assert "Traceback" not in result.stderr
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return result.returncode, found


def broken(root: OnDisk) -> None:
    ondisk.edit(root.v1, {b"_main": {b"\xff": {}, b"bad": {b"key": b"{"}}})


def migrations(directory: Path) -> Iterator[Found]:
    root = ondisk.sample(directory)
    at = str(root.root)
    yield document("migrate", at, "--nonsense")
    yield document("migrate", at, "--timeout", "soon")
    yield document("migrate", str(directory / "missing"))
    yield document("migrate", str(directory / "missing"), "--missing-ok")
    yield document("migrate", at, "--dry-run")
    yield document("migrate", at, "--dry-run", "-v")
    yield document("migrate", at, "-v")
    yield document("migrate", at)
    yield document("migrate", at, "--to-engine", "lmdb")
    root.v2.unlink()
    root.v1.unlink()
    yield document("migrate", at, "-v")

    root = ondisk.sample(directory / "broken")
    broken(root)
    at = str(root.root)
    yield document("migrate", at)
    yield document("migrate", at, "--dry-run", "-v")
    root.v1.chmod(0o600)
    yield document("migrate", at, "--on-broken", "drop", "-v")

    root = ondisk.sample(directory / "unreachable")
    root.worker.rename(root.root / "containerd-overlayfs")
    away = ("--address", str(directory / "nowhere"), "--connect-timeout", "0.1")
    yield document("migrate", str(root.root), *away)
    yield document("migrate", str(root.root), *away, "--skip-unreachable")


def verifications(directory: Path) -> Iterator[Found]:
    root = ondisk.sample(directory)
    at = str(root.root)
    yield document("verify", at, "--nonsense")
    yield document("verify", str(directory / "missing"))
    yield document("verify", at)
    root.migrate_here()
    yield document("verify", at)
    ondisk.edit(root.v2, {b"_main": {b"new": {b"k": b"v"}}, b"\xfe": b"v"})
    yield document("verify", at, "-v")
    root.v1.unlink()
    yield document("verify", at)
    root = ondisk.sample(directory / "broken")
    broken(root)
    assert root.migrate("--on-broken", "drop").returncode == 0
    yield document("verify", str(root.root))


def statuses(directory: Path) -> Iterator[Found]:
    root = ondisk.sample(directory)
    at = str(root.root)
    yield document("status", at, "--nonsense")
    yield document("status", str(directory / "missing"))
    yield document("status", str(directory / "missing"), "--missing-ok")
    yield document("status", at)
    root.migrate_here()
    yield document("status", at)
    yield document("status", at, "--to-engine", "lmdb")
    ondisk.edit(root.v2, {b"_index": {b"cache-dir:x::nothing": b""}})
    assert run("repair", at).returncode in (0, 15)
    yield document("status", at)
    root.v2.rename(root.v2.with_name("aside"))
    yield document("status", at)
    root.v2.write_bytes(b"garbage" * 1000)
    yield document("status", at)


def ways_back(directory: Path) -> Iterator[Found]:
    root = ondisk.sample(directory)
    at = str(root.root)
    yield document("undo", at, "--nonsense")
    yield document("undo", str(directory / "missing"))
    yield document("undo", at)
    root.migrate_here()
    ondisk.edit(root.v2, {b"_index": {b"cache-dir:x::nothing": b""}})
    assert run("repair", at).returncode in (0, 15)
    yield document("undo", at, "--dry-run")
    yield document("undo", at)
    ondisk.edit(root.v2, {b"_main": {b"new": {}}})
    yield document("undo", at)
    yield document("undo", at, "--dry-run")
    yield document("undo", at, "--force")
    assert run("compact", at).returncode == 0
    yield document("undo", at, "--dry-run")
    yield document("undo", at)
    root.v2.write_bytes(root.v1.read_bytes())
    yield document("undo", at)


def cleanings(directory: Path) -> Iterator[Found]:
    root = ondisk.sample(directory)
    at = str(root.root)
    yield document("clean", at, "--nonsense")
    yield document("clean", at)
    root.migrate_here()
    yield document("clean", at, "--dry-run")
    yield document("clean", at)
    yield document("clean", at)


def usages(directory: Path) -> Iterator[Found]:
    root = v2_roots.healed(directory)
    at = str(root.root)
    yield document("du", at, "--nonsense")
    yield document("du", at, "--filter", "=")
    yield document("du", str(directory / "missing"))
    yield document("du", at)
    yield document("du", at, "--filter", "id==none")
    root.snapshots.unlink()
    yield document("du", at, "--after-start")
    root.records.write_bytes(b"garbage" * 1000)
    yield document("du", at)


def checks(directory: Path) -> Iterator[Found]:
    root = ondisk.sample(directory)
    at = str(root.root)
    yield document("check", at, "--nonsense")
    yield document("check", str(directory / "missing"))
    yield document("check", at)
    root.migrate_here()
    yield document("check", at)
    yield document("check", str(root.v2))
    root.v2.write_bytes(b"garbage" * 1000)
    yield document("check", at)


def compactions(directory: Path) -> Iterator[Found]:
    root = ondisk.sample(directory)
    at = str(root.root)
    yield document("compact", at, "--nonsense")
    yield document("compact", str(directory / "missing"))
    yield document("compact", at, "--dry-run")
    yield document("compact", at)
    yield document("compact", at)
    yield document("compact", at, "--undo", "--dry-run")
    yield document("compact", at, "--undo")
    yield document("compact", str(root.snapshots))
    yield document("compact", at, "--discard-kept")
    root.containerd.write_bytes(b"garbage" * 1000)
    yield document("compact", at, "--dry-run")
    yield document("compact", at)


def repairs(directory: Path) -> Iterator[Found]:
    root = ondisk.sample(directory)
    root.migrate_here()
    stray = {b"_index": {b"cache-dir:x::nothing": b""}}
    ondisk.edit(root.v2, stray)
    at = str(root.root)
    yield document("repair", at, "--nonsense")
    yield document("repair", at, "--discard-kept", "--drop")
    yield document("repair", str(directory / "missing"))
    yield document("repair", at, "--dry-run")
    yield document("repair", at)
    yield document("repair", at, "--drop", "--release-leaks", "--set-aside", "--dry-run")
    yield document("repair", str(root.v2))
    yield document("repair", at, "--discard-kept", "--dry-run")
    yield document("repair", at, "--discard-kept")
    ondisk.edit(root.v2, stray)
    root.v2.rename(root.v2.with_name("moved"))
    root.v2.symlink_to("moved")
    yield document("repair", at, "--dry-run")
    yield document("repair", at)
    root.containerd.write_bytes(b"garbage" * 1000)
    yield document("repair", at)
    yield from salvages(directory)


def salvages(directory: Path) -> Iterator[Found]:
    path, new = directory / "db", str(directory / "new")
    many = PlainBucket({b"\xff%04d" % number: b"v" * 90 for number in range(200)})
    write(path, PlainBucket({b"b": many, b"\xfe": many}))
    yield document("repair", "--salvage", str(path))
    yield document("repair", "--salvage", str(path), "--output", new, "--drop")
    yield document("repair", "--salvage", str(path), "--output", new)
    yield document("repair", "--salvage", str(path), "--output", new)
    damage_page(path, 2)
    (directory / "new").unlink()
    yield document("repair", "--salvage", str(path), "--output", new)
    path.write_bytes(b"garbage" * 1000)
    yield document("repair", "--salvage", str(path), "--output", str(directory / "other"))


def conversions(directory: Path) -> Iterator[Found]:
    root = ondisk.sample(directory)
    target = str(directory / "target")
    yield document("convert", str(root.v1))
    yield document("convert", str(root.v1), target)
    yield document("convert", str(root.v1), target)
    yield document("convert", str(directory), target)


def benches(directory: Path) -> Iterator[Found]:
    yield document("bench", "--records", "many")
    yield document("bench", "--records", "100")


COMMANDS: dict[str, Callable[[Path], Iterator[Found]]] = {
    "migrate": migrations,
    "verify": verifications,
    "status": statuses,
    "undo": ways_back,
    "clean": cleanings,
    "du": usages,
    "check": checks,
    "repair": repairs,
    "compact": compactions,
    "convert": conversions,
    "bench": benches,
}


def walk(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    yield path, value
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from walk(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from walk(inner, f"{path}[]")


def kind(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number"
    return type(value).__name__


def names(found: dict[str, Any]) -> frozenset[str]:
    """The fields, without base64 forms, which only names that are not UTF-8 have."""
    return frozenset(name for name in found if not name.endswith("_b64"))


def test_every_command_has_cases() -> None:
    assert set(COMMANDS) == set(_COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_all_documents_of_a_command_have_the_same_fields(tmp_path: Path, command: str) -> None:
    seen: defaultdict[str, set[frozenset[str]]] = defaultdict(set)
    kinds: defaultdict[str, set[str]] = defaultdict(set)
    results = 0
    documents = []
    for status, found in COMMANDS[command](tmp_path):
        documents.append(found)
        assert next(iter(found)) == "schema"
        assert list(found)[-1] == "error"
        # A dry run that foresees a refusal has a result, and the exit status of the refusal.
        if found["error"] is not None:
            assert found["error"]["exit_code"] == status != 0
            assert not any(value for name, value in found.items() if name not in ("schema", "error"))
        else:
            results += 1
        for path, value in walk(found):
            # Results of a bench have a field for each stage, counts of check one for each rule with findings.
            if isinstance(value, dict) and path not in (".results", ".counts", ".verdict.counts"):
                seen[path].add(names(value))
            if value is not None:
                kinds[path].add(kind(value))
                if path.endswith(".records") and (command, path) != ("du", ".records"):
                    assert kind(value) == "number"
    assert results > 0
    assert {path: found for path, found in seen.items() if len(found) > 1} == {}
    assert {path: found for path, found in kinds.items() if len(found) > 1} == {}
    schema = json_schemas.read(command)
    for one in documents:
        jsonschema.validate(one, schema, jsonschema.Draft202012Validator)
    # Else: python tests/cli/json_schemas.py
    assert json_schemas.merged(schema, json_schemas.of_command(command, documents)) == schema


def test_counts_are_null_when_nothing_was_counted(tmp_path: Path) -> None:
    root = ondisk.sample(tmp_path)
    for counted in (True, False):
        _, found = document("migrate", str(root.root))
        (worker,) = found["workers"]
        assert worker["counts"].keys() == set(COUNTS)
        assert (worker["records"] is not None) == counted
        assert worker["records"] == worker["counts"]["records"]
        assert worker["record_list"] is None


def test_every_count_has_a_documented_name(tmp_path: Path) -> None:
    from buildkit_migrate import migrate_root

    (report,) = migrate_root(ondisk.sample(tmp_path).root, dry_run=True)
    assert report.counts.keys() == set(COUNTS)


def test_unknown_command_gets_an_error_document() -> None:
    status, found = document("nonsense")
    assert (status, set(found)) == (2, {"schema", "error"})


def test_documents_of_all_roots_keep_to_their_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_other_roots: None
) -> None:
    """Each root has a document of the command; what failed, too."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    broken(ondisk.sample(tmp_path))
    (tmp_path / "root").rename(tmp_path / "buildkit")
    for command in ("status", "migrate", "check"):
        _, found = document(command, *(() if command == "status" else ("--all",)))
        jsonschema.validate(found, json_schemas.read("all-roots"), jsonschema.Draft202012Validator)
        for root in found["roots"]:
            assert root["exit_code"] == (root["error"] or {}).get("exit_code", root["exit_code"])
            one = {"schema": found["schema"], **root}
            jsonschema.validate(one, json_schemas.read(command), jsonschema.Draft202012Validator)


def test_schemas_are_shipped() -> None:
    shipped = resources.files("buildkit_migrate.cli").joinpath("schemas").iterdir()
    names = {"all-roots", *COMMANDS}
    assert {path.name for path in shipped} == {f"{name}.schema.json" for name in names}
    patterns = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "cli/schemas/*.json" in patterns["package-data"]["buildkit_migrate"]


@pytest.mark.parametrize("command", ["migrate", "verify", "status", "undo"])
def test_all_commands_accept_the_same_connection_options(tmp_path: Path, command: str) -> None:
    """So that a script can keep them in one variable."""
    root = ondisk.sample_of_containerd(tmp_path)
    options = (
        *("--address", "/nowhere", "--namespace", "buildkit", "--snapshotter", "overlayfs"),
        *("--timeout", "1", "--connect-timeout", "1", "--concurrency", "2", "--offline", *root.options),
    )
    status, found = document(command, *options, str(root.root))
    assert status == (10 if command == "verify" else 0), found
