"""The catalogue of faults, each planted somewhere in a healthy root, so that many can be planted together."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from typing import Any

from faults import FLAT, TIME, Healthy, Record, link
from record_faults import value

import ondisk
from planting import break_free_list, edit, set_sequence

__all__ = ["CATALOGUE", "Mixed", "plant"]

NOBODY = b"0" * 25
EXPIRED = {b"containerd.io/gc.expire": b"2024-11-26T16:16:07Z"}


class Mixed:
    """A root, what was in its records at first, and which of its records have no fault yet."""

    def __init__(self, healthy: Healthy, chosen: random.Random) -> None:
        self.it = healthy
        self.random = chosen
        tree: Any = ondisk.tree(healthy.root.records)
        self.records: dict[bytes, dict[bytes, bytes]] = {
            id: dict(values) for id, values in tree[b"_main"].items()
        }
        self.index: list[bytes] = list(tree[b"_index"])
        self._layers = self.random.sample(healthy.last, len(healthy.last))
        self._mounts = self.random.sample(healthy.mounts, len(healthy.mounts))

    def layer(self, *, blob: bool = False) -> Record:
        """One that nothing stands on, and that was not given out before."""
        found = next(it for it in self._layers if it.parent is not None and (it.digest or not blob))
        self._layers.remove(found)
        return found

    def mount(self, *, parented: bool = False) -> Record:
        found = next(it for it in self._mounts if (it.parent is not None) == parented)
        self._mounts.remove(found)
        return found

    def merge(self) -> Record:
        return self.random.choice([it for it in self.it.merges if it.name])

    def decoded(self, id: bytes, key: bytes) -> Any:
        stored = self.records[id].get(key)
        return json.loads(stored)["value"] if stored else None

    def put(self, id: bytes, key: bytes, stored: bytes | None) -> None:
        self.it.in_record(id, {key: stored})

    def put_index(self, key: bytes, *, there: bool = True) -> None:
        edit(self.it.root.records, {b"_index": {key: b"" if there else None}})

    def entry(self) -> bytes:
        return self.random.choice(self.index)


def plant(healthy: Healthy, names: list[str], seed: int) -> None:
    """Plants these faults, each on records of its own as far as they have one."""
    mixed = Mixed(healthy, random.Random(seed))
    for name in names:
        CATALOGUE[name](mixed)


# --- Records


def undecodable_description(at: Mixed) -> None:
    key = at.random.choice([b"cache.description", b"cache.imageRefs", b"cache.usageCount", b"snapshot.size"])
    at.put(at.layer().id, key, b"{")


def mistyped_size(at: Mixed) -> None:
    at.put(at.layer().id, b"snapshot.size", value("large"))


def undecodable_parent(at: Mixed) -> None:
    at.put(at.layer().id, b"cache.parent", b"{")


def no_blob_size(at: Mixed) -> None:
    at.put(at.layer(blob=True).id, b"cache.blobsize", at.random.choice([None, b"", b"{", value("1")]))


def no_blob_size_and_no_file(at: Mixed) -> None:
    layer = at.layer(blob=True)
    at.put(layer.id, b"cache.blobsize", None)
    at.it.blob_file(layer.digest or b"").unlink()


def missing_parent(at: Mixed) -> None:
    at.put(at.layer().id, b"cache.parent", value(NOBODY.decode()))


def circle(at: Mixed) -> None:
    layer = at.layer()
    at.put(layer.id, b"cache.parent", value(layer.text))


def finished_half(at: Mixed) -> None:
    at.put(at.layer().id, b"cache.equalMutable", value(NOBODY.decode()))


def deleted(at: Mixed) -> None:
    at.put(at.layer().id, b"cache.deleted", value(True))


def entry_missing(at: Mixed) -> None:
    at.put_index(at.entry(), there=False)


def entry_of_nobody(at: Mixed) -> None:
    at.put_index(at.random.choice([b"chainid:x::" + NOBODY, b"\xff::\xfe", b"cache-dir:a::"]))


def entry_of_another(at: Mixed) -> None:
    at.put_index(at.entry().rpartition(b"::")[0] + b"::" + at.layer().id)


def entry_that_can_not_be_split(at: Mixed) -> None:
    at.put_index(at.random.choice([b"cache-dir:shared", b"\xff", b"a:b"]))


def external_data(at: Mixed) -> None:
    edit(at.it.root.records, {b"_external": {NOBODY: {b"x": b"y"}}})


def chain(at: Mixed) -> None:
    """Of any record that has ids, with its entry."""
    id = at.random.choice([id for id in at.records if at.decoded(id, b"cache.chainID")])
    other = f"sha256:{at.random.getrandbits(256):064x}"
    at.put(id, b"cache.chainID", value(other, "chainid:" + other))
    at.put_index(f"chainid:{at.decoded(id, b'cache.chainID')}::".encode() + id, there=False)
    at.put_index(f"chainid:{other}::".encode() + id)


def odd_record(at: Mixed) -> None:
    """A new one with the snapshot of another, without lease and entries."""
    layer = at.layer()
    values = {**at.records[layer.id], b"cache.snapshot": value(layer.key.decode())}
    edit(at.it.root.records, {b"_main": {b"\xff\xfe odd\n": values}})


# --- Data and leases


def lost_snapshot(at: Mixed) -> None:
    at.it.lose_snapshot(at.layer())


def lost_in_containerd(at: Mixed) -> None:
    at.it.lose_in_containerd(at.layer())


def lost_with_its_lease(at: Mixed) -> None:
    layer = at.layer(blob=True)
    at.it.lose_snapshot(layer)
    at.it.lease(layer.id, None)


def lost_with_its_blob(at: Mixed) -> None:
    layer = at.layer(blob=True)
    at.it.lose_snapshot(layer)
    at.it.blob_file(layer.digest or b"").write_bytes(b"")


def lost_in_the_middle(at: Mixed) -> None:
    at.it.lose_snapshot(at.random.choice(at.it.middle))


def lost_in_snapshotter(at: Mixed) -> None:
    layer = at.layer()
    at.it.lose_in_snapshotter(layer)
    shutil.rmtree(at.it.directory(layer))


def lost_blob(at: Mixed) -> None:
    layer = at.layer(blob=True)
    at.it.blob(layer.digest or b"", None)
    at.it.blob_file(layer.digest or b"").unlink()


def no_lease(at: Mixed) -> None:
    at.it.lease(at.random.choice([at.layer(), at.mount(), at.merge()]).id, None)


def passing_lease(at: Mixed) -> None:
    at.it.lease(at.layer().id, {b"labels": EXPIRED})


def empty_lease(at: Mixed) -> None:
    at.it.lease(at.layer().id, {b"snapshots": None, b"content": None})


def orphan(at: Mixed) -> None:
    at.it.drop_record(at.layer())


def somebodys_lease(at: Mixed) -> None:
    at.it.lease(b"theirs", {b"createdat": TIME, b"labels": {FLAT: b"1"}})


# --- Snapshots


def no_parent(at: Mixed) -> None:
    at.it.in_snapshots({b"snapshots": {at.layer().name: {b"parent": None}}})


def no_link(at: Mixed) -> None:
    layer = at.layer()
    at.it.in_snapshots({b"parents": {link(at.it.numbers[layer.parent or b""], layer.number): None}})


def link_more(at: Mixed) -> None:
    layer, other = at.layer(), at.layer()
    at.it.in_snapshots({b"parents": {link(other.number, layer.number): layer.name}})


def neither_parent_nor_link(at: Mixed) -> None:
    no_link_of = at.layer()
    at.it.in_snapshots(
        {
            b"snapshots": {no_link_of.name: {b"parent": None}},
            b"parents": {link(at.it.numbers[no_link_of.parent or b""], no_link_of.number): None},
        }
    )


def not_committed(at: Mixed) -> None:
    at.it.in_snapshots({b"snapshots": {at.layer().name: {b"kind": b"\x02"}}})


def low_counter(at: Mixed) -> None:
    set_sequence(at.it.root.snapshots, (b"v1", b"snapshots"), at.random.randrange(at.it.sequence))


def low_counter_of_containerd(at: Mixed) -> None:
    set_sequence(at.it.root.containerd, (b"v1", at.it.namespace, b"snapshots", at.it.snapshotter), 3)


def directory_in_the_way(at: Mixed) -> None:
    (at.it.root.directories / str(at.it.sequence + 2) / "fs").mkdir(parents=True)


def strange_directory(at: Mixed) -> None:
    (at.it.root.directories / "new-7").mkdir()


def no_directory(at: Mixed) -> None:
    shutil.rmtree(at.it.directory(at.layer()))


def no_work(at: Mixed) -> None:
    shutil.rmtree(at.it.directory(at.mount(parented=True)) / "work")


def merge_usage(at: Mixed) -> None:
    at.it.known_snapshot(at.merge().key, {b"labels": {b"buildkit.mergeUsageSize": b"much"}})


# --- Other stores and files


def result_not_listed(at: Mixed) -> None:
    cache: Any = ondisk.tree(at.it.root.cache)
    edit(at.it.root.cache, {b"_byresult": {at.random.choice(list(cache[b"_byresult"])): None}})


def list_of_nothing(at: Mixed) -> None:
    cache: Any = ondisk.tree(at.it.root.cache)
    id = at.random.choice(list(cache[b"_byresult"]))
    edit(at.it.root.cache, {b"_byresult": {id: {b"nothing": b""}}})


def worker_id(at: Mixed) -> None:
    file = at.it.root.worker / "workerid"
    file.chmod(0o600)
    file.write_bytes(b"x" * 25)


def cut_migration(at: Mixed) -> None:
    edit(at.it.root.history, {b"_version": None})
    id = b"ref_" + min(at.it.builds)
    tree: Any = ondisk.tree(at.it.root.containerd)
    listed = dict(tree[b"v1"][at.it.namespace + b"_history"][b"leases"][id][b"content"])
    at.it.lease(id, {b"createdat": TIME, b"content": listed})


def bundle(at: Mixed) -> None:
    (at.it.root.worker / "executor" / "w3ng0ol6").mkdir(parents=True)


def free_list(at: Mixed) -> None:
    break_free_list(at.random.choice([at.it.root.records, at.it.root.cache, at.it.root.snapshots]))


_FAULTS: tuple[Callable[[Mixed], None], ...] = (
    undecodable_description,
    mistyped_size,
    undecodable_parent,
    no_blob_size,
    no_blob_size_and_no_file,
    missing_parent,
    circle,
    finished_half,
    deleted,
    entry_missing,
    entry_of_nobody,
    entry_of_another,
    entry_that_can_not_be_split,
    external_data,
    chain,
    odd_record,
    lost_snapshot,
    lost_in_containerd,
    lost_with_its_lease,
    lost_with_its_blob,
    lost_in_the_middle,
    lost_in_snapshotter,
    lost_blob,
    no_lease,
    passing_lease,
    empty_lease,
    orphan,
    somebodys_lease,
    no_parent,
    no_link,
    link_more,
    neither_parent_nor_link,
    not_committed,
    low_counter,
    low_counter_of_containerd,
    directory_in_the_way,
    strange_directory,
    no_directory,
    no_work,
    merge_usage,
    result_not_listed,
    list_of_nothing,
    worker_id,
    cut_migration,
    bundle,
    free_list,  # the last one: an edit makes a new list
)
CATALOGUE: dict[str, Callable[[Mixed], None]] = {fault.__name__: fault for fault in _FAULTS}
