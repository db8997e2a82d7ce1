"""The generated messages are those of the .proto file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import buildkit_migrate

SOURCE = Path(buildkit_migrate.__file__).parents[1]
PROTOS = ("buildkit_migrate/containerd/protocol/api.proto", "buildkit_migrate/schema/history.proto")


@pytest.mark.parametrize("ending", ["_pb2.py", "_pb2.pyi"])
@pytest.mark.parametrize("proto", PROTOS)
def test_generated_code_is_up_to_date(proto: str, ending: str, tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools")
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "-I", str(SOURCE)),
            *(f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", proto),
        ],
        check=True,
    )
    name = proto.removesuffix(".proto") + ending
    assert (tmp_path / name).read_text() == (SOURCE / name).read_text()
