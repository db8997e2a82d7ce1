"""Helpers for tests of undo: its result, and the databases that it must restore."""

from __future__ import annotations

import json
from typing import Any

import ondisk
from buildkit_migrate.api import root_status
from buildkit_migrate.store.bolt_store import BoltFileStore
from buildkit_migrate.values.gojson import Value
from fixtures import bucket, buckets
from ondisk import OnDisk


def databases(root: OnDisk) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root.v1, root.containerd, root.snapshots)}


def undo(root: OnDisk, *arguments: str) -> tuple[int, dict[str, Any]]:
    result = ondisk.run("undo", "--format", "json", *root.options, *arguments, str(root.root))
    assert "Traceback" not in result.stderr
    return result.returncode, json.loads(result.stdout)


def next_step(root: OnDisk) -> str:
    (status,) = root_status(root.root)
    return status.next_step


def record_of(root: OnDisk, number: int = 0) -> bytes:
    return sorted(buckets(bucket(ondisk.tree(root.v1), b"_main")))[number]


def set_value(root: OnDisk, key: bytes) -> None:
    with BoltFileStore.open(root.v2) as store, store.update(record_of(root)) as record:
        record.set(key, Value(b"77"))
