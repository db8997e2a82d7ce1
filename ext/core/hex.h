/* Digests to lower-case hex and back, sixteen bytes at a time, in vector types that GCC and clang support
 * on every processor. */
#ifndef BKM_HEX_H
#define BKM_HEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint8_t bkm_hex_bytes __attribute__((vector_size(16)));
typedef uint16_t bkm_hex_pairs __attribute__((vector_size(32)));
typedef uint8_t bkm_hex_half __attribute__((vector_size(8)));
typedef uint16_t bkm_hex_eight __attribute__((vector_size(16)));

/* Writes 32 bytes as 64 digits, without a NUL. */
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

/* Whether all `size` bytes, a multiple of 16, are digits of lower-case hex. */
static inline bool bkm_hex_all(const uint8_t *text, size_t size)
{
    bkm_hex_bytes wrong = {0};
    for (size_t at = 0; at < size; at += sizeof wrong) {
        bkm_hex_bytes digits;
        memcpy(&digits, text + at, sizeof digits);
        wrong |= ~((bkm_hex_bytes)((bkm_hex_bytes)(digits - '0') <= 9) |
                   (bkm_hex_bytes)((bkm_hex_bytes)(digits - 'a') <= 5));
    }
    uint64_t any[2];
    memcpy(any, &wrong, sizeof any);
    return (any[0] | any[1]) == 0;
}

/* Reads 64 digits as 32 bytes. False if they are not all hex digits; `digest` is unspecified then. */
static inline bool bkm_hex_read(uint8_t *digest, const uint8_t *text)
{
    bkm_hex_bytes wrong = {0};
    for (int part = 0; part < 4; part++) {
        bkm_hex_bytes digits;
        memcpy(&digits, text + 16 * part, sizeof digits);
        bkm_hex_bytes is_number = (bkm_hex_bytes)((bkm_hex_bytes)(digits - '0') <= 9);
        bkm_hex_bytes is_letter = (bkm_hex_bytes)((bkm_hex_bytes)(digits - 'a') <= 5);
        wrong |= ~(is_number | is_letter);
        bkm_hex_bytes nibbles = (digits & 0x0f) + (is_letter & 9);
        bkm_hex_eight pairs;
        memcpy(&pairs, &nibbles, sizeof pairs);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        pairs = (pairs << 4 | pairs >> 8) & 0xff;
#else
        pairs = (pairs >> 4 | pairs) & 0xff;
#endif
        bkm_hex_half bytes = __builtin_convertvector(pairs, bkm_hex_half);
        memcpy(digest + 8 * part, &bytes, sizeof bytes);
    }
    uint64_t any[2];
    memcpy(any, &wrong, sizeof any);
    return (any[0] | any[1]) == 0;
}

/* The two functions above; each SHA-256 kernel names implementations that suit its processor. */
typedef struct {
    /* Writes the digits of `count` digests, starting every `apart` bytes. */
    void (*write)(uint8_t *text, size_t apart, const uint8_t *const *digest, size_t count);
    bool (*read)(uint8_t *digest, const uint8_t *text);
} bkm_hex_ways;

extern const bkm_hex_ways bkm_hex_plain;
#if defined(__x86_64__)
extern const bkm_hex_ways bkm_hex_ssse3;
#endif

#endif
