"""Rules about snapshots: both databases agree, and each has its directory (C40 to C45, C49, C50)."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Final

from buildkit_migrate.files.errors import is_directory
from buildkit_migrate.maintenance.disk import mount_points, usage, why_immovable
from buildkit_migrate.maintenance.facts import WorkerFacts
from buildkit_migrate.maintenance.finding import Finding, Severity
from buildkit_migrate.maintenance.record_data import key_in, referred, there
from buildkit_migrate.maintenance.rule import Part, WorkerRule, worker_rule
from buildkit_migrate.maintenance.rules.wording import path_of, subject
from buildkit_migrate.schema.columns import (
    NOT_FOUND,
    Mask,
    between,
    chosen,
    equal,
    gather,
    present,
    repeated,
    same,
    take,
)
from buildkit_migrate.schema.containerd import MERGE_USAGE, Snapshots
from buildkit_migrate.schema.snapshots import ACTIVE, COMMITTED, VIEW, Backend, counters
from buildkit_migrate.text import cut
from buildkit_migrate.workspace.layout import CONTAINERD_WORKER

__all__ = [
    "INODES_LABEL",
    "RULES",
    "SIZE_LABEL",
    "counters_wanted",
    "links_by_name",
    "without_work",
    "wrong_usage_labels",
]

_BOTH: Final = (Part.CONTAINERD, Part.SNAPSHOTS)
_NEAR: Final = 1000
"""At most this many snapshots are made before a collection has removed what is in their way."""
_LARGEST: Final = 2**63 - 1


@worker_rule("C40", "C41", needs=_BOTH)
def known_to_both(facts: WorkerFacts) -> Iterator[Finding]:
    """The snapshotter has exactly the snapshots that containerd names."""
    snapshots, backend = facts.snapshots, facts.backend
    if snapshots is None or backend is None:
        return
    file = path_of(facts.stores.snapshots)
    cut_short: Counter[bytes | None] = Counter()
    for row in facts.unbacked:
        parent = snapshots.index.row(snapshots.parent[row] or b"")
        cut_short[snapshots.name[parent] if parent >= 0 else None] += 1
        if _is_leaving(facts, row):
            continue
        severity, what = _users_of(facts, row)
        message = (
            f"containerd has this snapshot, the snapshotter has none called {cut(snapshots.name[row] or b'')}"
        )
        repair = "`repair` does nothing, as no record has the snapshot." if what == _UNUSED else None
        yield Finding("C40", severity, file, subject(snapshots.keys[row]), f"{message}{what}", repair=repair)
    explained = facts.data.missing_keys if facts.data is not None else frozenset()
    for row in facts.unnamed:
        name = backend.names[row] or b""
        if key_in(name) in explained:
            continue
        if backend.kind[row] == COMMITTED and cut_short[backend.parent[row]]:
            cut_short[backend.parent[row]] -= 1  # what it became, when its commit was cut
            continue
        size = backend.size.values[row] if row in backend.size.known else None
        if size is None and facts.directories is not None and row in backend.id.known:
            measured = usage(facts.directories.data(backend.id.values[row]))
            size = measured.bytes if measured is not None else None
        message = "the snapshotter has this snapshot, containerd does not name it"
        yield Finding("C41", Severity.LEAK, file, subject(name), message, bytes=size)


_UNUSED: Final = "; no record uses it"


def _is_leaving(facts: WorkerFacts, row: int) -> bool:
    """Whether the next collection removes this snapshot of containerd's, which nobody names."""
    return facts.leaving is not None and row in facts.leaving.snapshots


def _used(facts: WorkerFacts, backend: Backend) -> Mask:
    """Snapshots of the snapshotter's that records have; none of them if no record is known."""
    return referred(facts.data.stat, len(backend)) if facts.data is not None else Mask(len(backend))


