/* The rows of a bucket, which are its child buckets, and what is in them, in one walk. */
#ifndef BKM_BOLT_ROWS_H
#define BKM_BOLT_ROWS_H

#include "bolt/entries.h"

/* The path of a bucket within each row; none for the row itself. */
typedef struct {
    const bkm_span *steps;
    size_t depth;
} bkm_place;

/* One value of each row: a column. */
typedef struct {
    bkm_place place;
    bkm_span key;
    bkm_spans values; /* absent where there is no such value */
} bkm_row_value;

/* The items of a bucket in each row, one after the other. */
typedef struct {
    bkm_place place;
    bkm_span prefix; /* only items whose keys start with it */
    bkm_entries entries;
} bkm_row_items;

typedef struct {
    bkm_spans names;
    bkm_row_value *values;
    size_t value_count;
    bkm_row_items *items;
    size_t items_count;
} bkm_rows;

/* Reads all rows of `bucket`; keys that are not buckets are skipped. The columns must be empty, and are to be freed
 * with bkm_rows_free also on failure. False with bolt->rule set on failure. */
bool bkm_rows_read(bkm_rows *rows, bkm_bolt *bolt, const bkm_bucket *bucket);
void bkm_rows_free(bkm_rows *rows);

/* Reads the items at one place alone. False with bolt->rule set on failure; there are no entries then. */
bool bkm_entries_below(bkm_entries *entries, bkm_bolt *bolt, const bkm_bucket *bucket, const bkm_span *path,
                       size_t depth, bkm_span prefix);

#endif
