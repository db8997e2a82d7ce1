/* Items in a bucket, or at a path below each of its rows, as columns. */
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
} bkm_entries;

/* Reads the items at `path` whose keys start with `prefix`. Rows are the child buckets of `bucket`, as for
 * bkm_scan. False with bolt->rule set on failure; there are no entries then. */
bool bkm_entries_below(bkm_entries *entries, bkm_bolt *bolt, const bkm_bucket *bucket, const bkm_span *path,
                       size_t depth, bkm_span prefix);
/* Reads the items of the bucket itself; there are no row numbers. */
bool bkm_entries_in(bkm_entries *entries, bkm_bolt *bolt, const bkm_bucket *bucket);
void bkm_entries_free(bkm_entries *entries);

#endif
