"""Extension modules explain themselves: `help()` says what their stubs say."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import buildkit_migrate._native

STUBS = sorted(Path(buildkit_migrate._native.__file__).parent.glob("*.pyi"))
ATTRIBUTES = {  # described by the docstring of their class
    ("Reader", "path"),
    ("Bucket", "reader"),
    ("Records", "reader"),
    ("Plan", "records"),
    ("Plan", "survey"),
}


def documented(stub: Path) -> Iterator[tuple[tuple[str, ...], str | None]]:
    """Public classes, methods and functions, each with its docstring."""
    for node in ast.parse(stub.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            yield (node.name,), ast.get_docstring(node)
        for member in node.body if isinstance(node, ast.ClassDef) else []:
            if isinstance(member, ast.FunctionDef) and not member.name.startswith("_"):
                yield (node.name, member.name), ast.get_docstring(member)


@pytest.mark.parametrize("stub", STUBS, ids=lambda stub: stub.stem)
def test_run_time_docstrings_equal_the_stubs(stub: Path) -> None:
    module = importlib.import_module(f"buildkit_migrate._native.{stub.stem}")
    assert module.__doc__
    for names, expected in documented(stub):
        if names in ATTRIBUTES:
            continue
        found: object = module
        for name in names:
            found = inspect.getattr_static(found, name)
        assert expected, names
        # Cython puts the signature before it.
        assert inspect.cleandoc(found.__doc__ or "").endswith(expected), names


@pytest.mark.parametrize("stub", STUBS, ids=lambda stub: stub.stem)
def test_public_names_are_in_the_stub(stub: Path) -> None:
    module = importlib.import_module(f"buildkit_migrate._native.{stub.stem}")
    own = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }
    assert own <= {names[0] for names, _ in documented(stub)}
