"""`du` says what the daemons of real roots said, line by line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import planting
import v2_roots
from buildkit_migrate import du_root, open_usage
from buildkit_migrate.cli.du_text import size_text
from buildkit_migrate.maintenance.du import UsageRecord
from buildkit_migrate.maintenance.facts import WorkerFacts
from buildkit_migrate.progress import Stage
from ondisk import run
from v2_roots import V2Root

pytestmark = pytest.mark.slow

IN_USE = {
    "rich": ("yhdmcwcb1jm6vwkfrw846o89z", "s2s7ji7krm5akwa89hgd6ckn3"),
    "native": ("2rywcxauoxnhot6sey02cv25k", "9jwxmdv3r7604999yrpahhbsu"),
    "containerd": ("qw3pt0ysilyro2374qgspkl82", "sap1omp4bhyyar7xutlppznrc"),
}
"""Pairs of which the running daemon had the immutable record in use, and so showed that one."""

ONLY_IN_MEMORY = "8ahs7yqaz5nqqy414i8qmbplq"
"""Shown by the daemon of ``native``, and in none of its files."""


def printed(root: V2Root, *arguments: str) -> str:
    done = run("du", *root.options, *arguments, str(root.root))
    assert done.returncode == 0, done.stderr
    return done.stdout


def documented(root: V2Root, *arguments: str) -> dict[str, object]:
    document = json.loads(printed(root, "--format", "json", *arguments))
    assert isinstance(document, dict)
    return document


def blocks(text: str) -> list[str]:
    """Of each record, in any order: up to v0.21 the largest came first."""
    return sorted(text.strip().split("\n\n"))


@pytest.mark.parametrize("name", ["rich", "native", "v012", "containerd"])
def test_it_lists_what_the_daemon_listed_last(name: str, tmp_path: Path) -> None:
    root = v2_roots.v2_root(name, tmp_path)
    mutable, immutable = IN_USE.get(name, ("", ""))
    expected = {
        record["id"]: record for record in root.du() if record["id"] not in (immutable, ONLY_IN_MEMORY)
    }
    found = {record["id"]: record for record in documented(root)["records"]}  # type: ignore[attr-defined]
    assert (found.pop(mutable, None) is not None) == bool(mutable)
    assert found == expected


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("rich", "du-v.start1.txt"),
        ("native", "du-v.start1.txt"),
        ("v012", "du-v.start1.txt"),
        ("containerd", "du-v.start1.txt"),
        ("growth", "du-v.start1.txt"),
        ("growth", "du-v.txt"),
        ("healed", "du-v.txt"),
    ],
)
def test_it_lists_what_the_daemon_lists_after_a_start(name: str, said: str, tmp_path: Path) -> None:
    root = v2_roots.v2_root(name, tmp_path)
    expected = root.said(said).decode()
    found = printed(root, "--after-start", "-v")
    if name == "v012":
        assert blocks(found) == blocks(expected)
    else:
        assert found == expected


def test_the_document_has_the_records_of_buildctl_in_its_order(tmp_path: Path) -> None:
    root = v2_roots.v2_root("containerd", tmp_path)
    said = {record["id"]: record for record in root.du()}
    document = documented(root, "--after-start")
    records = document["records"]
    assert isinstance(records, list)
    assert [(one["size"], one["id"]) for one in records] == sorted(
        (one["size"], one["id"]) for one in records
    )
    assert all(list(one) == list(said[one["id"]]) for one in records if one["id"] in said)
    assert document["totals"] == {
        "shared": sum(one["size"] for one in records if one["shared"]),
        "private": sum(one["size"] for one in records if not one["shared"]),
        "reclaimable": sum(one["size"] for one in records),
        "total": sum(one["size"] for one in records),
    }


def test_the_table_has_columns_of_whole_tabs(tmp_path: Path) -> None:
    root = v2_roots.healed(tmp_path)
    lines = printed(root).splitlines()
    widths = {tuple(len(cell) for cell in line.expandtabs(8).split(maxsplit=0)[:1]) for line in lines}
    assert widths
    header, first = lines[0].expandtabs(8), lines[1].expandtabs(8)
    assert header.index("RECLAIMABLE") == first.index("true") == 72
    assert header.index("SIZE") == 88
    assert lines[0] == "ID" + "\t" * 9 + "RECLAIMABLE\tSIZE\t\tLAST ACCESSED"
    assert lines[1] == "1x1yrgq9gcifj1fyp7j51ssy2".ljust(71) + "\ttrue".ljust(12) + "\t0B\t\t"
    assert lines[-2:] == ["Reclaimable:\t3.08MB", "Total:\t\t3.08MB"]


def test_filters_choose_records_and_leave_out_the_totals(tmp_path: Path) -> None:
    root = v2_roots.healed(tmp_path)
    lines = printed(root, "-v", "-f", "type==exec.cachemount,mutable", "--filter", "id==none").splitlines()
    kinds = {line for line in lines if line.startswith("Type:")}
    assert kinds == {"Type:\t\texec.cachemount"}
    assert not any(line.startswith("Total:") for line in lines)


def test_nothing_is_written(tmp_path: Path) -> None:
    root = v2_roots.healed(tmp_path)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in root.root.rglob("*.db")}
    names = sorted(root.root.iterdir())
    printed(root)
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in before} == before
    assert sorted(root.root.iterdir()) == names


def test_a_report_can_be_used_after_its_stores_are_closed(tmp_path: Path) -> None:
    usage = du_root(v2_roots.healed(tmp_path).root)
    records = [record for _, record in usage]
    assert len(records) == 199
    assert all(isinstance(record, UsageRecord) for record in records)
    assert usage.totals.total == sum(record.size for record in records) == 3076656


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1.00kB"),
        (172032, "172.03kB"),
        (999_999, "1000.00kB"),
        (3_076_656, "3.08MB"),
        (2**63 - 1, "9.22EB"),
        (-1500, "-1.50kB"),
    ],
)
def test_sizes_are_printed_as_buildctl_does(size: int, text: str) -> None:
    assert size_text(size) == text


def test_all_roots_are_listed_each_under_its_name(tmp_path: Path) -> None:
    root = v2_roots.healed(tmp_path)
    home = tmp_path / "data"
    home.mkdir()
    root.root.rename(home / "buildkit")
    done = run("du", "--all", "--top", "1", XDG_DATA_HOME=str(home))
    lines = done.stdout.splitlines()
    at = lines.index(f"{home / 'buildkit'}:")
    assert lines[at + 1].startswith("ID\t")
    assert lines[at + 2].startswith("vpchqlm49pootc02mukfyln04*")
    found = run("du", "--all", "--top", "1", "--format", "json", XDG_DATA_HOME=str(home))
    roots = {one["root"]: one for one in json.loads(found.stdout)["roots"]}
    assert [one["id"] for one in roots[str(home / "buildkit")]["records"]] == ["vpchqlm49pootc02mukfyln04"]


def test_measuring_and_walking_tell_how_far_they_are(tmp_path: Path) -> None:
    root = v2_roots.v2_root("rich", tmp_path)
    with root.open() as stores:
        ids = [id for id in WorkerFacts(stores.workers[0]).records.ids if id is not None]  # type: ignore[union-attr]
    planting.edit(root.records, {b"_main": {id: {b"snapshot.size": None} for id in ids}})
    steps: list[str] = []
    with open_usage(root.root, progress=steps.append) as usage:
        usage.state_bytes(steps.append)
    told = {str(step).partition(" ")[0]: step for step in steps if isinstance(step, Stage)}
    assert (told["measuring"].done, told["measuring"].unit) == (told["measuring"].total, "records")
    assert 0 < told["measuring"].total <= len(ids)
    assert told["walking"].done == told["walking"].total > 0
