/* Bitmaps. */
#ifndef BKM_BITS_H
#define BKM_BITS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

/* A zeroed bitmap for numbers up to `last`, to be freed with free(). NULL when out of memory. */
static inline uint8_t *bkm_bits_new(uint64_t last)
{
    return calloc(1, (size_t)(last / 8 + 1));
}

static inline bool bkm_bits_have(const uint8_t *bits, uint64_t number)
{
    return bits[number >> 3] >> (number & 7) & 1;
}

static inline void bkm_bits_add(uint8_t *bits, uint64_t number)
{
    bits[number >> 3] |= (uint8_t)(1u << (number & 7));
}

#endif
