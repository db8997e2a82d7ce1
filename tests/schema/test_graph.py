"""Reached nodes and cycles, against a plain statement of both."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildkit_migrate.schema.columns import Mask
from buildkit_migrate.schema.graph import Graph

NODES = st.integers(-2, 9)


@st.composite
def graphs(draw: st.DrawFn) -> list[tuple[int, int]]:
    return draw(st.lists(st.tuples(NODES, NODES), max_size=25))


def made(edges: list[tuple[int, int]]) -> Graph:
    graph = Graph(10)
    graph.add(array("i", [source for source, _ in edges]), array("i", [target for _, target in edges]))
    return graph


def after(edges: list[tuple[int, int]], start: set[int]) -> set[int]:
    """What one or more edges lead to."""
    found: set[int] = set()
    while more := {t for s, t in edges if s in start | found and min(s, t) >= 0} - found:
        found |= more
    return found


@given(graphs(), st.sets(st.integers(0, 9)))
def test_reached_nodes_equal_a_plain_search(edges: list[tuple[int, int]], start: set[int]) -> None:
    assert set(made(edges).reached(Mask(10, start))) == start | after(edges, start)


@given(graphs())
def test_cycles_equal_a_plain_search(edges: list[tuple[int, int]]) -> None:
    assert set(made(edges).cyclic()) == {node for node in range(10) if node in after(edges, {node})}


def test_places_and_bases() -> None:
    graph = Graph(6)
    graph.add(array("i", [-2, 0, 1]), None, source_base=3)
    assert set(graph.reached(Mask(6, [3]))) == {3, 1}
    assert set(graph.reached(Mask(6, [4]))) == {4, 2}
    with pytest.raises(IndexError):
        graph.add(None, array("i", [6]))
    with pytest.raises(ValueError, match="different lengths"):
        graph.add(array("i", [0]), array("i", []))


def test_long_chain_needs_no_recursion() -> None:
    graph = Graph(100_000)
    graph.add(None, array("i", range(1, 100_000)))
    assert len(graph.reached(Mask(100_000, [0]))) == 100_000
    assert not graph.cyclic()
