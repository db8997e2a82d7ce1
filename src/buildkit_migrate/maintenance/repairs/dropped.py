"""Repairs that drop records, with all that is built on them: those that a daemon drops, or stumbles over.

What a finding is about goes: its record, or the records that have its snapshot or its blob.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final

from buildkit_migrate.maintenance.drop_costs import DropCosts
from buildkit_migrate.maintenance.dropping import with_descendants
from buildkit_migrate.maintenance.facts import WorkerFacts
from buildkit_migrate.maintenance.finding import Finding
from buildkit_migrate.maintenance.mend import DropRecord, Mend, Repair, RepairClass, worker_repair
from buildkit_migrate.maintenance.repairs import data as keeping_data
from buildkit_migrate.maintenance.repairs import records as keeping_records
from buildkit_migrate.maintenance.repairs import snapshotter as keeping_snapshots
from buildkit_migrate.maintenance.rule import Part, WorkerRule
from buildkit_migrate.maintenance.rules import content, data, indexes, lazy, records, snapshotter, values
from buildkit_migrate.maintenance.rules.data import stood_on
from buildkit_migrate.maintenance.rules.values import CLEARABLE, is_unknown
from buildkit_migrate.maintenance.rules.wording import subject
from buildkit_migrate.schema.columns import Mask, equal_to
from buildkit_migrate.schema.records import Records
from buildkit_migrate.values import keys
from buildkit_migrate.workspace.layout import DOCKER_BUILDER

__all__ = ["REPAIRS"]

About = Callable[[WorkerFacts, Finding], Iterable[int]]
"""The records that a finding is about, as far as they have to go."""


_LEASES: Final = "; their leases stay, and hold their data, as containerd's database can't be read"
_LAYERS: Final = "; their layers stay on disk, as only Docker itself removes those"
_LEFT: Final = "; snapshots that stand on a lost one stay on disk, as nothing can remove them"


def _drops(
    facts: WorkerFacts, findings: Iterable[Finding], about: About, leaking: Collection[str] = ()
) -> Iterator[Mend]:
    """A mend for each of these findings that is about any record. ``leaking``: subjects whose space stays."""
    rows = {finding: tuple(about(facts, finding)) for finding in findings}
    costs = DropCosts(facts, (row for those in rows.values() for row in those))
    for finding, those in rows.items():
        if those:
            left = _LEFT if finding.subject in leaking else _what_stays(facts)
            yield _drop(facts, finding, those, costs.of(those) + left)


def _what_stays(facts: WorkerFacts) -> str:
    """What a repair can't give up together with the records."""
    if facts.namespace is None:
        return _LEASES
    return _LAYERS if facts.stores.kind == DOCKER_BUILDER else ""


def _drop(facts: WorkerFacts, finding: Finding, rows: tuple[int, ...], loses: str) -> Mend:
    assert facts.records is not None
    what = (
        "the record and what is built on it"
        if len(rows) == 1
        else f"{len(rows)} records and what is built on them"
    )
    return Mend(
        finding.rule,
        RepairClass.DROP,
        finding.file,
        finding.subject,
        f"drops {what}",
        tuple(DropRecord(facts, row) for row in rows),
        loses,
        record=(facts, facts.records.ids[rows[0]] or b"") if len(rows) == 1 else None,
    )


def _dropping(
    rule: WorkerRule,
    about: About,
    *more: Part,
    unless: Repair[WorkerFacts] | None = None,
    leaking: Callable[[WorkerFacts], Collection[str]] = lambda facts: (),
) -> Repair[WorkerFacts]:
    """Drops what the findings of a rule are about. ``more``: what it takes beside what the rule needs.

    ``unless``: a repair without any loss; what that mends stays. ``leaking``: gives the subjects whose
    snapshots stay on disk all the same.
    """

    def mends(facts: WorkerFacts) -> Iterator[Mend]:
        mended = {(it.rule, it.subject) for it in unless.mends(facts)} if unless is not None else set()
        findings = (it for it in rule.find(facts) if (it.rule, it.subject) not in mended)
        return _drops(facts, findings, about, leaking(facts))

    return worker_repair(*rule.numbers, needs=(*rule.needs, *more))(mends)


def _name(finding: Finding) -> bytes:
    return finding.subject.encode(errors="surrogateescape")


# --- By the record


def _the_record(facts: WorkerFacts, finding: Finding) -> Iterator[int]:
    assert facts.records is not None
    row = facts.records.index.row(_name(finding))
    if row >= 0:
        yield row


def _in_daemons(facts: WorkerFacts, finding: Finding) -> Iterator[int]:
    """But for Docker's builder: that drops it by itself, with the layers that only Docker can remove."""
    if facts.stores.kind != DOCKER_BUILDER:
        yield from _the_record(facts, finding)


def _with_no_name(facts: WorkerFacts, finding: Finding) -> Iterator[int]:
    """Records with an id that no index entry can name."""
    if b"::" in _name(finding):
        yield from _the_record(facts, finding)


def _is_copy(of: Records, row: int, right: int) -> bool:
    """Whether a record says what the other says, but for what is its own."""
    its, others = of.values(row), of.values(right)
    differing = {key for key, _ in its ^ others} - _OWN
    if _POLICY not in {key for key, _ in its}:
        differing.discard(_POLICY)  # a policy keeps the data: the other one has more reason to stay
    return not differing


_POLICY: Final = b"cache.cachePolicy"
_OWN: Final = frozenset(
    {
        keys.CREATED_AT,
        keys.SNAPSHOT,
        b"cache.lastUsedAt",
        b"cache.usageCount",
        b"snapshot.size",
    }
)
"""Keys of a record that another one with the same data has a value of its own for."""


