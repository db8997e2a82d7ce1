"""The oracle: the migration in plain Python, slow, and written to be read beside the spec.

It computes a plan from records and survey; the native plan must be equal. Passes and their order: spec
buildkit-metadata, section 4. Treatment of records on which BuildKit's own migration aborts or panics: section
5; the rules are in `plan`, in the order in which they apply.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import Final

from buildkit_migrate.model import (
    Caution,
    Kind,
    PlainPlan,
    PlainRecords,
    PlainSurvey,
    Problem,
    Reason,
    RecordPlan,
    Resource,
)
from buildkit_migrate.values import gojson, keys

__all__ = ["PASSES", "plan"]

_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}")


@dataclass
class _Record:
    """A record during the passes: the stored values, and those put by the passes."""

    id: bytes
    stored: Mapping[bytes, bytes | None]
    puts: dict[bytes, bytes] = field(default_factory=dict)
    index: set[bytes] = field(default_factory=set)

    def text(self, key: bytes) -> bytes:
        """String in the current value. A nested bucket counts as absent."""
        return gojson.string(self.puts.get(key, self.stored.get(key)))

    @property
    def equal_mutable(self) -> bytes:
        return self.text(keys.EQUAL_MUTABLE)

    @property
    def parent(self) -> bytes:
        return self.text(keys.PARENT)

    def put(self, key: bytes, value: bytes | bool | int) -> None:
        self.puts[key] = gojson.encode_value(value)

    def put_indexed(self, key: bytes, value: bytes, index_prefix: bytes) -> None:
        index = index_prefix + value
        self.puts[key] = gojson.encode_value(value, index)
        self.index.add(keys.index_key(index, self.id))


_Records = dict[bytes, _Record]
"""In order of ids."""


class _Problems(dict[bytes, Problem]):
    """Problems by record. The first problem that drops a record wins."""

    def add(self, record: bytes, reason: Reason, detail: bytes = b"") -> None:
        if not self.dropped(record):
            self[record] = Problem(record, reason, detail)

    def dropped(self, record: bytes) -> bool:
        return record in self and self[record].reason is not Reason.REPAIRED

    def healthy(self, records: _Records) -> _Records:
        return {id: record for id, record in records.items() if not self.dropped(id)}


PASSES: Final = 6
"""How often `plan` calls ``passed``."""


def plan(
    records: PlainRecords,
    survey: PlainSurvey,
    *,
    upstream_exact: bool = False,
    passed: Callable[[], object] = lambda: None,
) -> PlainPlan:
    """Plans the migration of these records, given the state of the containerd services.

    ``upstream_exact``: omit the sizes of blobs, which upstream does not write. A record gets at most one
    problem, the first that applies in the order of the calls below. Every problem but REPAIRED drops the
    record from the plan. Cautions are given for kept records. ``passed``: called after each part of the work.
    """
    table = {id: _Record(id, records[id]) for id in sorted(records)}
    problems = _Problems()

    written = keys.WRITTEN_BY_UPSTREAM if upstream_exact else keys.WRITTEN
    _check_values(table, written, problems)
    _check_equal_mutable(table, survey, problems)
    _check_snapshots(table, survey, problems)
    passed()

    healthy = problems.healthy(table)
    _pass1_committed_parent_snapshot(healthy, survey)
    _pass2_parent_of_equal_mutable(healthy)
    _pass3_blob(healthy, survey)
    if not upstream_exact:
        _put_blob_sizes(healthy, survey)
    passed()

    _check_digests(healthy, problems)
    _check_index_keys(healthy, problems)
    _check_parents(healthy, table, problems)
    _check_parent_cycles(problems.healthy(table), problems)
    _check_descendants(table, problems)
    passed()

    kept = problems.healthy(table)
    _pass4_chain_ids(kept)
    passed()
    result = PlainPlan(
        records=_pass5_leases(kept, survey),
        problems=[problems[id] for id in sorted(problems)],
        cautions=_cautions(kept, table, upstream_exact=upstream_exact),
    )
    passed()
    _pass6_labels(kept, survey, result)
    _pass7_views(survey, result)
    passed()
    return result


# --- Checks before the passes


def _check_values(table: _Records, written: Set[bytes], problems: _Problems) -> None:
    """BAD_ID, UNDECODABLE, KEY_IS_BUCKET."""
    for record in table.values():
        if not _is_utf8(record.id):
            problems.add(record.id, Reason.BAD_ID)
        for key in sorted(record.stored):
            value = record.stored[key]
            if value is None:
                if key in written:
                    problems.add(record.id, Reason.KEY_IS_BUCKET, key)
            elif value and not _decodes(key, value):
                problems.add(record.id, Reason.UNDECODABLE, key)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _decodes(key: bytes, value: bytes) -> bool:
    try:
        if key == keys.BLOB_MAPPING:
            gojson.blob_mapping(value)
        else:
            gojson.decode(value)
    except gojson.UndecodableValueError:
        return False
    return True


def _check_equal_mutable(table: _Records, survey: PlainSurvey, problems: _Problems) -> None:
    """CYCLE of equal-mutable links, NO_TARGET, REPAIRED (section 5, rows 3 and 24).

    Links and targets are checked as stored, whatever other problems these records have.
    """
    links = {record.id: record.equal_mutable for record in table.values() if record.equal_mutable}
    for id in _members_of_cycles(links):
        problems.add(id, Reason.CYCLE, links[id])
    for id, target in links.items():
        if problems.dropped(id):
            continue
        target_is_gone = target not in table or (target not in links and target not in survey.snapshots)
        if not target_is_gone:
            continue
        own = survey.snapshots.get(id)
        if own is not None and own.kind is Kind.COMMITTED:
            problems.add(id, Reason.REPAIRED, target)
            table[id].puts[keys.EQUAL_MUTABLE] = b""
        elif target not in table:
            problems.add(id, Reason.NO_TARGET, target)


def _check_snapshots(table: _Records, survey: PlainSurvey, problems: _Problems) -> None:
    """NO_SNAPSHOT: upstream's pass 1 aborts on these (row 5)."""
    for record in table.values():
        if not record.equal_mutable and record.id not in survey.snapshots:
            problems.add(record.id, Reason.NO_SNAPSHOT)


