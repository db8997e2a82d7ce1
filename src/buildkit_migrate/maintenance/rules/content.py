"""Rules about the content store: files of blobs, and what is being written (C25, C46, C47)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from buildkit_migrate.maintenance.disk import Content, ingest_name, usage
from buildkit_migrate.maintenance.facts import WorkerFacts
from buildkit_migrate.maintenance.finding import Finding, Severity
from buildkit_migrate.maintenance.rule import Part, WorkerRule, worker_rule
from buildkit_migrate.maintenance.rules.wording import path_of, subject
from buildkit_migrate.schema.columns import Mask, equal_to
from buildkit_migrate.schema.containerd import Namespace, namespaces

__all__ = ["RULES"]

_NEEDS: Final = (Part.CONTAINERD, Part.CONTENT)


def _ours(facts: WorkerFacts) -> list[Namespace]:
    return [it for it in (facts.namespace, facts.history_namespace) if it is not None]


def _every(facts: WorkerFacts) -> list[Namespace]:
    """All namespaces, because they share the files."""
    root = facts.stores.containerd.root
    if root is None:
        return []
    return [Namespace(root, name) for name in namespaces(root)]


def _bad_file(facts: WorkerFacts, content: Content, digest: bytes, message: str) -> Finding:
    """A blob whose file is no good: what only the history lists hurts no build."""
    namespace, data = facts.namespace, facts.data
    is_listed = namespace is not None and namespace.blobs.index.row(digest) >= 0
    severity = Severity.BUILD if is_listed else Severity.HARMLESS
    is_used = data is None or bool(equal_to(data.digests, digest))
    repair = None if is_used else "`repair` does nothing, as no record uses the blob."
    return Finding("C25", severity, content.path, subject(digest), message, repair=repair)


@worker_rule("C25", needs=_NEEDS)
def blob_files(facts: WorkerFacts) -> Iterator[Finding]:
    """Each blob has its file, of the size that containerd noted."""
    content = facts.content
    if content is None:
        return
    told: set[bytes] = set()
    for namespace in _ours(facts):
        blobs = namespace.blobs
        if len(blobs) and not len(content.digests):
            message = f"none of the files of {len(blobs)} blobs is there"
            yield Finding("C25", Severity.BUILD, content.path, content.blobs.name, message)
            return
        for row in ~content.whole(blobs.keys, blobs.size):
            digest = blobs.keys[row] or b""
            if digest in told or _is_leaving(facts, digest):
                continue
            place = content.index.row(digest)
            if place < 0 or content.sizes[place] < 0:
                message = "its file is missing, or is not a file"
            elif row not in blobs.size.known:
                message = "containerd's size of it can't be read"
            else:
                message = (
                    f"its file has {content.sizes[place]} bytes, and should have {blobs.size.values[row]}"
                )
            told.add(digest)
            yield _bad_file(facts, content, digest, message)


@worker_rule("C25", needs=(*_NEEDS, Part.BLOBS))
def blob_digests(facts: WorkerFacts) -> Iterator[Finding]:
    """The file of each blob has the content that its name says."""
    content = facts.content
    if content is None:
        return
    for digest in sorted({key for it in _ours(facts) for key in it.blobs.keys if key is not None}):
        place = content.index.row(digest)
        if place < 0 or any(_other_size(it, digest, content.sizes[place]) for it in _ours(facts)):
            continue  # `blob_files` reports it
        is_there = content.digest_of(digest)
        if is_there is not None and is_there != digest and not _is_leaving(facts, digest):
            message = f"its file has other content, with digest {is_there.decode()}"
            yield _bad_file(facts, content, digest, message)


def _is_leaving(facts: WorkerFacts, digest: bytes) -> bool:
    return facts.leaving is not None and facts.leaving.has_blob(digest)


def _other_size(namespace: Namespace, digest: bytes, size: int) -> bool:
    row = namespace.blobs.index.row(digest)
    return row >= 0 and (row not in namespace.blobs.size.known or namespace.blobs.size.values[row] != size)


@worker_rule("C46", needs=_NEEDS)
def unlisted_files(facts: WorkerFacts) -> Iterator[Finding]:
    """Each file belongs to a blob that some namespace lists or expects."""
    content = facts.content
    if content is None:
        return
    known = Mask(len(content.digests))
    for namespace in _every(facts):
        for digests in (namespace.blobs.keys, namespace.ingests.expected):
            for place in content.index.rows(digests):
                if place >= 0:
                    known.add(place)
    for place in ~known:
        yield Finding(
            "C46",
            Severity.LEAK,
            content.path,
            subject(content.digests[place]),
            "no namespace lists this file",
            bytes=content.taken(place),
        )


@worker_rule("C47", needs=_NEEDS)
def ingests(facts: WorkerFacts) -> Iterator[Finding]:
    """What is being written is in both places, and will not be collected."""
    content = facts.content
    if content is None:
        return
    names = set(content.ingest_names)
    ours = {namespace.name for namespace in _ours(facts)}
    known: set[str] = set()
    for namespace in _every(facts):
        table = namespace.ingests
        ends = table.expires
        for row, ref in enumerate(table.ref):
            name = ingest_name(ref or b"")
            known.add(name)
            if name not in names:
                state = "its directory is missing"
            elif row in ends.known and ends.values[row] <= facts.now:
                state = "it is expired"
            else:
                continue
            if namespace.name in ours:
                file = path_of(facts.stores.containerd)
                message = f"{state}, and the next collection removes the entry"
                yield Finding("C47", Severity.HARMLESS, file, subject(table.keys[row]), message)
    for name in content.ingest_names:
        if name not in known:
            measured = usage(content.ingests / name)
            size = measured.bytes if measured is not None else None
            message = "this directory of an unfinished blob has no entry, and no collection removes it"
            yield Finding("C47", Severity.LEAK, content.path, f"ingest/{name}", message, size)


RULES: Final[tuple[WorkerRule, ...]] = (blob_files, blob_digests, unlisted_files, ingests)
