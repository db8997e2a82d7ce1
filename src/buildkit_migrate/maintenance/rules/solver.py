"""Rules about the solver cache (C51 to C55; spec buildkit-v2-stores, section 5)."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from buildkit_migrate.maintenance.facts import Facts, WorkerFacts
from buildkit_migrate.maintenance.finding import Finding, Severity
from buildkit_migrate.maintenance.rule import Part, RootRule, root_rule
from buildkit_migrate.maintenance.rules.wording import path_of, subject
from buildkit_migrate.schema.columns import (
    NOT_FOUND,
    Index,
    Mask,
    Texts,
    between,
    chosen,
    equal_to,
    paired,
    present,
    split_last,
    starting_with,
)
from buildkit_migrate.schema.solver import (
    SEPARATOR,
    SolverCache,
    plain_links,
    plain_results,
    workers_and_records,
)
from buildkit_migrate.text import cut
from buildkit_migrate.workspace.docker import data_root
from buildkit_migrate.workspace.layout import DOCKER_BUILDER
from buildkit_migrate.workspace.stores import worker_ids

__all__ = ["RULES", "Unmirrored", "former_id", "unmirrored"]

_UNCACHED: Final = b"random:"
"""Prefix of the keys of steps run without the cache. Their results are never found again."""

_ID: Final = re.compile(rb"[0-9a-z]{25}")
"""Of a worker, as daemons make them up."""

_POLICY: Final = b"cache.cachePolicy"
_RETAINED: Final = 1
_LINK: Final = {"Input": int, "Output": int, "Digest": str, "Selector": str}
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)")


@root_rule("C51", needs=(Part.CACHE,))
def mirrored(facts: Facts) -> Iterator[Finding]:
    """Results by key and keys by result are the same pairs, and a search can start at each of these keys."""
    cache, file = _cache(facts)
    lost = [name for name in cache.missing if cache.results or cache.by_result or cache.links]
    for name in lost:
        yield Finding(
            "C51", Severity.HARMLESS, file, subject(name), "this bucket is missing beside the others"
        )
    if lost:
        return  # All that would be found further is that.
    results, by_result = cache.results, cache.by_result
    found = unmirrored(cache)
    for place in found.unlisted:
        key = cache.keys[results.rows[place]] or b""
        message = f"key {cut(key)} has this result, which does not list the key"
        yield Finding("C51", Severity.HARMLESS, file, subject(results.keys[place]), message)
    for place in found.without_result:
        id = cache.result_ids[by_result.rows[place]]
        message = f"it lists key {cut(by_result.keys[place] or b'')}, which does not have this result"
        yield Finding("C51", Severity.HARMLESS, file, subject(id), message)
    for row in found.without_links:
        message = "this key has results and no bucket of links, so that no search starts there"
        yield Finding("C51", Severity.HARMLESS, file, subject(cache.keys[row]), message)


class Unmirrored(NamedTuple):
    """``unlisted``: rows of the cache's `results` whose key is not listed by the result; ``without_result``:
    those of `by_result` whose key does not have the result; ``without_links``: of `keys` with results.
    """

    unlisted: Mask
    without_result: Mask
    without_links: Mask


def unmirrored(cache: SolverCache) -> Unmirrored:
    """Where results by key and keys by result differ; a bucket that is missing is as an empty one."""
    results, by_result = cache.results, cache.by_result
    ids = Index(cache.result_ids).rows(results.keys)
    keys = cache.key_index.rows(by_result.keys)
    linked = cache.linked_index.rows(cache.keys)
    return Unmirrored(
        ~paired(results.rows, ids, keys, by_result.rows),
        ~paired(keys, by_result.rows, results.rows, ids),
        Mask(len(cache.keys), results.rows) & between(linked, NOT_FOUND, NOT_FOUND),
    )


@root_rule("C52", needs=(Part.CACHE, Part.RECORDS))
def known_workers(facts: Facts) -> Iterator[Finding]:
    """Results name workers that exist. Those of other workers are released at the next start."""
    cache, file = _cache(facts)
    unknown, theirs = _unknown_workers(facts, cache)
    workers = facts.stores.workers
    if len(unknown) == 1 and not theirs and len(workers) == 1:
        file = workers[0].path / "workerid"
    repair = None
    if workers and workers[0].kind == DOCKER_BUILDER:
        yield from _of_another_engine(facts, unknown)
        return
    if former_id(facts) is None:
        repair = "`repair` does nothing: it can't be told whether this was the id of the worker."
    has = ", ".join(sorted(cut(id) for id in worker_ids(facts.stores))) or "nothing"
    for id, count in sorted(unknown.items()):
        message = f"{count} results name this worker; the file has {has}"
        yield Finding("C52", Severity.HARMLESS, file, subject(id), message, repair=repair)


def _of_another_engine(facts: Facts, unknown: Counter[bytes]) -> Iterator[Finding]:
    """Docker's builder had the id "moby" before it got that of the engine."""
    builder = facts.stores.workers[0]
    file = data_root(builder.path) / "engine-id"
    has = cut(builder.worker_id or b"")
    repair = "`repair` does nothing: the engine's id is not for its builder alone."
    for id, count in sorted(unknown.items()):
        message = f"{count} results name this worker; the builder has the engine's id, {has}"
        yield Finding("C52", Severity.HARMLESS, file, subject(id), message, repair=repair)


