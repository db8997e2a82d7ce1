"""SHA-256 of many messages at once, with the best kernel that the processor supports."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport UINT32_MAX, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy
from core_span cimport bkm_span
from sha256_kernel cimport (
    BKM_SHA256_ANSWERS,
    BKM_SHA256_DIGEST,
    BKM_SHA256_MAX_KERNELS,
    bkm_sha256_answer_sizes,
    bkm_sha256_answers,
    bkm_sha256_digest_many,
    bkm_sha256_kernel,
    bkm_sha256_self_test,
    bkm_sha256_usable,
    digest_bytes,
    select_kernel,
)

from buildkit_migrate.errors import NativeSelfTestError


KNOWN_ANSWERS = tuple([
    (bkm_sha256_answer_sizes[i], <bytes>(<const char *>bkm_sha256_answers[i])[:BKM_SHA256_DIGEST])
    for i in range(BKM_SHA256_ANSWERS)
])


def kernels():
    """Names of the kernels that this processor can run, preferred first."""
    cdef const bkm_sha256_kernel *usable[BKM_SHA256_MAX_KERNELS]
    cdef size_t count = bkm_sha256_usable(usable)
    cdef size_t i
    return tuple([usable[i].name.decode() for i in range(count)])


def active():
    """Name of the default kernel.

    That is the one named by ``BUILDKIT_MIGRATE_SHA256``, or else the preferred one. Raises Error if the named
    kernel does not exist or can't run here, NativeSelfTestError if the kernel computes wrong digests.
    """
    return select_kernel(None).name.decode()


def digest_many(messages, kernel=None):
    """Returns the 32-byte SHA-256 digests of ``messages``, in order. Releases the GIL.

    ``kernel``: a name from ``kernels()``; None means ``active()``. Messages must be shorter than 4 GiB
    (OverflowError). Otherwise raises the same errors as ``active``.
    """
    cdef const bkm_sha256_kernel *chosen = select_kernel(kernel)
    cdef list held = list(messages)
    cdef Py_ssize_t count = len(held)
    cdef Py_ssize_t i, size
    cdef bytes message
    cdef bkm_span *spans = <bkm_span *>malloc((count + 1) * sizeof(bkm_span))
    cdef digest_bytes *digests = <digest_bytes *>malloc((count + 1) * BKM_SHA256_DIGEST)
    try:
        if spans == NULL or digests == NULL:
            raise MemoryError
        for i in range(count):
            message = held[i]
            if message is None:
                raise TypeError("a message must be bytes, not None")
            size = PyBytes_GET_SIZE(message)
            if size > <Py_ssize_t>UINT32_MAX:
                raise OverflowError("a message must be shorter than 4 GiB")
            spans[i].data = <const uint8_t *>PyBytes_AS_STRING(message)
            spans[i].size = size
        with nogil:
            bkm_sha256_digest_many(chosen.compress, spans, count, digests)
        return [PyBytes_FromStringAndSize(<const char *>digests[i], BKM_SHA256_DIGEST) for i in range(count)]
    finally:
        free(spans)
        free(digests)


def self_test(str kernel not None, answers=None):
    """Runs the known-answer test in every lane of ``kernel``. Raises NativeSelfTestError if it fails.

    ``answers``: digests to expect instead of those in KNOWN_ANSWERS, in the same order.
    """
    cdef digest_bytes expected[BKM_SHA256_ANSWERS]
    cdef const bkm_sha256_kernel *chosen = select_kernel(kernel)
    cdef bytes answer
    cdef Py_ssize_t i
    digests = [digest for _, digest in KNOWN_ANSWERS] if answers is None else list(answers)
    if [len(digest) for digest in digests] != [BKM_SHA256_DIGEST] * BKM_SHA256_ANSWERS:
        raise ValueError(f"{BKM_SHA256_ANSWERS} digests of {BKM_SHA256_DIGEST} bytes are needed")
    for i in range(BKM_SHA256_ANSWERS):
        answer = digests[i]
        memcpy(expected[i], PyBytes_AS_STRING(answer), BKM_SHA256_DIGEST)
    if not bkm_sha256_self_test(chosen.compress, <const digest_bytes *>expected):
        raise NativeSelfTestError(f"SHA-256 kernel {kernel!r} computes wrong digests")
