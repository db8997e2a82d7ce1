/* Kernel for x86 processors with AVX2 but without the SHA extensions: eight lanes, or bmi2.c for few streams. */
#if defined(__x86_64__)

#include "sha256/lanes8.h"

#define TARGET "avx2"
#define INLINE __attribute__((target(TARGET), always_inline)) static inline

/* Eight lanes cost about as much as this many streams there. */
#define WORTH 3

INLINE vector xor3(vector x, vector y, vector z)
{
    return x ^ y ^ z;
}
INLINE vector choice(vector x, vector y, vector z)
{
    return z ^ (x & (y ^ z));
}
INLINE vector majority(vector x, vector y, vector z)
{
    return (x & y) | (z & (x | y));
}

#include "sha256/lanes.h"

void bkm_sha256_avx2(uint32_t (*state)[8], const uint8_t *const *data, size_t streams, size_t blocks)
{
    for (; streams >= LANES; state += LANES, data += LANES, streams -= LANES)
        compress_lanes(state, data, blocks);
    if (streams >= WORTH)
        compress_some_lanes(state, data, streams, blocks);
    else
        bkm_sha256_bmi2(state, data, streams, blocks);
}

#else
typedef int bkm_sha256_avx2_is_for_x86; /* ISO C requires a declaration in each file */
#endif
