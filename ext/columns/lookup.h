/* Finds entries of a column by value: open addressing over row numbers, as in core/span_table.h. */
#ifndef BKM_LOOKUP_H
#define BKM_LOOKUP_H

#include "core/span_table.h"
#include "core/spans.h"

enum { BKM_ROW_NOT_FOUND = -1, BKM_ROW_ABSENT = -2 };

typedef struct {
    const bkm_spans *keys;
    bkm_span_table table; /* without keys of its own */
} bkm_lookup;

/* `keys` must stay. Of equal ones the first is found; absent ones are left out. False when there are too many
 * for row numbers, or out of memory. */
bool bkm_lookup_make(bkm_lookup *lookup, const bkm_spans *keys);
/* The row of the key, BKM_ROW_NOT_FOUND. */
int32_t bkm_lookup_find(const bkm_lookup *lookup, bkm_span key);
/* For each entry its row; BKM_ROW_NOT_FOUND, BKM_ROW_ABSENT. */
void bkm_lookup_find_all(const bkm_lookup *lookup, const bkm_spans *entries, int32_t *rows);
void bkm_lookup_free(bkm_lookup *lookup);

/* found[i] = 1 where some row has left[i] and right[i] in `others_left` and `others_right`, both present.
 * Columns of a pair are of equal length. False when out of memory or there are too many rows. */
bool bkm_find_pairs(const bkm_spans *left, const bkm_spans *right, const bkm_spans *others_left,
                    const bkm_spans *others_right, uint8_t *found);
/* found[i] = 1 where an earlier row has the same number. False when out of memory. */
bool bkm_find_repeated(const int64_t *numbers, size_t count, uint8_t *found);

#endif
