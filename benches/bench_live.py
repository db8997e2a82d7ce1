"""Migrations against a running containerd: ``pytest benches/bench_live.py [--live-records N]``.

Needs root and containerd. Each run starts a containerd on a fresh copy of the same state, on disk
(``--directory``) or in memory (``/dev/shm``). Besides calls per second it reports the share of time in which
at least one call was with the daemon, the client's use of a processor, and the calls per record relative to
upstream. Upstream's calls are counted from the plan: for each record Stat and Info, Create, AddResource once
or twice, Update once or twice.
"""

import resource
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import containerd_daemon
from buildkit_migrate._native.plan import Plan
from buildkit_migrate.bench.synthetic import WORKER, generate
from buildkit_migrate.bolt import Database
from buildkit_migrate.containerd.client import Client
from buildkit_migrate.containerd.live import LiveContainerd
from buildkit_migrate.containerd.protocol import api_pb2 as api
from buildkit_migrate.containerd.protocol import methods
from buildkit_migrate.containerd.services import ConnectionOptions
from buildkit_migrate.migration.journal import Journal
from buildkit_migrate.migration.migrate import migrate_v2
from buildkit_migrate.migration.plan import planned_record, read_records
from conftest import Report

pytestmark = pytest.mark.skipif(bool(containerd_daemon.why_missing()), reason=containerd_daemon.why_missing())

CONCURRENCY = (1, 4, 16, 64, 256)
PLACES = ("disk", "memory")


