"""Rules about the data of records: snapshots, blobs, and the leases that hold them (C23, C24, C26 to C30)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from buildkit_migrate.maintenance.facts import WorkerFacts
from buildkit_migrate.maintenance.finding import Finding, Severity
from buildkit_migrate.maintenance.record_data import RecordData, key_in, referred, there
from buildkit_migrate.maintenance.rule import Part, WorkerRule, worker_rule
from buildkit_migrate.maintenance.rules.wording import path_of, subject
from buildkit_migrate.schema.columns import (
    ABSENT,
    NOT_FOUND,
    Mask,
    between,
    chosen,
    equal_to,
    gather,
    paired,
    split_last,
    starting_with,
    take,
)
from buildkit_migrate.schema.containerd import VARIANT, Namespace
from buildkit_migrate.schema.snapshots import ACTIVE, COMMITTED, UNKNOWN, VIEW
from buildkit_migrate.text import cut

__all__ = ["RULES", "Protection", "lost_for_good", "protection", "stood_on"]

_STORES: Final = (Part.RECORDS, Part.CONTAINERD, Part.SNAPSHOTS)
_KINDS: Final = {VIEW: "a view", ACTIVE: "active", COMMITTED: "committed", UNKNOWN: "of no known kind"}


@worker_rule("C23", needs=_STORES)
def lost_snapshots(facts: WorkerFacts) -> Iterator[Finding]:
    """Each extracted layer has its snapshot."""
    data, backend = facts.data, facts.backend
    if data is None or backend is None:
        return
    reasons = lost_for_good(facts) if data.lost else {}
    for row in data.lost:
        yield Finding(
            "C23",
            Severity.BUILD,
            path_of(facts.stores.containerd),
            subject(data.records.ids[row]),
            f"its snapshot {cut(data.keys[row] or b'')} does not exist",
            repair=f"`repair --drop` drops the record and its descendants{why}"
            if (why := reasons.get(row))
            else None,
        )


def lost_for_good(facts: WorkerFacts) -> dict[int, str]:
    """Layers without their snapshot that can't be extracted again, and why not, as the end of a sentence."""
    data, backend = facts.data, facts.backend
    assert data is not None and backend is not None
    parents = stood_on(facts)
    found = {}
    for row in data.lost:
        if data.keys[row] in parents:
            found[row] = (
                ", so that builds run these steps again; "
                "other snapshots stand on the lost one, and nothing will free their space."
            )
        elif data.blob[row] < 0:
            found[row] = ", as it has no blob to extract."
        elif data.blob[row] not in facts.whole_blobs and not facts.databases_only:
            found[row] = ", as the file of its blob is missing or has another size."
    unextracted = data.lost | (data.blob_only & data.layered - there(data.snapshot))
    unusable = (there(data.snapshot) - there(data.stat)) | data.uncommitted
    hopeless = unusable | Mask(len(data.records), found)
    for row in data.lost - hopeless:
        if any(below in hopeless for below in _below(data, row, unextracted)):
            found[row] = ", as it stands on a layer that can't be used or extracted."
    return found


def stood_on(facts: WorkerFacts) -> set[bytes]:
    """Keys of the snapshots that others, but for views, have as a parent in the snapshotter's database."""
    backend = facts.backend
    assert backend is not None
    standing = starting_with(backend.parent, facts.stores.namespace + b"/")
    return {key_in(backend.parent[row] or b"") for row in standing - between(backend.kind, VIEW, VIEW)}


def _below(data: RecordData, row: int, unextracted: Mask) -> Iterator[int]:
    """The layers right below one, down to the first that is extracted."""
    while row in unextracted and (row := data.loading.parent[row]) >= 0:
        yield row


@worker_rule("C24", needs=(Part.RECORDS, Part.CONTAINERD))
def lost_blobs(facts: WorkerFacts) -> Iterator[Finding]:
    """The blob of a record exists, unless the record is lazy."""
    data = facts.data
    if data is None:
        return
    gone = data.owners & between(data.blob, NOT_FOUND, NOT_FOUND)
    for row in gone - data.blob_only:
        yield Finding(
            "C24",
            Severity.BUILD,
            path_of(facts.stores.containerd),
            subject(data.records.ids[row]),
            f"its blob {cut(data.digests[row] or b'')} does not exist",
        )


@worker_rule("C26", "C27", needs=(Part.RECORDS, Part.CONTAINERD))
def unprotected(facts: WorkerFacts) -> Iterator[Finding]:
    """Each record with data of its own has a lease that lists it. What is lost already needs none."""
    data, namespace = facts.data, facts.namespace
    if data is None or namespace is None:
        return
    file = path_of(facts.stores.containerd)
    found = protection(data, namespace, facts)
    snapshot, blob = there(data.snapshot), there(data.blob)
    for row in found.bare:
        held = [what for what, mask in (("snapshot", snapshot), ("blob", blob)) if row in mask]
        state = "its lease is temporary" if row in found.passing else "it has no lease"
        if held:
            severity, what = Severity.BUILD, f"the next collection removes its {' and '.join(held)}"
        elif row in data.layered:
            continue
        else:
            severity, what = Severity.HARMLESS, "a collection removes the snapshot that is made for it"
        yield Finding("C26", severity, file, subject(data.records.ids[row]), f"{state}: {what}")
    for row in found.snapshot_open | found.blob_open:
        names = []
        if row in found.snapshot_open:
            names.append(f"snapshot {cut(data.keys[row] or b'')}")
        if row in found.blob_open:
            names.append(f"blob {cut(data.digests[row] or b'')}")
        message = f"its lease does not list its {' and '.join(names)}"
        yield Finding("C27", Severity.BUILD, file, subject(data.records.ids[row]), message)


