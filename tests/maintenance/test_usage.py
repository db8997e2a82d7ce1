"""Sizes and shared records of small roots that are made up, against a plain statement of both."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buildkit_migrate import du_root
from buildkit_migrate.bolt import Reader
from buildkit_migrate.maintenance.loading import Loading
from buildkit_migrate.maintenance.shared import shared_records
from buildkit_migrate.schema.columns import Mask
from buildkit_migrate.schema.containerd import Namespace
from buildkit_migrate.schema.records import Records
from dicts import BucketDict, file_of

MEDIA_TYPE = b"buildkit.io/blob/mediatype"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"


def varint(number: int, *, signed: bool = True) -> bytes:
    rest = number * 2 if signed else number
    encoded = bytearray()
    while rest >= 0x80:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*encoded, rest])


def value(content: object) -> bytes:
    return json.dumps({"value": content}).encode()


@dataclass
class Snapshot:
    active: bool
    size: int = 0
    label: int | None = None
    files: int = 0


@dataclass
class Blob:
    size: int
    described: bool = True
    variants: list[str] = field(default_factory=list)


@dataclass
class Record:
    stored: int | None
    snapshot: Snapshot | None
    blob: str | None
    blob_only: bool = False
    mutable: bool = False
    partner: Record | None = None
    """The immutable record that shares its data."""


@dataclass
class State:
    records: list[Record]
    blobs: dict[str, Blob]


DIGESTS = st.sampled_from(["d0", "d1", "d2", "d3"])
SIZES = st.none() | st.just(-1) | st.integers(0, 10**12)


@st.composite
def snapshots(draw: st.DrawFn, *, active: bool) -> Snapshot:
    label = draw(st.none() | st.integers(0, 10**6))
    return Snapshot(active, draw(st.integers(0, 10**6)), label, draw(st.integers(0, 3)))


@st.composite
def records(draw: st.DrawFn, blobs: list[str]) -> Record:
    blob = draw(st.none() | st.sampled_from(blobs)) if blobs else None
    if draw(st.booleans()):
        snapshot = draw(snapshots(active=draw(st.booleans())) | st.none())
        return Record(draw(SIZES), snapshot, blob, blob is not None and draw(st.booleans()))
    record = Record(draw(SIZES), draw(snapshots(active=True)), None, mutable=True)
    if draw(st.booleans()):
        record.partner = Record(draw(SIZES), None, blob)
    return record


@st.composite
def states(draw: st.DrawFn) -> State:
    blobs = draw(
        st.dictionaries(
            DIGESTS, st.builds(Blob, st.integers(0, 10**6), st.booleans(), st.lists(DIGESTS, max_size=3))
        )
    )
    return State(draw(st.lists(records(sorted(blobs)), min_size=1, max_size=6)), blobs)


# --- The plain statement


def expected(state: State, record: Record, block: int) -> int:
    if record.stored not in (None, -1):
        return record.stored or 0
    immutable = record.partner or record
    if immutable.stored not in (None, -1):
        return immutable.stored or 0
    size = 0
    if record.snapshot is not None and not immutable.blob_only:
        size = usage(record.snapshot, block)
    if immutable.blob is not None:
        size += sum(state.blobs[digest].size for digest in with_variants(state, immutable.blob))
    return size


def usage(snapshot: Snapshot, block: int) -> int:
    if snapshot.label is not None:
        return snapshot.label
    return block * (1 + snapshot.files) if snapshot.active else snapshot.size


def with_variants(state: State, digest: str) -> set[str]:
    found = {digest}
    for variant in state.blobs[digest].variants:
        if variant in state.blobs and state.blobs[variant].described:
            found |= reachable(state, variant, found)
    return found


def reachable(state: State, digest: str, found: set[str]) -> set[str]:
    if digest in found:
        return found
    found = found | {digest}
    for variant in state.blobs[digest].variants:
        if variant in state.blobs and state.blobs[variant].described:
            found = reachable(state, variant, found)
    return found


# --- The same on disk


def made(state: State, root: Path) -> None:
    worker = root / "runc-overlayfs"
    directories = worker / "snapshots" / "snapshots"
    directories.mkdir(parents=True)
    main: BucketDict = {}
    known: BucketDict = {}
    backend: BucketDict = {}
    for number, record in enumerate(state.records):
        id = f"r{number}".encode()
        main[id] = row(record)
        if record.partner is not None:
            main[b"i" + id] = {**row(record.partner), b"cache.equalMutable": value(id.decode())}
        if record.snapshot is not None:
            name = b"buildkit/%d/%s" % (number + 1, id)
            known[id] = {b"name": name, b"labels": labels(record.snapshot)}
            backend[name] = {
                b"id": varint(number + 1, signed=False),
                b"kind": b"\2" if record.snapshot.active else b"\3",
                b"size": varint(record.snapshot.size),
            }
            data = directories / str(number + 1) / "fs"
            data.mkdir(parents=True)
            for file in range(record.snapshot.files):
                (data / str(file)).mkdir()
    blobs: BucketDict = {
        digest.encode(): {b"size": varint(blob.size), b"labels": blob_labels(blob)}
        for digest, blob in state.blobs.items()
    }
    namespace: BucketDict = {b"snapshots": {b"overlayfs": known}, b"content": {b"blob": blobs}}
    (worker / "metadata_v2.db").write_bytes(file_of({b"_main": main}))
    (worker / "containerdmeta.db").write_bytes(file_of({b"v1": {b"buildkit": namespace}}))
    (worker / "snapshots" / "metadata.db").write_bytes(file_of({b"v1": {b"snapshots": backend}}))


def row(record: Record) -> BucketDict:
    found: dict[bytes, object] = {}
    if record.stored is not None:
        found[b"snapshot.size"] = record.stored
    if record.blob is not None:
        found[b"cache.blob"] = record.blob
    if record.blob_only:
        found[b"cache.blobonly"] = True
    if not record.mutable:
        found[b"snapshot.committed"] = True
    return {key: value(content) for key, content in found.items()} | {b"k": value(1)}


def labels(snapshot: Snapshot) -> BucketDict:
    return {} if snapshot.label is None else {b"buildkit.mergeUsageSize": str(snapshot.label).encode()}


def blob_labels(blob: Blob) -> BucketDict:
    found: BucketDict = {
        b"containerd.io/gc.ref.content.blob-%d" % number: variant.encode()
        for number, variant in enumerate(blob.variants)
    }
    return found | ({MEDIA_TYPE: b"application/x"} if blob.described else {})


@settings(max_examples=60)
@given(states())
def test_sizes_are_those_of_the_plain_statement(state: State) -> None:
    with tempfile.TemporaryDirectory() as top:
        root = Path(top)
        made(state, root)
        block = (root / "runc-overlayfs").lstat().st_blocks * 512
        usage = du_root(root)
        assert usage.incomplete == ()
        found = {record.id.decode(): (record.size, record.mutable) for _, record in usage}
    assert found == {
        f"r{number}": (expected(state, record, block), record.mutable)
        for number, record in enumerate(state.records)
    }


# --- Shared ones


@dataclass
class Layer:
    kind: str
    parents: list[int]
    blob: str


@st.composite
def layers(draw: st.DrawFn) -> list[Layer]:
    found: list[Layer] = []
    for number in range(draw(st.integers(1, 8))):
        below = st.integers(0, number - 1) if number else st.nothing()
        kind = draw(st.sampled_from(["base", "layer", "layer", "merge", "diff"])) if number else "base"
        count = {"base": 0, "layer": 1, "merge": 2, "diff": 2}[kind]
        parents = [draw(below) for _ in range(count)]
        found.append(Layer(kind, parents, draw(st.sampled_from(["", "l1", "l2"]))))
    return found


def chain(all_layers: list[Layer], number: int) -> list[str]:
    layer = all_layers[number]
    own = [layer.blob] if layer.blob else []
    if layer.kind == "merge":
        return [digest for parent in layer.parents for digest in chain(all_layers, parent)]
    if layer.kind == "diff":
        return own or chain(all_layers, layer.parents[1])
    return [digest for parent in layer.parents for digest in chain(all_layers, parent)] + own


def shared(all_layers: list[Layer], images: list[list[str]]) -> set[int]:
    ends = {tuple(image) for image in images if image}
    found: set[int] = set()

    def mark(number: int) -> None:
        found.add(number)
        for parent in all_layers[number].parents:
            mark(parent)

    for number in range(len(all_layers)):
        if tuple(chain(all_layers, number)) in ends:
            mark(number)
    return found


def loading_of(all_layers: list[Layer]) -> Loading:
    main: BucketDict = {}
    for number, layer in enumerate(all_layers):
        named = [f"r{parent}" for parent in layer.parents]
        values: dict[bytes, object] = {b"snapshot.committed": True, b"cache.blob": layer.blob}
        if layer.kind == "layer":
            values[b"cache.parent"] = named[0]
        if layer.kind == "merge":
            values[b"cache.mergeParents"] = named
        if layer.kind == "diff":
            values[b"cache.lowerDiffParent"], values[b"cache.upperDiffParent"] = named
        main[f"r{number}".encode()] = {key: value(content) for key, content in values.items()}
    return Loading(Records(Reader(file_of({b"_main": main})).root), None, None)


class Store:
    """A content store with manifests, and the images that name them."""

    def __init__(self, directory: Path) -> None:
        self.path = directory
        (directory / "blobs" / "sha256").mkdir(parents=True)
        self._images: BucketDict = {}

    def blob(self, content: bytes) -> str:
        name = hashlib.sha256(content).hexdigest()
        (self.path / "blobs" / "sha256" / name).write_bytes(content)
        return f"sha256:{name}"

    def manifest(self, digests: list[str]) -> str:
        return self.blob(json.dumps({"layers": [{"digest": digest} for digest in digests]}).encode())

    def index(self, *entries: tuple[str, str]) -> str:
        manifests = [{"digest": digest, "mediaType": media_type} for digest, media_type in entries]
        return self.blob(json.dumps({"manifests": manifests}).encode())

    def image(self, digest: str, media_type: str = MANIFEST) -> None:
        name = f"image{len(self._images)}".encode()
        target: BucketDict = {b"digest": digest.encode(), b"mediatype": media_type.encode()}
        self._images[name] = {b"target": target}

    def shared_of(self, all_layers: list[Layer]) -> set[int]:
        tree: BucketDict = {b"v1": {b"buildkit": {b"images": self._images}}}
        namespace = Namespace(Reader(file_of(tree)).root, b"buildkit")
        loading = loading_of(all_layers)
        return set(shared_records(loading, ~Mask(len(all_layers)), namespace, self.path))


@settings(max_examples=150)
@given(layers(), st.lists(st.lists(st.sampled_from(["l1", "l2"]), max_size=4), max_size=3))
def test_shared_are_those_of_the_plain_statement(all_layers: list[Layer], images: list[list[str]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        store = Store(Path(directory))
        for image in images:
            store.image(store.manifest(image))
        assert store.shared_of(all_layers) == shared(all_layers, images)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    yield Store(tmp_path)


CHAIN = [Layer("base", [], "l1"), Layer("layer", [0], "l2")]


def test_manifests_are_found_through_indexes(store: Store) -> None:
    inner = store.index((store.manifest(["l1", "l2"]), MANIFEST))
    store.image(store.index((inner, DOCKER_INDEX)), INDEX)
    assert store.shared_of(CHAIN) == {0, 1}


@pytest.mark.parametrize(
    ("content", "media_type", "goes_on"),
    [
        (None, MANIFEST, True),  # not there
        (None, INDEX, True),
        (b"{}", "application/x-other", False),
        (b"no JSON", MANIFEST, False),
        (b"[]", MANIFEST, False),
        (b'{"layers": 5}', MANIFEST, False),
        (b'{"layers": [5]}', MANIFEST, False),
        (b'{"layers": null}', MANIFEST, True),
        (b'{"manifests": [{}]}', INDEX, False),
    ],
)
def test_what_else_an_image_may_be(
    store: Store, content: bytes | None, media_type: str, goes_on: bool
) -> None:
    """Manifests that can't be read are passed over; another type of content ends the daemon's search."""
    store.image("sha256:" + "0" * 64 if content is None else store.blob(content), media_type)
    store.image(store.manifest(["l1"]))
    assert store.shared_of(CHAIN) == ({0} if goes_on else set())


def test_names_that_lead_out_of_the_store_are_not_read(store: Store, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text('{"layers": [{"digest": "l1"}]}')
    for digest in ("../../outside", "..:outside", "sha256:../../outside", ":", "", "a:..", "sha256:"):
        store.image(digest)
    assert store.shared_of(CHAIN) == set()


def test_indexes_in_a_circle_and_many_names_of_one_end_soon(store: Store) -> None:
    inner = store.manifest(["l1"])
    for _ in range(40):
        inner = store.index(*[(inner, INDEX if _ else MANIFEST)] * 10)
    store.image(inner, INDEX)
    assert store.shared_of(CHAIN) == {0}
