from collections.abc import Sequence
from typing import Final

KNOWN_ANSWERS: Final[tuple[tuple[int, bytes], ...]]
"""(length, digest) of the bytes 0, 1, 2, ...: what the self-test runs."""

def kernels() -> tuple[str, ...]:
    """Names of the kernels that this processor can run, fastest first."""

def active() -> str:
    """Name of the kernel that is used when none is asked for.

    It is the one that ``BUILDKIT_MIGRATE_SHA256`` demands, else the fastest. Raises Error when the demanded
    one does not exist or can't run here, NativeSelfTestError when it gives a wrong digest.
    """

def digest_many(messages: Sequence[bytes], kernel: str | None = None) -> list[bytes]:
    """The 32-byte SHA-256 digests of ``messages``, in their order. Hashes without the GIL.

    ``kernel``: a name from ``kernels()``; None means ``active()``. A message is shorter than 4 GiB
    (OverflowError). Raises as ``active`` does.
    """

def self_test(kernel: str, answers: Sequence[bytes] | None = None) -> None:
    """Run the known answers through ``kernel``, in every lane; NativeSelfTestError if one is wrong.

    ``answers``: digests to expect in place of those in KNOWN_ANSWERS, in the same order.
    """
