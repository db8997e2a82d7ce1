"""Makes the first inputs of the fuzzers, from a real root and from small files of every form.

    python fuzz/seed.py [DIR]     writes DIR/bolt, DIR/json, DIR/plan and DIR/columns; fuzz/corpus by default

The output is always the same. Needs the package to be installed.
"""

from __future__ import annotations

import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from buildkit_migrate.bolt import Bucket, Builder, Reader, encode

SAMPLE = Path(__file__).parents[1] / "tests" / "data" / "sample-root.tar.gz"
WORKER = "root/runc-overlayfs/"


def file_of(tree: Mapping[bytes, Any], page_size: int = 1024) -> bytes:
    image = bytearray()
    builder = Builder(image.extend, page_size)
    _fill(builder, tree)
    metas = builder.finish()
    image[: len(metas)] = metas
    return bytes(image)


def _fill(builder: Builder, tree: Mapping[bytes, Any]) -> None:
    for key in sorted(tree):
        value = tree[key]
        if isinstance(value, bytes):
            builder.put(key, value)
        else:
            builder.open_bucket(key)
            _fill(builder, value)
            builder.close_bucket()


def tree_of(bucket: Bucket) -> dict[bytes, Any]:
    return {key: value if isinstance(value, bytes) else tree_of(value) for key, value in bucket.items()}


def bolt_seeds() -> Iterator[tuple[str, bytes]]:
    """Files, with edits behind them."""
    nested: dict[bytes, Any] = {b"x": b"y"}
    for _ in range(20):
        nested = {b"n": nested, b"m": b""}
    rows = {
        b"row%02d" % i: {b"name": b"n%d" % i, b"labels": {b"containerd.io/gc.root": b"x"}} for i in range(8)
    }
    many = {b"key%03d" % i: b"v" * 20 for i in range(120)}
    long_keys = {b"k" * 300 + b"%02d" % i: b"v" for i in range(12)}
    put: dict[bytes, Any] = {b"a": b"1", b"b": {b"c": None, b"d": {b"e": b"f"}}, b"row03": None, b"zz": b""}
    yield "empty", file_of({})
    yield "one-key", file_of({b"a": b"b"}) + b"".join(encode(put))
    yield "inline", file_of({b"b": {b"c": b"d", b"e": b""}, b"d": {}}) + b"".join(encode(put))
    yield "branch", file_of(many) + b"".join(encode({b"key050": None, b"key0505": b"new"}))
    yield "levels", file_of(long_keys) + b"".join(encode({b"k": b"1"}))
    yield "nested", file_of(nested) + b"".join(encode({b"n": {b"n": {b"n": None}}}))
    yield "rows", file_of(rows) + b"".join(encode({b"row04": {b"name": b"other"}}))
    numbers = {(b"row02",): 2**64 - 1, (b"row03", b"labels"): 1, (b"row04", b"new"): 0}
    yield "sequences", file_of(rows) + b"".join(encode({b"row04": {b"name": b"other"}}, numbers))
    yield "overflow", file_of({b"a": b"v" * 3000, b"b": {b"c": b"w" * 2000}}) + b"".join(encode(put))
    yield "page-2048", file_of(many, 2048)
    yield "page-4096", file_of({b"a": {b"b": b"c"}}, 4096)


def plan_seeds() -> Iterator[tuple[str, bytes]]:
    """A v1 store, containerd's database and the snapshotter's in one file."""
    whole: dict[bytes, Any] = {}
    with tarfile.open(SAMPLE) as archive:
        for name in ("metadata.db", "containerdmeta.db", "snapshots/metadata.db"):
            member = archive.extractfile(WORKER + name)
            assert member is not None
            tree = tree_of(Reader(member.read()).root)
            if "v1" in map(bytes.decode, whole):
                tree = {b"v1": {**whole[b"v1"], **tree[b"v1"]}}
            whole |= tree
    parts = whole[b"v1"][b"buildkit"]
    snapshots = parts[b"snapshots"][b"overlayfs"]
    kinds = whole[b"v1"][b"snapshots"]
    for number, start in enumerate(range(0, 6, 3)):
        ids = sorted(whole[b"_main"])[start : start + 3]
        chosen = {id: snapshots[id] for id in ids if id in snapshots}
        blobs = dict(list(parts[b"content"][b"blob"].items())[start : start + 3])
        yield (
            f"sample-{number}",
            file_of(
                {
                    b"_main": {id: whole[b"_main"][id] for id in ids},
                    b"_index": dict(list(whole.get(b"_index", {}).items())[start : start + 3]),
                    b"v1": {
                        b"buildkit": {
                            b"snapshots": {b"overlayfs": chosen},
                            b"content": {b"blob": blobs},
                            b"leases": {ids[0]: {b"content": {b"sha256:0": b""}, b"createdat": b"t"}},
                        },
                        b"snapshots": {row[b"name"]: kinds[row[b"name"]] for row in chosen.values()},
                    },
                }
            ),
        )
    yield "chain", file_of(_chain(6))


