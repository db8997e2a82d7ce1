/* Kernel for x86 processors with AVX2 and BMI2, for one or two streams: rounds on general registers, while vector
 * registers compute the words of the message.
 *
 * Two blocks share each vector, one in each half: the next two of a stream, or one of each of two streams. The
 * rounds of the first block run beside the vectors, those of the second only read what these left in memory. (With
 * rounds of two streams in turn, their words would not fit into the registers, which takes a fifth more instructions:
 * faster on a wide processor, slower on those that need this kernel.) */
#if defined(__x86_64__)

#include <immintrin.h>

#include "sha256/sha256.h"

#define INLINE __attribute__((target("avx2,bmi,bmi2"), always_inline)) static inline

/* Sums stay in this order: what is known last is added last. The compiler would order them anew. */
#define KEEP(sum) __asm__("" : "+r"(sum))

/* Words of the message, with the constants of their rounds: four of the first block, four of the second, and so
 * on. */
enum { FOUR = 4, EIGHT = 8, INPUTS = 2 * 64 };

typedef struct {
    uint32_t a, b, c, d, e, f, g, h;
    uint32_t b_xor_c; /* known from the round before, as a ^ b */
} words;

INLINE uint32_t rotate(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

INLINE void one_round(words *s, uint32_t input)
{
    uint32_t sum = s->h + input, a_xor_b = s->a ^ s->b, majority = s->b_xor_c, part;

    KEEP(sum);
    part = ~s->e & s->g;
    KEEP(part);
    sum += part;
    KEEP(sum);
    KEEP(a_xor_b);
    part = s->e & s->f;
    KEEP(part);
    sum += part;
    KEEP(sum);
    majority = (majority & a_xor_b) ^ s->b;
    KEEP(majority);
    part = rotate(s->e, 6) ^ rotate(s->e, 11) ^ rotate(s->e, 25);
    KEEP(part);
    sum += part;
    KEEP(sum);
    part = rotate(s->a, 2) ^ rotate(s->a, 13) ^ rotate(s->a, 22);
    KEEP(part);
    majority += part;
    KEEP(majority);
    s->h = s->g, s->g = s->f, s->f = s->e, s->e = s->d + sum;
    s->d = s->c, s->c = s->b, s->b = s->a, s->a = sum + majority;
    s->b_xor_c = a_xor_b;
}

INLINE words start(const uint32_t state[8])
{
    return (words){state[0], state[1], state[2], state[3],           state[4],
                   state[5], state[6], state[7], state[1] ^ state[2]};
}

INLINE void finish(uint32_t state[8], const words *s)
{
    state[0] += s->a, state[1] += s->b, state[2] += s->c, state[3] += s->d;
    state[4] += s->e, state[5] += s->f, state[6] += s->g, state[7] += s->h;
}

INLINE __m256i add(__m256i x, __m256i y)
{
    return _mm256_add_epi32(x, y);
}
INLINE __m256i xor3(__m256i x, __m256i y, __m256i z)
{
    return _mm256_xor_si256(x, _mm256_xor_si256(y, z));
}

INLINE __m256i constants(size_t round)
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)&bkm_sha256_rounds[round]));
}

/* Of words that stand twice in 64 bits: rotating is shifting, then. The results are their lower halves. */
INLINE __m256i high_part(__m256i twice)
{
    return xor3(_mm256_srli_epi64(twice, 17), _mm256_srli_epi64(twice, 19), _mm256_srli_epi32(twice, 10));
}

