/* Moving words between eight streams and the lanes of registers of 256 bits; for lanes.h. */
#ifndef BKM_SHA256_LANES8_H
#define BKM_SHA256_LANES8_H

#include <immintrin.h>

#include "sha256/sha256.h"

#define LANES 8
#define EIGHT __attribute__((target("avx2"), always_inline)) static inline

typedef uint32_t vector __attribute__((vector_size(32)));

/* Transposes: word j of row i becomes word i of row j. */
EIGHT void transpose(__m256i r[8])
{
    __m256i t[8], u[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        u[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
        u[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
        u[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
        u[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2x128_si256(u[i], u[i + 4], 0x20);
        r[i + 4] = _mm256_permute2x128_si256(u[i], u[i + 4], 0x31);
    }
}

EIGHT void load_states(vector s[8], uint32_t (*state)[8])
{
    __m256i rows[8];
    for (int l = 0; l < LANES; l++)
        rows[l] = _mm256_loadu_si256((const __m256i *)state[l]);
    transpose(rows);
    for (int i = 0; i < 8; i++)
        s[i] = (vector)rows[i];
}

EIGHT void store_states(uint32_t (*state)[8], const vector s[8])
{
    __m256i rows[8];
    for (int i = 0; i < 8; i++)
        rows[i] = (__m256i)s[i];
    transpose(rows);
    for (int l = 0; l < LANES; l++)
        _mm256_storeu_si256((__m256i *)state[l], rows[l]);
}

EIGHT void load_words(vector w[16], const uint8_t *const data[LANES], size_t offset)
{
    const __m256i swap =
        _mm256_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203, 0x0c0d0e0f08090a0b, 0x0405060700010203);
    for (size_t half = 0; half < 2; half++) {
        __m256i rows[8];
        for (int l = 0; l < LANES; l++) {
            const __m256i *from = (const __m256i *)(data[l] + offset) + half;
            rows[l] = _mm256_shuffle_epi8(_mm256_loadu_si256(from), swap);
        }
        transpose(rows);
        for (size_t i = 0; i < 8; i++)
            w[8 * half + i] = (vector)rows[i];
    }
}

#endif
