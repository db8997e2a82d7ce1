"""A v1 store and a containerd that do not belong together are refused, with a hint to what fits."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import ondisk
from buildkit_migrate import errors, migrate_root, migrate_v2
from buildkit_migrate.containerd.offline import OfflineContainerd
from buildkit_migrate.containerd.services import ConnectionOptions
from buildkit_migrate.migration.belonging import is_wrong_place
from buildkit_migrate.settings import Setting
from dicts import file_of
from fixtures import ROOT_LABEL, bucket, buckets
from ondisk import OnDisk, run
from plain_bbolt import BucketDict

pytestmark = pytest.mark.slow

POLICIES = ["fail", "drop"]


@pytest.fixture
def oci(tmp_path: Path) -> OnDisk:
    return ondisk.sample(tmp_path)


@pytest.fixture
def root(tmp_path: Path) -> OnDisk:
    """Of a containerd worker."""
    return ondisk.sample_of_containerd(tmp_path)


def refusal_of(root: OnDisk, *options: str, **environ: str) -> dict[str, Any]:
    """The error, after checks that each policy and a dry run give the same one and change nothing."""
    before = ondisk.listing(root.root.parent, without=["buildkitd.lock", "root"])
    found = []
    for policy in POLICIES:
        for more in ((), ("--dry-run",)):
            arguments = ("--format", "json", "--on-broken", policy, *more, *options, str(root.root))
            result = run("migrate", *arguments, **environ)
            assert (result.returncode, "Traceback" in result.stderr) == (7, False), result.stderr
            error = json.loads(result.stdout)["error"]
            assert "drop" not in error["message"] + error["hint"]
            found.append(error)
    assert all(error == found[0] for error in found)
    assert ondisk.listing(root.root.parent, without=["buildkitd.lock", "root"]) == before
    assert not root.v2.exists()
    error = found[0]
    assert isinstance(error, dict)
    return error


def add_namespace(root: OnDisk, name: bytes) -> None:
    """Adds a namespace of somebody else to containerd, such as that of Kubernetes."""
    theirs: BucketDict = {
        b"snapshots": {b"overlayfs": {b"sha256:1": {b"name": b"k/1/sha256:1", b"labels": {ROOT_LABEL: b"x"}}}}
    }
    ondisk.edit(root.containerd, {b"v1": {name: theirs}})


def count_records_with_snapshot(root: OnDisk) -> int:
    records = buckets(bucket(ondisk.tree(root.v1), b"_main")).values()
    return sum(not record.get(b"cache.equalMutable") for record in records)


# --- The rule


@pytest.mark.parametrize(
    ("needing", "found", "wrong"),
    [
        (0, 0, False),
        (1, 0, True),
        (1, 1, False),
        (10, 1, False),
        (11, 1, True),
        (238, 0, True),
        (238, 23, True),
        (238, 24, False),
        (238, 238, False),
    ],
)
def test_containerd_is_wrong_below_a_tenth_of_the_snapshots(needing: int, found: int, wrong: bool) -> None:
    assert is_wrong_place(needing, found) is wrong


# --- Records without their objects


def test_wrong_namespace_in_the_environment_is_refused(root: OnDisk) -> None:
    """Kubernetes' tools set it; all records look broken there."""
    add_namespace(root, b"k8s.io")
    needed = count_records_with_snapshot(root)
    error = refusal_of(root, *root.options, CONTAINERD_NAMESPACE="k8s.io")
    assert f"{root.containerd} (--containerd-root)" in error["message"]
    assert "namespace k8s.io ($CONTAINERD_NAMESPACE)" in error["message"]
    assert "snapshotter overlayfs (name of the directory)" in error["message"]
    assert f"0 of the {needed} records of {root.v1}" in error["message"]
    assert f"namespace buildkit, snapshotter overlayfs has {needed} of {needed}" in error["hint"]
    assert "--namespace buildkit (it wins over $CONTAINERD_NAMESPACE)" in error["hint"]
    followed = run("migrate", *root.options, "-n", "buildkit", str(root.root), CONTAINERD_NAMESPACE="k8s.io")
    assert followed.returncode == 0


