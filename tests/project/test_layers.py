"""The house stands: no import goes up, none in a circle, no source is long; extension modules and C included.

Run as a program it prints what it found: ``python tests/project/test_layers.py``.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
PACKAGE = "buildkit_migrate"

ROOMS = (
    ("__main__",),
    ("cli",),
    ("bench",),
    ("", "embed"),
    ("api",),
    ("migration", "maintenance"),
    ("workspace",),
    ("containerd",),
    ("store",),
    ("schema",),
    ("bolt",),
    ("lmdb",),
    ("chain",),
    ("values",),
    ("files",),
    ("settings", "choices"),
    ("_native",),
    ("errors",),
    ("model", "progress"),
    ("text",),
)
"""Top to bottom; in one room are modules and packages of these names."""

SOURCES = (".py", ".pyi", ".pyx", ".pxd", ".c", ".h")
MOST_LINES = 500

Graph = Mapping[str, set[str]]


def modules() -> dict[str, Path]:
    """Name below the package to source."""
    found = {path.stem: path for path in sorted((CHECKOUT / "ext").rglob("*.pyx"))}
    found = {f"_native.{name}": path for name, path in found.items()}
    top = CHECKOUT / "src" / PACKAGE
    for path in sorted(top.rglob("*.py")):
        name = ".".join(path.relative_to(top).with_suffix("").parts)
        found[name.removesuffix("__init__").rstrip(".")] = path
    return found


def imports() -> Graph:
    """What each module imports of the package, be it late or for types only."""
    sources = modules()
    return {
        name: {resolved(imported, sources) for imported in imported_names(path)} - {name}
        for name, path in sources.items()
    }


def resolved(name: str, sources: Mapping[str, Path]) -> str:
    """The module that a dotted name is of."""
    while name not in sources:
        name = name.rpartition(".")[0]
    return name


def imported_names(path: Path) -> Iterator[str]:
    """Dotted names below the package."""
    text = path.read_text()
    if path.suffix == ".pyx":
        # Cython's grammar is none of ast's, but its imports look the same.
        declared = CHECKOUT / "src" / PACKAGE / "_native" / f"{path.stem}.pxd"
        text += declared.read_text() if declared.exists() else ""
        text = re.sub(r"\bcimport\b", "import", text)
        text = "\n".join(re.findall(r"^ *(?:from \S+ )?import (?:\([^)]*\)|[^\n#]*)", text, re.M))
        text = "\n".join(line.strip() for line in text.splitlines())
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name == PACKAGE or name.startswith(f"{PACKAGE}."):
                yield name[len(PACKAGE) + 1 :]


def floor(module: str) -> int:
    """Number of the room, from the top."""
    place = {name: number for number, room in enumerate(ROOMS) for name in room}
    return place[module.partition(".")[0]]


def upward(graph: Graph) -> list[str]:
    return [
        f"{module} -> {imported}"
        for module, found in sorted(graph.items())
        for imported in sorted(found)
        if floor(imported) < floor(module)
    ]


def circles(graph: Graph) -> list[list[str]]:
    """Sets of nodes from each of which all others are reached (Tarjan's algorithm)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for following in sorted(graph[node]):
            if following not in order:
                visit(following)
                low[node] = min(low[node], low[following])
            elif following in stack:
                low[node] = min(low[node], order[following])
        if low[node] == order[node]:
            members = [stack.pop()]
            while members[-1] != node:
                members.append(stack.pop())
            if len(members) > 1 or node in graph[node]:
                found.append(sorted(members))

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return found


def includes() -> Graph:
    """What each C header and source includes of ours."""
    ext = CHECKOUT / "ext"
    files = {str(path.relative_to(ext)): path for path in ext.rglob("*.[ch]")}
    return {
        name: {
            included for included in re.findall(r'#include "(\S+)"', path.read_text()) if included in files
        }
        for name, path in files.items()
    }


def test_each_header_is_declared_for_cython_once() -> None:
    sources = [*(CHECKOUT / "ext").rglob("*.p[xy][xd]"), *(CHECKOUT / "src").rglob("*.pxd")]
    declared = [
        header for path in sources for header in re.findall(r'cdef extern from "([^"]+)"', path.read_text())
    ]
    assert "bolt/reader.h" in declared
    assert [header for header, number in Counter(declared).items() if number > 1] == []


def test_no_source_is_long() -> None:
    found = [path for top in ("src", "ext") for path in (CHECKOUT / top).rglob("*") if path.suffix in SOURCES]
    assert len(found) > 100
    assert {path for path in found if len(path.read_text().splitlines()) > MOST_LINES} == set()


def test_each_module_belongs_to_a_layer() -> None:
    for module in modules():
        floor(module)


def test_no_import_goes_up() -> None:
    assert upward(imports()) == []


def test_native_code_makes_no_plain_objects() -> None:
    """What they are made of lies below it, for the sake of errors."""
    native = {module: found for module, found in imports().items() if floor(module) == floor("_native")}
    below = {
        imported for found in native.values() for imported in found if floor(imported) > floor("_native")
    }
    assert below == {"errors"}


def test_no_imports_in_a_circle() -> None:
    assert circles(imports()) == []
    assert circles(includes()) == []


def test_imports_of_each_language_are_found() -> None:
    assert "errors" in imports()["api"]
    assert "errors" in imports()["_native.bolt"]
    assert "bolt/reader.h" in includes()["bolt/reader.c"]


def test_upward_imports_and_circles_are_seen() -> None:
    assert upward({"bolt.x": {"store.y"}, "store.y": {"bolt.x"}}) == ["bolt.x -> store.y"]
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d"}}) == [["b", "c"], ["d"]]


if __name__ == "__main__":
    graph = imports()
    for title, lines in (
        ("upward imports", upward(graph)),
        ("circles", [" <-> ".join(members) for members in [*circles(graph), *circles(includes())]]),
    ):
        print(f"{title}: {len(lines)}", *lines, sep="\n  ")
