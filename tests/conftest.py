"""Fixtures for parts that are not ours: bbolt for Go and a containerd daemon."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import containerd_daemon
import judge as judges


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
