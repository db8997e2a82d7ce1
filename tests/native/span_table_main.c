/* Keys that somebody chose so that a known hash gives the same for all: prints how many of them there are, and
 * the most slots that finding one of them takes to look at. */
#include <stdio.h>

#include "core/span_table.h"

enum { KEYS = 20000 };

/* What a hash without a secret would make of the first eight bytes of a key. */
static uint64_t known(uint64_t word)
{
    uint64_t hash = (16 ^ word) * 0x9E3779B97F4A7C15u;
    return hash ^ hash >> 32;
}

int main(void)
{
    static uint64_t bytes[KEYS][2];
    static bkm_span keys[KEYS];
    bkm_span_table table;
    size_t most = 0, found = 0;
    for (size_t i = 0; i < KEYS; i++) {
        bytes[i][0] = i;
        bytes[i][1] = known(i) ^ 0x1234567890ABCDEFu;
        keys[i] = (bkm_span){(const uint8_t *)bytes[i], 16};
    }
    if (!bkm_span_table_make(&table, keys, KEYS))
        return 1;
    for (size_t i = 0; i < KEYS; i++) {
        size_t steps = 1, slot = bkm_span_hash(&table, keys[i]) & table.mask;
        for (; (uint32_t)table.slots[slot] != i + 1; slot = (slot + 1) & table.mask)
            steps++;
        most = steps > most ? steps : most;
        found += bkm_span_table_find(&table, keys[i]) == (int32_t)i;
    }
    printf("%zu %zu\n", found, most);
    bkm_span_table_free(&table);
    return 0;
}
