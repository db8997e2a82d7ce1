/* Kernel selection: what the processor supports, what was requested, and whether it computes right
 * answers. */
#include "sha256/sha256.h"

#include <stdatomic.h>
#include <stdlib.h>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

/* Every name is known on every machine, to tell a wrong name from a wrong machine. Preferred first. */
static const bkm_sha256_kernel all_kernels[BKM_SHA256_MAX_KERNELS] = {
#if defined(__x86_64__)
    {"shani", bkm_sha256_shani, 6, &bkm_hex_ssse3},    /* two times three */
    {"avx512", bkm_sha256_avx512, 16, &bkm_hex_ssse3}, /* all lanes */
    {"avx2", bkm_sha256_avx2, 8, &bkm_hex_ssse3},      /* all lanes */
    {"bmi2", bkm_sha256_bmi2, 6, &bkm_hex_ssse3},         {"armv8", NULL, 0, NULL},
#elif defined(__aarch64__)
    {"armv8", bkm_sha256_armv8, 6, &bkm_hex_plain},
    {"shani", NULL, 0, NULL},
    {"avx512", NULL, 0, NULL},
    {"avx2", NULL, 0, NULL},
    {"bmi2", NULL, 0, NULL},
#else
    {"armv8", NULL, 0, NULL},
    {"shani", NULL, 0, NULL},
    {"avx512", NULL, 0, NULL},
    {"avx2", NULL, 0, NULL},
    {"bmi2", NULL, 0, NULL},
#endif
    {"portable", bkm_sha256_portable, 6, &bkm_hex_plain},
};

static bool runs_here(const bkm_sha256_kernel *kernel)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (kernel->compress == bkm_sha256_shani) {
        /* Not every compiler knows this feature by name: CPUID leaf 7, EBX bit 29. */
        unsigned a, b, c, d;
        return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b >> 29 & 1) && __builtin_cpu_supports("sse4.1") &&
               __builtin_cpu_supports("ssse3");
    }
    /* These also ask whether the operating system keeps the registers (XGETBV). */
    bool narrow = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
    if (kernel->compress == bkm_sha256_avx512)
        return narrow && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl");
    if (kernel->compress == bkm_sha256_avx2 || kernel->compress == bkm_sha256_bmi2)
        return narrow;
#elif defined(__aarch64__)
    if (kernel->compress == bkm_sha256_armv8)
        return getauxval(AT_HWCAP) & HWCAP_SHA2;
#endif
    return kernel->compress != NULL;
}

size_t bkm_sha256_usable(const bkm_sha256_kernel *kernels[BKM_SHA256_MAX_KERNELS])
{
    size_t count = 0;
    for (size_t i = 0; i < BKM_SHA256_MAX_KERNELS; i++)
        if (runs_here(&all_kernels[i]))
            kernels[count++] = &all_kernels[i];
    return count;
}

bkm_sha256_status bkm_sha256_select(const char *name, const bkm_sha256_kernel **kernel)
{
    /* Two threads may both run a test, with the same result. */
    static atomic_int tested[BKM_SHA256_MAX_KERNELS]; /* 0: not tested, 1: right, -1: wrong */

    for (size_t i = 0; i < BKM_SHA256_MAX_KERNELS; i++) {
        const bkm_sha256_kernel *candidate = &all_kernels[i];
        if (name != NULL && strcmp(name, candidate->name) != 0)
            continue;
        if (!runs_here(candidate)) {
            if (name != NULL)
                return BKM_SHA256_UNUSABLE;
            continue;
        }
        *kernel = candidate;
        int result = atomic_load(&tested[i]);
        if (result == 0) {
            result = bkm_sha256_self_test(candidate->compress, bkm_sha256_answers) ? 1 : -1;
            atomic_store(&tested[i], result);
        }
        return result > 0 ? BKM_SHA256_OK : BKM_SHA256_WRONG;
    }
    return BKM_SHA256_UNKNOWN;
}

const char *bkm_sha256_demanded(void)
{
    const char *name = getenv(BKM_SHA256_VARIABLE);
    return name != NULL && name[0] != '\0' ? name : NULL;
}

const uint8_t bkm_sha256_answer_sizes[BKM_SHA256_ANSWERS] = {0, 3, 55, 56, 64, 119, 200};

