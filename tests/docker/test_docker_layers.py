"""The layer store of Docker Engine, as its own reader sees it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from buildkit_migrate.containerd.layers import LayerStore, is_chain_id
from buildkit_migrate.errors import StorageError


def digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def layer(layerdb: Path, name: str, parent: str = "") -> Path:
    """Makes a layer; names stand for chain ids."""
    place = layerdb / "sha256" / digest(name).partition(":")[2]
    place.mkdir(parents=True)
    (place / "diff").write_text(digest(f"diff of {name}"))
    (place / "size").write_text("4096")
    (place / "cache-id").write_text("1" * 64)
    if parent:
        (place / "parent").write_text(digest(parent))
    return place


def parent(layerdb: Path | None, name: str) -> str | None:
    found = LayerStore(layerdb).parent(digest(name).encode())
    return None if found is None else found.decode()


def test_layers_have_the_parent_that_they_name(tmp_path: Path) -> None:
    layer(tmp_path, "a")
    layer(tmp_path, "b", "a")
    assert parent(tmp_path, "a") == ""
    assert parent(tmp_path, "b") == digest("a")
    assert parent(tmp_path, "c") is None
    assert parent(None, "a") is None
    assert parent(tmp_path / "missing", "a") is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("diff", ""),
        ("diff", "sha256:12"),
        ("diff", digest("x").upper()),
        ("size", ""),
        ("size", "12\n"),
        ("size", "1e3"),
        ("size", str(2**63)),
        ("size", "9" * 4000),
        ("cache-id", " \n"),
        ("parent", ""),
        ("parent", "sha256:12"),
        ("parent", digest("no such layer")),
        ("parent", digest("a")),
        ("descriptor.json", ""),
        ("descriptor.json", "{"),
        ("descriptor.json", "[]"),
        ("descriptor.json", '{"mediaType": 1}'),
        ("descriptor.json", '{"Size": 1e3}'),
        ("descriptor.json", '{"size": NaN}'),
        ("descriptor.json", '{"urls": [1]}'),
    ],
)
def test_incomplete_layers_and_those_above_do_not_exist(tmp_path: Path, name: str, content: str) -> None:
    place = layer(tmp_path, "a")
    layer(tmp_path, "b", "a")
    layer(tmp_path, "c", "b")
    (place / name).write_text(content)
    assert [parent(tmp_path, one) for one in "cba"] == [None] * 3


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "null",
        '{"digest": null, "other": []}',
        json.dumps({"mediaType": "a/b", "size": 7, "digest": digest("blob"), "urls": ["u" * 9000]}),
    ],
)
def test_a_pulled_layer_has_a_descriptor(tmp_path: Path, content: str) -> None:
    """If that is broken, the engine does not load the layer."""
    (layer(tmp_path, "a") / "descriptor.json").write_text(content)
    assert parent(tmp_path, "a") == ""


@pytest.mark.parametrize("content", ["\n{}\n", " {}", "{}"])
def test_digests_are_trimmed(tmp_path: Path, content: str) -> None:
    layer(tmp_path, "a")
    place = layer(tmp_path, "b")
    (place / "parent").write_text(content.format(digest("a")))
    (place / "diff").write_text(content.format("sha512:" + "0" * 128))
    assert parent(tmp_path, "b") == digest("a")


def directory(path: Path) -> None:
    path.mkdir()


def dangling(path: Path) -> None:
    path.symlink_to("nothing")


def circle(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize("name", ["diff", "size", "cache-id", "parent", "descriptor.json"])
@pytest.mark.parametrize("make", [None, directory, os.mkfifo, dangling, circle])
def test_what_is_not_a_file_counts_as_missing(
    tmp_path: Path, name: str, make: Callable[[Path], None] | None
) -> None:
    """A FIFO is not waited for. Only two of them may be missing."""
    layer(tmp_path, "a")
    place = layer(tmp_path, "b", "a")
    (place / name).unlink(missing_ok=True)
    if make is not None:
        make(place / name)
    without = {"parent": "", "descriptor.json": digest("a")}
    assert parent(tmp_path, "b") == (without.get(name) if make is None else None)


def test_circles_of_layers_do_not_exist(tmp_path: Path) -> None:
    for name, above in (("a", "b"), ("b", "c"), ("c", "a"), ("d", "a"), ("e", "e")):
        layer(tmp_path, name, above)
    store = LayerStore(tmp_path)
    assert [store.parent(digest(name).encode()) for name in "dabce"] == [None] * 5


def test_chains_may_be_deep(tmp_path: Path) -> None:
    for number in range(1500):
        layer(tmp_path, str(number), str(number - 1) if number else "")
    assert parent(tmp_path, "1499") == digest("1498")


def test_what_can_not_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine takes such a layer for missing, too, but here its records might be dropped for that."""
    layer(tmp_path, "a")

    def refuse(*args: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StorageError, match="diff: Permission denied"):
        parent(tmp_path, "a")


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (digest("x"), True),
        (digest("x")[:-1], False),
        (digest("x").upper(), False),
        (digest("x") + "0", False),
        ("sha512:" + "0" * 128, False),
        ("x2k0ziw0bfm9qrgvcy69kp012", False),
    ],
)
def test_chain_ids_are_sha256_digests(text: str, is_one: bool) -> None:
    assert is_chain_id(text.encode()) is is_one
