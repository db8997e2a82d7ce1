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

/* Whether the keys are all there and ascend, as those of a bucket do. */
static bool in_order(const bkm_spans *keys)
{
    for (size_t row = 0; row < keys->count; row++) {
        bkm_spans_prefetch(keys, row + AHEAD);
        if (!bkm_spans_has(keys, row) ||
            (row && bkm_span_compare(bkm_spans_get(keys, row - 1), bkm_spans_get(keys, row)) >= 0))
            return false;
    }
    return true;
}

/* What a slot has of the hash. */
static uint32_t tag_of(const bkm_lookup *lookup, uint64_t hash)
{
    return (uint32_t)(hash >> 32) & ~lookup->rows;
}

/* The slot of the key, or the empty one where it belongs. */
static size_t slot_of(const bkm_lookup *lookup, bkm_span key, uint64_t hash)
{
    size_t slot = hash & lookup->mask;
    for (uint32_t found; (found = lookup->slots[slot]) != 0; slot = (slot + 1) & lookup->mask)
        if ((found & ~lookup->rows) == tag_of(lookup, hash) &&
            same(key, bkm_spans_get(lookup->keys, (found & lookup->rows) - 1)))
            break;
    return slot;
}

static bool fill_table(bkm_lookup *lookup)
{
    const bkm_spans *keys = lookup->keys;
    size_t size = 16;
    while (size < 2 * keys->count)
        size *= 2;
    lookup->slots = bkm_column(size, sizeof *lookup->slots);
    if (!lookup->slots)
        return false;
    memset(lookup->slots, 0, size * sizeof *lookup->slots);
    lookup->mask = size - 1;
    lookup->rows = (uint32_t)lookup->mask; /* twice as many as there are rows, at least */
    bkm_span_table_draw(&lookup->hash);
    for (size_t row = 0; row < keys->count; row++) {
        bkm_spans_prefetch(keys, row + AHEAD);
        bkm_span key = bkm_spans_get(keys, row);
        if (!key.data)
            continue;
        uint64_t hash = bkm_span_hash(&lookup->hash, key);
        size_t slot = slot_of(lookup, key, hash);
        if (!lookup->slots[slot])
            lookup->slots[slot] = tag_of(lookup, hash) | ((uint32_t)row + 1);
    }
    return true;
}

bool bkm_lookup_make(bkm_lookup *lookup, const bkm_spans *keys)
{
    *lookup = (bkm_lookup){.keys = keys};
    if (keys->count > BKM_MAX_ROWS)
        return false;
    lookup->ordered = in_order(keys);
    return lookup->ordered || fill_table(lookup);
}

static int32_t find_hashed(const bkm_lookup *lookup, bkm_span key, uint64_t hash)
{
    uint32_t found = lookup->slots[slot_of(lookup, key, hash)];
    return found ? (int32_t)((found & lookup->rows) - 1) : BKM_ROW_NOT_FOUND;
}

