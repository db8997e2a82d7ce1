"""Faults in the records of a healthy root: what there is to choose from, and edits of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ondisk
from planting import edit
from v2_roots import V2Root, healed

__all__ = ["Planter", "value"]

Values = dict[bytes, bytes]


def value(decoded: object, index: str = "") -> bytes:
    """As BuildKit stores it."""
    document: dict[str, object] = {"value": decoded}
    if index:
        document["index"] = index
    return json.dumps(document, separators=(",", ":")).encode()


class Planter:
    """A healthy root, and the values of its records as they were at first."""

    def __init__(self, tmp_path: Path) -> None:
        self.root: V2Root = healed(tmp_path)
        tree: Any = ondisk.tree(self.root.records)
        self.records: dict[bytes, Values] = {id: dict(values) for id, values in tree[b"_main"].items()}
        self.index = list(tree[b"_index"])
        self.external = list(tree[b"_external"])

    def get(self, id: bytes, key: bytes) -> Any:
        """Decoded; None if it is absent or cleared."""
        stored = self.records[id].get(key)
        return json.loads(stored)["value"] if stored else None

    def with_key(self, key: bytes, *without: bytes) -> list[bytes]:
        """Ids of records that have a value of the key, and none of others."""
        return [
            id
            for id, values in self.records.items()
            if values.get(key) and not any(values.get(other) for other in without)
        ]

    def children(self, id: bytes) -> list[bytes]:
        return [child for child in self.records if self.get(child, b"cache.parent") == id.decode()]

    def referring(self, id: bytes) -> list[bytes]:
        """Records that name it in any way."""
        name = json.dumps(id.decode()).encode()
        return [other for other, values in self.records.items() if any(name in it for it in values.values())]

    @property
    def layers(self) -> list[bytes]:
        """Finalized layers with a blob and a parent layer with one."""
        return [
            id
            for id in self.with_key(b"cache.blob", b"cache.equalMutable")
            if (parent := self.parent(id)) is not None and self.get(parent, b"cache.blob")
        ]

    @property
    def tops(self) -> list[bytes]:
        """Layers that nothing names."""
        return [id for id in self.layers if self.referring(id) in ([], [id])]

    @property
    def pairs(self) -> Iterator[tuple[bytes, bytes]]:
        """Immutable and mutable halves."""
        for id in self.with_key(b"cache.equalMutable"):
            yield id, self.get(id, b"cache.equalMutable").encode()

    @property
    def mounts(self) -> list[bytes]:
        return self.with_key(b"cache-dir")

    def parent(self, id: bytes) -> bytes | None:
        parent = self.get(id, b"cache.parent")
        return parent.encode() if parent else None

    def put(self, id: bytes, key: bytes, stored: bytes | None) -> None:
        """None removes the key."""
        edit(self.root.records, {b"_main": {id: {key: stored}}})

    def put_index(self, key: bytes, *, there: bool = True) -> None:
        edit(self.root.records, {b"_index": {key: b"" if there else None}})

    def entries(self, id: bytes, prefix: bytes = b"") -> list[bytes]:
        return [key for key in self.index if key.startswith(prefix) and key.endswith(b"::" + id)]