@pytest.fixture(scope="module")
def state(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A v1 store and its containerd databases, to be copied."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "root"
        generate(root, "forest", request.config.getoption("--live-records"))
        worker = root / WORKER
        state = Path(directory) / "state"
        for source, target in (
            ("metadata.db", "metadata.db"),
            ("containerdmeta.db", "io.containerd.metadata.v1.bolt/meta.db"),
            ("snapshots/metadata.db", "io.containerd.snapshotter.v1.overlayfs/metadata.db"),
        ):
            (state / target).parent.mkdir(parents=True, exist_ok=True)
            (worker / source).rename(state / target)
        yield state


class Run:
    """A containerd on a copy of the state, and a plan made from its survey."""

    def __init__(
        self, held: ExitStack, state: Path, place: str, directory: str | None, concurrency: int
    ) -> None:
        base = held.enter_context(
            tempfile.TemporaryDirectory(dir="/dev/shm" if place == "memory" else directory)
        )
        copy = Path(base) / "state"
        shutil.copytree(state, copy)
        self.daemon = held.enter_context(containerd_daemon.Containerd(copy))
        self.concurrency = concurrency
        options = ConnectionOptions(self.daemon.address, concurrency=concurrency)
        self.containerd = held.enter_context(LiveContainerd.open(options=options))
        self.source = held.enter_context(Database.open(copy / "metadata.db"))
        self.records = read_records(self.source.reader)
        self.plan = Plan(self.records, self.containerd.survey(lambda: self.records))

    @property
    def calls(self) -> int:
        counts = self.plan.counts
        return sum(
            counts[name]
            for name in ("leases_to_create", "resources_to_add", "unlabel_snapshots", "unlabel_blobs")
        )

    @property
    def calls_of_upstream(self) -> int:
        """Upstream queries and updates each record separately; blobs shared by records count for each."""
        counts = self.plan.counts
        snapshots = counts["unlabel_snapshots"] - counts["views"]  # of records without equal-mutable
        blobs = sum(planned_record(self.plan, index).blob != b"" for index in range(len(self.records)))
        leases = counts["leases_to_create"] + counts["resources_to_add"]
        return 2 * snapshots + 2 * blobs + leases + counts["views"]


class InFlight:
    """Seconds during which at least one call was with the daemon."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._since = 0.0
        self.busy = 0.0

    def __enter__(self) -> None:
        with self._lock:
            if self._count == 0:
                self._since = time.perf_counter()
            self._count += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0:
                self.busy += time.perf_counter() - self._since


def with_asyncio(run: Run, in_flight: InFlight) -> None:
    """What the package itself does."""
    call = Client.call

    async def counted(self: Client, *arguments: Any) -> Any:
        with in_flight:
            return await call(self, *arguments)

    Client.call = counted  # type: ignore[method-assign]
    try:
        run.containerd.apply(run.plan, lambda id: None)
    finally:
        Client.call = call  # type: ignore[method-assign]


def with_threads(run: Run, in_flight: InFlight) -> None:
    """The same calls made by a pool of threads."""
    metadata = (("containerd-namespace", "buildkit"),)
    mask = api.FieldMask(paths=[b"labels.containerd.io/gc.root"])

    with grpc.insecure_channel(f"unix:{run.daemon.address}") as channel:

        def call(method: methods.Method[Any, Any], request: Any) -> None:
            send = channel.unary_unary(
                method.path, method.request.SerializeToString, method.response.FromString
            )
            with in_flight:
                send(request, metadata=metadata, timeout=60)

        def lease(item: Any) -> None:
            id, _, resources = item
            flat = api.Label(key=b"containerd.io/gc.flat", value=b"now")
            call(methods.CREATE_LEASE, api.CreateLeaseRequest(id=id, labels=[flat]))
            for kind, name in sorted(resources):
                resource = api.Resource(id=name, type=kind.encode())
                call(methods.ADD_RESOURCE, api.LeaseResourceRequest(id=id, resource=resource))

        def snapshot(name: bytes) -> None:
            info = api.SnapshotInfo(name=name)
            request = api.UpdateSnapshotRequest(snapshotter=b"overlayfs", info=info, update_mask=mask)
            call(methods.UPDATE_SNAPSHOT, request)

        def blob(digest: bytes) -> None:
            request = api.UpdateContentRequest(info=api.BlobInfo(digest=digest), update_mask=mask)
            call(methods.UPDATE_CONTENT, request)

        in_threads(run.plan.leases(), lease, run.concurrency)
        in_threads(run.plan.unlabel_snapshots(), snapshot, run.concurrency)
        in_threads(run.plan.unlabel_blobs(), blob, run.concurrency)


def in_threads(items: Iterable[Any], work: Callable[[Any], None], count: int) -> None:
    rest, lock = iter(items), threading.Lock()

    def worker() -> None:
        while True:
            with lock:
                item = next(rest, None)
            if item is None:
                return
            work(item)

    threads = [threading.Thread(target=worker) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("driver", [with_asyncio, with_threads], ids=["asyncio", "threads"])
@pytest.mark.parametrize("concurrency", CONCURRENCY)
@pytest.mark.parametrize("place", PLACES)
def test_apply(
    place: str,
    concurrency: int,
    driver: Callable[[Run, InFlight], None],
    state: Path,
    benchmark: BenchmarkFixture,
    report: Report,
    directory: str | None,
) -> None:
    with ExitStack() as held:
        run = Run(held, state, place, directory, concurrency)
        in_flight = InFlight()
        before = processor_seconds()
        benchmark.pedantic(driver, args=(run, in_flight), rounds=1)
        used = processor_seconds() - before
        seconds = benchmark.stats.stats.min
        assert len(run.daemon.leases()) == len(run.records)
        report.add(
            f"Calls to a running containerd, {len(run.records)} records",
            containerd=f"on {place}" if place == "disk" else "in memory",
            by=driver.__name__.removeprefix("with_"),
            in_flight=f"{concurrency}",
            calls_per_second=f"{run.calls / seconds:.0f}",
            calls_per_record=f"{run.calls / len(run.records):.2f}",
            of_upstream=f"{run.calls / run.calls_of_upstream:.0%}",
            daemon_busy=f"{in_flight.busy / seconds:.1%}",
            own_processor=f"{used / seconds:.0%}",
        )


def test_journal(state: Path, benchmark: BenchmarkFixture, report: Report, directory: str | None) -> None:
    """A whole migration, and how much of it is spent on the journal: creating, updating and closing it."""
    with ExitStack() as held:
        run = Run(held, state, "disk", directory, 16)
        spent = 0.0

        def timed(function: Callable[..., Any]) -> Callable[..., Any]:
            def wrapper(*arguments: Any, **named: Any) -> Any:
                nonlocal spent
                began = time.perf_counter()
                try:
                    return function(*arguments, **named)
                finally:
                    spent += time.perf_counter() - began

            return wrapper

        patch = held.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(Journal, "create", timed(Journal.create))
        for name in ("lease_finished", "update", "close"):
            patch.setattr(Journal, name, timed(getattr(Journal, name)))
        services = run.containerd
        v1 = Path(run.records.reader.path)

        def migrate() -> None:
            migrate_v2(
                v1,
                v1.with_name("metadata_v2.db"),
                services.content_store,
                services.snapshotter,
                services.lease_manager,
            )

        run.source.close()
        benchmark.pedantic(migrate, rounds=1)
        share = spent / benchmark.stats.stats.min
        report.add(
            "Live migration and its journal",
            records=f"{len(run.records)}",
            seconds=f"{benchmark.stats.stats.min:.2f}",
            of_that_for_the_journal=f"{share:.1%}",
        )


def test_survey(state: Path, benchmark: BenchmarkFixture, report: Report, directory: str | None) -> None:
    """Surveys all snapshots, blobs and leases. The result is scaled to 10,000 snapshots."""
    with ExitStack() as held:
        run = Run(held, state, "disk", directory, 16)
        benchmark.pedantic(run.containerd.survey, args=(run.records,), rounds=3)
        counts = run.plan.counts
        snapshots = counts["unlabel_snapshots"] + counts["labels_left_snapshots"]
        per = benchmark.stats.stats.min / snapshots * 10_000
        report.add("Survey of a running containerd", snapshots=f"{snapshots}", seconds_for_10000=f"{per:.2f}")