@pytest.mark.parametrize("there", [True, False])
def test_wrong_namespace_option_is_refused(root: OnDisk, there: bool) -> None:
    if there:
        add_namespace(root, b"other")
    error = refusal_of(root, *root.options, "--namespace", "other", CONTAINERD_NAMESPACE="buildkit")
    assert "namespace other (--namespace)" in error["message"]
    assert "give --namespace buildkit" in error["hint"]
    assert "wins" not in error["hint"]


@pytest.mark.parametrize("origin", ["--snapshotter", "$CONTAINERD_SNAPSHOTTER"])
def test_wrong_snapshotter_is_refused(root: OnDisk, origin: str) -> None:
    native = root.snapshots.parent.with_name("io.containerd.snapshotter.v1.native")
    native.mkdir()
    (native / "metadata.db").write_bytes(file_of({}))
    given = ("--snapshotter", "native") if origin.startswith("-") else ()
    error = refusal_of(root, *root.options, *given, CONTAINERD_SNAPSHOTTER="" if given else "native")
    assert f"snapshotter native ({origin})" in error["message"]
    assert "give --snapshotter overlayfs" in error["hint"]


def test_unrelated_containerd_is_refused(root: OnDisk, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "ctd" / "root", other)
    database = other / root.containerd.relative_to(tmp_path / "ctd" / "root")
    tree = ondisk.tree(database)
    namespace = bucket(tree, b"v1", b"buildkit")
    snapshots = bucket(namespace, b"snapshots", b"overlayfs")
    bucket(namespace, b"snapshots")[b"overlayfs"] = {b"x" + name: s for name, s in snapshots.items()}
    database.write_bytes(file_of(tree))
    error = refusal_of(root, "--containerd-root", str(other))
    assert f"containerd at {database} (--containerd-root)" in error["message"]
    assert "--containerd-root" in error["hint"]
    assert "no such snapshots in any namespace (buildkit)" in error["hint"]


def test_containerd_with_hardly_any_snapshots_is_refused(root: OnDisk) -> None:
    """Such as a containerd restored from an old backup."""
    snapshots = sorted(buckets(bucket(ondisk.tree(root.containerd), *SNAPSHOTS)))
    ids = buckets(bucket(ondisk.tree(root.v1), b"_main")).keys() & set(snapshots)
    gone = sorted(ids)[5:]
    ondisk.edit(root.containerd, {b"v1": {b"buildkit": {b"snapshots": {b"overlayfs": dict.fromkeys(gone)}}}})
    error = refusal_of(root, *root.options)
    assert "has the snapshots of 5 of the " in error["message"]


SNAPSHOTS = (b"v1", b"buildkit", b"snapshots", b"overlayfs")


def test_records_of_lost_snapshots_are_broken_records(root: OnDisk) -> None:
    """A quarter is left: the broken records are named one by one and can be dropped."""
    ids = sorted(buckets(bucket(ondisk.tree(root.containerd), *SNAPSHOTS)))
    gone = [id for number, id in enumerate(ids) if number % 4]
    ondisk.edit(root.containerd, {b"v1": {b"buildkit": {b"snapshots": {b"overlayfs": dict.fromkeys(gone)}}}})
    result = root.migrate()
    assert result.returncode == 6
    assert "--on-broken drop" in result.stderr
    assert root.migrate("--on-broken", "drop").returncode == 0


def test_only_record_without_its_snapshot_is_refused(oci: OnDisk) -> None:
    """Nothing of such a cache can be kept, so refusing loses nothing."""
    main = bucket(ondisk.tree(oci.v1), b"_main")
    id, record = next((id, r) for id, r in buckets(main).items() if not r.get(b"cache.equalMutable"))
    oci.v1.write_bytes(file_of({b"_main": {id: record}}))
    ondisk.edit(oci.containerd, {b"v1": {b"buildkit": {b"snapshots": {b"overlayfs": {id: None}}}}})
    assert "0 of the 1 records" in refusal_of(oci)["message"]


