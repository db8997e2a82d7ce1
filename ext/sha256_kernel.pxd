"""C interface of the SHA-256 kernels, and their selection with Python errors, for every module that hashes.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t

from core_span cimport bkm_span


ctypedef uint8_t digest_bytes[32]


cdef extern from "sha256/sha256.h":
    const char *BKM_SHA256_VARIABLE
    enum:
        BKM_SHA256_DIGEST
        BKM_SHA256_MAX_KERNELS
        BKM_SHA256_ANSWERS

    ctypedef void (*bkm_sha256_compress)(
        uint32_t (*state)[8], const uint8_t *const *data, size_t streams, size_t blocks
    ) noexcept nogil

    ctypedef struct bkm_sha256_kernel:
        const char *name
        bkm_sha256_compress compress

    ctypedef enum bkm_sha256_status:
        BKM_SHA256_OK
        BKM_SHA256_UNKNOWN
        BKM_SHA256_UNUSABLE
        BKM_SHA256_WRONG

    const uint8_t bkm_sha256_answer_sizes[7]
    const digest_bytes bkm_sha256_answers[7]

    size_t bkm_sha256_usable(const bkm_sha256_kernel **kernels) noexcept nogil
    bkm_sha256_status bkm_sha256_select(const char *name, const bkm_sha256_kernel **kernel) noexcept nogil
    const char *bkm_sha256_demanded() noexcept nogil
    bint bkm_sha256_self_test(bkm_sha256_compress compress, const digest_bytes *answers) noexcept nogil
    void bkm_sha256_digest_many(
        bkm_sha256_compress compress, const bkm_span *messages, size_t count, digest_bytes *digests
    ) noexcept nogil


cdef inline const bkm_sha256_kernel *select_kernel(str name) except NULL:
    """Returns the kernel called ``name``; for None the one that the environment names, or the preferred one.

    Raises Error if the kernel does not exist or can't run here, NativeSelfTestError if it is faulty.
    """
    from buildkit_migrate.errors import Error, NativeSelfTestError

    cdef const bkm_sha256_kernel *kernel = NULL
    cdef const bkm_sha256_kernel *usable[BKM_SHA256_MAX_KERNELS]
    cdef const char *demanded = bkm_sha256_demanded()
    cdef size_t i
    wanted = None
    where = ""
    if name is not None:
        wanted = name.encode("utf-8", "surrogateescape")
    elif demanded != NULL:
        wanted = <bytes>demanded
        where = f" (from {BKM_SHA256_VARIABLE.decode()})"
    cdef bkm_sha256_status status = bkm_sha256_select(NULL if wanted is None else <char *>wanted, &kernel)
    if status == BKM_SHA256_OK:
        return kernel
    if status == BKM_SHA256_WRONG:
        raise NativeSelfTestError(f"SHA-256 kernel {kernel.name.decode()!r} computes wrong digests")
    names = ", ".join([usable[i].name.decode() for i in range(bkm_sha256_usable(usable))])
    problem = "does not exist" if status == BKM_SHA256_UNKNOWN else "can't run on this processor"
    raise Error(
        f"SHA-256 kernel {wanted.decode(errors='backslashreplace')!r}{where} {problem}",
        hint=f"usable here: {names}",
    )
