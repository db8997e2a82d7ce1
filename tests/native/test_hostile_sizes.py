"""Sizes beyond the format's limits and half-made objects are refused."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from buildkit_migrate._native.bolt import Reader
from buildkit_migrate._native.facts import Records, Survey
from buildkit_migrate._native.plan import Plan
from buildkit_migrate.errors import CorruptDatabaseError
from buildkit_migrate.migration.plan import read_records
from dicts import file_of

HERE = Path(__file__).parent
EXT = HERE.parents[1] / "ext"
SOURCES = (
    "plan/plan.c",
    "plan/edits.c",
    "plan/index_keys.c",
    "json/value.c",
    "core/column.c",
    "plan/passes.c",
    "plan/counts.c",
    "plan/records.c",
    "bolt/reader.c",
)


def build(directory: Path, *sources: Path, flags: Sequence[str] = ()) -> Path:
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    program = directory / "program"
    options = ["-std=gnu11", "-O1", "-pthread", f"-I{EXT}", *flags]
    subprocess.run([compiler, *options, *sources, "-o", program], check=True)
    return program


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shared = (path for kind in ("chain", "sha256") for path in sorted(EXT.glob(f"{kind}/*.c")))
    sources = [*(EXT / name for name in SOURCES), *shared]
    return build(tmp_path_factory.mktemp("long"), HERE / "long_text_main.c", *sources)


@pytest.mark.parametrize(("size", "said"), [("6", "0 \n"), ("2147483647", "1 cache.parent\n")])
def test_text_that_is_too_long_for_a_value_is_refused(program: Path, size: str, said: str) -> None:
    assert subprocess.run([program, size], capture_output=True, text=True, check=True).stdout == said


def test_colliding_keys_do_not_slow_the_search(tmp_path: Path) -> None:
    """Otherwise a file could make the search for its records take hours."""
    program = build(tmp_path, HERE / "span_table_main.c", EXT / "core/column.c")
    found, most = map(
        int, subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()
    )
    assert found == 20_000
    assert most < 1000


@pytest.mark.parametrize("bucket", ["_main", "snapshots", "blobs", "leases"])
@pytest.mark.parametrize(("count", "said"), [(5, ""), (6, "more records")])
def test_too_many_rows_are_refused(few_rows: Path, bucket: str, count: int, said: str) -> None:
    """The limit is lowered to five: a file over the real limit has a hundred gigabytes."""
    rows = {b"r%d" % i: {b"k": b"v"} for i in range(count)}
    service = {"snapshots": {b"snapshots": {b"s": rows}}, "blobs": {b"content": {b"blob": rows}}}
    tree = {b"_main": rows} if bucket == "_main" else {b"v1": {b"n": service.get(bucket, {b"leases": rows})}}
    path = few_rows.with_name(f"{bucket}-{count}")
    path.write_bytes(file_of(tree))
    printed = subprocess.run([few_rows, path], capture_output=True, text=True, check=True).stdout
    assert printed.strip().startswith(said)
    assert bool(printed.strip()) == bool(said)


@pytest.fixture(scope="module")
def few_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = (
        "plan/records.c",
        "plan/survey.c",
        "json/value.c",
        "bolt/scan.c",
        "bolt/reader.c",
        "core/column.c",
    )
    sources = [HERE / "few_rows_main.c", *(EXT / name for name in names)]
    return build(tmp_path_factory.mktemp("rows"), *sources, flags=["-DBKM_MAX_ROWS=5"])


def records() -> Records:
    return read_records(Reader(file_of({b"_main": {b"a": {}}})))


@pytest.mark.parametrize(
    "arguments",
    [
        ([(b"a", 3, "no bytes", False)], [], []),
        ([(b"a", 3, b"", False)], [("no bytes", False, None)], []),
        ([(b"a", 3, b"", False)], [(b"sha256:1", False, "no number")], []),
        ([(b"a", 3, b"", False)], [], [(b"l", [("content", "no bytes")])]),
        ([(b"a", 300, b"", False)], [], []),
        ([(bytearray(b"a"), 3, memoryview(b""), False)], [], []),
    ],
)
def test_survey_that_failed_is_not_planned(arguments: tuple[list[object], ...]) -> None:
    survey = Survey.__new__(Survey)
    with pytest.raises((TypeError, OverflowError)):
        survey.__init__("overlayfs", *arguments)  # type: ignore[misc]
    with pytest.raises(RuntimeError, match="earlier failure"):
        Plan(records(), survey)
    with pytest.raises(TypeError, match="once"):
        survey.__init__("overlayfs", [], [], [])  # type: ignore[misc]


def test_uninitialised_survey_is_not_planned() -> None:
    with pytest.raises(TypeError, match="not initialised"):
        Plan(records(), Survey.__new__(Survey))


def test_offline_survey_of_a_damaged_file_is_refused() -> None:
    data = bytearray(file_of({b"v1": {b"buildkit": {b"leases": {b"l": {b"k": b"v"}}}}}))
    reader = Reader(bytes(data))
    assert Plan(records(), Survey.offline(reader, None, "buildkit", "overlayfs")).counts["kept"] == 0
    data[2 * 4096 + 8] = 4
    with pytest.raises(CorruptDatabaseError):
        Survey.offline(Reader(bytes(data)), None, "buildkit", "overlayfs")


def test_many_threads_read_with_their_own_readers() -> None:
    """Each thread reads without the interpreter's lock, with its own reader."""
    data = file_of({b"_main": {b"%04d" % i: {b"k": b'{"value":1}'} for i in range(2000)}})
    counts = []
    threads = [
        threading.Thread(target=lambda: counts.append(len(read_records(Reader(data))))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [2000] * 8
