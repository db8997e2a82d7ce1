"""Any edit of a healthy record store gives the findings that the rules give in plain Python."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from plain_rules import NUMBERS, Plain
from record_faults import Planter, value

import ondisk
from buildkit_migrate.bolt.edits import Edits
from buildkit_migrate.maintenance.check import check_stores
from buildkit_migrate.maintenance.facts import Facts
from buildkit_migrate.schema.records import KEYS, Kind
from planting import edit

pytestmark = pytest.mark.slow

NOBODY = "0" * 25
BROKEN = [b"{", b'{"value":"cut', b"\xff"]
OTHERS = [b"", value(None), value(1), value(-1), value(True), value(False), value("text"), value([]), b"{}"]

Finding = tuple[str, str, str]


class World:
    """The healthy root, and what stays as it is."""

    def __init__(self, into: Path) -> None:
        self.planter = Planter(into)
        self.root = self.planter.root
        self.whole = self.root.records.read_bytes()
        self.ids = sorted(self.planter.records)
        with self.root.open() as stores:
            facts = Facts(stores).workers[0]
            assert facts.snapshots is not None and facts.backend is not None and facts.namespace is not None
            rows = facts.backend.index.rows(facts.snapshots.name)
            kinds = zip(facts.snapshots.keys, rows, strict=True)
            self.snapshots = {key or b"": facts.backend.kind[row] for key, row in kinds if row >= 0}
            self.in_containerd = {key or b"" for key in facts.snapshots.keys}
            self.blobs = {key or b"" for key in facts.namespace.blobs.keys}
            self.leases = {key or b"" for key in facts.namespace.leases.keys}

    def plain(self) -> Plain:
        tree: Any = ondisk.tree(self.root.records)
        return Plain(
            {id: dict(values) for id, values in tree[b"_main"].items()},
            set(tree[b"_index"]),
            set(tree[b"_external"]),
            self.snapshots,
            self.in_containerd,
            self.blobs,
            self.leases,
        )


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory() as into:
        yield World(Path(into))


number = st.integers(0, 1 << 30)
edits = st.lists(
    st.tuples(
        st.sampled_from(["key", "key", "key", "parent", "pair", "drop", "copy", "index", "external"]),
        number,
        number,
        number,
    ),
    min_size=1,
    max_size=4,
)


def as_edits(world: World, operation: str, one: int, two: int, three: int) -> Edits:
    """What an operation and its numbers mean."""
    planter, ids = world.planter, world.ids
    id, other = ids[one % len(ids)], ids[two % len(ids)]
    pool = [other.decode(), NOBODY, id.decode(), planter.tops[0].decode(), ""]
    name = pool[three % len(pool)]
    match operation:
        case "key":
            key = sorted(KEYS)[two % len(KEYS)]
            choices = [*OTHERS, *BROKEN, planter.records[other].get(key) or b"", value(name)]
            if KEYS[key] is Kind.TEXTS:
                choices += [value([name, other.decode()]), value([id.decode(), other.decode()])]
            return {b"_main": {id: {key: choices[three % len(choices)]}}}
        case "parent":
            return {b"_main": {id: {b"cache.parent": value(name)}}}
        case "pair":
            return {b"_main": {id: {b"cache.equalMutable": value(name)}}}
        case "drop":
            return {b"_main": {id: None}}
        case "copy":
            new = [b"zz", b"00", b"a::b"][two % 3]
            return {b"_main": {new: dict(planter.records[id])}}
        case "index":
            entry = planter.index[two % len(planter.index)]
            text = entry.rpartition(b"::")[0]
            changed = [entry, text + b"::" + id, text + b"::" + NOBODY.encode(), b"no separator"][three % 4]
            return {b"_index": {changed: None if changed == entry else b""}}
    return {b"_external": {id if two % 2 else NOBODY.encode(): {b"name": b"value"}}}


@settings(derandomize=True)
@example(operations=[("pair", 358, 0, 13352)])  # a record that is its own pair beside another
@given(operations=edits)
def test_edits_are_found_as_the_plain_rules_say(
    world: World, operations: list[tuple[str, int, int, int]]
) -> None:
    world.root.records.write_bytes(world.whole)
    for operation in operations:
        edit(world.root.records, as_edits(world, *operation))
    plain = world.plain()
    with world.root.open() as stores:
        checked = check_stores(stores, rules=NUMBERS)
    assert checked.not_tested == ()
    found = {(it.rule, str(it.severity), it.subject) for it in checked.findings}
    assert counted(found, plain) == {it for it in plain.findings() if not it[2].startswith("0 of ")}


def counted(found: set[Finding], plain: Plain) -> set[Finding]:
    """With the number of surplus halves in the place of each of them."""
    surplus = Counter(plain.target(subject.encode()) for rule, _, subject in found if rule == "C13")
    others = {it for it in found if it[0] != "C13"}
    return others | {("C13", "P", f"{count} of {mutable.decode()}") for mutable, count in surplus.items()}
