"""The ARM kernel, cross-compiled and run in an emulator."""

import hashlib
import random
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.real

EXT = Path(__file__).parents[2] / "ext"
HERE = Path(__file__).parent
FLAGS = ["-std=c11", "-O3", "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{EXT}"]


def tool(*names: str) -> str:
    for name in names:
        if found := shutil.which(name):
            return found
    pytest.skip(f"no {names[0]}")


@pytest.mark.parametrize("source", sorted(path.name for path in EXT.glob("sha256/*.c")))
def test_every_file_compiles_for_arm(source: str, tmp_path: Path) -> None:
    compiler = tool("aarch64-linux-gnu-gcc")
    subprocess.run([compiler, *FLAGS, "-c", EXT / "sha256" / source, "-o", tmp_path / "out.o"], check=True)
    if any(name in source for name in ("shani", "avx", "bmi")):
        symbols = subprocess.run(
            [tool("aarch64-linux-gnu-nm"), "--defined-only", tmp_path / "out.o"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert " T " not in symbols


def test_arm_kernels_agree_with_hashlib(tmp_path: Path) -> None:
    compiler = tool("aarch64-linux-gnu-gcc")
    emulator = tool("qemu-aarch64", "qemu-aarch64-static")
    program = tmp_path / "sha256"
    sources = [HERE / "sha256_arm_main.c", *sorted(EXT.glob("sha256/*.c"))]
    subprocess.run([compiler, *FLAGS, "-static", *sources, "-o", program], check=True)

    source = random.Random(3)
    for sizes in (
        list(range(301)),
        [143] * 7,
        *([source.randrange(500) for _ in range(streams)] for streams in range(1, 12)),
    ):
        expected = [
            hashlib.sha256(bytes((i + j) % 256 for j in range(n))).hexdigest() for i, n in enumerate(sizes)
        ]
        text = "\n".join(map(str, [len(sizes), *sizes]))
        output = subprocess.run(
            [emulator, "-cpu", "max", program], input=text, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        assert output == ["armv8 right", *expected, "portable right", *expected]
