"""The layer store of Docker Engine, read as the engine reads it at its start (spec docker-builder-layout, 3).

A layer is a directory of small text files, named by its chain id.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from pathlib import Path
from typing import Final, NoReturn

from buildkit_migrate.errors import StorageError
from buildkit_migrate.files.errors import exists, storage_errors

__all__ = ["LayerStore", "is_chain_id"]

_ALGORITHM: Final = b"sha256:"
_CHAIN_ID: Final = re.compile(rb"sha256:[0-9a-f]{64}")
_DIGEST: Final = re.compile(rb"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}")
_NUMBER: Final = re.compile(rb"[+-]?[0-9]+")
_SPACE: Final = b" \t\n\v\f\r"
_LONGEST: Final = 4096
"""Bytes; the files that are read here are much shorter."""
_LONGEST_DESCRIPTOR: Final = 1 << 20
"""This one has a list of addresses."""

_NOT_A_FILE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ENXIO, errno.ELOOP)
"""What opening something else than a regular file may say. A FIFO is opened without waiting."""


def is_chain_id(text: bytes) -> bool:
    """Whether the engine takes the id of a snapshot for the chain id of a layer."""
    return text.startswith(_ALGORITHM) and _CHAIN_ID.fullmatch(text) is not None


class LayerStore:
    """The layers of one storage driver. Each is read once."""

    def __init__(self, directory: Path | None) -> None:
        """``directory``: ``image/<driver>/layerdb``; None if there is none, and so no layers."""
        self._directory = None if directory is None else os.fsencode(directory / "sha256") + b"/"
        self._parents: dict[bytes, bytes | None] = {}

    def parent(self, chain_id: bytes) -> bytes | None:
        """Chain id of the layer's parent, b"" if it has none; None if there is no such layer.

        There is none, either, if it or one of its ancestors is incomplete. Raises StorageError for a file
        that is there and can't be read.
        """
        if chain_id not in self._parents:
            self._load(chain_id)
        return self._parents[chain_id]

    def data_ids(self) -> set[bytes]:
        """Ids of the data of all layers, complete or not, and of containers. Raises StorageError."""
        if self._directory is None:
            return set()
        places = [(place, b"cache-id") for place in _directories(self._directory)]
        mounts = self._directory.removesuffix(b"sha256/") + b"mounts/"
        places += [(at, name) for at in _directories(mounts) for name in (b"mount-id", b"init-id")]
        texts = (_text(place, name) for place, name in places)
        return {text.strip(_SPACE) for text in texts if text is not None}

    def _load(self, chain_id: bytes) -> None:
        """Reads a layer and its ancestors. Not recursive: nobody limits how many there are."""
        line: dict[bytes, bytes] = {}
        at = chain_id
        while at and at not in line and at not in self._parents:
            parent = self._read(at)
            if parent is None:
                self._parents[at] = None
            else:
                line[at] = parent
                at = parent
        # Layers on a circle don't exist either.
        complete = not at or (at not in line and self._parents[at] is not None)
        for layer, parent in line.items():
            self._parents[layer] = parent if complete else None

    def _read(self, chain_id: bytes) -> bytes | None:
        """The parent of a layer, b"" if it has none; None if the layer is not complete."""
        if self._directory is None or not is_chain_id(chain_id):
            return None
        place = self._directory + chain_id[len(_ALGORITHM) :] + b"/"
        diff, size, cache_id = (_text(place, name) for name in (b"diff", b"size", b"cache-id"))
        if (
            diff is None
            or not _DIGEST.fullmatch(diff.strip(_SPACE))
            or size is None
            or not _is_number(size)
            or not (cache_id or b"").strip(_SPACE)
        ):
            return None
        descriptor = _text(place, b"descriptor.json", _LONGEST_DESCRIPTOR)
        if _is_there(place, b"descriptor.json") if descriptor is None else not _is_descriptor(descriptor):
            return None
        parent = _text(place, b"parent")
        if parent is None:
            return None if _is_there(place, b"parent") else b""
        parent = parent.strip(_SPACE)
        return parent if is_chain_id(parent) else None


def _directories(place: bytes) -> list[bytes]:
    with storage_errors(Path(os.fsdecode(place))):
        try:
            return sorted(os.fsencode(entry.path) + b"/" for entry in os.scandir(os.fsdecode(place)))
        except FileNotFoundError:
            return []


def _is_number(text: bytes) -> bool:
    return _NUMBER.fullmatch(text) is not None and -(2**63) <= int(text) < 2**63


def _is_descriptor(text: bytes) -> bool:
    """Whether Go's decoder takes it for the descriptor of a layer that was pulled."""
    try:
        fields = json.loads(text.decode(errors="replace"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return False
    if not isinstance(fields, dict):
        return fields is None
    known = ((_FIELDS.get(name.lower()), value) for name, value in fields.items() if value is not None)
    return all(is_right is None or is_right(value) for is_right, value in known)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, list) and all(it is None or _is_text(it) for it in value)


_FIELDS: Final = {"mediatype": _is_text, "size": _is_size, "digest": _is_text, "urls": _is_list_of_texts}
"""The fields that all versions have; Go's names have no case."""


def _is_there(place: bytes, name: bytes) -> bool:
    return exists(Path(os.fsdecode(place + name)), follow_symlinks=False)


def _text(place: bytes, name: bytes, longest: int = _LONGEST) -> bytes | None:
    """Content of a small file; None if there is no regular file."""
    try:
        fd = os.open(place + name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return os.read(fd, longest) if stat.S_ISREG(os.fstat(fd).st_mode) else None
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in _NOT_A_FILE:
            return None
        raise StorageError(f"{os.fsdecode(place + name)}: {error.strerror or error}") from error
