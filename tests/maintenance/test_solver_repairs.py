"""C51: repairs of the solver cache, edit for edit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from faults import found
from mending import Place, changed, everything, mend, plan, store

import ondisk
import v2_roots
from buildkit_migrate.schema.solver import BACKLINKS, BY_RESULT, LINKS, RESULTS
from planting import edit

pytestmark = pytest.mark.slow

Tree = dict[bytes, dict[bytes, dict[bytes, bytes]]]


@pytest.fixture
def root(tmp_path: Path) -> v2_roots.V2Root:
    return v2_roots.healed(tmp_path)


def tree(root: v2_roots.V2Root) -> Tree:
    content: Any = ondisk.tree(root.cache)
    return {name: {row: dict(items) for row, items in bucket.items()} for name, bucket in content.items()}


def mended(root: v2_roots.V2Root) -> dict[tuple[bytes | str, ...], object]:
    before = everything(root)
    planned = mend(root)
    found_then = changed(before, everything(root))
    assert planned.left == ()
    assert found(root) == set()
    assert plan(root).mends == ()
    assert {place[0] for place in found_then} == {store(root, root.cache)}
    return {place[1:]: value for place, value in found_then.items()}


def a_result(root: v2_roots.V2Root) -> tuple[bytes, bytes]:
    """A key and a result of it; a search can start at the key."""
    results = tree(root)[RESULTS]
    key = next(key for key in results if not key.startswith(b"random:"))
    return key, next(iter(results[key]))


def test_a_result_lists_its_key_again(root: v2_roots.V2Root) -> None:
    key, id = a_result(root)
    before = tree(root)
    edit(root.cache, {BY_RESULT: {id: {key: None}}})
    alone = set(before[BY_RESULT][id]) == {key}
    mended(root)
    assert tree(root) == before
    assert alone or len(before[BY_RESULT][id]) > 1


def test_a_list_by_result_is_missing(root: v2_roots.V2Root) -> None:
    key, id = a_result(root)
    listed = tree(root)[BY_RESULT][id]
    edit(root.cache, {BY_RESULT: {id: None}})
    assert mended(root) == {(BY_RESULT, id): 0, **{(BY_RESULT, id, key): b"" for key in listed}}
    assert key in listed


@pytest.mark.parametrize("others", [True, False])
def test_a_key_that_does_not_have_the_result_is_not_listed(root: v2_roots.V2Root, others: bool) -> None:
    key, id = a_result(root)
    if others:
        wrong: Place = (BY_RESULT, id, b"\xff")
        edit(root.cache, {BY_RESULT: {id: {b"\xff": b""}}})
        assert mended(root) == {wrong: None}
    else:
        lost = b"w\xff::" + b"0" * 25, b"w::r"
        edit(root.cache, {BY_RESULT: {name: {key: b"", b"other": b""} for name in lost}})
        places = [(BY_RESULT, name, *inner) for name in lost for inner in ((), (key,), (b"other",))]
        found_then = changed_by(root)
        assert found_then == dict.fromkeys(places)


def changed_by(root: v2_roots.V2Root) -> dict[tuple[bytes | str, ...], object]:
    """Of ids of results that name no worker other rules tell, too, while they are there."""
    before = everything(root)
    mend(root)
    assert found(root) == set()
    return {place[1:]: value for place, value in changed(before, everything(root)).items()}


def test_a_result_that_lists_only_wrong_keys_lists_the_right_ones(root: v2_roots.V2Root) -> None:
    key, id = a_result(root)
    before = tree(root)
    edit(root.cache, {BY_RESULT: {id: None}})
    edit(root.cache, {BY_RESULT: {id: {b"wrong": b""}}})
    mended(root)
    assert tree(root) == before
    assert key in before[BY_RESULT][id]


def test_a_key_can_be_found_again(root: v2_roots.V2Root) -> None:
    content = tree(root)
    key = next(key for key in content[RESULTS] if not content[LINKS][key])
    edit(root.cache, {LINKS: {key: None}})
    assert mended(root) == {(LINKS, key): 0}


@pytest.mark.parametrize("name", [BY_RESULT, BACKLINKS])
def test_a_whole_bucket_that_the_others_tell(root: v2_roots.V2Root, name: bytes) -> None:
    before = tree(root)
    edit(root.cache, {name: None})
    mended(root)
    missing = {
        row
        for row, items in before[name].items()
        if not items or (name == BACKLINKS and not linked(before, row))
    }
    before[name] = {row: items for row, items in before[name].items() if row not in missing}
    assert tree(root)[name] == before[name]
    assert {key: rows for key, rows in tree(root).items() if key != name} == {
        key: rows for key, rows in before.items() if key != name
    }


def linked(content: Tree, target: bytes) -> bool:
    return any(link.rpartition(b"@")[2] == target for links in content[LINKS].values() for link in links)


def test_links_are_not_made_up(root: v2_roots.V2Root) -> None:
    before = tree(root)
    edit(root.cache, {LINKS: None})
    assert set(mended(root)) == {
        (LINKS,),
        *((LINKS, key) for key, results in before[RESULTS].items() if results),
    }


def test_results_are_not_made_up(root: v2_roots.V2Root) -> None:
    edit(root.cache, {RESULTS: None})
    mend(root)
    content = tree(root)
    assert content[RESULTS] == content[BY_RESULT] == {}
    assert json.dumps(sorted(rule for rule, _, _ in found(root)))
    assert plan(root).mends == ()
