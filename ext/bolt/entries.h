/* What lies in or below the rows of a bucket, as columns. */
#ifndef BKM_BOLT_ENTRIES_H
#define BKM_BOLT_ENTRIES_H

#include "bolt/reader.h"
#include "core/spans.h"

/* Items of the buckets at one path in all rows, one after the other. */
typedef struct {
    int32_t *rows; /* the row that an item belongs to */
    size_t capacity;
    bkm_spans keys;
    bkm_spans values; /* absent for a bucket */
} bkm_entries;

/* Of the items with keys that start with `prefix`. Rows are the child buckets of `bucket`, as for bkm_scan.
 * False with bolt->rule set on failure; there are no entries then. */
bool bkm_entries_below(bkm_entries *entries, bkm_bolt *bolt, const bkm_bucket *bucket, const bkm_span *path,
                       size_t depth, bkm_span prefix);
/* Of the bucket itself, without rows. */
bool bkm_entries_in(bkm_entries *entries, bkm_bolt *bolt, const bkm_bucket *bucket);
void bkm_entries_free(bkm_entries *entries);

#endif