def _chain(length: int) -> dict[bytes, Any]:
    """Records that descend from each other, with blobs; the last one shares the data of the one before."""
    main: dict[bytes, Any] = {}
    kinds: dict[bytes, Any] = {}
    snapshots: dict[bytes, Any] = {}
    blobs: dict[bytes, Any] = {}
    label = {b"labels": {b"containerd.io/gc.root": b"x"}}
    # 1, the largest, two that are none
    sizes = [b"\2", b"\xfe" + b"\xff" * 8 + b"\1", b"\1", b"\x80"]
    for i in range(length):
        id, digest = b"r%d" % i, b"sha256:" + b"%064x" % i
        mapping = b'{"value":{"Blobsum":"%b","DiffID":"%b"},"index":"blobmap::%b"}' % (digest, digest, digest)
        main[id] = {b"blobmapping.blob": mapping, b"cache.lastUsedAt": b'{"value":1}'}
        blobs[digest] = label | {b"size": sizes[i % len(sizes)]}
        snapshots[id] = (
            label | {b"name": b"buildkit/%d/" % i + id} | ({b"parent": b"r%d" % (i - 1)} if i else {})
        )
        kinds[b"buildkit/%d/" % i + id] = {b"kind": b"\3", b"id": b"\1"}
    main[b"bucket"] = {b"cache.blobsize": {b"k": b"v"}, b"cache.chainID": {}}
    main[b"s"] = {b"cache.equalMutable": b'{"value":"r%d"}' % (length - 1)}
    main[b"t"] = {b"cache.equalMutable": b'{"value": "r\\u0030"}', b"cache.parent": b"null"}
    index = {b"blobmap::sha256:%064x::r%d" % (i, i): b"" for i in range(length)}
    namespace = {b"snapshots": {b"overlayfs": snapshots}, b"content": {b"blob": blobs}}
    return {b"_main": main, b"_index": index, b"v1": {b"buildkit": namespace, b"snapshots": kinds}}


def json_seeds() -> Iterator[tuple[str, bytes]]:
    texts = {
        "integer": b'{"value":-73730}',
        "constant": b'{"value":true}',
        "null": b'{"value":null}',
        "string": b'{"value":"abc","index":"chainid:abc"}',
        "escaped": b'{"value":"\\u003e \\n \\ud83d\\ude00"}',
        "mapping": b'{"value":{"Blobsum":"sha256:0","DiffID":"sha256:1"},"index":"blobmap::sha256:0"}',
        "list": b'{"value":["a",1.5e3,{}]}',
        "no-utf8": b"\xe2\x80\xa8 \xf0\x9f\x98\x80 \xed\xa0\x80 \xff<&>",
        "spaced": b' { "value" : "a" , "Index" : "b" } ',
        "empty": b"{}",
    }
    yield from texts.items()


def columns_seeds() -> Iterator[tuple[str, bytes]]:
    """Records of a v2 store with values of all forms, their index, and what looks like containerd's rows."""
    values = [
        *(
            b"",
            b'{"value":"r1"}',
            b'{"value":"r1","index":"i::r1"}',
            b'{"value":"\\u0026x","index":"\\u0026"}',
        ),
        *(
            b'{"value":["a","\\ud83d\\ude00",""]}',
            b'{"value":[]}',
            b'{"value":["a", 1]}',
            b'{"value":[null]}',
        ),
        *(
            b'{"value":true}',
            b'{"value":null}',
            b'{"value":-9223372036854775808}',
            b'{"value":1e3}',
            b"{",
            b"1",
        ),
        b'{"value":12345678901234567890}',
    ]
    known = [b"cache.imageRefs", b"cache.parent", b"cache.blobsize", b"cache.deleted", b"blobmapping.blob"]
    main: dict[bytes, Any] = {b"plain": b"x", b"none": {}}
    for number, value in enumerate(values):
        main[b"r%d" % number] = dict.fromkeys(known, value) | {b"key.of-nobody": value}
    main[b"nested"] = {b"cache.parent": {b"a": b"b"}}
    index = [b"i::r1::r%d" % number for number in range(2, 6)] + [b"no-separator", b"::r1", b"&::r3"]
    yield "records", file_of({b"_main": main, b"_index": dict.fromkeys(index, b"")})
    time = b"\1" + bytes(7) + b"\x0e" + bytes(4) + b"\xff\xff"
    rows: dict[bytes, Any] = {
        b"row%d" % number: {b"createdat": time, b"labels": {b"a": b"b", b"c%d" % number: time}}
        for number in range(12)
    }
    links = {b"\x01\0\x02": b"", b"\x80\x01\0\x03": b"", b"\x01": b"", b"\xff" * 12: b"x"}
    yield "rows", file_of({**rows, b"links": links, b"labels": {b"labels": links}})


def main() -> None:
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "corpus"
    for target, seeds in (
        ("bolt", bolt_seeds),
        ("plan", plan_seeds),
        ("json", json_seeds),
        ("columns", columns_seeds),
    ):
        (directory / target).mkdir(parents=True, exist_ok=True)
        for name, data in seeds():
            (directory / target / f"seed-{name}").write_bytes(data)


if __name__ == "__main__":
    main()