def _users_of(facts: WorkerFacts, row: int) -> tuple[Severity, str]:
    """What the loss of this snapshot means, judged by the records that have it."""
    if facts.data is None or facts.snapshots is None:
        return Severity.HARMLESS, ""
    users = facts.data.users(Mask(len(facts.snapshots), [row]))
    if not users:
        return Severity.HARMLESS, _UNUSED
    if any(user in facts.data.immutable for user in users):
        return Severity.BUILD, ""
    return Severity.HARMLESS, "; the next start drops its record"


@worker_rule("C42", needs=_BOTH)
def parents(facts: WorkerFacts) -> Iterator[Finding]:
    """Parents exist and are the same for both, and the snapshotter's table of children has each snapshot."""
    snapshots, backend, data = facts.snapshots, facts.backend, facts.data
    stat = facts.stat
    if snapshots is None or backend is None or stat is None:
        return
    file = path_of(facts.stores.snapshots)
    explained = data.missing_keys if data is not None else frozenset()
    unbacked = {snapshots.name[row] for row in facts.unbacked}

    parent_rows = backend.index.rows(backend.parent)
    used = _used(facts, backend)
    told = Mask(len(backend))
    for row in facts.ours & present(backend.parent) - there(parent_rows):
        told.add(row)
        name = backend.parent[row] or b""
        if not _agrees(snapshots, backend.names[row], name) or (
            key_in(name) not in explained and name not in unbacked
        ):
            message = f"it stands on {cut(name)}, which the snapshotter does not have"
            severity = Severity.BUILD if row in used else Severity.LEAK
            yield Finding("C42", severity, file, subject(key_in(backend.names[row] or b"")), message)

    is_at = take(backend.parent, stat)
    at_rows = gather(parent_rows, stat)
    alike = there(at_rows) & same(at_rows, gather(stat, snapshots.parent_rows))
    differing = there(stat) - alike - ~(present(snapshots.parent) | present(is_at))
    if differing:  # where a parent does not exist, names can be equal all the same
        differing -= equal(take(snapshots.name, snapshots.parent_rows), is_at)
    misplaced = data.misplaced(snapshots) if data is not None else Mask(0)
    told_by_record = Mask(
        len(snapshots), (data.snapshot[row] for row in misplaced) if data is not None else ()
    )
    for row in differing - told.take(stat):
        told.add(stat[row])
        parent = snapshots.parent[row]
        if row in told_by_record or (parent in explained and parent == key_in(is_at[row] or b"")):
            continue
        expected = cut(parent) if parent is not None else "nothing"
        message = f"it stands on {cut(is_at[row] or b'nothing')}, for containerd on {expected}"
        severity = Severity.BUILD if stat[row] in used else Severity.LEAK
        yield Finding("C42", severity, file, subject(snapshots.keys[row]), message)
    if not repeated(backend.id.values):
        yield from _child_links(facts, parent_rows, told, explained, unbacked, used)


def _agrees(snapshots: Snapshots, name: bytes | None, parent: bytes) -> bool:
    """Whether a snapshot stands on this parent for containerd, too. Both are names of the snapshotter's."""
    row = snapshots.index.row(key_in(name or b""))
    return row < 0 or snapshots.parent[row] == key_in(parent)


def _child_links(
    facts: WorkerFacts,
    parent_rows: array[int],
    told: Mask,
    explained: frozenset[bytes],
    unbacked: set[bytes | None],
    used: Mask,
) -> Iterator[Finding]:
    backend = facts.backend
    if backend is None:
        return
    file = path_of(facts.stores.snapshots)
    ids, links = backend.id.values, backend.links
    children = backend.index.rows(links.names)
    parent_ids = gather(ids, gather(parent_rows, children))
    sound = same(gather(ids, children), links.child) & same(parent_ids, links.parent)
    linked = Mask(len(backend), chosen(children, sound))
    unread = ~backend.id.known
    for row in facts.ours & there(parent_rows) - linked - told - unread - unread.take(parent_rows):
        told.add(row)
        message = f"it is not among the children of {cut(backend.parent[row] or b'')}"
        severity = Severity.BUILD if row in used else Severity.LEAK
        yield Finding("C42", severity, file, subject(key_in(backend.names[row] or b"")), message)
    if not ~sound:
        return
    namespace = facts.stores.namespace + b"/"
    shared = facts.stores.kind == CONTAINERD_WORKER
    by_id = {ids[row]: row for row in backend.id.known}
    for place in ~sound:
        row, name = children[place], links.names[place] or b""
        if row >= 0 and (row in unread or parent_rows[row] in unread):
            continue
        if row < 0 and (name in unbacked or key_in(name) in explained):
            continue
        if row in told or by_id.get(links.child[place], NOT_FOUND) in told:
            continue
        if shared and not name.startswith(namespace):
            continue  # another namespace's
        about = f"{links.parent[place]} and {links.child[place]}"
        message = f"the table of parents has an entry for the snapshots {about}, where there is no such pair"
        yield Finding("C42", Severity.LEAK, file, subject(key_in(name)), message)


