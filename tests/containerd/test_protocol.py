"""The generated messages are those of the .proto file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from buildkit_migrate.containerd import protocol

SOURCE = Path(protocol.__file__).parents[3]
PROTO = "buildkit_migrate/containerd/protocol/api.proto"


@pytest.mark.parametrize("name", ["api_pb2.py", "api_pb2.pyi"])
def test_generated_anew_they_are_the_same(name: str, tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools")
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "-I", str(SOURCE)),
            *(f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", PROTO),
        ],
        check=True,
    )
    generated = (tmp_path / PROTO).with_name(name).read_text()
    assert generated == (SOURCE / PROTO).with_name(name).read_text()
