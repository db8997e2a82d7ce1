#include "columns/lookup.h"

enum { AHEAD = 16, BLOCK = 32 };

static bool same(bkm_span a, bkm_span b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

/* An empty table for `count` rows. */
static bool make_table(bkm_span_table *table, size_t count)
{
    size_t size = 16;
    *table = (bkm_span_table){0};
    if (count > BKM_MAX_ROWS)
        return false;
    while (size < 2 * count)
        size *= 2;
    table->slots = bkm_column(size, sizeof(uint64_t));
    if (!table->slots)
        return false;
    memset(table->slots, 0, size * sizeof(uint64_t));
    table->mask = size - 1;
    bkm_span_table_draw(table);
    return true;
}

static uint64_t slot_value(uint64_t hash, size_t row)
{
    return (hash >> 32 << 32) | (row + 1);
}

bool bkm_lookup_make(bkm_lookup *lookup, const bkm_spans *keys)
{
    lookup->keys = keys;
    bkm_span_table *table = &lookup->table;
    if (!make_table(table, keys->count))
        return false;
    for (size_t row = 0; row < keys->count; row++) {
        bkm_spans_prefetch(keys, row + AHEAD);
        bkm_span key = bkm_spans_get(keys, row);
        if (!key.data)
            continue;
        uint64_t hash = bkm_span_hash(table, key);
        size_t slot = hash & table->mask;
        while (table->slots[slot]) {
            bool alike = (table->slots[slot] ^ hash) >> 32 == 0;
            if (alike && same(key, bkm_spans_get(keys, (uint32_t)table->slots[slot] - 1)))
                break;
            slot = (slot + 1) & table->mask;
        }
        if (!table->slots[slot])
            table->slots[slot] = slot_value(hash, row);
    }
    return true;
}

static int32_t find_hashed(const bkm_lookup *lookup, bkm_span key, uint64_t hash)
{
    const bkm_span_table *table = &lookup->table;
    for (size_t slot = hash & table->mask; table->slots[slot]; slot = (slot + 1) & table->mask) {
        uint32_t row = (uint32_t)table->slots[slot] - 1;
        if ((table->slots[slot] ^ hash) >> 32 == 0 && same(key, bkm_spans_get(lookup->keys, row)))
            return (int32_t)row;
    }
    return BKM_ROW_NOT_FOUND;
}

int32_t bkm_lookup_find(const bkm_lookup *lookup, bkm_span key)
{
    return find_hashed(lookup, key, bkm_span_hash(&lookup->table, key));
}

void bkm_lookup_find_all(const bkm_lookup *lookup, const bkm_spans *entries, int32_t *rows)
{
    const bkm_span_table *table = &lookup->table;
    uint64_t hash[BLOCK];
    for (size_t start = 0; start < entries->count; start += BLOCK) {
        size_t size = entries->count - start < BLOCK ? entries->count - start : BLOCK;
        for (size_t i = 0; i < size; i++)
            bkm_spans_prefetch(entries, start + i);
        for (size_t i = 0; i < size; i++) {
            hash[i] = bkm_span_hash(table, bkm_spans_get(entries, start + i));
            bkm_prefetch_at(&table->slots[hash[i] & table->mask]);
        }
        for (size_t i = 0; i < size; i++) {
            uint64_t slot = table->slots[hash[i] & table->mask];
            if (slot)
                bkm_spans_prefetch(lookup->keys, (uint32_t)slot - 1);
        }
        for (size_t i = 0; i < size; i++) {
            bkm_span entry = bkm_spans_get(entries, start + i);
            rows[start + i] = entry.data ? find_hashed(lookup, entry, hash[i]) : BKM_ROW_ABSENT;
        }
    }
}

void bkm_lookup_free(bkm_lookup *lookup)
{
    bkm_span_table_free(&lookup->table);
}

static uint64_t pair_hash(const bkm_span_table *table, bkm_span left, bkm_span right)
{
    return bkm_mix(bkm_span_hash(table, left) + (uint64_t)left.size, table->secret[1]) ^ bkm_span_hash(table, right);
}

bool bkm_find_pairs(const bkm_spans *left, const bkm_spans *right, const bkm_spans *others_left,
                    const bkm_spans *others_right, uint8_t *found)
{
    bkm_span_table table;
    if (!make_table(&table, others_left->count))
        return false;
    for (size_t pass = 0; pass < 2; pass++) {
        const bkm_spans *a = pass ? left : others_left, *b = pass ? right : others_right;
        for (size_t row = 0; row < a->count; row++) {
            bkm_spans_prefetch(a, row + AHEAD);
            bkm_spans_prefetch(b, row + AHEAD);
            bkm_span one = bkm_spans_get(a, row), two = bkm_spans_get(b, row);
            if (pass)
                found[row] = 0;
            if (!one.data || !two.data)
                continue;
            uint64_t hash = pair_hash(&table, one, two);
            size_t slot = hash & table.mask;
            for (; table.slots[slot]; slot = (slot + 1) & table.mask) {
                uint32_t other = (uint32_t)table.slots[slot] - 1;
                if ((table.slots[slot] ^ hash) >> 32 == 0 && same(one, bkm_spans_get(others_left, other)) &&
                    same(two, bkm_spans_get(others_right, other)))
                    break;
            }
            if (pass)
                found[row] = table.slots[slot] != 0;
            else if (!table.slots[slot])
                table.slots[slot] = slot_value(hash, row);
        }
    }
    bkm_span_table_free(&table);
    return true;
}

bool bkm_find_repeated(const int64_t *numbers, size_t count, uint8_t *found)
{
    bkm_span_table table;
    if (!make_table(&table, count))
        return false;
    for (size_t row = 0; row < count; row++) {
        uint64_t hash = bkm_mix((uint64_t)numbers[row] ^ table.secret[0], table.secret[1]);
        size_t slot = hash & table.mask;
        while (table.slots[slot] && numbers[(uint32_t)table.slots[slot] - 1] != numbers[row])
            slot = (slot + 1) & table.mask;
        found[row] = table.slots[slot] != 0;
        if (!table.slots[slot])
            table.slots[slot] = slot_value(hash, row);
    }
    bkm_span_table_free(&table);
    return true;
}