@worker_rule("C43", needs=_BOTH)
def sequences(facts: WorkerFacts) -> Iterator[Finding]:
    """Numbers are given out once: the counters are not behind what is in use."""
    snapshots, backend = facts.snapshots, facts.backend
    if snapshots is None or backend is None:
        return
    file = path_of(facts.stores.snapshots)
    ids = backend.id.values
    for row, owner in _intruders(facts):
        other = cut(key_in(backend.names[owner] or b""))
        message = f"it has the number {ids[row]}, and so the directory, of the snapshot {other}"
        yield Finding(
            "C43",
            Severity.CONTENT,
            file,
            subject(key_in(backend.names[row] or b"")),
            message,
            repair="`repair` only raises the counter: nobody can tell whose files are in the directory. "
            "Prune the records of both snapshots.",
        )
    highest = max(ids, default=0)
    if backend.sequence < highest:
        message = f"the counter stands at {backend.sequence}, and there are snapshots up to number {highest}"
        yield Finding("C43", Severity.CONTENT, file, "v1/snapshots", message)
    elif in_the_way := _in_the_way(facts, backend.sequence):
        message = (
            f"the counter stands at {backend.sequence}, "
            f"and there is a directory {in_the_way[0]} that belongs to no snapshot"
        )
        yield Finding("C43", Severity.BUILD, file, "v1/snapshots", message)
    counted = max(counters(snapshots.name), default=0)
    if snapshots.sequence < counted:
        bucket = b"/".join((b"v1", facts.stores.namespace, b"snapshots", facts.stores.snapshotter))
        message = (
            f"the counter stands at {snapshots.sequence}, and there are names with numbers up to {counted}; "
            "names differ all the same, as each ends in the key"
        )
        yield Finding("C43", Severity.HARMLESS, path_of(facts.stores.containerd), subject(bucket), message)


def _intruders(facts: WorkerFacts) -> list[tuple[int, int]]:
    """Of snapshots that share a number those that got it wrongly, as far as the table of children tells, and
    one that it is shared with.
    """
    backend = facts.backend
    if backend is None:
        return []
    ids = backend.id.values
    later = repeated(ids) & backend.id.known
    if not later:
        return []
    sharing: dict[int, list[int]] = {ids[row]: [] for row in later}
    for row in backend.id.known:
        if ids[row] in sharing:
            sharing[ids[row]].append(row)
    unlisted = _unlisted(backend, {row for rows in sharing.values() for row in rows})
    found = []
    for rows in sharing.values():
        # Without any sign, or with signs against all, the first one has it rightly.
        wrong = [row for row in rows if row in unlisted]
        wrong = wrong if 0 < len(wrong) < len(rows) else rows[1:]
        owner = next(row for row in rows if row not in wrong)
        found += [(row, owner) for row in wrong]
    return found


def _unlisted(backend: Backend, rows: AbstractSet[int]) -> set[int]:
    """Those of these snapshots whose number differs from that in the table of children."""
    ids, listed = backend.id.values, links_by_name(backend)
    found = set()
    for child, parent in enumerate(backend.index.rows(backend.parent)):
        pairs = listed.get(backend.names[child], set())
        if child in rows and parent >= 0 and not any(it == ids[child] for _, it in pairs):
            found.add(child)
        if parent in rows and pairs and not any(it == ids[parent] for it, _ in pairs):
            found.add(parent)
    return found


