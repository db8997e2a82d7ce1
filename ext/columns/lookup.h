/* Finds rows of a column by entry: in columns in order by going along with what is looked up, which mostly is in
 * order, too; else with a hash table of row numbers with open addressing, as in core/span_table.h. */
#ifndef BKM_LOOKUP_H
#define BKM_LOOKUP_H

#include "core/span_table.h"
#include "core/spans.h"

enum { BKM_ROW_NOT_FOUND = -1, BKM_ROW_ABSENT = -2 };

typedef struct {
    const bkm_spans *keys;
    bool ordered;        /* the keys ascend; then the table is made when it is needed */
    bkm_span_table hash; /* used only for its secret */
    uint32_t *slots;     /* low bits: row + 1; high bits: those of the hash, to avoid most key comparisons */
    size_t mask;
    uint32_t rows;       /* the low bits */
} bkm_lookup;

/* `keys` must outlive the lookup. Of equal keys, the first is found; absent ones are left out. False when out of
 * memory or there are too many keys. */
bool bkm_lookup_make(bkm_lookup *lookup, const bkm_spans *keys);
/* The row of the key, or BKM_ROW_NOT_FOUND. */
int32_t bkm_lookup_find(const bkm_lookup *lookup, bkm_span key);
/* Makes the table, for many keys that are looked up one by one. False when out of memory. */
bool bkm_lookup_hash(bkm_lookup *lookup);
/* The row of each entry, BKM_ROW_NOT_FOUND, or BKM_ROW_ABSENT if the entry is absent. False when out of memory. */
bool bkm_lookup_find_all(bkm_lookup *lookup, const bkm_spans *entries, int32_t *rows);
void bkm_lookup_free(bkm_lookup *lookup);

/* Sets found[i] to 1 if the pair left[i], right[i] is among the `other_count` others. Pairs with a negative number
 * never are. False when out of memory or there are too many rows. */
bool bkm_find_pairs(const int32_t *left, const int32_t *right, size_t count, const int32_t *others_left,
                    const int32_t *others_right, size_t other_count, uint8_t *found);
/* Sets found[i] to 1 if an earlier row has the same number. False when out of memory. */
bool bkm_find_repeated(const int64_t *numbers, size_t count, uint8_t *found);

#endif
