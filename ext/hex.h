/* Lower-case hex of a digest, sixteen bytes at a time, in vector types that GCC and clang map to any processor. */
#ifndef BKM_HEX_H
#define BKM_HEX_H

#include <stdint.h>
#include <string.h>

typedef uint8_t bkm_hex_bytes __attribute__((vector_size(16)));
typedef uint16_t bkm_hex_pairs __attribute__((vector_size(32)));

/* Writes the 64 digits of 32 bytes; no NUL. */
static inline void bkm_hex_digest(uint8_t *text, const uint8_t *digest)
{
    for (int half = 0; half < 2; half++) {
        bkm_hex_bytes bytes;
        memcpy(&bytes, digest + 16 * half, sizeof bytes);
        bkm_hex_pairs wide = __builtin_convertvector(bytes, bkm_hex_pairs);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        bkm_hex_pairs nibbles = (wide >> 4 | wide << 8) & 0x0f0f; /* the high nibble comes first */
#else
        bkm_hex_pairs nibbles = (wide << 4 | wide) & 0x0f0f;
#endif
        bkm_hex_pairs letters = (nibbles + 0x0606) >> 4 & 0x0101; /* 1 for nibbles from 10 */
        bkm_hex_pairs digits = nibbles + 0x3030 + letters * ('a' - '9' - 1);
        memcpy(text + 32 * half, &digits, sizeof digits);
    }
}

#endif
