"""C56 to C58: the history of builds."""

from __future__ import annotations

import pytest
from faults import TIME, Healthy, check, found

from buildkit_migrate.schema import history_pb2
from planting import edit

pytestmark = pytest.mark.slow

HISTORY = b"buildkit_history"


def first(healthy: Healthy) -> bytes:
    return min(healthy.builds)


def put(healthy: Healthy, ref: bytes, record: bytes) -> None:
    edit(healthy.root.history, {b"_records": {ref: record}})


def stored(healthy: Healthy, ref: bytes) -> history_pb2.BuildHistoryRecord:
    with healthy.root.open() as stores:
        assert stores.histories[0].root is not None
        records = stores.histories[0].root.bucket(b"_records")
        assert records is not None
        return history_pb2.BuildHistoryRecord.FromString(records.get(ref) or b"")


@pytest.mark.parametrize("value", [b"\xff", b"\x0a\x7fshort", b"garbage"])
def test_build_that_does_not_decode(healthy: Healthy, value: bytes) -> None:
    put(healthy, first(healthy), value)
    assert found(healthy.root) == {("C56", "P", first(healthy).decode())}


@pytest.mark.parametrize("name", ["", "another"])
def test_build_that_has_another_name(healthy: Healthy, name: str) -> None:
    record = stored(healthy, first(healthy))
    record.ref = name.encode()
    put(healthy, first(healthy), record.SerializeToString())
    assert found(healthy.root) == {("C56", "H", first(healthy).decode())}


def test_build_without_lease(healthy: Healthy) -> None:
    healthy.lease(b"ref_" + first(healthy), None, HISTORY)
    assert found(healthy.root) == {("C57", "P", first(healthy).decode())}


def test_build_with_an_empty_lease(healthy: Healthy) -> None:
    healthy.lease(b"ref_" + first(healthy), {b"content": None}, HISTORY)
    assert found(healthy.root) == {("C57", "H", first(healthy).decode())}


def digest(healthy: Healthy) -> bytes:
    return min(d for d in stored_digests(healthy, first(healthy)))


def stored_digests(healthy: Healthy, ref: bytes) -> frozenset[bytes]:
    with healthy.root.open() as stores:
        from buildkit_migrate.schema.history import History

        assert stores.histories[0].root is not None
        (build,) = [it for it in History(stores.histories[0].root).builds if it.key == ref]
    return build.digests


def test_lease_that_does_not_list_a_blob(healthy: Healthy) -> None:
    healthy.lease(b"ref_" + first(healthy), {b"content": {digest(healthy): None}}, HISTORY)
    (finding,) = check(healthy.root)
    assert (finding.rule, finding.severity, finding.subject) == ("C57", "H", first(healthy).decode())
    assert digest(healthy).decode() in finding.message


def test_blob_of_a_build_is_gone(healthy: Healthy) -> None:
    gone = digest(healthy)
    healthy.in_containerd({b"content": {b"blob": {gone: None}}}, HISTORY)
    healthy.blob_file(gone).unlink(missing_ok=True)
    findings = found(healthy.root)
    assert ("C57", "H", first(healthy).decode()) in findings
    assert {rule for rule, _, _ in findings} == {"C57"}


def cut_migration(healthy: Healthy) -> None:
    """As if v0.12 had been killed when it had made the new lease of the first build."""
    edit(healthy.root.history, {b"_version": None})
    healthy.lease(
        b"ref_" + first(healthy),
        {b"createdat": TIME, b"content": dict.fromkeys(stored_digests(healthy, first(healthy)), b"")},
    )


def test_cut_migration_of_the_history(healthy: Healthy) -> None:
    cut_migration(healthy)
    assert ("C58", "S", first(healthy).decode()) in found(healthy.root)
    assert {rule for rule, _, _ in found(healthy.root)} == {"C58"}


def test_history_that_is_to_be_migrated_is_healthy(healthy: Healthy) -> None:
    edit(healthy.root.history, {b"_version": None})
    assert found(healthy.root) == set()
