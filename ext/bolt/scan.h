/* Table scan: the rows are the child buckets of a bucket, the columns are paths within a row. */
#ifndef BKM_BOLT_SCAN_H
#define BKM_BOLT_SCAN_H

#include "bolt/reader.h"

typedef struct {
    const bkm_span *steps;
    size_t depth;
} bkm_path;

typedef struct {
    size_t rows;
    size_t capacity;
    bkm_span *names;
    bkm_span **columns;    /* [column][row]; data == NULL where the row has no such key */
    size_t column_count;
} bkm_table;

/* Reads all rows of `bucket`; keys that are not buckets are skipped. On failure the table is empty, and
 * bolt->rule tells why. */
bool bkm_scan(bkm_bolt *bolt, const bkm_bucket *bucket, const bkm_path *paths, size_t path_count, bkm_table *table);
void bkm_table_free(bkm_table *table);

#endif
