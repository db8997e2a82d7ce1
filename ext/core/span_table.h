/* Hash table that finds spans in an array by value: open addressing over indexes into the array. */
#ifndef BKM_SPAN_TABLE_H
#define BKM_SPAN_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#include "core/column.h"
#include "core/span.h"

typedef struct {
    const bkm_span *keys;
    uint64_t *slots; /* upper half: that of the hash, to avoid most key comparisons; lower half: index + 1 */
    size_t mask;
    uint64_t secret[2]; /* random, so that nobody can choose keys that all collide */
} bkm_span_table;

enum { BKM_SPAN_TABLE_BLOCK = 32 }; /* keys; so many slots are waited for at once */

/* For loops over scattered spans: prefetches the one needed some rounds later. */
static inline void bkm_prefetch_ahead(const bkm_span *spans, size_t count, size_t at)
{
    enum { ROUNDS = 16 };
    if (at + ROUNDS < count)
        bkm_prefetch(spans[at + ROUNDS]);
}

/* Folds both halves of the product, so that the result reveals nothing about an unknown factor. */
static inline uint64_t bkm_mix(uint64_t value, uint64_t factor)
{
    __extension__ unsigned __int128 product = (unsigned __int128)value * factor;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t bkm_span_hash(const bkm_span_table *table, bkm_span key)
{
    uint64_t hash = table->secret[0] ^ key.size, word;
    const uint8_t *at = key.data;
    uint32_t left = key.size;
    for (; left >= 8; left -= 8, at += 8) {
        memcpy(&word, at, 8);
        hash = bkm_mix(hash ^ word, table->secret[1]);
    }
    word = 0;
    if (left)
        memcpy(&word, at, left);
    return bkm_mix(hash ^ word, table->secret[1]);
}

/* Draws random bytes. If the system has none yet, uses values that the author of a file could not have
 * known. */
static inline void bkm_span_table_draw(bkm_span_table *table)
{
    if (getrandom(table->secret, sizeof table->secret, GRND_NONBLOCK) != (ssize_t)sizeof table->secret) {
        struct timespec now;
        timespec_get(&now, TIME_UTC);
        table->secret[0] = (uint64_t)(uintptr_t)table->slots * 0x9E3779B97F4A7C15u;
        table->secret[1] = table->secret[0] ^ (uint64_t)now.tv_nsec * 0xC2B2AE3D27D4EB4Fu;
    }
    /* A factor that is small or even would lose bits. */
    table->secret[1] |= UINT64_C(1) << 63 | 1;
}

/* Builds a table of `keys`: all different, at most BKM_MAX_ROWS, and kept by the caller. False if there
 * are more, or when out of memory. */
static inline bool bkm_span_table_make(bkm_span_table *table, const bkm_span *keys, size_t count)
{
    size_t size = 16;
    *table = (bkm_span_table){0};
    if (count > BKM_MAX_ROWS)
        return false;
    while (size < 2 * count)
        size *= 2;
    *table = (bkm_span_table){keys, bkm_column(size, sizeof(uint64_t)), size - 1, {0}};
    if (!table->slots)
        return false;
    memset(table->slots, 0, size * sizeof(uint64_t));
    bkm_span_table_draw(table);
    for (size_t start = 0; start < count; start += BKM_SPAN_TABLE_BLOCK) {
        uint64_t hash[BKM_SPAN_TABLE_BLOCK];
        size_t end = count - start < BKM_SPAN_TABLE_BLOCK ? count : start + BKM_SPAN_TABLE_BLOCK;
        for (size_t i = start; i < end; i++) {
            bkm_prefetch_ahead(keys, count, i);
            hash[i - start] = bkm_span_hash(table, keys[i]);
            bkm_prefetch_at(&table->slots[hash[i - start] & table->mask]);
        }
        for (size_t i = start; i < end; i++) {
            size_t slot = hash[i - start] & table->mask;
            while (table->slots[slot])
                slot = (slot + 1) & table->mask;
            table->slots[slot] = (hash[i - start] >> 32 << 32) | (i + 1);
        }
    }
    return true;
}

static inline int32_t bkm_span_table_find_hashed(const bkm_span_table *table, bkm_span key, uint64_t hash)
{
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

/* Index of the key, -1 if it is missing. */
static inline int32_t bkm_span_table_find(const bkm_span_table *table, bkm_span key)
{
    return bkm_span_table_find_hashed(table, key, bkm_span_hash(table, key));
}

/* Finds many keys, running each step for a block of keys at once, so that waits for memory overlap. Absent
 * keys (NULL data) give -1. */
static inline void bkm_span_table_find_all(const bkm_span_table *table, const bkm_span *keys, size_t count,
                                           int32_t *found)
{
    uint64_t hash[BKM_SPAN_TABLE_BLOCK];
    for (size_t start = 0; start < count; start += BKM_SPAN_TABLE_BLOCK) {
        const bkm_span *block = keys + start;
        size_t size = count - start < BKM_SPAN_TABLE_BLOCK ? count - start : BKM_SPAN_TABLE_BLOCK;
        for (size_t i = 0; i < size; i++)
            bkm_prefetch(block[i]);
        for (size_t i = 0; i < size; i++) {
            hash[i] = bkm_span_hash(table, block[i]);
            bkm_prefetch_at(&table->slots[hash[i] & table->mask]);
        }
        for (size_t i = 0; i < size; i++) {
            uint64_t slot = table->slots[hash[i] & table->mask];
            if (slot)
                bkm_prefetch_at(&table->keys[(uint32_t)slot - 1]);
        }
        for (size_t i = 0; i < size; i++) {
            uint64_t slot = table->slots[hash[i] & table->mask];
            if (slot)
                bkm_prefetch(table->keys[(uint32_t)slot - 1]);
        }
        for (size_t i = 0; i < size; i++)
            found[start + i] = block[i].data ? bkm_span_table_find_hashed(table, block[i], hash[i]) : -1;
    }
}

static inline void bkm_span_table_free(bkm_span_table *table)
{
    free(table->slots);
    table->slots = NULL;
}

#endif
