/* Hex conversion of digests: the plain functions, and table look-ups for x86 processors. */
#include "core/hex.h"

static void plain_write(uint8_t *text, size_t apart, const uint8_t *const *digest, size_t count)
{
    for (size_t i = 0; i < count; i++)
        bkm_hex_digest(text + i * apart, digest[i]);
}

static bool plain_read(uint8_t *digest, const uint8_t *text)
{
    return bkm_hex_read(digest, text);
}

const bkm_hex_ways bkm_hex_plain = {plain_write, plain_read};

#if defined(__x86_64__)

#include <immintrin.h>

#define SSSE3 __attribute__((target("ssse3")))

SSSE3 static void ssse3_write(uint8_t *text, size_t apart, const uint8_t *const *digest, size_t count)
{
    const __m128i digits =
        _mm_setr_epi8('0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f');
    const __m128i low = _mm_set1_epi8(0x0f);

    for (size_t i = 0; i < count; i++) {
        __m128i *to = (__m128i *)(text + i * apart);
        for (int half = 0; half < 2; half++) {
            __m128i bytes = _mm_loadu_si128((const __m128i *)digest[i] + half);
            __m128i first = _mm_and_si128(_mm_srli_epi16(bytes, 4), low), second = _mm_and_si128(bytes, low);
            _mm_storeu_si128(to++, _mm_shuffle_epi8(digits, _mm_unpacklo_epi8(first, second)));
            _mm_storeu_si128(to++, _mm_shuffle_epi8(digits, _mm_unpackhi_epi8(first, second)));
        }
    }
}

SSSE3 static bool ssse3_read(uint8_t *digest, const uint8_t *text)
{
    __m128i right = _mm_set1_epi8(-1), pairs[4];

    for (int part = 0; part < 4; part++) {
        __m128i digits = _mm_loadu_si128((const __m128i *)text + part);
        __m128i number = _mm_sub_epi8(digits, _mm_set1_epi8('0'));
        __m128i letter = _mm_sub_epi8(digits, _mm_set1_epi8('a'));
        __m128i is_number = _mm_cmpeq_epi8(_mm_min_epu8(number, _mm_set1_epi8(9)), number);
        __m128i is_letter = _mm_cmpeq_epi8(_mm_min_epu8(letter, _mm_set1_epi8(5)), letter);
        __m128i nibbles =
            _mm_add_epi8(_mm_and_si128(digits, _mm_set1_epi8(0x0f)), _mm_and_si128(is_letter, _mm_set1_epi8(9)));
        right = _mm_and_si128(right, _mm_or_si128(is_number, is_letter));
        pairs[part] = _mm_maddubs_epi16(nibbles, _mm_set1_epi16(0x0110)); /* 16 * first + second */
    }
    _mm_storeu_si128((__m128i *)digest, _mm_packus_epi16(pairs[0], pairs[1]));
    _mm_storeu_si128((__m128i *)digest + 1, _mm_packus_epi16(pairs[2], pairs[3]));
    return _mm_movemask_epi8(right) == 0xffff;
}

const bkm_hex_ways bkm_hex_ssse3 = {ssse3_write, ssse3_read};

#endif
