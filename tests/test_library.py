"""The library: the contract of upstream's function, with services of one's own or offline ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container
from pathlib import Path
from typing import Any, ClassVar

import pytest

import buildkit_migrate
import fixtures
import ondisk
from buildkit_migrate import errors, migrate_v2
from buildkit_migrate._native.facts import Records, Survey
from buildkit_migrate._native.plan import Plan
from buildkit_migrate.bolt import Database
from buildkit_migrate.containerd.offline import OfflineContainerd
from buildkit_migrate.containerd.services import Holding, Services
from buildkit_migrate.migration import migrate as migrate_module
from buildkit_migrate.migration.plan import read_records
from buildkit_migrate.migration.report import Outcome
from buildkit_migrate.model import Before, PlainState
from ondisk import OnDisk
from plans import native_survey


class Recorded(Services):
    """A containerd that notes what it is asked. With ``failing`` the plan can't be applied."""

    def __init__(self, root: OnDisk, *, failing: bool = False) -> None:
        containerd, backend = ondisk.tree(root.containerd), ondisk.tree(root.snapshots)
        self._plain = fixtures.survey_of(containerd, backend, root.snapshotter)
        self._aside = root.v2.with_name(root.v2.name + ".tmp")
        self._v2 = root.v2
        self._failing = failing
        self.steps: list[str] = []

    identity: ClassVar = {"mode": "live", "namespace": "buildkit", "snapshotter": "overlayfs"}
    database = None
    kept = None

    def survey(self, records: Callable[[], Records], finished: Container[bytes] = frozenset()) -> Survey:
        assert len(records()) > 0
        self.steps.append("survey")
        return native_survey(self._plain)

    def holdings(self, ids: Collection[bytes]) -> list[Holding]:
        return []

    def before(self, plan: Plan) -> Before:
        return Before()

    def apply(
        self,
        plan: Plan,
        on_finished: Callable[[bytes], None],
        *,
        keep: bool = True,
        switching: Callable[[Path], None] | None = None,
    ) -> None:
        assert self._aside.exists(), "the new store is complete before containerd is touched"
        assert not self._v2.exists(), "the switch is last"
        self.steps.append("apply")
        if self._failing:
            raise errors.StorageError("apply")

    def restore(self, ids: Collection[bytes], before: Before) -> None:
        raise NotImplementedError

    def state(self, ids: Collection[bytes]) -> PlainState:
        raise NotImplementedError


Migrate = Callable[[Recorded], object]


def migrate(root: OnDisk, services: Recorded, **options: Any) -> buildkit_migrate.Report:
    return migrate_v2(
        root.v1,
        root.v2,
        services.content_store,
        services.snapshotter,
        services.lease_manager,
        **options,
    )


def test_services_are_called_in_order(root: OnDisk) -> None:
    services = Recorded(root)
    assert migrate(root, services).outcome is Outcome.MIGRATED
    assert services.steps == ["survey", "apply"]
    assert ondisk.tree(root.v2)


def test_failing_containerd_leaves_everything_as_it_was(root: OnDisk) -> None:
    before = ondisk.listing(root.worker)
    with pytest.raises(errors.StorageError, match="apply"):
        migrate(root, Recorded(root, failing=True))
    after = ondisk.listing(root.worker, without=("metadata_v2.db.journal", "data.mdb", "lock.mdb"))
    directory = "."
    assert {**after, directory: None} == {**before, directory: None}
    assert migrate(root, Recorded(root)).outcome is Outcome.MIGRATED


def test_dry_run_only_surveys(root: OnDisk) -> None:
    services = Recorded(root)
    report = migrate(root, services, dry_run=True)
    assert report.outcome is Outcome.PLANNED
    assert services.steps == ["survey"]
    assert report.plan is not None
    assert len(report.plan.records) == report.counts["records"]


def test_services_are_not_called_if_there_is_nothing_to_do(root: OnDisk) -> None:
    services = Recorded(root)
    root.v2.write_bytes(root.v1.read_bytes())
    assert migrate(root, services).outcome is Outcome.ALREADY_MIGRATED
    root.v2.unlink()
    root.v1.unlink()
    assert migrate(root, services).outcome is Outcome.NOTHING_TO_MIGRATE
    assert services.steps == []
    assert not root.v2.exists()


