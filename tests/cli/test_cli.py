"""The command: exit codes, streams, forms of output."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import buildkit_migrate
import ondisk
import other_user
from buildkit_migrate.model import Reason
from fixtures import bucket, buckets
from ondisk import OnDisk, run
from terminal import on_a_terminal


def failure(result: subprocess.CompletedProcess[str], status: int) -> dict[str, Any]:
    """The error document, after the checks that hold for every failure with ``--format json``."""
    assert result.returncode == status, result.stderr
    document = json.loads(result.stdout)
    error = document.pop("error")
    assert document.pop("schema") == 1
    assert not any(document.values())  # names without content
    assert isinstance(error, dict)
    assert error["exit_code"] == status
    assert result.stderr.startswith("buildkit-migrate: error: ")
    assert "Traceback" not in result.stderr
    return error


# --- Output


def test_migration_prints_a_text_report(root: OnDisk) -> None:
    result = root.migrate()
    assert (result.returncode, result.stderr) == (0, "")
    records = len(buckets(bucket(ondisk.tree(root.v1), b"_main")))
    lines = result.stdout.splitlines()
    assert lines[0] == f"{root.worker}: OCI worker"
    assert lines[5].startswith(f"{root.worker}: migrated {records} of {records} records (")
    assert f"  leases: {records} new, " in result.stdout


def test_dry_run_prints_a_json_report(root: OnDisk) -> None:
    result = root.migrate("--format", "json", "--dry-run", "-v")
    assert result.stderr == ""
    document = json.loads(result.stdout)
    assert document["root"] == str(root.root)
    assert document["dry_run"] is True
    (worker,) = document["workers"]
    assert (worker["worker"], worker["outcome"]) == (str(root.worker), "planned")
    assert worker["problems"] == worker["cautions"] == []
    ids = [record["id"].encode() for record in worker["record_list"]]
    assert ids == sorted(buckets(bucket(ondisk.tree(root.v1), b"_main")))
    assert worker["counts"]["records"] == worker["counts"]["kept"] == len(ids)
    assert all(record["snapshot"] == record["id"] for record in worker["record_list"])


def test_ids_that_are_not_utf8_are_also_given_in_base64(root: OnDisk) -> None:
    ondisk.edit(root.v1, {b"_main": {b"\xff\x1b[31m": {}}})
    result = root.migrate("--format", "json", "--dry-run")
    assert result.returncode == 6
    (problem,) = json.loads(result.stdout)["workers"][0]["problems"]
    assert problem == {
        "record": "\ufffd\x1b[31m",
        "record_b64": "/xtbMzFt",
        "reason": Reason.BAD_ID,
        "detail": None,
    }
    text = root.migrate("--dry-run").stdout
    assert "\\xff\\x1b[31m: id-not-utf8" in text
    assert "\x1b" not in text


def test_version_of_sources_that_are_not_installed(tmp_path: Path) -> None:
    """Without what an installation writes about the package."""
    (tmp_path / "buildkit_migrate").symlink_to(Path(buildkit_migrate.__file__).parent)
    result = subprocess.run(
        [sys.executable, "-S", "-m", "buildkit_migrate", "--version"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"buildkit-migrate {buildkit_migrate.__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "tcsh"])
def test_completion_script_is_printed_for_each_shell(shell: str) -> None:
    result = run("--print-completion", shell)
    assert result.returncode == 0
    assert ("-l on-broken" if shell == "fish" else "--on-broken") in result.stdout
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=result.stdout, text=True, check=False).returncode == 0


def test_progress_is_shown_on_a_terminal(root: OnDisk) -> None:
    """The steps of the work are shown, and stdout has only the result."""
    status, shown, out = on_a_terminal("migrate", "--progress", "bar", "--format", "json", str(root.root))
    assert status == 0
    assert json.loads(out)["workers"]
    assert b"writing leases and labels" in shown  # the status line shows the last step before it disappears


def test_heavy_modules_are_not_imported(root: OnDisk) -> None:
    assert root.migrate().returncode == 0
    code = """
