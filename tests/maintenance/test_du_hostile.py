"""Whatever is in the stores, `du` ends with a list or with an error of ours."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest

import v2_roots
from buildkit_migrate import open_usage
from buildkit_migrate.cli import du_text
from buildkit_migrate.errors import Error
from buildkit_migrate.maintenance.details import Details
from buildkit_migrate.maintenance.du import DiskUsage
from buildkit_migrate.maintenance.grouping import GROUPINGS, group
from v2_roots import V2Root

pytestmark = pytest.mark.slow


def spoilt(data: bytes, chance: random.Random) -> bytes:
    """With some bytes changed, few of them where there are zeros only."""
    found = bytearray(data)
    for _ in range(chance.choice([1, 3, 20, 200])):
        at = chance.randrange(len(found))
        while found[at] == 0 and chance.random() < 0.95:
            at = chance.randrange(len(found))
        found[at] ^= 1 << chance.randrange(8) if chance.random() < 0.5 else chance.randrange(1, 256)
    return bytes(found)


def say_everything(usage: DiskUsage, root: V2Root) -> None:
    for _, record in usage:
        json.dumps(record.as_dict())
    for worker in usage.workers:
        if worker.loading is not None:
            details = Details(worker)
            assert len(list(du_text.tree_lines(worker, details))) == len(worker)
            for row in worker.rows:
                json.dumps(details.of(row).as_dict())
            for row in worker.loading.dropped:
                worker.loading.failure(row)
    assert len(list(du_text.table_lines(usage))) == 1 + sum(map(len, usage.workers))
    for by in GROUPINGS:
        assert sum(one.bytes for one in group(usage, by, 0)) == usage.totals.total
    counted = subprocess.run(["du", "-s", "-B1", root.root], check=True, capture_output=True).stdout
    assert usage.state_bytes().total == int(counted.split()[0])


@pytest.mark.parametrize("store", ["records", "containerd", "snapshots", "history"])
def test_changed_bytes_give_a_list_or_an_error(store: str, tmp_path: Path) -> None:
    root = v2_roots.healed(tmp_path)
    path: Path = getattr(root, store)
    sound = path.read_bytes()
    chance = random.Random(store)
    listed = 0
    for _ in range(25):
        path.write_bytes(spoilt(sound, chance))
        for after_start in (False, True):
            try:
                with open_usage(root.root, after_start=after_start) as usage:
                    say_everything(usage, root)
                    listed += 1
            except Error:
                continue
    assert listed > 0


def test_long_chains_and_many_children_take_no_recursion(tmp_path: Path) -> None:
    from dicts import file_of

    worker = tmp_path / "runc-overlayfs"
    worker.mkdir()
    count = 20_000
    main = {
        b"r%08d" % row: {
            b"snapshot.committed": b'{"value":true}',
            b"cache.parent": b'{"value":"r%08d"}' % (row - 1 if row < count // 2 else 0) if row else b"",
        }
        for row in range(count)
    }
    (worker / "metadata_v2.db").write_bytes(file_of({b"_main": main}))
    with open_usage(tmp_path) as usage:
        (listed,) = usage.workers
        assert len(listed) == count
        assert len(list(du_text.tree_lines(listed, Details(listed)))) == count
        assert [one.records for one in group(usage, "image", 0)] == [count]
