"""Options of the benches, and the tables of results printed at the end."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from buildkit_migrate.bench.results import Result, aligned, machine, table


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


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "records" in metafunc.fixturenames:
        metafunc.parametrize("records", metafunc.config.getoption("--records"), scope="module")


class Report:
    """The tables printed at the end, by title."""

    def __init__(self) -> None:
        self._rows: dict[str, list[dict[str, str]]] = {}
        self._results: dict[str, list[Result]] = {}

    def add(self, title: str, **columns: str) -> None:
        """Adds a row. All rows of a table have the same columns; "_" in column names becomes a space."""
        self._rows.setdefault(title, []).append(columns)

    def add_result(self, title: str, result: Result) -> None:
        self._results.setdefault(title, []).append(result)

    def results(self, title: str) -> list[Result]:
        return self._results.get(title, [])

    def tables(self) -> list[tuple[str, list[str]]]:
        tables = [(title, table(results)) for title, results in self._results.items()]
        for title, rows in self._rows.items():
            titles = [name.replace("_", " ") for name in rows[0]]
            tables.append((title, aligned([titles, *(list(row.values()) for row in rows)])))
        return tables


_REPORT = pytest.StashKey[Report]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.option.benchmark_quiet = True  # its table has no ratios, and includes process startup
    config.stash[_REPORT] = Report()


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
