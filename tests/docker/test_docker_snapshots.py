"""What the engine says of a snapshot, for any ``snapshots.db`` and layers, against the rule step by step."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ondisk
from buildkit_migrate.bolt import Reader
from buildkit_migrate.containerd.docker import DockerBuilder, Needed, needed_by, snapshots_named
from buildkit_migrate.containerd.driver_store import DriverStore
from buildkit_migrate.model import Kind
from buildkit_migrate.settings import Setting
from dicts import file_of
from plain_bbolt import BucketDict

CHAINS = [b"sha256:" + letter * 64 for letter in (b"a", b"b", b"c")]
NAMES = [b"one", b"two", b"three", b"sha256:short", *CHAINS]
Found = tuple[int, bytes]

rows = st.dictionaries(
    st.sampled_from(NAMES),
    st.fixed_dictionaries(
        {},
        optional={
            b"parent": st.sampled_from([b"", *NAMES]),
            b"committed": st.sampled_from([b"", *NAMES]),
            b"chainid": st.sampled_from([b"", b"nonsense", *CHAINS]),
            b"size": st.just(b"7"),
        },
    ),
)
layers = st.dictionaries(st.sampled_from(CHAINS), st.sampled_from([b"", *CHAINS]))
stored = st.none() | st.sets(st.sampled_from(NAMES[:4]), min_size=1)
"""Ids with data in the driver's directory; None: a copy without it."""


def exists(chain: bytes, known: dict[bytes, bytes]) -> bool:
    """Whether a layer is there, with all below it."""
    seen = set()
    while chain:
        if chain in seen or chain not in known:
            return False
        seen.add(chain)
        chain = known[chain]
    return True


def stat(
    id: bytes, table: dict[bytes, dict[bytes, bytes]], known: dict[bytes, bytes], having: set[bytes] | None
) -> Found | None:
    """Section 4 of docker-builder-layout, in its own steps; and what is not a layer must have data."""
    if id in CHAINS:  # 1
        return (Kind.COMMITTED, known[id]) if exists(id, known) else None
    own = table.get(id, {})
    layer = own.get(b"chainid", b"")  # 2
    if layer and not exists(layer, known):
        return None
    active = own.get(b"committed", b"")  # 3
    kind, data = (Kind.COMMITTED, active) if active else (Kind.ACTIVE, id)
    if data not in table and not layer:  # 4
        return None
    if not layer and having is not None and data not in having:
        return None
    if b"parent" in table.get(data, {}):  # 5
        return kind, table[data][b"parent"]
    if layer:  # 6
        return Kind.COMMITTED, known[layer]
    return kind, b""  # 7


def driver_store(data_root: Path, known: dict[bytes, bytes], having: set[bytes] | None) -> DriverStore:
    for chain, parent in known.items():
        place = data_root / "image/vfs/layerdb/sha256" / chain.decode().partition(":")[2]
        place.mkdir(parents=True)
        for name, content in (("diff", chain), ("size", b"1"), ("cache-id", b"x")):
            (place / name).write_bytes(content)
        if parent:
            (place / "parent").write_bytes(parent)
    for id in having or ():
        (data_root / "vfs/dir" / id.decode()).mkdir(parents=True)
    return DriverStore(data_root, Setting("vfs"))


@given(rows, layers, stored)
def test_snapshots_are_what_the_engine_says(
    table: dict[bytes, dict[bytes, bytes]], known: dict[bytes, bytes], having: set[bytes] | None
) -> None:
    content: BucketDict = {name: dict(row) for name, row in table.items()}
    expected = {id: found for id in NAMES if (found := stat(id, table, known, having)) is not None}
    with tempfile.TemporaryDirectory() as directory:
        builder = Path(directory, "buildkit")
        builder.mkdir()
        (builder / "snapshots.db").write_bytes(file_of({**content, b"another": {}}))
        driver = driver_store(Path(directory), known, having)
        with DockerBuilder.at(builder, driver, exclusive=False) as services:
            state = services.state(NAMES).snapshots
        root = Reader(file_of(content)).root
        surveyed = {
            name: (kind, parent) for name, kind, parent, _ in snapshots_named(root, driver, sorted(NAMES))
        }
    assert surveyed == expected
    assert {id: (found.kind, found.parent) for id, found in state.items() if id in NAMES} == expected


def test_records_need_what_their_own_snapshots_name() -> None:
    """Other buckets are of records that are gone, perhaps of another driver."""
    table: BucketDict = {
        CHAINS[0]: {},
        b"one": {b"chainid": CHAINS[1], b"committed": b"two"},
        b"two": {b"parent": b""},
        b"three": {b"committed": b"four"},
        b"four": {b"parent": CHAINS[2]},
        b"cache mount": {b"parent": b""},
        b"sha256:short": {b"parent": CHAINS[2]},
    }
    root = Reader(file_of(table)).root
    assert needed_by(root, [b"one", b"none"]) == Needed(frozenset(CHAINS[1:2]), frozenset())
    assert needed_by(root, [CHAINS[0]]) == Needed(frozenset(CHAINS[:1]), frozenset())
    assert needed_by(root, [b"three"]) == Needed(frozenset(CHAINS[2:]), frozenset({b"four"}))
    assert needed_by(root, [b"cache mount"]) == Needed(frozenset(), frozenset({b"cache mount"}))
    assert needed_by(Reader(file_of({})).root, [b"one"]) == Needed(frozenset(), frozenset())


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[ondisk.OnDisk]:
    root = ondisk.docker_sample(tmp_path)
    root.migrate_here()
    yield root


def test_clean_leaves_what_the_engine_needs(docker: ondisk.OnDisk) -> None:
    needed = {path: path.read_bytes() for path in (docker.v1, docker.v2, docker.containerd, docker.snapshots)}
    assert ondisk.run("clean", str(docker.root.parent)).returncode == 0
    assert {path: path.read_bytes() for path in needed} == needed
    assert list(docker.root.glob("*.journal/*")) == []
    assert docker.verify().returncode == 0
    assert ondisk.run("undo", str(docker.root.parent)).returncode == 13