@worker_repair("C8", "C9", needs=(Part.RECORDS,))
def odd_values(facts: WorkerFacts) -> Iterator[Mend]:
    """Records with a value that can't be cleared."""
    of = facts.records
    assert of is not None
    digests = of.text(keys.BLOB)
    cells = {"C8": of.undecodable, "C9": of.mistyped}
    wrong = {
        (rule, subject(of.ids[row]))
        for rule, those in cells.items()
        for row, key, _ in those
        if key not in CLEARABLE
        and (key != keys.BLOB_SIZE or ((digest := digests[row]) and is_unknown(facts, digest)))
    }
    findings = (*values.values_decode.find(facts), *values.values_have_their_type.find(facts))
    chosen = {
        (it.rule, it.subject): it for it in findings if (it.rule, it.subject) in wrong
    }  # one of a record, however many values are wrong
    yield from _drops(facts, chosen.values(), _the_record)


@worker_repair("C13", needs=(Part.RECORDS,))
def surplus(facts: WorkerFacts) -> Iterator[Mend]:
    """Immutable halves that only say again what another one says."""
    of, loading = facts.records, facts.references
    assert of is not None and loading is not None
    halves = [*records.surplus_halves(facts)]
    every = with_descendants(facts, Mask(len(of), (row for row, _ in halves)))
    bases = {base for row in every for base in (*loading.parents_of(row), loading.target[row])}
    copies = {subject(of.ids[row]) for row, right in halves if row not in bases and _is_copy(of, row, right)}
    for finding in records.pairs_are_of_two.find(facts):
        if finding.subject in copies:
            yield _drop(facts, finding, tuple(_the_record(facts, finding)), loses="")


# --- By the snapshot


def _users(facts: WorkerFacts, finding: Finding) -> list[int]:
    """The records that have a snapshot."""
    if facts.data is None or facts.snapshots is None:
        return []
    row = facts.snapshots.index.row(_name(finding))
    return facts.data.users(Mask(len(facts.snapshots), [row])) if row >= 0 else []


def _of_lost(facts: WorkerFacts, finding: Finding) -> list[int]:
    return _users(facts, finding) if finding.rule == "C40" else []


def _of_broken(facts: WorkerFacts, finding: Finding) -> list[int]:
    """An immutable record whose snapshot is not committed, or those of a snapshot that can't be read."""
    own = [row for row in _the_record(facts, finding) if facts.data and row in facts.data.uncommitted]
    return own or _users(facts, finding)


def _without_directory(facts: WorkerFacts, finding: Finding) -> list[int]:
    """If all of it is gone, not only what the kernel needs beside the files."""
    users = _users(facts, finding) if finding.rule == "C44" else []
    if not users or facts.directories is None or facts.backend is None or facts.snapshots is None:
        return []
    name = facts.snapshots.name[facts.snapshots.index.row(_name(finding))]
    stat = facts.backend.index.row(name or b"")
    numbers = [facts.backend.id.values[stat]] if stat >= 0 else []
    return users if facts.directories.without(numbers, None if facts.directories.plain else "fs") else []


def _stood_on(facts: WorkerFacts) -> set[str]:
    """Records whose lost snapshots others stand on."""
    assert facts.data is not None
    parents = stood_on(facts)
    return {
        subject(facts.data.records.ids[row]) for row in facts.data.lost if facts.data.keys[row] in parents
    }


def _every(facts: WorkerFacts) -> set[str]:
    return set(map(subject, facts.snapshots.keys)) if facts.snapshots is not None else set()


# --- By the blob


def _using(facts: WorkerFacts, finding: Finding) -> Iterable[int]:
    """The records of a blob."""
    return equal_to(facts.data.digests, _name(finding)) if facts.data is not None else ()


def _without_size(facts: WorkerFacts, finding: Finding) -> Iterator[int]:
    assert facts.records is not None
    digests = facts.records.text(keys.BLOB)
    yield from (row for row in _the_record(facts, finding) if is_unknown(facts, digests[row] or b""))


_SNAPSHOTS: Final = (Part.CONTAINERD, Part.SNAPSHOTS)
REPAIRS: Final[tuple[Repair[WorkerFacts], ...]] = (
    odd_values,
    _dropping(records.parents_exist, _in_daemons),
    _dropping(records.parents_end, _the_record),
    _dropping(records.mutable_halves_exist, _in_daemons, *_SNAPSHOTS, unless=keeping_records.finished),
    surplus,
    _dropping(records.mutable_records_have_their_snapshot, _the_record),
    _dropping(records.nothing_is_deleted, _in_daemons),
    _dropping(lazy.lazy_records_never_had_their_data, _the_record),
    _dropping(indexes.entries_name_records, _with_no_name),
    _dropping(data.lost_snapshots, _the_record, unless=keeping_data.extracted_again, leaking=_stood_on),
    _dropping(data.lost_blobs, _the_record),
    _dropping(content.blob_files, _using, Part.RECORDS),
    _dropping(content.blob_digests, _using, Part.RECORDS),
    _dropping(data.broken_snapshots, _of_broken),
    _dropping(snapshotter.known_to_both, _of_lost, Part.RECORDS),
    _dropping(snapshotter.parents, _users, Part.RECORDS, unless=keeping_snapshots.parents, leaking=_every),
    _dropping(snapshotter.directories, _without_directory, Part.RECORDS),
    _dropping(values.blobs_have_a_size, _without_size, Part.CONTAINERD),
)