/* Compresses the block at `first`, and leaves the inputs for the rounds of `second`. */
INLINE void compress_first(uint32_t state[8], const uint8_t *first, const uint8_t *second, uint32_t *inputs)
{
    const __m256i swap = _mm256_broadcastsi128_si256(_mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203));
    const __m256i to_lower = _mm256_broadcastsi128_si256(_mm_set_epi64x(-1, 0x0b0a090803020100));
    const __m256i to_upper = _mm256_broadcastsi128_si256(_mm_set_epi64x(0x0b0a090803020100, -1));
    words s = start(state);
    __m256i w[4];

    for (size_t i = 0; i < 4; i++) {
        __m256i both = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)first + i));
        both = _mm256_inserti128_si256(both, _mm_loadu_si128((const __m128i *)second + i), 1);
        w[i] = _mm256_shuffle_epi8(both, swap);
        _mm256_store_si256((__m256i *)(inputs + EIGHT * i), add(w[i], constants(FOUR * i)));
    }
    __asm__("" : "+r"(inputs) : : "memory"); /* or they would be taken from vector registers one by one */
    for (size_t round = 16; round < 64; round += 16) {
#pragma GCC unroll 4
        for (size_t i = 0; i < 4; i++) {
            __m256i last = w[(i + 3) & 3], old = _mm256_alignr_epi8(w[(i + 1) & 3], w[i], 4);
            __m256i sum = add(w[i], _mm256_alignr_epi8(last, w[(i + 2) & 3], 4));
            __m256i part = _mm256_xor_si256(_mm256_srli_epi32(old, 7), _mm256_slli_epi32(old, 25));
            one_round(&s, inputs[EIGHT * i]);
            part = xor3(part, _mm256_srli_epi32(old, 18), _mm256_slli_epi32(old, 14));
            sum = add(sum, _mm256_xor_si256(part, _mm256_srli_epi32(old, 3)));
            one_round(&s, inputs[EIGHT * i + 1]);
            part = high_part(_mm256_shuffle_epi32(last, 0xfa));
            sum = add(sum, _mm256_shuffle_epi8(part, to_lower));
            one_round(&s, inputs[EIGHT * i + 2]);
            part = high_part(_mm256_shuffle_epi32(sum, 0x50)); /* needs the two words just computed */
            w[i] = add(sum, _mm256_shuffle_epi8(part, to_upper));
            one_round(&s, inputs[EIGHT * i + 3]);
            _mm256_store_si256((__m256i *)(inputs + EIGHT * (4 + i)), add(w[i], constants(round + FOUR * i)));
        }
        inputs += 4 * EIGHT;
    }
#pragma GCC unroll 16
    for (size_t i = 0; i < 16; i++)
        one_round(&s, inputs[i / FOUR * EIGHT + i % FOUR]);
    finish(state, &s);
}

INLINE void compress_second(uint32_t state[8], const uint32_t *inputs)
{
    words s = start(state);

    inputs += FOUR;
    for (size_t round = 0; round < 64; round += 16) {
#pragma GCC unroll 16
        for (size_t i = 0; i < 16; i++)
            one_round(&s, inputs[i / FOUR * EIGHT + i % FOUR]);
        inputs += 4 * EIGHT;
    }
    finish(state, &s);
}

__attribute__((target("avx2,bmi,bmi2"))) static void compress_one(uint32_t state[8], const uint8_t *data,
                                                                  size_t blocks)
{
    _Alignas(32) uint32_t inputs[INPUTS];
    uint32_t kept[8]; /* in registers from block to block */

    memcpy(kept, state, sizeof kept);
    for (; blocks >= 2; blocks -= 2, data += 2 * (size_t)BKM_SHA256_BLOCK) {
        compress_first(kept, data, data + BKM_SHA256_BLOCK, inputs);
        compress_second(kept, inputs);
    }
    if (blocks > 0)
        compress_first(kept, data, data, inputs);
    memcpy(state, kept, sizeof kept);
}

__attribute__((target("avx2,bmi,bmi2"))) static void compress_two(uint32_t (*state)[8], const uint8_t *const *data,
                                                                  size_t blocks)
{
    _Alignas(32) uint32_t inputs[INPUTS];

    for (size_t block = 0; block < blocks; block++) {
        size_t at = block * BKM_SHA256_BLOCK;
        compress_first(state[0], data[0] + at, data[1] + at, inputs);
        compress_second(state[1], inputs);
    }
}

void bkm_sha256_bmi2(uint32_t (*state)[8], const uint8_t *const *data, size_t streams, size_t blocks)
{
    for (; streams >= 2; state += 2, data += 2, streams -= 2)
        compress_two(state, data, blocks);
    if (streams > 0)
        compress_one(state[0], data[0], blocks);
}

#else
typedef int bkm_sha256_bmi2_is_for_x86; /* ISO C requires a declaration in each file */
#endif
