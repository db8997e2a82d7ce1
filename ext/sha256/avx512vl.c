/* Eight lanes of AVX-512: the instructions that rotate and that combine three operands, on registers of 256 bits. */
#if defined(__x86_64__)

#include "sha256/lanes8.h"

#define TARGET "avx512f,avx512bw,avx512vl"
#define INLINE __attribute__((target(TARGET), always_inline)) static inline
#define COMBINE(x, y, z, table) (vector) _mm256_ternarylogic_epi32((__m256i)(x), (__m256i)(y), (__m256i)(z), table)

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

#include "sha256/lanes.h"

void bkm_sha256_avx512_eight(uint32_t (*state)[8], const uint8_t *const *data, size_t streams, size_t blocks)
{
    if (streams == LANES)
        compress_lanes(state, data, blocks);
    else
        compress_some_lanes(state, data, streams, blocks);
}

#else
typedef int bkm_sha256_avx512_eight_is_for_x86; /* ISO C requires a declaration in each file */
#endif