def former_id(facts: Facts) -> bytes | None:
    """The id that the one worker of a root had before, by its results: all of them name that, and records
    that exist. None if it can't be told.
    """
    cache, stores = facts.solver, facts.stores
    if cache is None or len(facts.workers) != 1 or stores.root.path != stores.root.state:
        return None
    unknown, theirs = _unknown_workers(facts, cache)
    records, kind = facts.workers[0].records, facts.workers[0].stores.kind
    if theirs or len(unknown) != 1 or records is None or kind == DOCKER_BUILDER:
        return None
    (id,) = unknown
    named = records.index.rows(workers_and_records(cache.result_ids)[1])
    return id if _ID.fullmatch(id) and between(named, 0, len(records)) else None


def _unknown_workers(facts: Facts, cache: SolverCache) -> tuple[Counter[bytes], Mask]:
    """How many results name each worker that there is not, and the results of those that there are."""
    named = workers_and_records(cache.result_ids)[0]
    theirs = Mask(len(named))
    for id in worker_ids(facts.stores):
        theirs |= equal_to(named, id)
    others = present(named) - theirs - present(split_last(named, SEPARATOR)[0])
    return Counter(named[row] or b"" for row in others), theirs


@root_rule("C53", needs=(Part.CACHE, Part.RECORDS, Part.CONTAINERD))
def results_of_records(facts: Facts) -> Iterator[Finding]:
    """The record of a result exists and is retained, but for steps that nobody looks up."""
    cache, file = _cache(facts)
    ids = cache.result_ids
    workers, records = workers_and_records(ids)
    whole = present(workers) - present(split_last(workers, SEPARATOR)[0])
    for row in ~whole:
        message = "this is not the id of a worker and of a record"
        yield Finding("C53", Severity.HARMLESS, file, subject(ids[row]), message)
    cached = whole - _uncached(cache)
    for worker in facts.workers:
        if worker.stores.worker_id and worker.data is not None:
            of_worker = cached - equal_to(records, b"") & equal_to(workers, worker.stores.worker_id)
            for row, message in _records_missing(worker, records, of_worker):
                yield Finding("C53", Severity.HARMLESS, file, subject(ids[row]), message)
    results = cache.results
    for place in ~plain_results(results.values, results.keys):
        if not _is_result(results.values[place] or b"", results.keys[place] or b""):
            message = (
                f"its value below key {cut(cache.keys[results.rows[place]] or b'')} is not one of this result"
            )
            yield Finding("C53", Severity.HARMLESS, file, subject(results.keys[place]), message)


def _uncached(cache: SolverCache) -> Mask:
    """Results that only steps without the cache have."""
    keyed = cache.by_result
    cached = ~starting_with(keyed.keys, _UNCACHED)
    return ~Mask(len(cache.result_ids), chosen(keyed.rows, cached))


