"""Options of the benches."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--records", type=int, default=100_000, help="records of the synthetic root")
    parser.addoption("--directory", default=None, help="where the synthetic root is made, e.g. on a tmpfs")
    parser.addoption("--live-records", type=int, default=300, help="records of the benches with a containerd")
