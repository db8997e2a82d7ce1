"""The fuzzers' corpus, through the Python interface: each input works or raises one of our errors."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from buildkit_migrate._native.bolt import Reader, check, scan
from buildkit_migrate._native.building import rewrite, same_content
from buildkit_migrate._native.facts import Survey
from buildkit_migrate._native.plan import Plan
from buildkit_migrate.errors import CorruptDatabaseError, EditConflictError, Error
from buildkit_migrate.migration.plan import plain_plan, problems_of, read_records
from buildkit_migrate.schema.records import KEYS, IndexEntries, Kind, Records, index_differences
from buildkit_migrate.schema.tables import below, integers, read_times
from buildkit_migrate.store.bolt_store import BoltStore
from buildkit_migrate.values import gojson
from buildkit_migrate.values.times import stored_time, text_time
from dicts import Image, file_of, tree_of

FUZZ = Path(__file__).parents[2] / "fuzz"
TARGETS = ("bolt", "columns", "json", "plan")
NOW = 1_600_000_000_000_000_000


def corpus(target: str) -> list[Path]:
    paths = sorted((FUZZ / "corpus" / target).iterdir())
    assert paths
    return paths


FILES = [*corpus("bolt"), *corpus("columns"), *corpus("plan")]


@contextlib.contextmanager
def only_our_errors() -> Iterator[None]:
    """Suppresses our errors, and checks that they have a message."""
    try:
        yield
    except Error as error:
        assert error.message
        assert error.exit_code


def rewrite_or_refuse(reader: Reader, edits: list[bytes]) -> None:
    image = Image(reader.page_size)
    try:
        rewrite(reader.root, image.builder, edits)
    except (CorruptDatabaseError, EditConflictError):
        return
    except ValueError:
        assert edits  # the edits may be malformed; without edits it never happens
        return
    made = Reader(image.finish())
    assert check(made) == []
    if reader.root.sequence == 0:  # which the image has
        assert same_content(reader, made, b"".join(edits))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_each_file_is_read_or_refused(path: Path) -> None:
    data = path.read_bytes()
    with only_our_errors():
        reader = Reader(data, path.name)
        findings = check(reader)
        assert all(text for _, text in findings)
        with only_our_errors():
            tree_of(reader.root)
        with only_our_errors():
            scan(reader.root, [(b"name",), (b"labels", b"containerd.io/gc.root")])
        with only_our_errors():
            for item in BoltStore(reader.root).all():
                assert item.exists
        rewrite_or_refuse(reader, [])
        tail = data[reader.high_water * reader.page_size :]
        rewrite_or_refuse(reader, [tail] if tail else [])


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_each_file_is_planned_or_refused(path: Path) -> None:
    with only_our_errors():
        reader = Reader(path.read_bytes(), path.name)
        records = read_records(reader)
        plan = Plan(records, Survey.offline(reader, reader, "buildkit", "overlayfs"))
        assert plan.counts["records"] == len(records)
        assert len(plain_plan(plan).records) == plan.counts["kept"]
        with only_our_errors():
            rewrite_or_refuse(reader, list(plan.store_edits()))
        rewrite_or_refuse(reader, list(plan.containerd_edits(stored_time(NOW), text_time(NOW))))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_each_file_has_columns_or_is_refused(path: Path) -> None:
    with only_our_errors():
        root = Reader(path.read_bytes(), path.name).root
        with only_our_errors():
            entries = below(root, b"labels")
            assert len(entries.rows) == len(entries.keys) == len(entries.values)
            assert len(integers(entries.values).values) == len(read_times(entries.values).values)
        with only_our_errors():
            records = Records(root)
            assert all(cell.value for cell in records.undecodable)
            for key, kind in KEYS.items():
                assert records.has(key).size == len(records)
                if kind == Kind.TEXT:
                    assert len(records.rows_of(records.text(key))) == len(records)
            differences = index_differences(records, IndexEntries(root))
            assert all(row < len(records) for row, _, _ in differences.missing)


def test_corpus_has_files_that_work_and_files_that_are_refused() -> None:
    """So the tests above do not end early for every file."""
    opened = whole = planned = 0
    for path in FILES:
        with contextlib.suppress(Error):
            reader = Reader(path.read_bytes(), path.name)
            opened += 1
            whole += not check(reader)
            planned += len(read_records(reader)) > 0
    assert len(FILES) > opened > whole > 0
    assert planned > 0


@pytest.mark.parametrize("path", corpus("json"), ids=lambda path: path.name)
def test_recogniser_and_decoder_agree_on_each_value(path: Path) -> None:
    """The native recogniser and the decoder agree on what decodes."""
    value = path.read_bytes()
    plan = Plan(
        read_records(Reader(file_of({b"_main": {b"r": {b"some.key": value}}}))),
        Survey("overlayfs", [(b"r", 3, b"", False)], [], []),
    )
    try:
        if value:
            gojson.decode(value)
        decodes = True
    except gojson.UndecodableValueError:
        decodes = False
    assert (problems_of(plan) == []) == decodes


@pytest.mark.skipif(
    os.environ.get("BUILDKIT_MIGRATE_REPLAY") != "1",
    reason="set BUILDKIT_MIGRATE_REPLAY=1 to build the harnesses",
)
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_harnesses_accept_the_corpus(tmp_path: Path, compiler: str) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    environ = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"} | {"CC": compiler}
    subprocess.run([FUZZ / "build", "replay", tmp_path], check=True, env=environ)
    for target in TARGETS:
        result = subprocess.run(
            [tmp_path / target, *corpus(target)], capture_output=True, text=True, env=environ, check=False
        )
        assert (result.returncode, result.stderr) == (0, "")
