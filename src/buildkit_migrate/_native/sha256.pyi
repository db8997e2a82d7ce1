from collections.abc import Sequence
from typing import Final

KNOWN_ANSWERS: Final[tuple[tuple[int, bytes], ...]]
"""(length, digest) of messages with the bytes 0, 1, 2, ...; used by the self-test."""

def kernels() -> tuple[str, ...]:
    """Names of the kernels that this processor can run, preferred first."""

def active() -> str:
    """Name of the default kernel.

    That is the one named by ``BUILDKIT_MIGRATE_SHA256``, or else the preferred one. Raises Error if the named
    kernel does not exist or can't run here, NativeSelfTestError if the kernel computes wrong digests.
    """

def digest_many(messages: Sequence[bytes], kernel: str | None = None) -> list[bytes]:
    """Returns the 32-byte SHA-256 digests of ``messages``, in order. Releases the GIL.

    ``kernel``: a name from ``kernels()``; None means ``active()``. Messages must be shorter than 4 GiB
    (OverflowError). Otherwise raises the same errors as ``active``.
    """

def self_test(kernel: str, answers: Sequence[bytes] | None = None) -> None:
    """Runs the known-answer test in every lane of ``kernel``. Raises NativeSelfTestError if it fails.

    ``answers``: digests to expect instead of those in KNOWN_ANSWERS, in the same order.
    """