def _records_missing(worker: WorkerFacts, named: Texts, wanted: Mask) -> Iterator[tuple[int, str]]:
    """Of the results ``wanted``, with the records ``named``: those that are of no use, and why."""
    assert worker.data is not None and worker.namespace is not None
    loading, leases = worker.data.loading, worker.namespace.leases
    records = loading.records
    rows = records.index.rows(named)
    policy = records.integer(_POLICY)
    retained = between(policy.values, _RETAINED, _RETAINED) & policy.known
    retained |= retained.take(loading.pair)
    if len(records):  # With no record at all that is the fault (C39).
        for row in wanted & between(rows, NOT_FOUND, NOT_FOUND):
            record = named[row] or b""
            # Data that nothing else names is the fault (C32, C33).
            if max(leases.index.row(record), leases.index.row(record + b"-variants")) < 0:
                yield row, "its record does not exist"
    # A pair that nobody keeps (C59), or a policy that can't be read (C8, C9), is a fault of the record.
    loose = ~retained - between(loading.pair, 0, len(records)) - (records.has(_POLICY) - policy.known)
    for row in wanted & loose.take(rows):
        yield row, "its record is not retained, and goes with its last user"


def _is_result(stored: bytes, id: bytes) -> bool:
    """Whether this is the value of a result, with its id."""
    found = _document(stored)
    if found is None or not isinstance(found.get("ID"), str) or found["ID"].encode() != id:
        return False
    created = found.get("CreatedAt")
    return created is None or (isinstance(created, str) and _TIME.fullmatch(created) is not None)


def _document(text: bytes) -> dict[str, Any] | None:
    """A JSON object without nesting; None for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


@root_rule("C54", needs=(Part.CACHE,))
def links(facts: Facts) -> Iterator[Finding]:
    """Every link decodes, and leads back."""
    cache, file = _cache(facts)
    if cache.missing:
        return  # C51 says so
    links, targets = cache.links, cache.link_parts[1]
    broken, one_way = _faulty_links(cache)
    for place in broken:
        source = cache.linked[links.rows[place]]
        message = f"its link {cut(links.keys[place] or b'')} does not decode"
        yield Finding("C54", Severity.HARMLESS, file, subject(source), message)
    for place in one_way:
        source = cache.linked[links.rows[place]]
        message = f"its link to key {cut(targets[place] or b'')} has no way back"
        yield Finding("C54", Severity.HARMLESS, file, subject(source), message)


def _faulty_links(cache: SolverCache) -> tuple[Mask, Mask]:
    """Links that do not decode, and others that do not lead back."""
    backlinks = cache.backlinks
    texts, targets = cache.link_parts
    broken = Mask(len(texts), (at for at in ~plain_links(texts) if not _is_link(texts[at])))
    broken |= equal_to(targets, b"")
    sources = cache.linked_index.rows(backlinks.keys)
    back = paired(Index(cache.targets).rows(targets), cache.links.rows, backlinks.rows, sources)
    return broken, ~back - broken


def _is_link(text: bytes | None) -> bool:
    found = _document(text) if text is not None else None
    return found is not None and all(_is_of(kind, found.get(name)) for name, kind in _LINK.items())


def _is_of(kind: type, value: object) -> bool:
    """Whether Go decodes it into a field of this type."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return False
    return value is None or type(value) is kind


@root_rule("C55", needs=(Part.CACHE,))
def dead_ends(facts: Facts) -> Iterator[Finding]:
    """A link leads to a key with a result or with links of its own. Any other is a dead end for a search."""
    cache, file = _cache(facts)
    if cache.missing:
        return  # C51 says so
    targets = cache.link_parts[1]
    linked = Mask(len(cache.linked), cache.links.rows).take(cache.linked_index.rows(targets))
    with_results = Mask(len(cache.keys), cache.results.rows).take(cache.key_index.rows(targets))
    dead = present(targets) - linked - with_results
    if dead:
        dead -= between(Index(cache.by_result.keys).rows(targets), 0, len(cache.by_result.keys))
        broken, one_way = _faulty_links(cache)
        dead -= broken | one_way  # C54 says so
    for target, count in sorted(Counter(targets[place] or b"" for place in dead).items()):
        message = f"{count} links lead to this key, which has no result and no link"
        yield Finding("C55", Severity.LEAK, file, subject(target), message)


def _cache(facts: Facts) -> tuple[SolverCache, Path]:
    assert facts.solver is not None
    return facts.solver, path_of(facts.stores.cache)


RULES: Final[tuple[RootRule, ...]] = (mirrored, known_workers, results_of_records, links, dead_ends)
