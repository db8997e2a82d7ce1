"""What is said about a release in several places agrees."""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

import buildkit_migrate
import pages

PYTHONS: Final = ["3.11", "3.12", "3.13", "3.14"]


def text(path: str) -> str:
    return (pages.REPOSITORY / path).read_text()


def pyproject() -> dict[str, Any]:
    return tomllib.loads(text("pyproject.toml"))


def test_versions_of_python_are_the_same_everywhere() -> None:
    project = pyproject()["project"]
    classifiers = " ".join(project["classifiers"])
    assert re.findall(r"Python :: (3\.\d+)", classifiers) == PYTHONS
    assert project["requires-python"] == f">={PYTHONS[0]}"
    wheels = pyproject()["tool"]["cibuildwheel"]["build"]
    assert wheels == [f"cp{version.replace('.', '')}-*" for version in PYTHONS]
    (matrix,) = re.findall(r"python: \[(.*)\]", text(".github/workflows/ci.yml"))
    assert re.findall(r"[\d.]+", matrix) == PYTHONS


def test_version_stands_in_one_place() -> None:
    assert pyproject()["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "buildkit_migrate.__version__"}
    # What the release workflow compares with the tag.
    found = re.findall(r'^__version__ = "(.*)"$', text("src/buildkit_migrate/__init__.py"), re.M)
    assert found == [buildkit_migrate.__version__]


def test_tests_of_a_wheel_exist() -> None:
    command = pyproject()["tool"]["cibuildwheel"]["test-command"]
    paths = re.findall(r"tests/\S+", command)
    assert paths
    assert all((pages.REPOSITORY / path).exists() for path in paths)