/* The first row with a key that is not smaller. */
static size_t lower_bound(const bkm_spans *keys, bkm_span key)
{
    size_t low = 0, high = keys->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (bkm_span_compare(bkm_spans_get(keys, middle), key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int32_t row_if_same(const bkm_spans *keys, size_t row, bkm_span key)
{
    return row < keys->count && same(bkm_spans_get(keys, row), key) ? (int32_t)row : BKM_ROW_NOT_FOUND;
}

int32_t bkm_lookup_find(const bkm_lookup *lookup, bkm_span key)
{
    if (lookup->slots)
        return find_hashed(lookup, key, bkm_span_hash(&lookup->hash, key));
    return row_if_same(lookup->keys, lower_bound(lookup->keys, key), key);
}

/* Moves `at` to the first row with a key that is not smaller, if that is not far. */
static bool move_to(const bkm_spans *keys, bkm_span key, size_t *at)
{
    enum { STEPS = 8 };
    if (*at < keys->count && bkm_span_compare(bkm_spans_get(keys, *at), key) < 0) {
        for (int step = 0; step < STEPS; step++)
            if (++*at == keys->count || bkm_span_compare(bkm_spans_get(keys, *at), key) >= 0)
                return true;
        return false;
    }
    return *at == 0 || bkm_span_compare(bkm_spans_get(keys, *at - 1), key) < 0;
}

/* Looks the entries up from the first one on, as long as most are found near those before them. Returns how many
 * that are. */
static size_t find_in_order(const bkm_lookup *lookup, const bkm_spans *entries, int32_t *rows)
{
    enum { FIRST_JUMPS = 64, JUMPS = 16 }; /* so many, and one in so many entries */
    const bkm_spans *keys = lookup->keys;
    size_t at = 0, jumps = 0;
    for (size_t i = 0; i < entries->count; i++) {
        bkm_spans_prefetch(entries, i + AHEAD);
        bkm_spans_prefetch(keys, at + AHEAD);
        bkm_span entry = bkm_spans_get(entries, i);
        if (!entry.data) {
            rows[i] = BKM_ROW_ABSENT;
            continue;
        }
        if (!move_to(keys, entry, &at)) {
            if (++jumps > FIRST_JUMPS + i / JUMPS)
                return i;
            at = lower_bound(keys, entry);
        }
        rows[i] = row_if_same(keys, at, entry);
    }
    return entries->count;
}

static void find_all_hashed(const bkm_lookup *lookup, const bkm_spans *entries, size_t first, int32_t *rows)
{
    uint64_t hash[BLOCK];
    for (size_t start = first; start < entries->count; start += BLOCK) {
        size_t size = entries->count - start < BLOCK ? entries->count - start : BLOCK;
        for (size_t i = 0; i < size; i++)
            bkm_spans_prefetch(entries, start + i);
        for (size_t i = 0; i < size; i++) {
            hash[i] = bkm_span_hash(&lookup->hash, bkm_spans_get(entries, start + i));
            bkm_prefetch_at(&lookup->slots[hash[i] & lookup->mask]);
        }
        for (size_t i = 0; i < size; i++) {
            uint32_t found = lookup->slots[hash[i] & lookup->mask];
            if (found)
                bkm_spans_prefetch(lookup->keys, (found & lookup->rows) - 1);
        }
        for (size_t i = 0; i < size; i++) {
            bkm_span entry = bkm_spans_get(entries, start + i);
            rows[start + i] = entry.data ? find_hashed(lookup, entry, hash[i]) : BKM_ROW_ABSENT;
        }
    }
}

bool bkm_lookup_hash(bkm_lookup *lookup)
{
    return lookup->slots || fill_table(lookup);
}

bool bkm_lookup_find_all(bkm_lookup *lookup, const bkm_spans *entries, int32_t *rows)
{
    size_t done = lookup->ordered ? find_in_order(lookup, entries, rows) : 0;
    if (done == entries->count)
        return true;
    if (!bkm_lookup_hash(lookup))
        return false;
    find_all_hashed(lookup, entries, done, rows);
    return true;
}

void bkm_lookup_free(bkm_lookup *lookup)
{
    free(lookup->slots);
    lookup->slots = NULL;
}

/* Pairs of numbers, none of them negative, as one number above 0; 0 for others. */
static uint64_t pair_of(int32_t left, int32_t right)
{
    return left < 0 || right < 0 ? 0 : ((uint64_t)left << 32 | (uint32_t)right) + 1;
}

bool bkm_find_pairs(const int32_t *left, const int32_t *right, size_t count, const int32_t *others_left,
                    const int32_t *others_right, size_t other_count, uint8_t *found)
{
    bkm_span_table table; /* of pairs, not of rows */
    if (!make_table(&table, other_count))
        return false;
    for (size_t pass = 0; pass < 2; pass++) {
        const int32_t *a = pass ? left : others_left, *b = pass ? right : others_right;
        size_t size = pass ? count : other_count;
        for (size_t row = 0; row < size; row++) {
            if (row + AHEAD < size) {
                uint64_t next = pair_of(a[row + AHEAD], b[row + AHEAD]);
                bkm_prefetch_at(&table.slots[bkm_mix(next ^ table.secret[0], table.secret[1]) & table.mask]);
            }
            uint64_t pair = pair_of(a[row], b[row]);
            size_t slot = bkm_mix(pair ^ table.secret[0], table.secret[1]) & table.mask;
            while (pair && table.slots[slot] && table.slots[slot] != pair)
                slot = (slot + 1) & table.mask;
            if (pass)
                found[row] = pair && table.slots[slot];
            else if (pair)
                table.slots[slot] = pair;
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