import sys
import time
import buildkit_migrate
heavy = {"rich", "orjson", "grpc", "lmdb", "shtab", "argparse", "google.protobuf"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert "buildkit_migrate._native.bolt" not in sys.modules
from buildkit_migrate.cli import main
assert main(["migrate", sys.argv[1]]) == 0
heavy -= {"argparse", "lmdb"}  # the journal shows whether v1 is as it was when it was migrated
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code, str(root.root)], check=True, stdout=subprocess.DEVNULL)


# --- Exit codes


def test_wrong_usage_exits_with_2() -> None:
    error = failure(run("migrate", "--format", "json", "--nonsense"), 2)
    assert "--nonsense" in error["message"]
    assert run().returncode == 2
    assert run("migrate", "--on-broken=perhaps").returncode == 2
    assert run("migrate", "--dry").returncode == 2  # no abbreviations, which would have to stay unambiguous


def test_paths_without_a_root_are_refused(tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    for place in (tmp_path, tmp_path / "missing", tmp_path / "something"):
        error = failure(run("migrate", "--format", "json", str(place)), 3)
        assert str(place) in error["message"]


@pytest.mark.parametrize("command", ["migrate", "verify", "status"])
def test_missing_ok_accepts_a_missing_root(tmp_path: Path, command: str) -> None:
    missing = tmp_path / "missing"
    failure(run(command, "--format", "json", str(missing)), 3)
    result = run(command, "--missing-ok", "--format", "json", str(missing))
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["workers"] == []
    assert not missing.exists()


@pytest.mark.parametrize("place", ["file", "stuff", "dangling", "file/below"])
def test_missing_ok_does_not_accept_what_exists(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "stuff" / "more").mkdir(parents=True)
    (tmp_path / "dangling").symlink_to("not-mounted")
    failure(run("migrate", "--missing-ok", "--format", "json", str(tmp_path / place)), 3)


@pytest.mark.parametrize(
    "arguments",
    [
        *((command, "") for command in ("migrate", "verify", "status", "undo")),
        ("migrate", "--dry-run", " "),
        *(
            ("migrate", f"--{option}=", ".")
            for option in ("address", "namespace", "snapshotter", "snapshotter-root", "containerd-root")
        ),
        ("convert", "", "target"),
        ("convert", "metadata.db", ""),
    ],
)
def test_empty_arguments_are_refused(
    root: OnDisk, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """An empty path would be the current directory."""
    monkeypatch.chdir(root.worker if arguments[0] == "convert" else root.root)
    before = ondisk.listing(root.root)
    error = failure(run(*arguments, "--format", "json"), 2)
    assert "is empty: is a variable not set?" in error["message"]
    assert ondisk.listing(root.root) == before


def test_damaged_database_is_named(root: OnDisk) -> None:
    for path in (root.v1, root.containerd, root.snapshots):
        sound = path.read_bytes()
        path.write_bytes(bytes(len(sound)))
        before = ondisk.listing(root.worker)
        error = failure(root.migrate("--format", "json"), 5)
        assert str(path) in error["message"]
        assert ondisk.listing(root.worker) == before
        path.write_bytes(sound)


def test_truncated_database_is_refused(root: OnDisk) -> None:
    root.containerd.write_bytes(root.containerd.read_bytes()[:20_000])
    before = ondisk.listing(root.worker)
    failure(root.migrate("--format", "json"), 5)
    assert ondisk.listing(root.worker) == before


def broken(root: OnDisk) -> bytes:
    """Breaks a record that others descend from; returns its id."""
    parents = [snapshot.get(b"parent") for snapshot in buckets(_snapshots(root)).values()]
    records = buckets(bucket(ondisk.tree(root.v1), b"_main"))
    base = next(id for id in sorted(records) if id in parents)
    ondisk.edit(root.v1, {b"_main": {base: {b"cache.description": b"{"}}})
    return base


def _snapshots(root: OnDisk) -> dict[bytes, Any]:
    return bucket(ondisk.tree(root.containerd), b"v1", b"buildkit", b"snapshots", b"overlayfs")


def test_broken_records_are_refused_by_default(root: OnDisk) -> None:
    base = broken(root)
    error = failure(root.migrate("--format", "json"), 6)
    reasons = {problem["record"].encode(): problem["reason"] for problem in error["problems"]}
    assert reasons[base] == Reason.UNDECODABLE
    assert set(reasons.values()) == {Reason.UNDECODABLE, Reason.DESCENDANT}
    assert "--on-broken drop" in error["hint"]
    assert not root.v2.exists()

    planned = root.migrate("--dry-run")
    assert planned.returncode == 6
    assert f"{base.decode()}: undecodable-value (cache.description)" in planned.stdout
    assert "refused" in planned.stderr


def test_dropping_all_records_is_refused(root: OnDisk) -> None:
    """The cache would be empty, and what containerd holds for the old one would stay for ever."""
    ids = buckets(bucket(ondisk.tree(root.v1), b"_main"))
    ondisk.edit(root.v1, {b"_main": {id: {b"cache.description": b"garbage"} for id in ids}})
    before = ondisk.listing(root.worker)
    for arguments in (("--on-broken", "drop"), ("--on-broken", "drop", "--dry-run"), ()):
        error = failure(root.migrate("--format", "json", *arguments), 6)
        assert len(error["problems"]) == len(ids)
        assert f"no record of {root.v1} would be left" in error["hint"]
        assert "--on-broken" not in error["hint"]
    assert ondisk.listing(root.worker) == before


def test_on_broken_drop_leaves_out_broken_records(root: OnDisk) -> None:
    base = broken(root)
    before = buckets(bucket(ondisk.tree(root.v1), b"_main"))
    assert root.migrate("--dry-run", "--on-broken", "drop").returncode == 0
    result = root.migrate("--on-broken", "drop", "-v", "--format", "json")
    assert result.returncode == 0
    (worker,) = json.loads(result.stdout)["workers"]
    dropped = {problem["record"].encode() for problem in worker["problems"]}
    assert base in dropped
    assert {record["id"].encode() for record in worker["record_list"] if record["dropped"]} == dropped
    assert worker["counts"]["dropped"] == len(dropped)
    v2 = ondisk.tree(root.v2)
    assert buckets(bucket(v2, b"_main")).keys() == before.keys() - dropped
    assert not dropped & buckets(bucket(v2, b"_external")).keys()
    assert not any(key.rpartition(b"::")[2] in dropped for key in bucket(v2, b"_index"))


def test_missing_containerd_database_is_named(root: OnDisk) -> None:
    root.containerd.unlink()
    error = failure(root.migrate("--format", "json"), 7)
    assert str(root.containerd) in error["message"]


def test_empty_containerd_is_refused(root: OnDisk) -> None:
    ondisk.empty_database(root.containerd)
    error = failure(root.migrate("--format", "json", "--on-broken", "drop"), 7)
    assert "not the containerd, namespace or snapshotter of this cache" in error["message"]


def test_containerd_worker_needs_its_containerd(root: OnDisk, tmp_path: Path) -> None:
    root.worker.rename(root.root / "containerd-overlayfs")
    nowhere = ("--address", str(tmp_path / "nowhere"), "--connect-timeout", "0.1")
    error = failure(root.migrate("--format", "json", *nowhere), 11)
    assert "--offline" in error["hint"]
    error = failure(root.migrate("--format", "json", "--containerd-root", str(tmp_path)), 7)
    assert str(tmp_path / "io.containerd.metadata.v1.bolt") in error["message"]


def test_unreadable_v1_is_named(root: OnDisk) -> None:
    root.v1.chmod(0)
    result = other_user.run_without_override("migrate", str(root.root))
    assert result.returncode == 8
    assert f"{root.v1}: Permission denied" in result.stderr


@pytest.mark.parametrize("kind", ["empty", "garbage", "directory", "fifo"])
def test_unusable_target_is_refused(root: OnDisk, kind: str) -> None:
    match kind:
        case "empty":
            root.v2.touch()
        case "garbage":
            root.v2.write_bytes(b"garbage" * 10_000)
        case "directory":
            root.v2.mkdir()
        case _:
            os.mkfifo(root.v2)
    before = ondisk.listing(root.root)
    error = failure(root.migrate("--format", "json"), 9)
    assert str(root.v2) in error["message"]
    assert ondisk.listing(root.root) == before


@pytest.mark.parametrize("kind", ["directory", "fifo"])
def test_v1_that_is_not_a_regular_file_is_refused(root: OnDisk, kind: str) -> None:
    root.v1.unlink()
    root.v1.mkdir() if kind == "directory" else os.mkfifo(root.v1)
    error = failure(root.migrate("--format", "json"), 5)
    assert f"{root.v1}: not a regular file" in error["message"]


def test_empty_v1_migrates_to_an_empty_store(root: OnDisk) -> None:
    root.v1.write_bytes(b"")
    ondisk.empty_database(root.containerd)
    assert root.migrate().returncode == 0
    assert ondisk.tree(root.v2) == {}


def test_without_v1_there_is_nothing_to_migrate(root: OnDisk) -> None:
    root.v1.unlink()
    result = root.migrate("--format", "json")
    assert result.returncode == 0
    assert [worker["outcome"] for worker in json.loads(result.stdout)["workers"]] == ["nothing-to-migrate"]
    assert not (root.root / "buildkitd.lock").exists()


def test_empty_directory_is_left_alone(tmp_path: Path) -> None:
    result = run("migrate", str(tmp_path))
    assert (result.returncode, "nothing to migrate" in result.stdout) == (0, True)
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(root: OnDisk) -> None:
    root.containerd.unlink()
    assert "Traceback" in root.migrate("--debug").stderr


def test_unexpected_error_asks_for_a_report(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from buildkit_migrate import api
    from buildkit_migrate.cli import main

    def explode(path: object, **options: object) -> None:
        raise RuntimeError("inside")

    monkeypatch.setattr(api, "find_root", explode)
    assert main(["migrate"]) == 1
    shown = capfd.readouterr().err
    assert "unexpected RuntimeError: inside" in shown
    assert "--debug" in shown
    assert "Traceback" not in shown


def test_ctrl_c_exits_with_130(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    from buildkit_migrate import api
    from buildkit_migrate.cli import main

    def interrupt(path: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "find_root", interrupt)
    assert main(["migrate", "--format", "json"]) == 130
    shown = capfd.readouterr()
    assert json.loads(shown.out)["error"]["exit_code"] == 130
    assert "again" in shown.err


def test_sigterm_unwinds_and_exits_with_143(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopping the unit or container removes temporary files."""
    from buildkit_migrate import api
    from buildkit_migrate.cli import main

    unwound = []

    def terminate(path: object, **options: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            unwound.append(True)

    monkeypatch.setattr(api, "find_root", terminate)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        main(["migrate"])
    assert signal.getsignal(signal.SIGTERM) is before
    assert (ended.value.code, unwound) == (143, [True])


@pytest.mark.parametrize("name", ["", "a b", "a" * 77, "-a", "\udcff"])
def test_impossible_namespace_is_refused(root: OnDisk, name: str) -> None:
    result = ondisk.run("migrate", f"--namespace={name}", str(root.root))
    assert result.returncode == 2
    assert "namespace" in result.stderr


def test_worker_directory_with_an_impossible_snapshotter_is_refused(root: OnDisk) -> None:
    root.worker.rename(root.root / "runc-\udcff")
    result = root.migrate()
    assert result.returncode == 3
    assert "snapshotter" in result.stderr
