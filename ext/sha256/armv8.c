/* Kernel for 64-bit ARM processors with the SHA-2 extension.
 *
 * Streams are interleaved for the same reason as in the x86 kernel; 32 registers hold four of them. */
#if defined(__aarch64__)

#include <arm_neon.h>

#include "sha256/sha256.h"

#if defined(__clang__)
#define SHA2 __attribute__((target("sha2")))
#else
#define SHA2 __attribute__((target("+crypto"))) /* "+sha2" alone does not reach arm_neon.h before GCC 14 */
#endif

SHA2 static inline __attribute__((always_inline)) void compress_lanes(size_t lanes, uint32_t (*state)[8],
                                                                      const uint8_t *const *data, size_t blocks)
{
    uint32x4_t abcd[4], efgh[4], w[4][4];

#pragma GCC unroll 4
    for (size_t l = 0; l < lanes; l++) {
        abcd[l] = vld1q_u32(&state[l][0]);
        efgh[l] = vld1q_u32(&state[l][4]);
    }
    for (size_t block = 0; block < blocks; block++) {
        uint32x4_t old_abcd[4], old_efgh[4];
#pragma GCC unroll 4
        for (size_t l = 0; l < lanes; l++) {
            old_abcd[l] = abcd[l];
            old_efgh[l] = efgh[l];
        }
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) { /* four rounds each */
            const uint32x4_t k = vld1q_u32(&bkm_sha256_rounds[4 * i]);
#pragma GCC unroll 4
            for (size_t l = 0; l < lanes; l++) {
                uint32x4_t *now = &w[l][i & 3];
                if (i < 4) {
                    const uint8_t *from = data[l] + block * BKM_SHA256_BLOCK + 16 * i;
                    *now = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(from)));
                } else {
                    *now = vsha256su1q_u32(vsha256su0q_u32(*now, w[l][(i + 1) & 3]), w[l][(i + 2) & 3],
                                           w[l][(i + 3) & 3]);
                }
                uint32x4_t input = vaddq_u32(*now, k);
                uint32x4_t before = abcd[l];
                abcd[l] = vsha256hq_u32(abcd[l], efgh[l], input);
                efgh[l] = vsha256h2q_u32(efgh[l], before, input);
            }
        }
#pragma GCC unroll 4
        for (size_t l = 0; l < lanes; l++) {
            abcd[l] = vaddq_u32(abcd[l], old_abcd[l]);
            efgh[l] = vaddq_u32(efgh[l], old_efgh[l]);
        }
    }
#pragma GCC unroll 4
    for (size_t l = 0; l < lanes; l++) {
        vst1q_u32(&state[l][0], abcd[l]);
        vst1q_u32(&state[l][4], efgh[l]);
    }
}

SHA2 void bkm_sha256_armv8(uint32_t (*state)[8], const uint8_t *const *data, size_t streams, size_t blocks)
{
    size_t i = 0;
    for (; i + 4 <= streams; i += 4)
        compress_lanes(4, state + i, data + i, blocks);
    if (streams & 2) {
        compress_lanes(2, state + i, data + i, blocks);
        i += 2;
    }
    if (streams & 1)
        compress_lanes(1, state + i, data + i, blocks);
}

#else
typedef int bkm_sha256_armv8_is_for_arm; /* ISO C requires a declaration in each file */
#endif
