"""Migrations over a running containerd: the offline result, and only the needed calls."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

import containerd_daemon
import fixtures
import grpc_proxy
import ondisk
from buildkit_migrate.bolt import Database
from buildkit_migrate.containerd.live import LiveContainerd
from buildkit_migrate.containerd.services import ConnectionOptions
from buildkit_migrate.migration.migrate import migrate_v2
from containerd_daemon import Containerd
from fixtures import FLAT_LABEL, NAMESPACE, ROOT_LABEL, bucket, buckets
from grpc_proxy import Proxy
from live_root import Expected, Live, error_of
from plain_bbolt import BucketDict

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(bool(containerd_daemon.why_missing()), reason=containerd_daemon.why_missing()),
    pytest.mark.slow,
]


def test_live_result_equals_the_offline_result(live: Live, expected: Expected) -> None:
    result = live.migrate()
    assert (result.returncode, result.stderr) == (0, "")
    counts = json.loads(result.stdout)["workers"][0]["counts"]
    assert counts["leases_to_create"] == expected.leases
    assert counts["resources_to_add"] == expected.resources
    expected.check(live)


def test_only_the_needed_calls_are_made(live: Live, expected: Expected) -> None:
    with Proxy(live.daemon.address) as proxy:
        assert live.migrate("--concurrency", "5", address=proxy.address).returncode == 0
        updates = proxy.calls["Snapshots.Update"] + proxy.calls["Content.Update"]
        assert proxy.calls == {
            "Version.Version": 1,
            "Snapshots.List": 1,
            "Content.List": 1,
            "Leases.List": 1,
            "Leases.Create": expected.leases,
            "Leases.AddResource": expected.resources,
            "Snapshots.Update": proxy.calls["Snapshots.Update"],
            "Content.Update": updates - proxy.calls["Snapshots.Update"],
        }
        assert updates == expected.labels
        assert 1 < proxy.most_in_flight <= 5
    expected.check(live)


def test_dry_run_only_reads(live: Live) -> None:
    before = ondisk.listing(live.root.root)
    with Proxy(live.daemon.address) as proxy:
        result = live.migrate("--dry-run", address=proxy.address)
        assert result.returncode == 0
        assert json.loads(result.stdout)["workers"][0]["counts"]["leases_to_create"] > 0
        assert set(proxy.calls) == grpc_proxy.READING - {"Namespaces.List", "Leases.ListResources"}
    assert ondisk.listing(live.root.root) == before
    assert live.daemon.leases() == {}


def test_environment_variables_select_the_containerd(live: Live, expected: Expected) -> None:
    result = ondisk.run(
        "migrate",
        str(live.root.root),
        CONTAINERD_ADDRESS=f"unix://{live.daemon.address}",
        CONTAINERD_NAMESPACE="buildkit",
        CONTAINERD_SNAPSHOTTER="overlayfs",
    )
    assert (result.returncode, result.stderr) == (0, "")
    expected.check(live)


def test_library_migrates_over_a_running_containerd(live: Live, expected: Expected) -> None:
    options = ConnectionOptions(live.daemon.address, concurrency=2)
    with LiveContainerd.open("overlayfs", options=options) as containerd:
        report = migrate_v2(
            live.root.v1,
            live.root.v2,
            containerd.content_store,
            containerd.snapshotter,
            containerd.lease_manager,
        )
    assert report.counts["leases_to_create"] == expected.leases
    expected.check(live)


def test_leases_of_an_interrupted_run_are_completed(live: Live, expected: Expected) -> None:
    """What upstream leaves when it is interrupted: leases without resources."""
    ids = sorted(buckets(bucket(ondisk.tree(live.root.v1), b"_main")))
    for id in (ids[0].decode(), ids[1].decode()):
        live.daemon.create_lease(id, f"{FLAT_LABEL.decode()}=now")
    live.daemon.create_lease("of-somebody-else")
    with Proxy(live.daemon.address) as proxy:
        assert live.migrate(address=proxy.address).returncode == 0
        assert proxy.calls["Leases.Create"] == expected.leases - 2
        assert proxy.calls["Leases.ListResources"] == 2
        assert proxy.calls["Leases.AddResource"] == expected.resources
    live.daemon.ctr("leases", "delete", "of-somebody-else")
    expected.check(live)


def test_repeated_run_changes_nothing(live: Live, expected: Expected) -> None:
    assert live.migrate().returncode == 0
    live.root.v2.unlink()
    with Proxy(live.daemon.address) as proxy:
        assert live.migrate(address=proxy.address).returncode == 0
        assert proxy.changing_calls == 0
        assert proxy.calls["Leases.ListResources"] == expected.leases
    expected.check(live)


def test_leases_are_listed_in_parts_if_one_message_is_too_small(live: Live, expected: Expected) -> None:
    """The server refuses the message, and is then asked for parts; here it refuses the first parts, too."""
    assert live.migrate().returncode == 0
    live.root.v2.unlink()
    too_long = {0, 1, 2}
    fault = grpc_proxy.nth("Leases.List", too_long, grpc.StatusCode.RESOURCE_EXHAUSTED)
    with Proxy(live.daemon.address, fault) as proxy:
        result = live.migrate(address=proxy.address)
        assert result.returncode == 0, result.stderr
        assert proxy.changing_calls == 0
        assert proxy.calls["Leases.List"] > len(too_long)
    expected.check(live)


def test_message_that_is_always_too_large_is_an_error(live: Live) -> None:
    fault = grpc_proxy.always("Leases.List", grpc.StatusCode.RESOURCE_EXHAUSTED)
    with Proxy(live.daemon.address, fault) as proxy:
        error = error_of(live.migrate(address=proxy.address))
        assert error["type"] == "ContainerdCallError"
        assert proxy.changing_calls == 0


@pytest.mark.parametrize("upstream_exact", [True, False])
def test_real_root_gives_the_result_of_upstream(upstream_exact: bool, tmp_path: Path) -> None:
    root = ondisk.real("c", tmp_path)
    before = ondisk.tree(root.containerd)
    theirs = fixtures.real_root("c")
    with Containerd(tmp_path / "ctd" / "root") as daemon:
        live = Live(root, daemon)
        assert live.migrate(*(["--upstream-exact"] if upstream_exact else [])).returncode == 0
        expected_v2 = theirs.metadata_v2
        if not upstream_exact:
            expected_v2 = fixtures.with_blob_sizes(expected_v2, theirs.survey)
        assert ondisk.tree(root.v2) == expected_v2
        after = live.finish()
    upstream = ondisk.timeless(theirs.containerd_after)
    leases = (*NAMESPACE, b"leases")
    assert bucket(after, *leases) == bucket(upstream, *leases)
    leased = {name for lease in fixtures.leases_of(after).values() for _, name in lease}
    for path in ((*NAMESPACE, b"snapshots", b"overlayfs"), (*NAMESPACE, b"content", b"blob")):
        ours, expected, old = (buckets(bucket(tree, *path)) for tree in (after, upstream, before))
        # Our last collection removed all garbage; upstream's dump still has some of it.
        gone = expected.keys() - ours.keys()
        assert not gone & leased
        assert all(_is_labelled_view(theirs, name) or ROOT_LABEL not in _labels(old[name]) for name in gone)
        for name in ours:
            assert _labels(ours[name]) == _labels(expected[name])
            assert ours[name].get(b"parent") == expected[name].get(b"parent")
            assert ours[name].get(b"name") == expected[name].get(b"name")


def test_sizes_are_read_as_containerd_reads_them(tmp_path: Path) -> None:
    """Whatever size the database stores, live and offline give the same store and the same cautions."""
    sizes = [None, b"", b"\0", b"\x01", b"\x80", b"\x80\x40\xff", b"\xff" * 11]
    roots = {}
    for mode in ("live", "offline"):
        (tmp_path / mode).mkdir()
        roots[mode] = root = ondisk.sample_of_containerd(tmp_path / mode)
        blobs = buckets(bucket(ondisk.tree(root.containerd), *NAMESPACE, b"content", b"blob"))
        edits = {digest: {b"size": size} for digest, size in zip(sorted(blobs), sizes, strict=False)}
        ondisk.edit(root.containerd, {b"v1": {b"buildkit": {b"content": {b"blob": edits}}}})
    offline = roots["offline"].migrate("--format", "json")
    with Containerd(tmp_path / "live" / "ctd" / "root") as daemon:
        live = Live(roots["live"], daemon).migrate()
    assert ondisk.tree(roots["live"].v2) == ondisk.tree(roots["offline"].v2)
    found = [json.loads(result.stdout)["workers"][0] for result in (live, offline)]
    assert found[0]["cautions"] == found[1]["cautions"]
    assert {caution["caution"] for caution in found[0]["cautions"]} == {"no-blob-size"}
    counts = found[0]["counts"]
    assert 0 < counts["blob_sizes"] == counts["blobs"] - len(found[0]["cautions"])


def _labels(row: BucketDict) -> BucketDict:
    return bucket(row, b"labels")


def _is_labelled_view(root: fixtures.RealRoot, name: bytes) -> bool:
    snapshot = root.survey.snapshots.get(name)
    return snapshot is not None and snapshot.kind == 1 and snapshot.root_label


def test_garbage_collections_during_the_run_lose_nothing(live: Live, expected: Expected) -> None:
    """Garbage is collected again and again while leases are written and labels removed."""

    collections: list[str] = []

    def collect(name: str, number: int) -> None:
        if name in ("Leases.AddResource", "Snapshots.Update", "Content.Update") and number % 40 == 7:
            live.daemon.collect_garbage()
            collections.append(name)

    with Proxy(live.daemon.address, collect) as proxy:
        assert live.migrate("--timeout", "30", address=proxy.address).returncode == 0
    assert set(collections) == {"Leases.AddResource", "Snapshots.Update", "Content.Update"}
    expected.check(live)


def test_state_made_by_containerd_is_migrated(tmp_path: Path) -> None:
    """Snapshots of each kind, blobs that several records share, objects of no record, a view."""
    worker = tmp_path / "root" / "containerd-native"
    worker.mkdir(parents=True)
    with Containerd() as daemon:
        records: dict[bytes, dict[bytes, bytes]] = {}
        digest = daemon.ingest(b"shared", f"{ROOT_LABEL.decode()}=now", "other=kept")
        mapping = f'{{"Blobsum":"{digest}","DiffID":"sha256:{1:064x}"}}'
        for i in range(3):
            daemon.prepare("native", f"active{i}")
            daemon.commit("native", f"layer{i}", f"active{i}")
            records[f"layer{i}".encode()] = {
                b"blobmapping.blob": f'{{"value":{mapping},"index":"blobmap::{digest}"}}'.encode()
            }
        daemon.prepare("native", "mutable", "layer0")
        daemon.view("native", "leaked", "layer1")
        records[b"mutable"] = {}
        records[b"equal"] = {b"cache.equalMutable": b'{"value":"mutable"}'}
        (worker / "metadata.db").write_bytes(containerd_file(records))
        with Proxy(daemon.address) as proxy:
            result = ondisk.run("migrate", "--address", proxy.address, str(tmp_path / "root"))
            assert (result.returncode, result.stderr) == (0, "")
            assert proxy.calls["Content.Update"] == 1
        assert daemon.leases().keys() == {id.decode() for id in records}
        daemon.collect_garbage()
        assert daemon.snapshots("native").keys() == {"layer0", "layer1", "layer2", "mutable"}
        assert daemon.content() == {digest: {"other": "kept"}}


def containerd_file(records: dict[bytes, dict[bytes, bytes]]) -> bytes:
    from dicts import file_of

    return file_of({b"_main": records})


def test_migrated_root_does_not_import_grpc(tmp_path: Path) -> None:
    """A root that is migrated already costs no gRPC."""
    root = ondisk.sample_of_containerd(tmp_path)
    script = (
        "import sys; from buildkit_migrate.api import migrate_root\n"
        "(report,) = migrate_root(sys.argv[1])\n"
        "print(report.outcome, *{'grpc', 'google.protobuf'} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", script, str(root.root)]
    root.migrate_here()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["already-migrated"]


def test_live_survey_equals_the_offline_survey(live: Live) -> None:
    """The plan from live calls equals the plan from the files of the same state."""
    from buildkit_migrate._native.facts import Survey
    from buildkit_migrate._native.plan import Plan
    from buildkit_migrate.migration.plan import plain_plan, read_records

    with Database.open(live.root.v1) as v1:
        records = read_records(v1.reader)
        with LiveContainerd.open(options=ConnectionOptions(live.daemon.address)) as containerd:
            asked = plain_plan(Plan(records, containerd.survey(lambda: records)))
        live.daemon.stop()
        with Database.open(live.root.containerd) as metadata, Database.open(live.root.snapshots) as own:
            survey = Survey.offline(metadata.reader, own.reader, "buildkit", "overlayfs")
            read = plain_plan(Plan(records, survey))
    assert asked == read