def links_by_name(backend: Backend) -> dict[bytes | None, set[tuple[int, int]]]:
    """The table of children: for each name of a child the numbers of parent and child."""
    links = backend.links
    listed: dict[bytes | None, set[tuple[int, int]]] = {}
    for parent, child, name in zip(links.parent, links.child, links.names, strict=True):
        listed.setdefault(name, set()).add((parent, child))
    return listed


def counters_wanted(facts: WorkerFacts) -> tuple[int, int]:
    """What the counters of the snapshotter and of containerd have to be at least."""
    snapshots, backend = facts.snapshots, facts.backend
    assert snapshots is not None and backend is not None
    own = max(backend.sequence, max(backend.id.values, default=0), 0)
    while in_the_way := _in_the_way(facts, own):
        own = in_the_way[-1]
    return own, max(snapshots.sequence, max(counters(snapshots.name), default=0))


def _in_the_way(facts: WorkerFacts, counter: int) -> list[int]:
    """Numbers of directories that are in the way of new snapshots, ascending."""
    backend, directories = facts.backend, facts.directories
    if backend is None or directories is None:
        return []
    ids = backend.id.values
    near = range(counter + 1, counter + _NEAR)
    known = {ids[row] for row in between(ids, min(near.start, _LARGEST), near.stop - 1)}
    return sorted(number for number in directories.numbers if number in near and number not in known)


@worker_rule("C44", "C45", needs=(*_BOTH, Part.DIRECTORIES))
def directories(facts: WorkerFacts) -> Iterator[Finding]:
    """Each snapshot has its directory, and each directory its snapshot."""
    backend, found = facts.backend, facts.directories
    if backend is None or found is None:
        return
    ids = backend.id
    named = ids.known & facts.ours
    if named and not found.names:
        message = f"none of the directories of {len(named)} snapshots is there"
        yield Finding("C44", Severity.PRUNE, found.path, found.path.name, message)
        return
    views, active = between(backend.kind, VIEW, VIEW), between(backend.kind, ACTIVE, ACTIVE)
    wanted = named - (views & present(backend.parent)) if found.plain else named
    gone = wanted & found.without(ids.values, None if found.plain else "fs")
    used = _used(facts, backend)
    for row in gone - facts.leaving_stats if gone else gone:
        place = found.data(ids.values[row])
        severity = Severity.BUILD
        if backend.kind[row] != COMMITTED:
            severity = Severity.PRUNE if row in active & used else Severity.HARMLESS
        message = f"its directory {cut(bytes(place))} is missing"
        yield Finding("C44", severity, found.path, subject(key_in(backend.names[row] or b"")), message)
    for row in without_work(facts):
        message = f"its directory {found.path / str(ids.values[row]) / 'work'} is missing"
        yield Finding("C44", Severity.BUILD, found.path, subject(key_in(backend.names[row] or b"")), message)
    if ~ids.known or repeated(ids.values):
        return  # it can't be told whose a directory is
    numbers = {*ids.values, *_in_the_way(facts, backend.sequence)}
    known = {str(number) for number in (*numbers, *_left_by_lost_ones(facts, found.numbers - numbers))}
    points = mount_points()
    for name in found.names:
        if name not in known:
            place = found.path / name
            measured, is_tree = usage(place), is_directory(place, follow_symlinks=False)
            what = "this directory" if is_tree else "this file"
            fixed = why_immovable(place, found.path.parent, points) if is_tree and found.plain else ""
            yield Finding(
                "C45",
                Severity.LEAK,
                found.path,
                name,
                f"{what} belongs to no snapshot"
                + (", and this snapshotter never removes it" if found.plain else ""),
                bytes=measured.bytes if measured is not None else None,
                repair=f"`repair` leaves it: {fixed}." if fixed else None,
            )