class Protection(NamedTuple):
    """Records whose data a collection would remove. ``bare``: without a lease, or with a ``passing`` one;
    ``snapshot_open``, ``blob_open``: with a lease that does not list the snapshot or blob, which exists.
    """

    bare: Mask
    passing: Mask
    snapshot_open: Mask
    blob_open: Mask


def protection(data: RecordData, namespace: Namespace, facts: WorkerFacts) -> Protection:
    """What has lost its protection. What is lost itself needs none."""
    leases = namespace.leases
    rows = leases.index.rows(data.records.ids)
    passing = data.owners & facts.passing.take(rows)
    bare = ((data.owners & between(rows, NOT_FOUND, NOT_FOUND)) | passing) - data.lost
    leased = data.owners - bare - data.lost
    listed, content = leases.snapshots(facts.stores.snapshotter).rows, leases.content.rows
    return Protection(
        bare,
        passing,
        (leased & there(data.snapshot)) - paired(rows, data.snapshot, listed, facts.listed_snapshots),
        (leased & there(data.blob)) - paired(rows, data.blob, content, facts.listed_blobs),
    )


@worker_rule("C28", needs=(Part.RECORDS, Part.CONTAINERD))
def variants(facts: WorkerFacts) -> Iterator[Finding]:
    """Variants of a blob name each other, and the second lease of a record that has it lists them."""
    data, namespace = facts.data, facts.namespace
    if data is None or namespace is None:
        return
    file = path_of(facts.stores.containerd)
    blobs, leases = namespace.blobs, namespace.leases
    links = blobs.below(b"labels", prefix=VARIANT)
    if not links:
        return
    sources = take(blobs.keys, links.rows)
    targets = blobs.index.rows(links.values)
    linked = there(targets)
    mutual = paired(links.rows, targets, targets, links.rows)
    for place in ~mutual:
        state = "does not name it" if place in linked else "does not exist"
        message = f"it names {cut(links.values[place] or b'')} as its variant, which {state}"
        yield Finding("C28", Severity.HARMLESS, file, subject(sources[place]), message)

    linking = referred(links.rows, len(blobs))
    owners = data.owners & there(data.blob) & linking.take(data.blob)
    before, after = split_last(leases.keys, b"-")
    of_records = data.records.index.rows(before)
    # Of each lease for variants the blob of its record.
    lists = gather(data.blob, of_records)
    for lease in ~equal_to(after, b"variants") | facts.passing:
        lists[lease] = ABSENT
    held = paired(links.rows, targets, gather(lists, leases.content.rows), facts.listed_blobs)
    lacking = mutual & linked - held
    for row in owners & referred(chosen(links.rows, lacking), len(blobs)).take(data.blob):
        lease_id = (data.records.ids[row] or b"") + b"-variants"
        digest = next(links.values[place] for place in links.of(data.blob[row]) if place in lacking)
        lease = leases.index.row(lease_id)
        state = "is missing; it listed" if lease < 0 else "exists, but does not list"
        state = "is temporary; it lists" if lease in facts.passing else state
        message = f"the record's lease for variants {state} {cut(digest or b'')}"
        yield Finding("C28", Severity.HARMLESS, file, subject(lease_id), message)


@worker_rule("C29", needs=_STORES)
def parents(facts: WorkerFacts) -> Iterator[Finding]:
    """The snapshot of a layer stands on that of its parent."""
    data, snapshots = facts.data, facts.snapshots
    if data is None or snapshots is None:
        return
    for row in data.misplaced(snapshots):
        is_at, wanted = snapshots.parent[data.snapshot[row]], data.parent_keys[row]
        yield Finding(
            "C29",
            Severity.HARMLESS,
            path_of(facts.stores.containerd),
            subject(data.records.ids[row]),
            f"its snapshot stands on {cut(is_at) if is_at is not None else 'nothing'} for containerd, "
            f"its parent has {cut(wanted or b'')}",
        )


@worker_rule("C30", needs=_STORES)
def broken_snapshots(facts: WorkerFacts) -> Iterator[Finding]:
    """Snapshots of committed records are committed, and what the stores say of snapshots can be read."""
    data, snapshots, backend = facts.data, facts.snapshots, facts.backend
    if data is None or snapshots is None or backend is None:
        return
    file = path_of(facts.stores.snapshots)
    told = Mask(len(backend))
    for row in data.uncommitted:
        told.add(data.stat[row])
        kind = _KINDS[backend.kind[data.stat[row]]]
        message = f"its snapshot {cut(data.keys[row] or b'')} is {kind}, not committed"
        yield Finding("C30", Severity.BUILD, file, subject(data.records.ids[row]), message)
    ours = facts.ours
    used = referred(data.stat, len(backend))
    for what, unread in (
        ("number", ~backend.id.known),
        ("kind", between(backend.kind, UNKNOWN, UNKNOWN)),
        ("time", backend.broken_times),
    ):
        for row in unread & ours - told:
            told.add(row)
            key = key_in(backend.names[row] or b"")
            message = f"the snapshotter's {what} of this snapshot can't be read"
            severity = Severity.BUILD if row in used else Severity.LEAK
            yield Finding("C30", severity, file, subject(key), message)
    for row in snapshots.broken_times:
        if facts.leaving is not None and row in facts.leaving.snapshots:
            continue
        message = "containerd's times of this snapshot can't be read"
        containerd = path_of(facts.stores.containerd)
        yield Finding("C30", Severity.BUILD, containerd, subject(snapshots.keys[row]), message)


RULES: Final[tuple[WorkerRule, ...]] = (
    lost_snapshots,
    lost_blobs,
    unprotected,
    variants,
    parents,
    broken_snapshots,
)
