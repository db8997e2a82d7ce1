/* Finds rows of a column by entry: a hash table of row numbers with open addressing, as in core/span_table.h. */
#ifndef BKM_LOOKUP_H
#define BKM_LOOKUP_H

#include "core/span_table.h"
#include "core/spans.h"

enum { BKM_ROW_NOT_FOUND = -1, BKM_ROW_ABSENT = -2 };

typedef struct {
    const bkm_spans *keys;
    bkm_span_table table; /* stores no keys itself */
} bkm_lookup;

/* `keys` must outlive the lookup. Of equal keys, the first is found; absent ones are left out. False when out of
 * memory or there are too many keys. */
bool bkm_lookup_make(bkm_lookup *lookup, const bkm_spans *keys);
/* The row of the key, or BKM_ROW_NOT_FOUND. */
int32_t bkm_lookup_find(const bkm_lookup *lookup, bkm_span key);
/* The row of each entry, BKM_ROW_NOT_FOUND, or BKM_ROW_ABSENT if the entry is absent. */
void bkm_lookup_find_all(const bkm_lookup *lookup, const bkm_spans *entries, int32_t *rows);
void bkm_lookup_free(bkm_lookup *lookup);

/* Sets found[i] to 1 if some row of `others_left` and `others_right` has the pair left[i], right[i], both present.
 * The columns of a pair must have the same length. False when out of memory or there are too many rows. */
bool bkm_find_pairs(const bkm_spans *left, const bkm_spans *right, const bkm_spans *others_left,
                    const bkm_spans *others_right, uint8_t *found);
/* Sets found[i] to 1 if an earlier row has the same number. False when out of memory. */
bool bkm_find_repeated(const int64_t *numbers, size_t count, uint8_t *found);

#endif
