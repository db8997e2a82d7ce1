/* Kernel for x86 processors with the SHA extensions.
 *
 * One stream can't keep the unit busy, because each pair of rounds waits for the previous one. So the main
 * loop interleaves three streams, two rounds of each in turn. Four are no faster, as their words don't fit
 * into the registers, but they beat two pairs; so the remainder is done as four, two or one. */
#if defined(__x86_64__)

#include <immintrin.h>

#include "sha256/sha256.h"

#define SHANI __attribute__((target("sha,sse4.1,ssse3")))

SHANI static inline __attribute__((always_inline)) void compress_lanes(size_t lanes, uint32_t (*state)[8],
                                                                       const uint8_t *const *data, size_t blocks)
{
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i abef[4], cdgh[4], w[4][4];

    /* The instructions need the words as {f, e, b, a} and {h, g, d, c}, lowest first. */
#pragma GCC unroll 4
    for (size_t l = 0; l < lanes; l++) {
        __m128i cdab = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)&state[l][0]), 0xb1);
        __m128i efgh = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)&state[l][4]), 0x1b);
        abef[l] = _mm_alignr_epi8(cdab, efgh, 8);
        cdgh[l] = _mm_blend_epi16(efgh, cdab, 0xf0);
    }
    for (size_t block = 0; block < blocks; block++) {
        __m128i old_abef[4], old_cdgh[4];
#pragma GCC unroll 4
        for (size_t l = 0; l < lanes; l++) {
            old_abef[l] = abef[l];
            old_cdgh[l] = cdgh[l];
        }
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) { /* four rounds each */
            const __m128i k = _mm_loadu_si128((const __m128i *)&bkm_sha256_rounds[4 * i]);
#pragma GCC unroll 4
            for (size_t l = 0; l < lanes; l++) {
                if (i < 4) {
                    const uint8_t *from = data[l] + block * BKM_SHA256_BLOCK + 16 * i;
                    w[l][i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)from), swap);
                }
                /* Later words are computed ahead of their rounds, in two steps, while the rounds wait. */
                const __m128i now = w[l][i & 3];
                const __m128i input = _mm_add_epi32(now, k);
                __m128i *next = &w[l][(i + 1) & 3], *third = &w[l][(i + 3) & 3];
                cdgh[l] = _mm_sha256rnds2_epu32(cdgh[l], abef[l], input);
                if (i >= 3 && i < 15) {
                    __m128i sum = _mm_add_epi32(*next, _mm_alignr_epi8(now, *third, 4));
                    *next = _mm_sha256msg2_epu32(sum, now);
                }
                abef[l] = _mm_sha256rnds2_epu32(abef[l], cdgh[l], _mm_shuffle_epi32(input, 0x0e));
                if (i >= 1 && i < 13)
                    *third = _mm_sha256msg1_epu32(*third, now);
            }
        }
#pragma GCC unroll 4
        for (size_t l = 0; l < lanes; l++) {
            abef[l] = _mm_add_epi32(abef[l], old_abef[l]);
            cdgh[l] = _mm_add_epi32(cdgh[l], old_cdgh[l]);
        }
    }
#pragma GCC unroll 4
    for (size_t l = 0; l < lanes; l++) {
        __m128i feba = _mm_shuffle_epi32(abef[l], 0x1b);
        __m128i dchg = _mm_shuffle_epi32(cdgh[l], 0xb1);
        _mm_storeu_si128((__m128i *)&state[l][0], _mm_blend_epi16(feba, dchg, 0xf0));
        _mm_storeu_si128((__m128i *)&state[l][4], _mm_alignr_epi8(dchg, feba, 8));
    }
}

SHANI void bkm_sha256_shani(uint32_t (*state)[8], const uint8_t *const *data, size_t streams, size_t blocks)
{
    size_t i = 0;
    for (; streams - i > 4 || streams - i == 3; i += 3)
        compress_lanes(3, state + i, data + i, blocks);
    if (streams - i == 4)
        compress_lanes(4, state + i, data + i, blocks);
    else if (streams - i == 2)
        compress_lanes(2, state + i, data + i, blocks);
    else if (streams - i == 1)
        compress_lanes(1, state + i, data + i, blocks);
}

#else
typedef int bkm_sha256_shani_is_for_x86; /* ISO C requires a declaration in each file */
#endif