@pytest.mark.parametrize("left", ["0 bytes", "nothing", "namespace", "missing"])
@pytest.mark.parametrize("kind", ["oci", "root"])
def test_empty_or_missing_containerd_is_refused(kind: str, left: str, request: pytest.FixtureRequest) -> None:
    """The hint fits the kind of worker: an OCI worker has no socket."""
    root: OnDisk = request.getfixturevalue(kind)
    match left:
        case "0 bytes":
            root.containerd.write_bytes(b"")
        case "nothing":
            root.containerd.write_bytes(file_of({}))
        case "namespace":
            root.containerd.write_bytes(file_of({b"v1": {b"buildkit": {}}}))
        case _:
            root.containerd.unlink()
    error = refusal_of(root, *root.options)
    assert str(root.containerd) in error["message"]
    if kind == "oci":
        assert "--" not in error["hint"]
        assert str(root.worker) in error["hint"]
        assert "backup" in error["hint"]
    else:
        assert "--containerd-root" in error["hint"]


@pytest.mark.parametrize("kind", ["oci", "root"])
def test_empty_snapshotter_is_refused(kind: str, request: pytest.FixtureRequest) -> None:
    root: OnDisk = request.getfixturevalue(kind)
    root.snapshots.write_bytes(file_of({}))
    error = refusal_of(root, *root.options)
    assert f"{root.snapshots} does not have them" in error["hint"]


def test_worker_directory_of_another_snapshotter_is_refused(oci: OnDisk) -> None:
    oci.worker.rename(oci.root / "runc-native")
    error = refusal_of(oci)
    assert "namespace buildkit (fixed), snapshotter native (name of the directory)" in error["message"]
    assert "must be named runc-overlayfs" in error["hint"]


def test_given_services_of_another_namespace_are_refused(oci: OnDisk) -> None:
    with (
        OfflineContainerd.open(oci.containerd, oci.snapshots, "other") as containerd,
        pytest.raises(errors.ContainerdStateError, match=r"namespace other \(argument\)") as raised,
    ):
        services = (containerd.content_store, containerd.snapshotter, containerd.lease_manager)
        migrate_v2(oci.v1, oci.v2, *services, on_broken="drop")
    assert "namespace buildkit, snapshotter overlayfs has" in raised.value.hint


# --- Objects without records


def count_root_labels(root: OnDisk) -> tuple[int, int]:
    namespace = bucket(ondisk.tree(root.containerd), b"v1", b"buildkit")
    return tuple(
        sum(ROOT_LABEL in bucket(entry, b"labels") for entry in buckets(bucket(namespace, *path)).values())
        for path in ((b"snapshots", b"overlayfs"), (b"content", b"blob"))
    )  # type: ignore[return-value]


NO_STORES: dict[str, tuple[bytes, str]] = {
    "0 bytes": (b"", "has no records"),
    "no bucket": (file_of({}), "has no records"),
    "no records": (file_of({b"_main": {}, b"_index": {b"k": b""}}), "has no records"),
    "no record bucket": (file_of({b"_main": {b"key": b"value"}}), "has no records"),
    "only an index": (file_of({b"_index": {b"k": b""}, b"_external": {}}), "has no records"),
    "cache.db": (file_of({b"_result": {}, b"_links": {}}), "not a metadata store: it has _links, _result"),
    "history.db": (file_of({b"_records": {}}), "not a metadata store: it has _records and no _main"),
}


@pytest.mark.parametrize("name", NO_STORES)
@pytest.mark.parametrize("kind", ["oci", "root"])
def test_v1_without_records_is_refused_if_containerd_holds_objects(
    kind: str, name: str, request: pytest.FixtureRequest
) -> None:
    root: OnDisk = request.getfixturevalue(kind)
    content, what = NO_STORES[name]
    root.v1.write_bytes(content)
    snapshots, blobs = count_root_labels(root)
    error = refusal_of(root, *root.options)
    assert f"{root.v1} " in error["message"]
    assert what in error["message"]
    assert f"{snapshots} snapshots and {blobs} blobs with the gc.root label" in error["message"]
    assert snapshots > 100 < blobs
    assert "backup" in error["hint"]


def test_containerd_database_in_place_of_v1_is_refused(oci: OnDisk) -> None:
    shutil.copy(oci.containerd, oci.v1)
    assert "not a metadata store: it has v1 and no _main" in refusal_of(oci)["message"]


