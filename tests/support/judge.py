"""bbolt for Go as the judge of bolt files: builds `judge/main.go` and runs it.

Debian's packages golang-go and golang-github-coreos-bbolt-dev are enough; nothing is downloaded.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trees import Row

GOPATH = Path("/usr/share/gocode")
SOURCE = Path(__file__).with_name("judge") / "main.go"


def why_missing() -> str:
    """The reason why no judge can be built here, "" if one can."""
    if shutil.which("go") is None:
        return "no go command"
    if not (GOPATH / "src/go.etcd.io/bbolt").is_dir():
        return f"no bbolt library below {GOPATH}"
    return ""


def build(source: Path, directory: Path) -> Path:
    """Builds a program, which `directory` gets, as well as Go's build cache."""
    program = directory / source.stem
    environment = os.environ | {
        "GO111MODULE": "off",
        "GOFLAGS": "",
        "GOPATH": str(GOPATH),
        "GOCACHE": str(directory / "cache"),
    }
    subprocess.run(["go", "build", "-o", program, source], env=environment, check=True)
    return program


class Judge:
    """One built judge; `directory` gets the program and Go's build cache."""

    def __init__(self, directory: Path) -> None:
        self._program = build(SOURCE, directory)

    def check(self, path: Path) -> list[str]:
        """What bbolt finds wrong with the file; empty if nothing."""
        return self._verdict("check", path)

    def seconds(self, path: Path) -> float:
        """How long bbolt's own check of a sound file takes, without opening it."""
        done = self._run("time", path)
        assert done.returncode == 0, done.stdout[-1000:] + done.stderr
        return int(done.stdout) / 1e9

    def update(self, path: Path, seed: int, transactions: int) -> list[str]:
        """Runs random transactions; returns what the check and a model of the content then find wrong."""
        return self._verdict("update", path, seed, transactions)

    def make(self, path: Path, seed: int, keys: int, page_size: int, *flags: str) -> None:
        """Makes a file with nested and inline buckets, sequences, large values and free pages."""
        errors = self._verdict("make", path, seed, keys, page_size, *flags)
        assert errors == [], f"bbolt made a bad file: {errors}"

    def dump(self, path: Path) -> list[Row]:
        """All rows of the file, as `trees.rows` gives them for a tree."""
        return list(self._rows(path))

    def inline(self, path: Path) -> set[tuple[bytes, ...]]:
        """The paths of the buckets that are stored inside their parent's page."""
        return {_path(line) for line in self._lines(path) if line.get("inline")}

    def _rows(self, path: Path) -> Iterator[Row]:
        for line in self._lines(path):
            if "key" in line:
                yield _path(line), b64decode(line["key"]), b64decode(line["value"])
            else:
                yield _path(line), None, line.get("sequence", 0)

    def _lines(self, path: Path) -> Iterator[dict[str, Any]]:
        done = self._run("dump", path)
        assert done.returncode == 0, done.stdout[-1000:] + done.stderr
        return map(json.loads, done.stdout.splitlines())

    def _verdict(self, *arguments: object) -> list[str]:
        done = self._run(*arguments)
        assert done.returncode in (0, 1), done.stderr
        return [] if done.returncode == 0 else done.stdout.splitlines()

    def _run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(self._program), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=600)


def _path(line: dict[str, Any]) -> tuple[bytes, ...]:
    return tuple(b64decode(name) for name in line["path"])
