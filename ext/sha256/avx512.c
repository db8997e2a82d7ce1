/* Kernel for x86 processors with AVX-512 but without the SHA extensions: sixteen lanes; for few streams the eight of
 * avx512vl.c, or bmi2.c. */
#if defined(__x86_64__)

#include <immintrin.h>
#include <stdatomic.h>

#include "sha256/sha256.h"

#define LANES 16
#define HALF 8
#define TARGET "avx512f,avx512bw,avx512vl"
#define INLINE __attribute__((target(TARGET), always_inline)) static inline
#define COMBINE(x, y, z, table) (vector) _mm512_ternarylogic_epi32((__m512i)(x), (__m512i)(y), (__m512i)(z), table)

typedef uint32_t vector __attribute__((vector_size(64)));

INLINE vector xor3(vector x, vector y, vector z)
{
    return COMBINE(x, y, z, 0x96);
}
INLINE vector choice(vector x, vector y, vector z)
{
    return COMBINE(x, y, z, 0xca);
}
INLINE vector majority(vector x, vector y, vector z)
{
    return COMBINE(x, y, z, 0xe8);
}

/* Transposes: word j of row i becomes word i of row j. */
INLINE void transpose(__m512i r[16])
{
    __m512i t[16], u[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        u[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        u[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        u[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        u[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) { /* now the quarters of four rows each are transposed */
        __m512i even = _mm512_shuffle_i32x4(u[i], u[i + 4], 0x88), odd = _mm512_shuffle_i32x4(u[i], u[i + 4], 0xdd);
        __m512i later_even = _mm512_shuffle_i32x4(u[i + 8], u[i + 12], 0x88);
        __m512i later_odd = _mm512_shuffle_i32x4(u[i + 8], u[i + 12], 0xdd);
        r[i] = _mm512_shuffle_i32x4(even, later_even, 0x88);
        r[i + 4] = _mm512_shuffle_i32x4(odd, later_odd, 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(even, later_even, 0xdd);
        r[i + 12] = _mm512_shuffle_i32x4(odd, later_odd, 0xdd);
    }
}

/* The lower halves of sixteen rows are the states. */
INLINE void load_states(vector s[8], uint32_t (*state)[8])
{
    __m512i rows[16];
    for (int l = 0; l < LANES; l++)
        rows[l] = _mm512_zextsi256_si512(_mm256_loadu_si256((const __m256i *)state[l]));
    transpose(rows);
    for (int i = 0; i < 8; i++)
        s[i] = (vector)rows[i];
}

INLINE void store_states(uint32_t (*state)[8], const vector s[8])
{
    __m512i rows[16];
    for (int i = 0; i < 8; i++) {
        rows[i] = (__m512i)s[i];
        rows[i + 8] = _mm512_setzero_si512();
    }
    transpose(rows);
    for (int l = 0; l < LANES; l++)
        _mm256_storeu_si256((__m256i *)state[l], _mm512_castsi512_si256(rows[l]));
}

INLINE void load_words(vector w[16], const uint8_t *const data[LANES], size_t offset)
{
    const __m512i swap = _mm512_broadcast_i32x4(_mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203));
    __m512i rows[16];
    for (int l = 0; l < LANES; l++)
        rows[l] = _mm512_shuffle_epi8(_mm512_loadu_si512(data[l] + offset), swap);
    transpose(rows);
    for (int i = 0; i < 16; i++)
        w[i] = (vector)rows[i];
}

#include "sha256/lanes.h"

/* Whether eight lanes hash two streams faster than bmi2.c. With four instructions at a time they should, with six or
 * eight they do not: so it is measured, once, in some microseconds. Two threads may both measure. */
static bool lanes_suit_two(void)
{
    static atomic_int known; /* 0: not measured, 1: they do, -1: they do not */
    enum { TURNS = 5, BLOCKS = 4 };
    static const uint8_t text[BLOCKS * BKM_SHA256_BLOCK];
    const bkm_sha256_compress ways[2] = {bkm_sha256_avx512_eight, bkm_sha256_bmi2};
    const uint8_t *data[2] = {text, text};
    uint32_t state[2][8] = {{0}};
    uint64_t best[2] = {UINT64_MAX, UINT64_MAX};
    int result = atomic_load_explicit(&known, memory_order_relaxed);

    if (result != 0)
        return result > 0;
    for (int turn = 0; turn < 2 * TURNS; turn++) {
        uint64_t began = __rdtsc();
        ways[turn % 2](state, data, 2, BLOCKS);
        uint64_t taken = __rdtsc() - began;
        best[turn % 2] = taken < best[turn % 2] ? taken : best[turn % 2];
    }
    result = best[0] < best[1] ? 1 : -1;
    atomic_store_explicit(&known, result, memory_order_relaxed);
    return result > 0;
}

void bkm_sha256_avx512(uint32_t (*state)[8], const uint8_t *const *data, size_t streams, size_t blocks)
{
    for (; streams >= LANES; state += LANES, data += LANES, streams -= LANES)
        compress_lanes(state, data, blocks);
    if (streams > HALF)
        compress_some_lanes(state, data, streams, blocks);
    else if (streams > 2 || (streams == 2 && lanes_suit_two()))
        bkm_sha256_avx512_eight(state, data, streams, blocks);
    else
        bkm_sha256_bmi2(state, data, streams, blocks);
}

#else
typedef int bkm_sha256_avx512_is_for_x86; /* ISO C requires a declaration in each file */
#endif