def remove_all_objects(root: OnDisk) -> None:
    ondisk.edit(
        root.containerd,
        {b"v1": {b"buildkit": {b"snapshots": {b"overlayfs": None}, b"content": {b"blob": None}}}},
    )


@pytest.mark.parametrize("name", NO_STORES)
def test_empty_store_of_a_new_cache_is_migrated(oci: OnDisk, name: str) -> None:
    content, what = NO_STORES[name]
    oci.v1.write_bytes(content)
    remove_all_objects(oci)
    if "not a metadata store" in what:
        message = refusal_of(oci)["message"]
        assert what in message
        assert "gc.root" not in message  # nothing is held
    else:
        (report,) = migrate_root(oci.root)
        assert (report.outcome, report.counts["records"]) == ("migrated", 0)


def test_objects_in_other_namespaces_do_not_count(root: OnDisk) -> None:
    """Other namespaces do not prevent the migration of a new cache."""
    root.v1.write_bytes(b"")
    remove_all_objects(root)
    add_namespace(root, b"k8s.io")
    assert root.migrate().returncode == 0


def test_hint_for_a_new_cache_in_a_shared_namespace_loses_nothing(root: OnDisk) -> None:
    """Snapshots of another BuildKit look like lost ones; the hint shows a way that loses nothing."""
    root.v1.write_bytes(file_of({}))
    before = copy.deepcopy(ondisk.tree(root.containerd))
    assert "move it away" in refusal_of(root, *root.options)["hint"]
    root.v1.unlink()
    assert root.migrate().returncode == 0
    assert ondisk.tree(root.containerd) == before


# --- The place, with which every plan begins


def lines_of(result: subprocess.CompletedProcess[str]) -> list[str]:
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@pytest.mark.parametrize("options", [(), ("--dry-run",), ("--dry-run", "-v")])
def test_plan_begins_with_the_place(oci: OnDisk, options: tuple[str, ...]) -> None:
    assert lines_of(oci.migrate(*options))[:5] == [
        f"{oci.worker}: OCI worker",
        f"  root: {oci.root} (argument)",
        f"  containerd: {oci.containerd} (of the worker)",
        "  namespace: buildkit (fixed)",
        "  snapshotter: overlayfs (name of the directory)",
    ]


def test_plan_names_the_origin_of_each_setting(root: OnDisk) -> None:
    arguments = ("--dry-run", "--format", "json", *root.options, str(root.root))
    result = run("migrate", *arguments, CONTAINERD_NAMESPACE="buildkit", CONTAINERD_SNAPSHOTTER="overlayfs")
    (worker,) = json.loads(result.stdout)["workers"]
    assert worker["place"] == {
        "kind": "containerd",
        "root": {"value": str(root.root), "origin": "argument"},
        "containerd": {"value": str(root.containerd), "origin": "--containerd-root"},
        "namespace": {"value": "buildkit", "origin": "$CONTAINERD_NAMESPACE"},
        "snapshotter": {"value": "overlayfs", "origin": "$CONTAINERD_SNAPSHOTTER"},
        "storage_driver": None,
    }


def test_library_reports_the_origin_of_each_setting(root: OnDisk) -> None:
    place = migrate_root(root.root, containerd_root=root.options[1], dry_run=True)[0].place
    assert place is not None
    assert place.containerd.origin == "argument"
    assert place.namespace == Setting("buildkit", "default")
    arguments = {"namespace": "buildkit", "snapshotter": Setting("overlayfs", "my configuration")}
    (report,) = migrate_root(root.root, containerd_root=root.options[1], dry_run=True, **arguments)  # type: ignore[arg-type]
    assert report.place is not None
    assert report.place.namespace == Setting("buildkit", "argument")
    assert report.place.snapshotter.origin == "my configuration"
    with pytest.raises(errors.ContainerdUnavailableError, match="/nowhere"):
        migrate_root(root.root, containerd=ConnectionOptions("/nowhere", connect_timeout=0.1))


def test_impossible_namespace_in_the_environment_is_refused(root: OnDisk) -> None:
    result = run("migrate", *root.options, str(root.root), CONTAINERD_NAMESPACE="a b")
    assert result.returncode == 2
    assert "$CONTAINERD_NAMESPACE" in result.stderr