def test_services_of_different_containerds_are_refused(root: OnDisk) -> None:
    one, other = Recorded(root), Recorded(root)
    with pytest.raises(ValueError, match="different"):
        migrate_v2(root.v1, root.v2, one.content_store, one.snapshotter, other.lease_manager)


def test_offline_services_give_the_result_of_the_command(root: OnDisk, tmp_path: Path) -> None:
    (tmp_path / "twin").mkdir()
    twin = ondisk.sample(tmp_path / "twin")
    assert twin.migrate().returncode == 0
    with OfflineContainerd.open(root.containerd, root.snapshots, "buildkit", "overlayfs") as containerd:
        report = migrate_v2(
            str(root.v1),
            str(root.v2),
            containerd.content_store,
            containerd.snapshotter,
            containerd.lease_manager,
        )
    assert report.outcome is Outcome.MIGRATED
    assert root.v2.read_bytes() == twin.v2.read_bytes()
    after, expected = ondisk.tree(root.containerd), ondisk.tree(twin.containerd)
    assert fixtures.leases_of(after) == fixtures.leases_of(expected)


@pytest.mark.parametrize("keep", [True, False])
def test_offline_plan_is_applied_in_one_switch(root: OnDisk, keep: bool) -> None:
    before = root.containerd.read_bytes()
    seen: list[bytes] = []

    def switching(new: Path) -> None:
        assert root.containerd.read_bytes() == before
        seen.append(new.read_bytes())

    with (
        Database.open(root.v1) as v1,
        OfflineContainerd.open(root.containerd, root.snapshots, "buildkit", "overlayfs") as containerd,
    ):
        records = read_records(v1.reader)
        plan = Plan(records, containerd.survey(lambda: records))
        containerd.apply(plan, lambda id: None, keep=keep, switching=switching)
        kept = containerd.kept
    assert seen == [root.containerd.read_bytes()]
    assert len(fixtures.leases_of(ondisk.tree(root.containerd))) == plan.counts["leases_to_create"] > 0
    assert (kept.read_bytes() == before) if keep else not kept.exists()


def test_invalid_on_broken_is_rejected(root: OnDisk) -> None:
    with pytest.raises(ValueError, match="'Fail'"):
        buildkit_migrate.migrate_root(root.root, on_broken="Fail")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'Fail'"):
        migrate(root, Recorded(root), on_broken="Fail")
    assert not root.v2.exists()


def test_progress_is_told_each_step(root: OnDisk) -> None:
    steps: list[str] = []
    buildkit_migrate.migrate_root(root.root, progress=steps.append)
    assert len(steps) == 4
    assert str(root.v2) in steps[2]


def test_public_names_are_importable() -> None:
    for name in buildkit_migrate.__all__:
        assert getattr(buildkit_migrate, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        buildkit_migrate.nonsense  # noqa: B018


def test_verify_runs_before_the_switch(root: OnDisk) -> None:
    there: dict[str, bool] = {}
    buildkit_migrate.migrate_root(
        root.root, verify=True, progress=lambda step: there.update({step: root.v2.exists()})
    )
    assert there[f"verifying {root.v2}"] is False
    assert ondisk.tree(root.v2)


def test_store_that_fails_verification_is_not_put_in_use(
    root: OnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = migrate_module.write_store
    monkeypatch.setattr(
        migrate_module,
        "write_store",
        lambda engine, path, source, edits, like: write(engine, path, source, list(edits)[:0], like=like),
    )
    services = Recorded(root)
    services.state = lambda ids: state_of(root)  # type: ignore[method-assign]
    with pytest.raises(errors.DifferencesError, match="not put in use"):
        migrate(root, services, verify=True)
    assert services.steps == ["survey"]
    assert not root.v2.exists()
    assert root.left_behind == []


def state_of(root: OnDisk) -> PlainState:
    with OfflineContainerd.open(root.containerd, root.snapshots, exclusive=False) as containerd:
        return containerd.state([b"any"])


def test_verify_is_refused_for_lmdb(root: OnDisk) -> None:
    result = root.migrate("--verify", "--to-engine", "lmdb")
    assert result.returncode == 2
    assert not root.v2.exists()