const uint8_t bkm_sha256_answers[BKM_SHA256_ANSWERS][BKM_SHA256_DIGEST] = {
    {0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
     0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55},
    {0xae, 0x4b, 0x32, 0x80, 0xe5, 0x6e, 0x2f, 0xaf, 0x83, 0xf4, 0x14, 0xa6, 0xe3, 0xda, 0xbe, 0x9d,
     0x5f, 0xbe, 0x18, 0x97, 0x65, 0x44, 0xc0, 0x5f, 0xed, 0x12, 0x1a, 0xcc, 0xb8, 0x5b, 0x53, 0xfc},
    {0x46, 0x3e, 0xb2, 0x8e, 0x72, 0xf8, 0x2e, 0x0a, 0x96, 0xc0, 0xa4, 0xcc, 0x53, 0x69, 0x0c, 0x57,
     0x12, 0x81, 0x13, 0x1f, 0x67, 0x2a, 0xa2, 0x29, 0xe0, 0xd4, 0x5a, 0xe5, 0x9b, 0x59, 0x8b, 0x59},
    {0xda, 0x2a, 0xe4, 0xd6, 0xb3, 0x67, 0x48, 0xf2, 0xa3, 0x18, 0xf2, 0x3e, 0x7a, 0xb1, 0xdf, 0xdf,
     0x45, 0xac, 0xdc, 0x9d, 0x04, 0x9b, 0xd8, 0x0e, 0x59, 0xde, 0x82, 0xa6, 0x08, 0x95, 0xf5, 0x62},
    {0xfd, 0xea, 0xb9, 0xac, 0xf3, 0x71, 0x03, 0x62, 0xbd, 0x26, 0x58, 0xcd, 0xc9, 0xa2, 0x9e, 0x8f,
     0x9c, 0x75, 0x7f, 0xcf, 0x98, 0x11, 0x60, 0x3a, 0x8c, 0x44, 0x7c, 0xd1, 0xd9, 0x15, 0x11, 0x08},
    {0xda, 0x18, 0x79, 0x7e, 0xd7, 0xc3, 0xa7, 0x77, 0xf0, 0x84, 0x7f, 0x42, 0x97, 0x24, 0xa2, 0xd8,
     0xcd, 0x51, 0x38, 0xe6, 0xed, 0x28, 0x95, 0xc3, 0xfa, 0x1a, 0x6d, 0x39, 0xd1, 0x8f, 0x7e, 0xc6},
    {0x19, 0x01, 0xda, 0x1c, 0x9f, 0x69, 0x9b, 0x48, 0xf6, 0xb2, 0x63, 0x6e, 0x65, 0xcb, 0xf7, 0x3a,
     0xbf, 0x99, 0xd0, 0x44, 0x1e, 0xf6, 0x7f, 0x5c, 0x54, 0x0a, 0x42, 0xf7, 0x05, 0x1d, 0xec, 0x6f},
};

bool bkm_sha256_self_test(bkm_sha256_compress compress, const uint8_t answers[BKM_SHA256_ANSWERS][BKM_SHA256_DIGEST])
{
    /* One to sixteen streams cover every way in which a kernel may split them, and every lane. `turn` shifts
     * the lengths through the lanes; in every other turn all lanes have the same length, and so run in
     * step. The text is at an odd address, as those of records often are. */
    enum { MOST = BKM_SHA256_MAX_BATCH };
    _Alignas(64) uint8_t space[257];
    uint8_t *text = space + 1;
    bkm_span messages[MOST];
    uint8_t digests[MOST][BKM_SHA256_DIGEST];

    for (size_t i = 0; i < sizeof space - 1; i++)
        text[i] = (uint8_t)i;
    for (size_t streams = 1; streams <= MOST; streams++) {
        for (size_t turn = 0; turn < 4; turn++) {
            size_t step = turn % 2;
            for (size_t i = 0; i < streams; i++) {
                size_t pick = (streams + turn + i * step) % BKM_SHA256_ANSWERS;
                messages[i] = (bkm_span){text, bkm_sha256_answer_sizes[pick]};
            }
            bkm_sha256_digest_many(compress, messages, streams, digests);
            for (size_t i = 0; i < streams; i++) {
                size_t pick = (streams + turn + i * step) % BKM_SHA256_ANSWERS;
                if (memcmp(digests[i], answers[pick], BKM_SHA256_DIGEST) != 0)
                    return false;
            }
        }
    }
    return true;
}
