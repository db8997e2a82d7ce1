/* Finds spans in an array by value: open addressing over indexes into the array. */
#ifndef BKM_SPAN_TABLE_H
#define BKM_SPAN_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

#include "span.h"

typedef struct {
    const bkm_span *keys;
    uint64_t *slots; /* upper half: that of the hash, so that few keys are looked at; lower half: index + 1 */
    size_t mask;
} bkm_span_table;

static inline uint64_t bkm_span_hash(bkm_span key)
{
    uint64_t hash = key.size, word;
    const uint8_t *at = key.data;
    uint32_t left = key.size;
    for (; left >= 8; left -= 8, at += 8) {
        memcpy(&word, at, 8);
        hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 32;
    }
    word = 0;
    if (left)
        memcpy(&word, at, left);
    hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
    return hash ^ hash >> 29;
}

/* `keys` (all different, fewer than INT32_MAX) must stay. False when out of memory. */
static inline bool bkm_span_table_make(bkm_span_table *table, const bkm_span *keys, size_t count)
{
    size_t size = 16;
    while (size < 2 * count)
        size *= 2;
    *table = (bkm_span_table){keys, calloc(size, sizeof(uint64_t)), size - 1};
    if (!table->slots)
        return false;
    for (size_t i = 0; i < count; i++) {
        uint64_t hash = bkm_span_hash(keys[i]);
        size_t slot = hash & table->mask;
        while (table->slots[slot])
            slot = (slot + 1) & table->mask;
        table->slots[slot] = (hash >> 32 << 32) | (i + 1);
    }
    return true;
}

/* Index of the key, -1 if it is not there. */
static inline int32_t bkm_span_table_find(const bkm_span_table *table, bkm_span key)
{
    uint64_t hash = bkm_span_hash(key);
    for (size_t slot = hash & table->mask; table->slots[slot]; slot = (slot + 1) & table->mask) {
        if ((table->slots[slot] ^ hash) >> 32)
            continue;
        uint32_t index = (uint32_t)table->slots[slot] - 1;
        const bkm_span *found = &table->keys[index];
        if (found->size == key.size && (key.size == 0 || memcmp(found->data, key.data, key.size) == 0))
            return (int32_t)index;
    }
    return -1;
}

static inline void bkm_span_table_free(bkm_span_table *table)
{
    free(table->slots);
    table->slots = NULL;
}

#endif
