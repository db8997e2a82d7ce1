"""Options of the benches, the tables of results printed at the end, and the report of ``--report``."""

from __future__ import annotations

import shlex
from argparse import ArgumentTypeError
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from buildkit_migrate.bench.points import SLOWER, Point, Run, changes, read
from buildkit_migrate.bench.results import Result, aligned, machine, table
from page import write_report


def _sizes(text: str) -> list[int]:
    sizes = [int(size) if size.isdecimal() else 0 for size in text.split(",")]
    if min(sizes) < 100:
        raise ArgumentTypeError("must be comma-separated numbers from 100 up")
    return sizes


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--records", type=_sizes, default=[10_000], help="records in synthetic roots: N[,N...]")
    parser.addoption("--directory", default=None, help="where to create synthetic roots, e.g. a tmpfs")
    parser.addoption("--live-records", type=int, default=300, help="records in benches with a containerd")
    parser.addoption(
        "--race",
        metavar="COMMAND",
        default=None,
        help="another migration to race: gets a copy of the v1 store and a world file, prints its seconds",
    )
    parser.addoption(
        "--report",
        metavar="DIR",
        type=Path,
        default=None,
        help="write pictures, index.html and results.json; adds to the results that are there",
    )
    parser.addoption(
        "--compare",
        metavar="OLD.json",
        type=Path,
        default=None,
        help="results.json of an earlier run: tell which ratios to floors and baselines grew",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "records" in metafunc.fixturenames:
        metafunc.parametrize("records", metafunc.config.getoption("--records"), scope="module")


class Report:
    """The tables printed at the end, by title, and the points of the pictures."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.points: list[Point] = []
        self._rows: dict[str, list[dict[str, str]]] = {}
        self._results: dict[str, list[Result]] = {}

    def add(self, title: str, **columns: str) -> None:
        """Adds a row. All rows of a table have the same columns; "_" in column names becomes a space."""
        self._rows.setdefault(title, []).append(columns)

    def add_result(self, title: str, result: Result) -> None:
        self._results.setdefault(title, []).append(result)

    def add_point(
        self, picture: str, series: str, at: float | str, value: float, ratio: float | None = None
    ) -> None:
        """See `buildkit_migrate.bench.points.Point`."""
        self.points.append(Point(picture, series, at, value, ratio, self.run))

    def results(self, title: str) -> list[Result]:
        return self._results.get(title, [])

    def tables(self) -> list[tuple[str, list[str]]]:
        tables = [(title, table(results)) for title, results in self._results.items()]
        for title, rows in self._rows.items():
            titles = [name.replace("_", " ") for name in rows[0]]
            tables.append((title, aligned([titles, *(list(row.values()) for row in rows)])))
        return tables


_REPORT = pytest.StashKey[Report]()


def _command(arguments: Iterable[str]) -> str:
    """The command to measure the same again: without places on this machine, and how much is printed."""
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        option = argument.partition("=")[0]
        if option in ("--report", "--compare", "--directory", "-p", "--rootdir"):
            if option == argument:
                next(rest, None)
        elif option not in ("-q", "-v", "-s", "-x"):
            kept.append(argument)
    return shlex.join(["pytest", *kept])


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.option.benchmark_quiet = True  # its table has no ratios, and includes process startup
    run = Run(_command(config.invocation_params.args), machine(), f"{datetime.now(UTC):%Y-%m-%d}")
    config.stash[_REPORT] = Report(run)


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> Report:
    return request.config.stash[_REPORT]


@pytest.fixture(scope="session")
def directory(request: pytest.FixtureRequest) -> str | None:
    """Where synthetic roots are created; None for the system's temporary directory."""
    place: str | None = request.config.getoption("--directory")
    return place and str(Path(place).absolute())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    tables = config.stash[_REPORT].tables()
    if tables:
        terminalreporter.section(machine())
    for title, lines in tables:
        terminalreporter.write_line("")
        terminalreporter.write_line(title)
        for line in lines:
            terminalreporter.write_line(f"  {line}")
    before: Path | None = config.getoption("--compare")
    if before is not None:
        terminalreporter.section(f"compared with {before}")
        for line in _compared(before, config.stash[_REPORT].points):
            terminalreporter.write_line(line)
    directory: Path | None = config.getoption("--report")
    if directory is not None:
        write_report(directory, config.stash[_REPORT].points)
        terminalreporter.write_line(f"report: {directory / 'index.html'}")


def _compared(before: Path, points: list[Point]) -> Iterator[str]:
    found = list(changes(read(before), points))
    slower = [change for change in found if change.now > SLOWER * change.before]
    yield f"{len(found)} ratios compared, {len(slower)} grew by more than {SLOWER - 1:.0%}"
    yield from (change.line() for change in slower)
