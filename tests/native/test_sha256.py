"""SHA-256 kernels: results compared with hashlib, selection, self-test."""

import hashlib
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildkit_migrate import errors
from buildkit_migrate._native import sha256

EXT = Path(__file__).parents[2] / "ext"
HERE = Path(__file__).parent
VARIABLE = "BUILDKIT_MIGRATE_SHA256"
NAMES = ("armv8", "avx2", "avx512", "bmi2", "portable", "shani")


def digests(messages: list[bytes]) -> list[bytes]:
    return [hashlib.sha256(message).digest() for message in messages]


@pytest.fixture(params=sha256.kernels())
def kernel(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_portable_kernel_is_always_there_and_comes_last() -> None:
    assert sha256.kernels()[-1] == "portable"
    assert set(sha256.kernels()) <= set(NAMES)


def test_messages_of_every_length_are_hashed(kernel: str) -> None:
    text = random.Random(1).randbytes(300)
    for size in range(301):
        assert sha256.digest_many([text[:size]], kernel) == digests([text[:size]])


def test_batch_with_every_length_is_hashed(kernel: str) -> None:
    text = random.Random(2).randbytes(300)
    messages = [text[:size] for size in range(301)]
    assert sha256.digest_many(messages, kernel) == digests(messages)


@pytest.mark.parametrize("streams", range(1, 41))
def test_any_number_of_streams_is_hashed(kernel: str, streams: int) -> None:
    source = random.Random(streams)
    in_step = [source.randbytes(143) for _ in range(streams)]
    mixed = [source.randbytes(source.choice((0, 1, 55, 56, 63, 64, 65, 200, 1000))) for _ in range(streams)]
    assert sha256.digest_many(in_step, kernel) == digests(in_step)
    assert sha256.digest_many(mixed, kernel) == digests(mixed)


@given(messages=st.lists(st.binary(max_size=400), max_size=60))
def test_any_messages_are_hashed(messages: list[bytes]) -> None:
    expected = digests(messages)
    for kernel in sha256.kernels():
        assert sha256.digest_many(messages, kernel) == expected


def test_long_message_among_short_ones_is_hashed(kernel: str) -> None:
    messages = [b"a" * 100, bytes(range(256)) * 5000, *[b"%d" % i for i in range(30)]]
    assert sha256.digest_many(messages, kernel) == digests(messages)


def test_messages_that_are_not_bytes_are_refused() -> None:
    for wrong in (None, "text", bytearray(b"text")):
        with pytest.raises(TypeError):
            sha256.digest_many([b"", wrong])  # type: ignore[list-item]


# ---- choice ----


def active_with(value: str | None) -> subprocess.CompletedProcess[str]:
    """What a new interpreter prints with the variable set: the kernel, or the error and its hint."""
    program = (
        "from buildkit_migrate import errors\n"
        "from buildkit_migrate._native import sha256\n"
        "try:\n"
        "    print(sha256.active())\n"
        "except errors.Error as error:\n"
        "    print(type(error).__name__, error, error.hint, sep='\\n')\n"
    )
    environment = {name: text for name, text in os.environ.items() if name != VARIABLE}
    if value is not None:
        environment[VARIABLE] = value
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )


def test_preferred_kernel_is_the_default() -> None:
    assert active_with(None).stdout.split() == [sha256.kernels()[0]]
    assert active_with("").stdout.split() == [sha256.kernels()[0]]


def test_environment_selects_a_kernel(kernel: str) -> None:
    assert active_with(kernel).stdout.split() == [kernel]


def test_unknown_kernel_in_the_environment_is_refused() -> None:
    kind, message, hint = active_with("md5").stdout.splitlines()
    assert kind == "Error"
    assert "'md5'" in message
    assert VARIABLE in message
    assert "does not exist" in message
    assert "portable" in hint


def test_kernel_of_another_processor_is_refused() -> None:
    missing = [name for name in NAMES if name not in sha256.kernels()]
    for name in missing:
        kind, message, _ = active_with(name).stdout.splitlines()
        assert kind == "Error"
        assert f"{name!r}" in message
        assert "can't run" in message
    assert missing, "no processor runs x86 and ARM kernels"


def test_unknown_kernel_as_argument_is_refused() -> None:
    with pytest.raises(errors.Error, match="'md5' does not exist"):
        sha256.digest_many([b""], "md5")


# ---- self-test ----


def test_known_answers_are_right() -> None:
    assert sha256.KNOWN_ANSWERS
    for size, digest in sha256.KNOWN_ANSWERS:
        assert digest == hashlib.sha256(bytes(range(size))).digest()


@pytest.mark.parametrize("name", NAMES)
def test_self_test_passes(name: str) -> None:
    if name not in sha256.kernels():
        pytest.skip(f"this processor can't run {name}")
    sha256.self_test(name)


@pytest.mark.parametrize("which", range(len(sha256.KNOWN_ANSWERS)))
def test_self_test_sees_one_wrong_bit(kernel: str, which: int) -> None:
    answers = [digest for _, digest in sha256.KNOWN_ANSWERS]
    answers[which] = answers[which][:-1] + bytes([answers[which][-1] ^ 1])
    with pytest.raises(errors.NativeSelfTestError):
        sha256.self_test(kernel, answers)


def test_self_test_finds_a_fault_in_any_lane(tmp_path: Path) -> None:
    """A C program runs the self-test on kernels with a fault in one lane or at one block count."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc)")
    program = tmp_path / "faulty"
    sources = [HERE / "sha256_faulty_main.c", *sorted(EXT.glob("sha256/*.c"))]
    subprocess.run([compiler, "-std=gnu11", "-O1", f"-I{EXT}", *sources, "-o", program], check=True)
    lines = subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[0] == "no fault: right"
    assert len(lines) > 10
    assert [line for line in lines[1:] if not line.endswith(": wrong")] == []
