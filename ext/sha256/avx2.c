/* Kernel for x86 processors with AVX2 but without the SHA extensions.
 *
 * Eight streams, one per 32-bit lane: word i of all eight messages is in one register, so the rounds are
 * those of the portable kernel, on vectors. */
#if defined(__x86_64__)

#include <immintrin.h>

#include "sha256/sha256.h"

#define AVX2 __attribute__((target("avx2")))
#define INLINE AVX2 static inline __attribute__((always_inline))
#define LANES 8

/* Eight lanes cost about as much as this many streams of the portable kernel. */
#define WORTH 3

#define ROTATE(x, n) _mm256_or_si256(_mm256_srli_epi32(x, n), _mm256_slli_epi32(x, 32 - (n)))

INLINE __m256i add(__m256i x, __m256i y)
{
    return _mm256_add_epi32(x, y);
}
INLINE __m256i xor3(__m256i x, __m256i y, __m256i z)
{
    return _mm256_xor_si256(x, _mm256_xor_si256(y, z));
}

/* Transposes: word j of row i becomes word i of row j. */
INLINE void transpose(__m256i r[8])
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

INLINE void load_words(__m256i w[8], const uint8_t *const data[LANES], size_t offset)
{
    const __m256i swap =
        _mm256_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203, 0x0c0d0e0f08090a0b, 0x0405060700010203);
    for (int l = 0; l < LANES; l++)
        w[l] = _mm256_shuffle_epi8(_mm256_loadu_si256((const __m256i *)(data[l] + offset)), swap);
    transpose(w);
}

AVX2 static void compress_lanes(uint32_t (*state)[8], const uint8_t *const data[LANES], size_t blocks)
{
    __m256i s[8], w[16];

    for (int i = 0; i < 8; i++)
        s[i] = _mm256_loadu_si256((const __m256i *)state[i]);
    transpose(s);
    for (size_t block = 0; block < blocks; block++) {
        __m256i a = s[0], b = s[1], c = s[2], d = s[3], e = s[4], f = s[5], g = s[6], h = s[7];
        load_words(w, data, block * BKM_SHA256_BLOCK);
        load_words(w + 8, data, block * BKM_SHA256_BLOCK + 32);
        for (int base = 0; base < 64; base += 16) {
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++) {
                if (base > 0) {
                    __m256i old = w[(i + 1) & 15], recent = w[(i + 14) & 15];
                    __m256i low = xor3(ROTATE(old, 7), ROTATE(old, 18), _mm256_srli_epi32(old, 3));
                    __m256i high = xor3(ROTATE(recent, 17), ROTATE(recent, 19), _mm256_srli_epi32(recent, 10));
                    w[i] = add(add(w[i], low), add(w[(i + 9) & 15], high));
                }
                __m256i k = _mm256_set1_epi32((int)bkm_sha256_rounds[base + i]);
                __m256i choice = _mm256_xor_si256(g, _mm256_and_si256(e, _mm256_xor_si256(f, g)));
                __m256i majority =
                    _mm256_or_si256(_mm256_and_si256(a, b), _mm256_and_si256(c, _mm256_or_si256(a, b)));
                __m256i t1 = add(add(add(h, k), add(w[i], choice)), xor3(ROTATE(e, 6), ROTATE(e, 11), ROTATE(e, 25)));
                __m256i t2 = add(majority, xor3(ROTATE(a, 2), ROTATE(a, 13), ROTATE(a, 22)));
                h = g, g = f, f = e, e = add(d, t1);
                d = c, c = b, b = a, a = add(t1, t2);
            }
        }
        s[0] = add(s[0], a), s[1] = add(s[1], b), s[2] = add(s[2], c), s[3] = add(s[3], d);
        s[4] = add(s[4], e), s[5] = add(s[5], f), s[6] = add(s[6], g), s[7] = add(s[7], h);
    }
    transpose(s);
    for (int i = 0; i < 8; i++)
        _mm256_storeu_si256((__m256i *)state[i], s[i]);
}

void bkm_sha256_avx2(uint32_t (*state)[8], const uint8_t *const *data, size_t streams, size_t blocks)
{
    size_t i = 0;
    for (; i + LANES <= streams; i += LANES)
        compress_lanes(state + i, data + i, blocks);

    size_t rest = streams - i;
    if (rest < WORTH) {
        bkm_sha256_portable(state + i, data + i, rest, blocks);
        return;
    }
    uint32_t filled_state[LANES][8]; /* lanes without a stream repeat the first one */
    const uint8_t *filled_data[LANES];
    for (size_t l = 0; l < LANES; l++) {
        size_t from = l < rest ? i + l : i;
        memcpy(filled_state[l], state[from], sizeof filled_state[l]);
        filled_data[l] = data[from];
    }
    compress_lanes(filled_state, filled_data, blocks);
    memcpy(state[i], filled_state, rest * sizeof filled_state[0]);
}

#else
typedef int bkm_sha256_avx2_is_for_x86; /* ISO C requires a declaration in each file */
#endif