# --- Passes 1 to 3


def _pass1_committed_parent_snapshot(records: _Records, survey: PlainSurvey) -> None:
    """Pass 1: committed, parent, snapshot."""
    for record in records.values():
        if record.equal_mutable:
            record.put(keys.COMMITTED, True)
        else:
            snapshot = survey.snapshots[record.id]
            if snapshot.kind is Kind.COMMITTED:
                record.put(keys.COMMITTED, True)
            if snapshot.parent:
                record.put(keys.PARENT, snapshot.parent)
        record.put(keys.SNAPSHOT, record.id)


def _pass2_parent_of_equal_mutable(records: _Records) -> None:
    """Pass 2: parent of equal-mutable records, targets first (row 17). Written even if it is ""."""
    for record in records.values():
        waiting: list[_Record] = []
        at: _Record | None = record
        while at is not None and at.equal_mutable and not at.parent:
            waiting.append(at)
            at = records.get(at.equal_mutable)
        # A dropped target gives no parent; the record will be dropped as its descendant.
        parent = at.parent if at is not None else b""
        for waiting_record in waiting:
            waiting_record.put(keys.PARENT, parent)


def _pass3_blob(records: _Records, survey: PlainSurvey) -> None:
    """Pass 3: blob, diffID. A blob that no longer exists is normal."""
    for record in records.values():
        stored = record.stored.get(keys.BLOB_MAPPING)
        mapping = gojson.blob_mapping(stored) if stored else None
        if mapping is None:
            continue
        blob, diff_id = mapping
        if blob in survey.blobs:
            record.put(keys.DIFF_ID, diff_id)
            record.put(keys.BLOB, blob)
            record.put(keys.MEDIA_TYPE, keys.MEDIA_TYPE_DOCKER_GZIP)


