"""Rules about what records name: parents, pairs, snapshots of mutable ones (C10 to C15, C59)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from buildkit_migrate.maintenance.facts import WorkerFacts
from buildkit_migrate.maintenance.finding import Finding, Severity
from buildkit_migrate.maintenance.loading import BASE, LAYER, Loading
from buildkit_migrate.maintenance.record_data import there
from buildkit_migrate.maintenance.rule import Part, worker_rule
from buildkit_migrate.maintenance.rules.wording import path_of, quoted, subject
from buildkit_migrate.schema.columns import NOT_FOUND, Mask, between, count_rows, gather
from buildkit_migrate.schema.records import Records
from buildkit_migrate.schema.snapshots import COMMITTED, VIEW
from buildkit_migrate.values import keys

__all__ = ["RULES", "finished_alone", "surplus_halves"]

_MOST: Final = 2**31 - 1
_DIFF_PARENTS: Final = (b"cache.lowerDiffParent", b"cache.upperDiffParent")
_MERGE_PARENTS: Final = b"cache.mergeParents"
_POLICY: Final = b"cache.cachePolicy"
_RETAINED: Final = 1
_CLEARED: Final = "`repair` clears the key, as the daemon would."


class _Rows:
    """What these rules look at, and how they name it. Rows are those of the records."""

    def __init__(self, facts: WorkerFacts) -> None:
        assert facts.records is not None and facts.references is not None
        self.facts = facts
        self.records: Records = facts.records
        self.loading: Loading = facts.references
        self.told = ~facts.odd

    def finding(
        self, rule: str, severity: Severity, row: int, message: str, repair: str | None = None
    ) -> Finding:
        path = path_of(self.facts.stores.records)
        return Finding(rule, severity, path, subject(self.records.ids[row]), message, repair=repair)

    @property
    def unfinished(self) -> Mask:
        """Records that are mutable by their own keys."""
        return between(self.loading.kind, BASE, LAYER) - self.records.flag(keys.COMMITTED)

    def kind_of_snapshot(self, key: bytes) -> int | None:
        """None if there is none or it is unknown."""
        snapshots, backend = self.facts.snapshots, self.facts.backend
        row = snapshots.index.row(key) if snapshots is not None else NOT_FOUND
        if row < 0 or snapshots is None or backend is None:
            return None
        name = snapshots.name[row]
        at = backend.index.row(name) if name is not None else NOT_FOUND
        return backend.kind[at] if at >= 0 else None


@worker_rule("C10", needs=(Part.RECORDS,))
def parents_exist(facts: WorkerFacts) -> Iterator[Finding]:
    """Every record that a record names as a parent exists."""
    of = _Rows(facts)
    merged = between(of.loading.merge_parents, NOT_FOUND, NOT_FOUND)
    rows = Mask(len(of.records), (of.loading.merge_rows[place] for place in merged))
    for column in (of.loading.parent, of.loading.lower, of.loading.upper):
        rows |= between(column, NOT_FOUND, NOT_FOUND)
    if not rows:
        return
    names = [(_MERGE_PARENTS, row, id) for row, id in zip(*of.records.lists(_MERGE_PARENTS), strict=True)]
    for key in (keys.PARENT, *_DIFF_PARENTS):
        names += [(key, row, id) for row, id in enumerate(of.records.text(key)) if row in rows and id]
    lost: dict[int, list[str]] = {}
    for key, row, id in names:
        # With cache.parent the others are not looked at.
        is_looked_at = row in rows and (of.loading.kind[row] == LAYER) == (key == keys.PARENT)
        if is_looked_at and of.records.index.row(id or b"") < 0:
            lost.setdefault(row, []).append(f"{key.decode()} names {quoted(id) or 'an empty id'}")
    for row in rows & of.told:
        which = "which do not exist" if len(lost[row]) > 1 else "which does not exist"
        yield of.finding("C10", Severity.HARMLESS, row, f"{', '.join(lost[row])}, {which}")


@worker_rule("C11", needs=(Part.RECORDS,))
def parents_end(facts: WorkerFacts) -> Iterator[Finding]:
    """Nothing is its own ancestor, over parents and equal mutable records."""
    of = _Rows(facts)
    for row in of.loading.cyclic & of.told:
        over = next(
            parent
            for parent in (*of.loading.parents_of(row), of.loading.target[row])
            if parent in of.loading.cyclic
        )
        message = (
            "it names itself" if over == row else f"it is its own ancestor, over {_id(of.records, over)}"
        )
        yield of.finding("C11", Severity.START, row, message)


@worker_rule("C12", needs=(Part.RECORDS,))
def mutable_halves_exist(facts: WorkerFacts) -> Iterator[Finding]:
    """An equal mutable record exists and is mutable."""
    of = _Rows(facts)
    wrong = _with_wrong_halves(of)
    if not wrong:
        return
    named = of.records.text(keys.EQUAL_MUTABLE)
    alone = finished_alone(facts)
    for row in wrong:
        lonely = of.loading.target[row] == NOT_FOUND
        what, repair = "does not exist" if lonely else "is not mutable", None
        if row in alone:
            what, repair = f"{what}; it has a committed snapshot of its own", _CLEARED
        elif lonely:
            what = f"{what}, nor does a committed snapshot of its own"
        message = f"cache.equalMutable names {quoted(named[row])}, which {what}"
        yield of.finding("C12", Severity.HARMLESS, row, message, repair)


def _with_wrong_halves(of: _Rows) -> Mask:
    """Records that name a mutable half that does not exist, or is not mutable."""
    target = of.loading.target
    finished = (~of.unfinished - of.facts.odd).take(target)
    return (between(target, NOT_FOUND, NOT_FOUND) | finished) & of.told - of.loading.cyclic


def finished_alone(facts: WorkerFacts) -> Mask:
    """Records with such a mutable half that have a committed snapshot of their own."""
    of = _Rows(facts)
    wrong = _with_wrong_halves(of)
    own = of.records.text(keys.SNAPSHOT) if wrong else []
    return Mask(
        len(of.records),
        (row for row in wrong if of.kind_of_snapshot(own[row] or of.records.ids[row] or b"") == COMMITTED),
    )


@worker_rule("C13", needs=(Part.RECORDS,))
def pairs_are_of_two(facts: WorkerFacts) -> Iterator[Finding]:
    """Only one immutable record shares the data of a mutable one."""
    of = _Rows(facts)
    for row, right in surplus_halves(facts):
        mutable = of.loading.target[row]
        message = f"it shares the data of {_id(of.records, mutable)}, as {_id(of.records, right)} does"
        yield of.finding("C13", Severity.PRUNE, row, message)


def surplus_halves(facts: WorkerFacts) -> Iterator[tuple[int, int]]:
    """Immutable records whose data is that of a mutable one, and the one that has that data rightly."""
    of = _Rows(facts)
    target = of.loading.target
    several = between(count_rows(target, len(of.records)), 2, _MOST)
    if not several:
        return
    sharing: dict[int, list[int]] = {}
    for row in several.take(target) & of.told - of.loading.cyclic:
        sharing.setdefault(target[row], []).append(row)
    referred = of.loading.referred
    parents = of.loading.parent
    descriptions = of.records.text(b"cache.description")
    created = of.records.integer(keys.CREATED_AT).values
    for mutable, rows in sharing.items():
        # The daemon makes the right one as a copy of the mutable record; others are built on that.
        rows.sort(
            key=lambda row: (
                row not in referred,
                parents[row] != parents[mutable],
                descriptions[row] != descriptions[mutable],
                created[row],
            )
        )
        yield from ((row, rows[0]) for row in rows[1:])


@worker_rule("C14", needs=(Part.RECORDS, Part.CONTAINERD, Part.SNAPSHOTS))
def mutable_records_have_their_snapshot(facts: WorkerFacts) -> Iterator[Finding]:
    """A mutable record has an active snapshot with its own id as the key.

    Of one that containerd has and the snapshotter has not C40 tells; of one of no known kind C30.
    """
    of = _Rows(facts)
    snapshots, backend = facts.snapshots, facts.backend
    assert snapshots is not None and backend is not None and facts.stat is not None
    alone = of.unfinished & of.told - there(of.loading.target)
    own = snapshots.index.rows(of.records.ids)
    for row in alone & between(own, NOT_FOUND, NOT_FOUND):
        yield of.finding("C14", Severity.HARMLESS, row, "it is mutable, and its snapshot does not exist")
    at = gather(facts.stat, own)
    for kind, what in ((VIEW, "a view"), (COMMITTED, "committed")):
        for row in alone & between(backend.kind, kind, kind).take(at):
            message = f"it is mutable, and its snapshot is {what}, not active"
            yield of.finding("C14", Severity.BUILD, row, message)


@worker_rule("C15", needs=(Part.RECORDS,))
def nothing_is_deleted(facts: WorkerFacts) -> Iterator[Finding]:
    """No record is marked as deleted."""
    of = _Rows(facts)
    for row in of.records.flag(b"cache.deleted") & of.told:
        yield of.finding("C15", Severity.HARMLESS, row, "it is marked as deleted")


@worker_rule("C59", needs=(Part.RECORDS,))
def pairs_are_retained(facts: WorkerFacts) -> Iterator[Finding]:
    """Of each pair, one record is retained or has others built on it."""
    of = _Rows(facts)
    target = of.loading.target
    policy = of.records.integer(_POLICY)
    retained = between(policy.values, _RETAINED, _RETAINED) | (of.records.has(_POLICY) - policy.known)
    kept = retained | retained.take(target) | of.loading.referred
    paired = of.unfinished.take(target) - of.unfinished
    several = between(count_rows(target, len(of.records)), 2, _MOST).take(target)
    for row in paired & of.told & of.loading.alive - kept - several:
        other = _id(of.records, target[row])
        yield of.finding(
            "C59", Severity.HARMLESS, row, f"neither it nor its mutable half {other} is retained"
        )


def _id(records: Records, row: int) -> str:
    return quoted(records.ids[row])


RULES = (
    parents_exist,
    parents_end,
    mutable_halves_exist,
    pairs_are_of_two,
    mutable_records_have_their_snapshot,
    nothing_is_deleted,
    pairs_are_retained,
)
