"""Records shared with images of containerd. du marks them, and a prune without --all spares them."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from buildkit_migrate.errors import StorageError
from buildkit_migrate.files.errors import storage_errors
from buildkit_migrate.files.locks import readable
from buildkit_migrate.maintenance.loading import DIFF, MERGE, Loading
from buildkit_migrate.schema.columns import Mask
from buildkit_migrate.schema.containerd import Namespace
from buildkit_migrate.schema.graph import Graph

__all__ = ["shared_records"]

_MANIFESTS: Final = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
    }
)
_INDEXES: Final = frozenset(
    {
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.index.v1+json",
    }
)
_DIGEST: Final = re.compile(r"[a-z0-9]+:[0-9a-f]{32,}")
_LARGEST: Final = 32 << 20  # bytes of a manifest; real ones have some kilobytes


def shared_records(loading: Loading, shown: Mask, namespace: Namespace, content: Path) -> Mask:
    """Of the ``shown`` ones those whose layers are all layers of an image, and what they stand on.

    ``content``: directory of the content store. Images are looked at in order, as the daemon does: manifests
    that can't be read are passed over, other things than images end the search.
    """
    tops = _Tree()
    with contextlib.suppress(_OtherTypeError, UnicodeDecodeError):
        for layers in _images(namespace, content):
            tops.add(layers)
    size = len(loading.records)
    if not tops.ends:
        return Mask(size)
    places = _Places(loading, tops)
    graph = Graph(size)
    sources, targets = [], []
    for row in shown:
        for parent in loading.shown_parents_of(row):
            if parent in shown:
                sources.append(row)
                targets.append(parent)
    graph.add(sources, targets)
    return graph.reached(Mask(size, (row for row in shown if places.of(row) in tops.ends)))


# --- Images


class _OtherTypeError(Exception):
    """Ends the daemon's search."""


def _images(namespace: Namespace, content: Path) -> Iterator[list[str]]:
    """The layers of each manifest of each image."""
    images = namespace.images
    passed: set[tuple[str, str]] = set()
    for row in range(len(images)):
        waiting = [((images.digest[row] or b"").decode(), (images.media_type[row] or b"").decode())]
        while waiting:
            digest, media_type = one = waiting.pop()
            if one in passed:
                continue
            passed.add(one)
            if media_type not in _MANIFESTS | _INDEXES:
                raise _OtherTypeError
            document = _read(content, digest)
            if document is None:
                continue
            if media_type in _MANIFESTS:
                yield [str(layer.get("digest", "")) for layer in _objects(document, "layers")]
                continue
            waiting += (
                (str(entry.get("digest", "")), str(entry.get("mediaType", "")))
                for entry in _objects(document, "manifests")
            )


def _objects(document: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = document.get(name) or []
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise _OtherTypeError
    return found


def _read(content: Path, digest: str) -> dict[str, Any] | None:
    """A document; None if it can't be read or is too large. Raises _OtherTypeError if it is not JSON."""
    import orjson

    if not _DIGEST.fullmatch(digest):
        return None
    algorithm, _, name = digest.partition(":")
    path = content / "blobs" / algorithm / name
    try:
        with readable(path) as fd, storage_errors(path):
            if os.fstat(fd).st_size > _LARGEST:
                return None
            text = os.pread(fd, _LARGEST, 0)
    except StorageError:
        return None
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _OtherTypeError from error
    if not isinstance(document, dict):
        raise _OtherTypeError
    return document


# --- Layers


class _Tree:
    """Lists of layers as a tree: a node is what all lists that begin alike have in common. 0 is the root."""

    def __init__(self) -> None:
        self._next: dict[tuple[int, bytes], int] = {}
        self.ends: set[int] = set()
        """Nodes at which an image ends."""

    def add(self, layers: list[str]) -> None:
        node = 0
        for layer in filter(None, layers):
            node = self._next.setdefault((node, layer.encode(errors="surrogatepass")), len(self._next) + 1)
        if node:
            self.ends.add(node)

    def step(self, node: int, layer: bytes | None) -> int:
        """The node after this layer, -1 if no image has it. A record without a blob adds nothing."""
        return self._next.get((node, layer), -1) if layer else node


class _Places:
    """In the tree, of records: the node that their layers lead to, -1 if no image begins like them."""

    def __init__(self, loading: Loading, tree: _Tree) -> None:
        self._loading = loading
        self._tree = tree
        self._blobs = loading.records.text(b"cache.blob")
        self._found: dict[int, int] = {}

    def of(self, row: int) -> int:
        """From the root. Records that load have no cycles above them; others are on no image."""
        if row not in self._loading.alive:
            return -1
        waiting = [row]
        while waiting:
            row = waiting[-1]
            missing = [base for base in self._bases(row) if base not in self._found]
            if missing:
                waiting += missing
                continue
            waiting.pop()
            self._found[row] = self._place(row)
        return self._found[row]

    def _bases(self, row: int) -> list[int]:
        """Records whose nodes must be known first."""
        loading = self._loading
        if loading.kind[row] == MERGE:
            return []
        if loading.kind[row] == DIFF:
            return [] if self._blobs[row] or loading.upper[row] < 0 else [loading.upper[row]]
        return loading.parents_of(row)

    def _place(self, row: int) -> int:
        loading = self._loading
        if loading.kind[row] == MERGE:
            return self._follow(row, 0)
        bases = self._bases(row)
        node = self._found[bases[0]] if bases else 0
        if loading.kind[row] == DIFF and bases:
            return node
        return node if node < 0 else self._tree.step(node, self._blobs[row])

    def _follow(self, row: int, node: int) -> int:
        """From any node: only as far as an image goes, so that merges of merges end soon."""
        loading = self._loading
        waiting = [row]
        while waiting and node >= 0:
            row = waiting.pop()
            if row < 0:
                node = self._tree.step(node, self._blobs[~row])
            elif loading.kind[row] == MERGE:
                waiting += reversed(loading.parents_of(row))
            elif loading.kind[row] == DIFF and not self._blobs[row]:
                waiting += [loading.upper[row]] if loading.upper[row] >= 0 else []
            else:
                waiting.append(~row)
                waiting += [] if loading.kind[row] == DIFF else loading.parents_of(row)
        return node