def _put_blob_sizes(records: _Records, survey: PlainSurvey) -> None:
    """Sizes of the blobs put by pass 3, which upstream does not write."""
    for record in records.values():
        size = survey.blobs[record.text(keys.BLOB)].size if keys.BLOB in record.puts else None
        if size is not None:
            record.put(keys.BLOB_SIZE, size)


# --- Checks after pass 3


def _check_digests(records: _Records, problems: _Problems) -> None:
    """BAD_DIGEST: containerd rejects such a resource, so upstream's pass 5 aborts."""
    for record in records.values():
        blob = record.text(keys.BLOB)
        if blob and not _DIGEST.fullmatch(blob):
            problems.add(record.id, Reason.BAD_DIGEST, blob)


def _check_index_keys(records: _Records, problems: _Problems) -> None:
    """KEY_TOO_LONG: bbolt rejects such a key, so upstream's pass 4 aborts."""
    for record in records.values():
        if not _needs_chain_ids(record):
            continue
        # Without a parent the chainID is the diffID, unchanged; all other ids are digests.
        chain_id = len(_hash(b"")) if record.parent else len(record.text(keys.DIFF_ID))
        longest = max(len(keys.CHAIN_ID_INDEX) + chain_id, len(keys.BLOB_CHAIN_ID_INDEX) + len(_hash(b"")))
        if longest + len(b"::") + len(record.id) > keys.MAX_KEY:
            problems.add(record.id, Reason.KEY_TOO_LONG)


def _check_parents(records: _Records, table: _Records, problems: _Problems) -> None:
    """NO_PARENT: upstream's pass 4 panics on these (row 4)."""
    for record in records.values():
        if record.parent and record.parent not in table and _needs_chain_ids(record):
            problems.add(record.id, Reason.NO_PARENT, record.parent)


def _needs_chain_ids(record: _Record) -> bool:
    """Whether pass 4 computes chain ids for this record; then it needs those of its parent."""
    has_blob = record.text(keys.DIFF_ID) and record.text(keys.BLOB)
    has_chain_ids = record.text(keys.CHAIN_ID) and record.text(keys.BLOB_CHAIN_ID)
    return bool(has_blob and not has_chain_ids)


def _check_parent_cycles(healthy: _Records, problems: _Problems) -> None:
    """CYCLE of parent links (row 16)."""
    links = {record.id: record.parent for record in healthy.values() if record.parent}
    for id in _members_of_cycles(links):
        problems.add(id, Reason.CYCLE, links[id])


def _check_descendants(table: _Records, problems: _Problems) -> None:
    """DESCENDANT: BuildKit would drop them when it loads the store (section 6)."""
    dependents: dict[bytes, list[_Record]] = {}
    for record in problems.healthy(table).values():
        for ancestor in {record.equal_mutable, record.parent}:
            dependents.setdefault(ancestor, []).append(record)
    found: list[_Record] = []
    dropped = [id for id in table if problems.dropped(id)]
    gone = set(dropped)
    while dropped:
        for record in dependents.get(dropped.pop(), []):
            if record.id not in gone:
                gone.add(record.id)
                dropped.append(record.id)
                found.append(record)
    for record in found:
        detail = record.equal_mutable if record.equal_mutable in gone else record.parent
        problems.add(record.id, Reason.DESCENDANT, detail)


def _members_of_cycles(links: Mapping[bytes, bytes]) -> list[bytes]:
    """Ids on cycles of links."""
    members: list[bytes] = []
    seen: set[bytes] = set()
    for start in links:
        path: dict[bytes, int] = {}
        at = start
        while at in links and at not in seen:
            seen.add(at)
            path[at] = len(path)
            at = links[at]
        if at in path:
            members += list(path)[path[at] :]
    return members


# --- Passes 4 to 7


def _pass4_chain_ids(records: _Records) -> None:
    """Pass 4: chain ids, parents first.

    Ancestors are kept in a list, as there may be too many for recursion.
    """
    chains: dict[bytes, tuple[bytes, bytes]] = {}
    for record in records.values():
        path = [record]
        while (above := _parent_to_chain(path[-1], records)) is not None and above.id not in chains:
            path.append(above)
        for link in reversed(path):
            if link.id not in chains:
                chains[link.id] = _chain(link, chains)


