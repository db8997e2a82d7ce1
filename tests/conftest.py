"""Settings and fixtures for all tests: the sample root, bbolt for Go, a containerd daemon."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import containerd_daemon
import judge as judges
import live_root
import ondisk
import stores
from buildkit_migrate.store.engines import Engine
from buildkit_migrate.store.interface import MetadataStore
from buildkit_migrate.workspace import places

# The command is started many hundred times, so its modules are compiled once, even where Python is told to
# write no bytecode.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ["PYTHONPYCACHEPREFIX"] = str(Path(__file__).parents[1] / "build" / "bytecode")

# Most tests copy roots of a thousand directories; in memory that takes a third of the time. $TMPDIR names
# another place.
MEMORY = Path("/dev/shm")
if (
    "TMPDIR" not in os.environ
    and MEMORY.is_dir()
    and shutil.disk_usage(MEMORY).free >= 4 << 30
    and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC
):
    os.environ["TMPDIR"] = str(MEMORY)
    tempfile.tempdir = None  # pytest, which captures output in files, has already asked for it

PARTS = (
    "containerd docker.io golang-go golang-github-coreos-bbolt-dev gcc-aarch64-linux-gnu "
    "libc6-dev-arm64-cross qemu-user strace"
)

# A shell makes background processes ignore Ctrl-C; the commands that tests start must not inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests assert nothing about time, as machines differ.
settings.register_profile("default", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=25)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


# --- Tiers


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all", action="store_true", help="the slow tests, too, which otherwise only run if named"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Tests that are chosen by a path, -k or -m all run. Workers are told what was decided here."""
    chosen = config.option.keyword or config.option.markexpr
    if not hasattr(config, "workerinput") and (
        chosen or config.args_source is not pytest.Config.ArgsSource.TESTPATHS
    ):
        config.option.all = True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.option.all:
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if real := sum("real" in report.keywords for report in skipped):
        terminalreporter.write_line(
            f"{real} tests need real parts that are missing here. Debian has them: {PARTS}"
        )
    if not config.option.all:
        terminalreporter.write_line(
            "The slow tests were left out. All: python -m pytest --all -n auto --dist worksteal"
        )


@pytest.fixture
def root(tmp_path: Path) -> ondisk.OnDisk:
    """The small real root, an OCI worker's, not migrated."""
    return ondisk.sample(tmp_path)


@pytest.fixture
def no_other_roots() -> None:
    """Skips where the command could find, and change, roots that are not a test's."""
    found = places.more_places({})
    if any(path.exists() for path in (*found.docker, *found.roots, places.SYSTEM_ROOT)):
        pytest.skip("this machine has roots of its own")


@pytest.fixture(params=stores.ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    found: Engine = request.param
    return found


@pytest.fixture
def store(engine: Engine, tmp_path: Path) -> Iterator[MetadataStore]:
    with stores.open_made(tmp_path, engine, stores.TREE) as made:
        yield made


@pytest.fixture(scope="session")
def judge(tmp_path_factory: pytest.TempPathFactory) -> judges.Judge:
    if reason := judges.why_missing():
        pytest.skip(reason)
    return judges.Judge(tmp_path_factory.mktemp("judge"))


@pytest.fixture
def containerd() -> Iterator[containerd_daemon.Containerd]:
    if reason := containerd_daemon.why_missing():
        pytest.skip(reason)
    with containerd_daemon.Containerd() as daemon:
        yield daemon


@pytest.fixture
def live(tmp_path: Path) -> Iterator[live_root.Live]:
    if reason := containerd_daemon.why_missing():
        pytest.skip(reason)
    root = ondisk.sample_of_containerd(tmp_path)
    with containerd_daemon.Containerd(tmp_path / "ctd" / "root") as daemon:
        yield live_root.Live(root, daemon)


@pytest.fixture
def expected() -> live_root.Expected:
    if reason := containerd_daemon.why_missing():
        pytest.skip(reason)
    return live_root.offline_result()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Where all real parts must be installed, a skipped test that needs one is a failure."""
    report = yield
    if (
        report.skipped
        and os.environ.get("BUILDKIT_MIGRATE_REQUIRE_REAL") == "1"
        and item.get_closest_marker("real")
    ):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{Path(item.path).name}: a real part is missing: {reason}"
    return report