def without_work(facts: WorkerFacts) -> list[int]:
    """Active snapshots on others that have ``fs``, but not ``work``."""
    backend, found = facts.backend, facts.directories
    assert backend is not None and found is not None
    if found.plain:
        return []
    active = between(backend.kind, ACTIVE, ACTIVE) & backend.id.known & facts.ours
    rows = list(active & present(backend.parent))
    numbers = [backend.id.values[row] for row in rows]
    return [rows[place] for place in found.without(numbers, "work") - found.without(numbers, "fs")]


def _left_by_lost_ones(facts: WorkerFacts, numbers: frozenset[int]) -> frozenset[int]:
    """Directories of snapshots that the snapshotter lost, which other findings tell (C14, C23, C40).

    Nothing says whose they are: so only as long as there are no more of them. The next collection removes
    them, but with native, where they stay.
    """
    backend, data = facts.backend, facts.data
    if backend is None or facts.stores.snapshotter == b"native":
        return frozenset()
    lost = len(facts.unbacked) + (len(data.missing_keys) if data is not None else 0)
    once = frozenset(number for number in numbers if 0 < number <= backend.sequence)
    return once if len(once) <= lost else frozenset()


@worker_rule("C49", needs=(*_BOTH, Part.DIRECTORIES, Part.FILES))
def inodes(facts: WorkerFacts) -> Iterator[Finding]:
    """A committed snapshot has as many files as when it was committed."""
    backend, found = facts.backend, facts.directories
    if backend is None or found is None:
        return
    ids = backend.id.values
    if repeated(ids) & backend.id.known:
        return  # it can't be told whose files they are
    committed = between(backend.kind, COMMITTED, COMMITTED) & backend.id.known & backend.inodes.known
    for row in committed & facts.ours - found.without(ids, None if found.plain else "fs"):
        measured = found.usage(ids[row])
        if measured is not None and measured.inodes != backend.inodes.values[row]:
            if row in facts.leaving_stats:
                continue
            wanted = backend.inodes.values[row]
            message = f"it has {measured.inodes} files and directories, and was committed with {wanted}"
            key = subject(key_in(backend.names[row] or b""))
            yield Finding("C49", Severity.CONTENT, found.path, key, message)


_NUMBER: Final = re.compile(rb"[+-]?[0-9]+")
SIZE_LABEL: Final = MERGE_USAGE + b"Size"
INODES_LABEL: Final = MERGE_USAGE + b"Inodes"


@worker_rule("C50", needs=_BOTH)
def merge_usage(facts: WorkerFacts) -> Iterator[Finding]:
    """The size of a merge in its labels is a number."""
    snapshots, data = facts.snapshots, facts.data
    if snapshots is None:
        return
    file = path_of(facts.stores.containerd)
    for row, labels in wrong_usage_labels(snapshots).items():
        said = [f"{cut(key)} is {cut(value)!r}" for key, value in labels.items()]
        users = data.users(Mask(len(snapshots), [row])) if data is not None else []
        severity, effect = Severity.PRUNE, ""
        if data is None or not any(user in data.unknown_size for user in users):
            severity, effect = Severity.HARMLESS, "; nobody reads it while the record's size is known"
        message = f"its label {' and '.join(said)}{effect}"
        yield Finding("C50", severity, file, subject(snapshots.keys[row]), message)


def wrong_usage_labels(snapshots: Snapshots) -> dict[int, dict[bytes, bytes]]:
    """For each snapshot that has any the labels with the usage of a merge that are no numbers."""
    labels = snapshots.below(b"labels", prefix=MERGE_USAGE)
    wrong: dict[int, dict[bytes, bytes]] = {}
    for row, key, value in zip(labels.rows, labels.keys, labels.values, strict=True):
        if key in (SIZE_LABEL, INODES_LABEL) and not _is_integer(value or b""):
            wrong.setdefault(row, {})[key] = value or b""
    return wrong


def _is_integer(text: bytes) -> bool:
    """Whether Go reads this as a number."""
    if not _NUMBER.fullmatch(text) or len(text) > 400:
        return False
    return -_LARGEST - 1 <= int(text) <= _LARGEST


RULES: Final[tuple[WorkerRule, ...]] = (known_to_both, parents, sequences, directories, inodes, merge_usage)
