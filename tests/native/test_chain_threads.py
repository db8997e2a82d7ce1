"""The chainID engine on several threads: the same results, and no data race."""

import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from buildkit_migrate._native import chain

EXT = Path(__file__).parents[2] / "ext"
MAIN = Path(__file__).parent / "chain_threads_main.c"
COUNT = 20_000  # enough for the engine to use more than one thread

SHAPES: dict[str, Callable[[int, random.Random], int]] = {
    "forest": lambda i, source: -1 if i == 0 or source.random() < 0.06 else source.randrange(i),
    "one parent": lambda i, _: min(i, 1) - 1,
    "one chain": lambda i, _: i - 1,
    "twenty chains": lambda i, _: i - 20 if i >= 20 else -1,
    "growing from one root": lambda i, _: (i - 1) // 2 if i else -1,
    "a stem with a crown": lambda i, _: i - 1 if i < COUNT // 2 else COUNT // 2 - 1,
    "no parents": lambda *_: -1,
    "all cycles": lambda i, _: (i + 1) % COUNT,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_results_do_not_depend_on_the_number_of_threads(shape: str) -> None:
    source = random.Random(shape)
    pool = [b"sha256:%064x" % source.getrandbits(256) for _ in range(500)]
    parents = [SHAPES[shape](i, source) for i in range(COUNT)]
    if shape == "forest":
        parents = [-2 if source.random() < 0.001 else parent for parent in parents]
        pool += [b"", b"sha256:" + b"A" * 64, b"x" * 71, b"y" * 5]
    diff_ids, blobs = ([source.choice(pool) for _ in range(COUNT)] for _ in range(2))
    one = chain.chain_ids(parents, diff_ids, blobs)
    for threads in (2, 3, 200):
        assert chain.chain_ids(parents, diff_ids, blobs, threads=threads) == one


def test_zero_threads_count_as_one() -> None:
    assert chain.chain_ids([-1], [b"d"], [b"b"], threads=0) == chain.chain_ids([-1], [b"d"], [b"b"])


def test_threads_have_no_data_race(tmp_path: Path) -> None:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc")
    program = tmp_path / "threads"
    sources = [MAIN, EXT / "core/column.c", *sorted(EXT.glob("chain/*.c")), *sorted(EXT.glob("sha256/*.c"))]
    built = subprocess.run(
        [compiler, "-std=gnu11", "-O1", "-g", "-fsanitize=thread", f"-I{EXT}", *sources, "-o", program],
        capture_output=True,
        text=True,
    )
    if "tsan" in built.stderr:
        pytest.skip("gcc has no ThreadSanitizer here")
    assert built.returncode == 0, built.stderr
    control = subprocess.run([program, "race"], capture_output=True, text=True)
    if "data race" not in control.stderr:
        pytest.skip(f"ThreadSanitizer does not work here: {control.stderr[-200:]}")
    result = subprocess.run([program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "same\n"
    assert "WARNING" not in result.stderr
