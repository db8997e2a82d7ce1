"""The rule about what BuildKit does not know: buckets and keys of others (C62)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from buildkit_migrate._native.bolt import items
from buildkit_migrate.bolt import Bucket
from buildkit_migrate.maintenance.facts import Facts, WorkerFacts
from buildkit_migrate.maintenance.finding import Finding, Severity
from buildkit_migrate.maintenance.rule import Part, root_rule, worker_rule
from buildkit_migrate.maintenance.rules.wording import path_of, quoted, subject
from buildkit_migrate.schema.columns import Texts, column, present
from buildkit_migrate.schema.solver import BUCKETS
from buildkit_migrate.values.keys import EXTERNAL_BUCKET, INDEX_BUCKET, MAIN_BUCKET
from buildkit_migrate.workspace.stores import DOCKER_BUILDER, Store

__all__ = ["ROOT_RULES", "WORKER_RULES"]

_IN_NAMESPACE: Final = frozenset(
    {b"labels", b"images", b"containers", b"snapshots", b"content", b"leases", b"sandboxes", b"ingests"}
)


def _unknown(store: Store, about: bytes, message: str) -> Finding:
    return Finding("C62", Severity.HARMLESS, path_of(store), subject(about), message)


def _others(store: Store, bucket: Bucket | None, known: frozenset[bytes], where: str) -> Iterator[Finding]:
    """Keys and buckets in a bucket that are not known."""
    for name, _ in bucket.items() if bucket is not None else ():
        if name not in known:
            yield _unknown(store, name, f"{where} has {quoted(name)}, which nobody knows")


@worker_rule("C62", needs=(Part.RECORDS,))
def known_in_records(facts: WorkerFacts) -> Iterator[Finding]:
    store, records = facts.stores.records, facts.records
    root = store.root
    if records is None or root is None:
        return
    yield from _others(store, root, frozenset({MAIN_BUCKET, INDEX_BUCKET, EXTERNAL_BUCKET}), "the store")
    for key in records.plain_keys:
        yield _unknown(store, key, f"{quoted(key)} in _main is a value among buckets")
    yield from _values_in(store, root, EXTERNAL_BUCKET)
    yield from _buckets_in(store, root, INDEX_BUCKET)
    for row, key, _ in records.unknown:
        yield _unknown(store, records.ids[row] or b"", f"the record has {quoted(key)}, which nobody knows")
    for row, key, _ in records.nested:
        yield _unknown(store, records.ids[row] or b"", f"the record has a bucket {quoted(key)}")


@worker_rule("C62", needs=(Part.CONTAINERD,))
def known_in_containerd(facts: WorkerFacts) -> Iterator[Finding]:
    store = facts.stores.containerd
    root = store.root
    if root is None:
        return
    yield from _others(store, root, frozenset({b"v1"}), "the store")
    yield from _values_in(store, root, b"v1", frozenset({b"version"}))
    for namespace in (facts.stores.namespace, facts.stores.namespace + b"_history"):
        yield from _others(
            store, root.bucket(b"v1", namespace), _IN_NAMESPACE, f"namespace {quoted(namespace)}"
        )


@worker_rule("C62", needs=(Part.SNAPSHOTS,))
def known_in_snapshots(facts: WorkerFacts) -> Iterator[Finding]:
    store = facts.stores.snapshots
    root = store.root
    if root is None or facts.stores.kind == DOCKER_BUILDER:
        return
    yield from _others(store, root, frozenset({b"v1"}), "the store")
    yield from _others(store, root.bucket(b"v1"), frozenset({b"snapshots", b"parents"}), "v1")


@root_rule("C62", needs=(Part.CACHE,))
def known_in_cache(facts: Facts) -> Iterator[Finding]:
    store = facts.stores.cache
    yield from _others(store, store.root, frozenset(BUCKETS), "the store")
    for name in BUCKETS:
        yield from _values_in(store, store.root, name)


@root_rule("C62", needs=(Part.HISTORY,))
def known_in_history(facts: Facts) -> Iterator[Finding]:
    for store in facts.stores.histories:
        if store.root is not None:
            yield from _others(store, store.root, frozenset({b"_records", b"_version"}), "the store")
            yield from _buckets_in(store, store.root, b"_records")
            yield from _others(store, store.root.bucket(b"_version"), frozenset({b"version"}), "_version")


def _values_in(
    store: Store, root: Bucket | None, name: bytes, known: frozenset[bytes] = frozenset()
) -> Iterator[Finding]:
    """Values in a bucket where all others are buckets."""
    names, values = _columns(root, name)
    for place in present(values):
        if names[place] not in known:
            message = f"{quoted(names[place])} in {name.decode()} is a value among buckets"
            yield _unknown(store, names[place] or b"", message)


def _buckets_in(store: Store, root: Bucket | None, name: bytes) -> Iterator[Finding]:
    """Buckets in a bucket where all others are values."""
    names, values = _columns(root, name)
    for place in ~present(values):
        message = f"{quoted(names[place])} in {name.decode()} is a bucket among values"
        yield _unknown(store, names[place] or b"", message)


def _columns(root: Bucket | None, name: bytes) -> tuple[Texts, Texts]:
    """Keys and values in a bucket; the value of a bucket is None."""
    bucket = root.bucket(name) if root is not None else None
    return items(bucket) if bucket is not None else (column(()), column(()))


WORKER_RULES = (known_in_records, known_in_containerd, known_in_snapshots)
ROOT_RULES = (known_in_cache, known_in_history)
