"""The rules of records in plain Python over dicts, one record after the other: what `check` must find.

Written from the spec (buildkit-v2-stores, sections 3 and 8; v2-faults), not from the rules of the package.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from buildkit_migrate.maintenance.odd import STRUCTURAL
from buildkit_migrate.schema.records import KEYS, Kind, kind_of
from buildkit_migrate.schema.snapshots import ACTIVE, UNKNOWN
from buildkit_migrate.values import gojson
from buildkit_migrate.values.gojson import UndecodableValueError

__all__ = ["NUMBERS", "Plain"]

NUMBERS = {f"C{number}" for number in (*range(8, 23), 59, 63)}
"""The rules that are stated here."""

SEARCHED = (
    b"cache-dir",
    b"cache.chainID",
    b"cache.blobChainID",
    b"git-",
    b"http.checksum",
    b"local.sharedKey",
)
Finding = tuple[str, str, str]
INTO: dict[Kind | None, Any] = {
    Kind.TEXT: gojson.as_string,
    Kind.INTEGER: gojson.as_integer,
    Kind.FLAG: gojson.as_flag,
    Kind.TEXTS: gojson.as_strings,
}


class _CycleError(Exception):
    pass


@dataclass
class Plain:
    """``records``: values by id and key; ``index``: keys; ``external``: ids; ``snapshots``: kinds by key, of
    those that both databases have; ``in_containerd``: keys; ``blobs``, ``leases``: digests and ids.
    """

    records: dict[bytes, dict[bytes, bytes]]
    index: set[bytes]
    external: set[bytes]
    snapshots: dict[bytes, int]
    in_containerd: set[bytes]
    blobs: set[bytes]
    leases: set[bytes]
    _ids_anew: dict[bytes, list[tuple[bytes, bytes]]] = field(default_factory=dict)

    # --- Values

    def get(self, id: bytes, key: bytes) -> Any:
        """None where it is absent, cleared or does not decode."""
        stored = self.records[id].get(key)
        if not stored:
            return None
        try:
            return INTO[KEYS[key]](gojson.decode(stored).raw)
        except UndecodableValueError:
            return None

    def text(self, id: bytes, key: bytes) -> bytes:
        return self.get(id, key) or b""

    def fault(self, key: bytes, stored: bytes) -> str:
        """C8 or C9, "" if it is neither."""
        try:
            value = gojson.decode(stored)
        except UndecodableValueError:
            return "C8"
        into = INTO.get(kind_of(key))
        if into is None:
            return ""
        try:
            into(value.raw)
        except UndecodableValueError:
            return "C9"
        return ""

    def is_odd(self, id: bytes) -> bool:
        values = self.records[id].items()
        return b"::" in id or any(key in STRUCTURAL and it and self.fault(key, it) for key, it in values)

    def parents(self, id: bytes) -> list[bytes]:
        if parent := self.text(id, b"cache.parent"):
            return [parent]
        merged = [it for it in self.get(id, b"cache.mergeParents") or [] if it]
        both = (self.text(id, b"cache.lowerDiffParent"), self.text(id, b"cache.upperDiffParent"))
        return [*merged, *filter(None, both)]

    def kind(self, id: bytes) -> str:
        if self.text(id, b"cache.parent"):
            return "layer"
        if any(self.get(id, b"cache.mergeParents") or []):
            return "merge"
        is_diff = self.text(id, b"cache.lowerDiffParent") or self.text(id, b"cache.upperDiffParent")
        return "diff" if is_diff else "base"

    def is_mutable(self, id: bytes) -> bool:
        return not self.get(id, b"snapshot.committed") and self.kind(id) in ("layer", "base")

    def target(self, id: bytes) -> bytes:
        return self.text(id, b"cache.equalMutable")

    def key_of_snapshot(self, id: bytes) -> bytes:
        return self.text(id, b"cache.snapshot") or id

    def is_waiting(self, id: bytes) -> bool:
        digest = self.text(id, b"cache.blob")
        return bool(self.get(id, b"cache.blobonly") and digest and digest not in self.blobs)

    # --- The loader

    def loads(self, id: bytes, path: tuple[bytes, ...] = ()) -> bool:
        if id in path:
            raise _CycleError(path[path.index(id) :])
        path = (*path, id)
        for parent in self.parents(id):
            if parent not in self.records or not self.loads(parent, path):
                return False
        target = self.target(id)
        if target and target in self.records and self.loads(target, path):
            return True
        if target and (target in self.records or self.key_of_snapshot(id) not in self.snapshots):
            return False
        if self.get(id, b"cache.deleted") or (self.is_mutable(id) and id not in self.snapshots):
            return False
        return not self.is_waiting(id)

    @cached_property
    def cyclic(self) -> set[bytes]:
        found: set[bytes] = set()
        for id in self.records:
            try:
                self.loads(id)
            except _CycleError as error:
                found |= set(error.args[0])
        return found

    def alive(self, id: bytes) -> bool:
        try:
            return self.loads(id)
        except _CycleError:
            return False

    # --- The rules

    def findings(self) -> set[Finding]:
        found = set(self.of_values())
        odd = {id for id in self.records if self.is_odd(id)}
        cyclic = self.cyclic
        for id in self.records:
            about = id.decode()
            if id in odd:
                continue
            found |= {(rule, severity, about) for rule, severity in self.of_record(id, odd, cyclic)}
        return found | set(self.of_pairs(odd)) | set(self.of_index(odd)) | set(self.of_chains(odd, cyclic))

    def of_values(self) -> Iterator[Finding]:
        for id, values in self.records.items():
            for key, stored in values.items():
                match self.fault(key, stored) if stored else "":
                    case "C8":
                        yield "C8", "S", id.decode()
                    case "C9":
                        matters = key in STRUCTURAL or key == b"cache.blobsize"
                        yield "C9", "B" if matters else "H", id.decode()

    def of_record(self, id: bytes, odd: set[bytes], cyclic: set[bytes]) -> Iterator[tuple[str, str]]:
        if any(parent not in self.records for parent in self.parents(id)):
            yield "C10", "H"
        if id in cyclic:
            yield "C11", "S"
        target = self.target(id)
        finished = target in self.records and target not in odd and not self.is_mutable(target)
        if target and (target not in self.records or finished) and id not in cyclic:
            yield "C12", "H"
        if self.is_mutable(id) and target not in self.records:
            kind = self.snapshots.get(id)
            if id not in self.in_containerd:
                yield "C14", "H"
            elif kind not in (ACTIVE, UNKNOWN, None):
                yield "C14", "B"
        if self.get(id, b"cache.deleted"):
            yield "C15", "H"
        if self.is_waiting(id) and self.had_its_blob(id):
            yield "C16", "H"
        stored = self.records[id].get(b"cache.blobsize")
        readable = not (stored and self.fault(b"cache.blobsize", stored))
        if self.text(id, b"cache.blob") and readable and (self.get(id, b"cache.blobsize") or 0) <= 0:
            yield "C63", "B"

    def had_its_blob(self, id: bytes) -> bool:
        built = any(
            self.kind(it) == "layer"
            and self.text(it, b"cache.parent") == id
            and not self.get(it, b"cache.blobonly")
            for it in self.records
        )
        size = self.get(id, b"snapshot.size") or 0
        return (
            built or size > 0 or id + b"-variants" in self.leases or bool(self.text(id, b"cache.description"))
        )

    def of_pairs(self, odd: set[bytes]) -> Iterator[Finding]:
        sharing: dict[bytes, list[bytes]] = {}
        for id in self.records:
            if self.target(id) in self.records:
                sharing.setdefault(self.target(id), []).append(id)
        parents = {parent for id in self.records if self.alive(id) for parent in self.parents(id)}
        for mutable, ids in sharing.items():
            told = sum(id not in odd and id not in self.cyclic for id in ids)
            if len(ids) > 1:
                # Which of them is surplus is told by a guess; how many are is not.
                yield "C13", "P", f"{max(told - 1, 0)} of {mutable.decode()}"
                continue
            (id,) = ids
            if id in odd or not self.is_mutable(mutable) or self.is_mutable(id) or not self.alive(id):
                continue
            kept = any(self.is_kept(half) for half in (id, mutable))
            if not kept and not parents & {id, mutable}:
                yield "C59", "H", id.decode()

    def is_kept(self, id: bytes) -> bool:
        stored = self.records[id].get(b"cache.cachePolicy")
        return self.get(id, b"cache.cachePolicy") == 1 or bool(
            stored and self.fault(b"cache.cachePolicy", stored)
        )

    def of_index(self, odd: set[bytes]) -> Iterator[Finding]:
        wanted = {}
        unknown = set()
        for id, values in self.records.items():
            for key, stored in values.items():
                fault = self.fault(key, stored) if stored else None
                if fault == "C8" or (fault == "C9" and key.startswith(SEARCHED)):
                    unknown.add(id)
                if stored and fault != "C8" and (index := gojson.decode(stored).index):
                    wanted[index + b"::" + id] = id
        for entry, id in wanted.items():
            if entry not in self.index and id not in odd:
                yield "C17", "H", id.decode()
        for entry in self.index:
            index, separator, id = entry.rpartition(b"::")
            if not separator:
                yield "C20", "P", entry.decode()
            elif entry not in wanted and id not in self.records:
                yield "C18", "H", entry.decode()
            elif entry not in wanted and id not in unknown:
                yield "C19", "H" if index.startswith(b"blobmap::") else "W", entry.decode()
        for id in self.records:
            if b"::" in id:
                yield "C20", "H", id.decode()
        for id in self.external - set(self.records):
            yield "C21", "L", id.decode()

    # --- Chain ids

    def of_chains(self, odd: set[bytes], cyclic: set[bytes]) -> Iterator[Finding]:
        wrong = set()
        unsure = odd | cyclic
        order = sorted(self.records, key=lambda id: self.kind(id) in ("merge", "diff"))
        for id in order:
            stored = self.stored_ids(id)
            parents = self.parents(id)
            if not any(stored) or id in unsure or any(it not in self.records or it in odd for it in parents):
                continue
            composed = self.kind(id) in ("merge", "diff")
            if composed and not all(self.is_whole(it, unsure | wrong) for it in parents):
                continue
            right = [*self.ids_over(id, self.stored_ways), *self.ids_anew(id, cyclic)]
            if not any(all(a in (b"", b) for a, b in zip(stored, ids, strict=True)) for ids in right):
                wrong.add(id)
                yield "C22", "W", id.decode()

    def stored_ids(self, id: bytes) -> tuple[bytes, bytes]:
        return self.text(id, b"cache.chainID"), self.text(id, b"cache.blobChainID")

    def stored_ways(self, id: bytes) -> list[tuple[bytes, bytes]]:
        return [self.stored_ids(id)]

    def ids_anew(self, id: bytes, cyclic: set[bytes]) -> list[tuple[bytes, bytes]]:
        if id in cyclic:
            return [self.stored_ids(id)]
        if id not in self._ids_anew:
            self._ids_anew[id] = self.ids_over(id, lambda it: self.ids_anew(it, cyclic))
        return self._ids_anew[id]

    def ids_over(self, id: bytes, ways_of: Any) -> list[tuple[bytes, bytes]]:
        kind, parents = self.kind(id), self.parents(id)
        own = [(self.text(id, b"cache.diffID"), self.text(id, b"cache.blob"))]
        below: list[bytes] = parents[:1] if kind in ("layer", "merge") else []
        if kind == "diff" and not own[0][1]:
            below = [it for it in (self.text(id, b"cache.upperDiffParent"),) if it]
            own = []
        if kind == "merge":
            own = [self.content(layer) for parent in parents[1:] for layer in self.layers(parent)]
        below = [it for it in below if it in self.records]
        ways: list[tuple[bytes, bytes] | None] = list(ways_of(below[0])) if below else [None]
        if kind == "layer" and below and self.kind(below[0]) in ("merge", "diff"):
            ways.append((b"", b""))
        for content in own:
            ways = [self.on_top(ids, content) for ids in ways]
        return [ids or (b"", b"") for ids in ways]

    def content(self, id: bytes) -> tuple[bytes, bytes]:
        return self.text(id, b"cache.diffID"), self.text(id, b"cache.blob")

    def on_top(self, ids: tuple[bytes, bytes] | None, content: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        diff_id, blob = content
        if not diff_id or not blob:
            return b"", b""
        own = hashed(blob, diff_id)
        return (diff_id, own) if ids is None else (hashed(ids[0], diff_id), hashed(ids[1], own))

    def layers(self, id: bytes) -> list[bytes]:
        """The records whose blobs make up a record."""
        if id not in self.records or id in self.cyclic:
            return []
        match self.kind(id):
            case "base":
                return [id]
            case "layer":
                return [*self.layers(self.parents(id)[0]), id]
            case "merge":
                return [layer for parent in self.parents(id) for layer in self.layers(parent)]
        lower, upper = self.text(id, b"cache.lowerDiffParent"), self.text(id, b"cache.upperDiffParent")
        if upper in self.records:
            base = not lower and self.kind(upper) == "base"
            on_lower = (
                lower in self.records and self.kind(upper) == "layer" and self.parents(upper) == [lower]
            )
            if base or on_lower:
                return [upper]
        return [id]

    def is_whole(self, id: bytes, unsure: set[bytes]) -> bool:
        """Whether all layers are there and are what they were."""
        if id in unsure:
            return False
        return all(
            layer not in unsure
            and all(self.content(layer))
            and all(
                it in self.records and it not in unsure
                for it in self.parents(layer)
                if self.kind(layer) == "layer"
            )
            for layer in self.layers(id)
        )


def hashed(left: bytes, right: bytes) -> bytes:
    return b"sha256:" + hashlib.sha256(left + b" " + right).hexdigest().encode()