def _parent_to_chain(record: _Record, records: _Records) -> _Record | None:
    return records[record.parent] if record.parent and _needs_chain_ids(record) else None


def _chain(record: _Record, chains: Mapping[bytes, tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """(chainID, blobChainID) of a record; puts new ones. ``chains`` has those of its parent."""
    diff_id, blob = record.text(keys.DIFF_ID), record.text(keys.BLOB)
    if not diff_id or not blob:
        return b"", b""
    if not _needs_chain_ids(record):
        return record.text(keys.CHAIN_ID), record.text(keys.BLOB_CHAIN_ID)
    chain_id = diff_id
    blob_chain_id = _hash(blob + b" " + diff_id)
    if record.parent:
        # A parent without a blob has two empty ids; they are hashed all the same.
        parent_chain_id, parent_blob_chain_id = chains[record.parent]
        chain_id = _hash(parent_chain_id + b" " + chain_id)
        blob_chain_id = _hash(parent_blob_chain_id + b" " + blob_chain_id)
    record.put_indexed(keys.CHAIN_ID, chain_id, keys.CHAIN_ID_INDEX)
    record.put_indexed(keys.BLOB_CHAIN_ID, blob_chain_id, keys.BLOB_CHAIN_ID_INDEX)
    return chain_id, blob_chain_id


def _hash(text: bytes) -> bytes:
    return b"sha256:" + hashlib.sha256(text).hexdigest().encode()


def _pass5_leases(records: _Records, survey: PlainSurvey) -> dict[bytes, RecordPlan]:
    """Pass 5: a lease for each record. Existing leases get missing resources, too (row 1).

    Existing leases must not expire any more: containerd would delete them with everything they hold.
    """
    result = {}
    for record in records.values():
        wanted: set[Resource] = {(f"snapshots/{survey.snapshotter}", record.text(keys.SNAPSHOT))}
        if blob := record.text(keys.BLOB):
            wanted.add(("content", blob))
        result[record.id] = RecordPlan(
            puts=record.puts,
            index=frozenset(record.index),
            create_lease=record.id not in survey.leases,
            add_resources=frozenset(wanted - survey.leases.get(record.id, set())),
            keep_lease=record.id in survey.expiring_leases,
        )
    return result


def _pass6_labels(records: _Records, survey: PlainSurvey, result: PlainPlan) -> None:
    """Pass 6: root labels of what the leases now hold. Missing objects have none (row 7)."""
    for record in records.values():
        if record.equal_mutable:
            continue
        if survey.snapshots[record.id].root_label:
            result.unlabel_snapshots.add(record.id)
        blob = survey.blobs.get(record.text(keys.BLOB))
        if blob is not None and blob.root_label:
            result.unlabel_blobs.add(record.text(keys.BLOB))


def _pass7_views(survey: PlainSurvey, result: PlainPlan) -> None:
    """Pass 7: root labels of views, with or without a record."""
    for name, snapshot in survey.snapshots.items():
        if snapshot.kind is Kind.VIEW and snapshot.root_label:
            result.unlabel_snapshots.add(name)


def _cautions(kept: _Records, table: _Records, *, upstream_exact: bool) -> set[tuple[bytes, Caution]]:
    """Cautions about kept records."""
    cautions = set()
    for record in kept.values():
        if _has_empty_blob_mapping(record):
            cautions.add((record.id, Caution.EMPTY_BLOB_MAPPING))
        if record.parent and record.parent not in table:
            cautions.add((record.id, Caution.PARENT_WITHOUT_RECORD))
        if not upstream_exact and keys.BLOB in record.puts and keys.BLOB_SIZE not in record.puts:
            cautions.add((record.id, Caution.NO_BLOB_SIZE))
    return cautions


def _has_empty_blob_mapping(record: _Record) -> bool:
    """``{}``, on which upstream aborts, or ``null``, which it skips (row 23)."""
    stored = record.stored.get(keys.BLOB_MAPPING)
    return stored is not None and stored != b"" and gojson.blob_mapping(stored) is None
