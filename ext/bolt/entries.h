/* Items of buckets as columns. */
#ifndef BKM_BOLT_ENTRIES_H
#define BKM_BOLT_ENTRIES_H

#include "bolt/reader.h"
#include "core/spans.h"

/* The items of the buckets at one path in all rows, one after the other. */
typedef struct {
    int32_t *rows; /* row of each item */
    size_t capacity;
    bkm_spans keys;
    bkm_spans values; /* absent for a bucket */
    bool keys_only;   /* there are no values */
} bkm_entries;

/* Adds an item of a row. False with bolt->rule set on failure. */
bool bkm_entries_add(bkm_entries *entries, bkm_bolt *bolt, size_t row, const bkm_item *item);
/* Reads the items of the bucket itself; there are no row numbers. False with bolt->rule set on failure; there are no
 * entries then. */
bool bkm_entries_in(bkm_entries *entries, bkm_bolt *bolt, const bkm_bucket *bucket);
void bkm_entries_free(bkm_entries *entries);

#endif
