/* The records of a v2 store: a walk over all their values, which are checked and kept by key. */
#ifndef BKM_CELLS_H
#define BKM_CELLS_H

#include "bolt/reader.h"
#include "core/span_table.h"
#include "core/spans.h"

/* What a value is decoded into. */
typedef enum {
    BKM_CELL_TEXT,
    BKM_CELL_INTEGER,
    BKM_CELL_FLAG,
    BKM_CELL_TEXTS,
    BKM_CELL_ANY,
    BKM_CELL_FORMS
} bkm_cell_form;

typedef struct {
    bkm_span name;
    bkm_cell_form form;
    bool kept; /* as a column */
} bkm_cell_key;

enum { BKM_MAX_CELL_KEYS = 250 };

/* Somebody else has to look at it: its key is not known, it is a bucket, or it is no value of its form in the
 * form that BuildKit writes. */
typedef struct {
    uint32_t row;
    bkm_span key;
    bkm_span value; /* absent: a bucket */
} bkm_odd_cell;

/* A value has an index: its entry in `_index` would have this hash. */
typedef struct {
    uint64_t hash;
    uint32_t row;
} bkm_wanted_entry;

typedef struct {
    bkm_span_table hash;      /* for the secret alone */
    size_t key_count;
    bkm_cell_key keys[BKM_MAX_CELL_KEYS];
    uint8_t slots[1024];      /* number of a key + 1 by a hash of its name */

    bkm_spans ids;
    uint32_t *first;          /* [rows + 1]: where the kept values of a row begin */
    size_t first_capacity;
    uint8_t *kinds;           /* of each kept value the number of its key */
    size_t kinds_capacity;
    bkm_spans values;
    bkm_spans plain;          /* keys of `_main` that are no buckets */
    bkm_odd_cell *odd;
    size_t odd_count, odd_capacity;
    bkm_wanted_entry *wanted;
    size_t wanted_count, wanted_capacity;
    uint8_t *scratch;         /* an index key */
    size_t scratch_capacity;
} bkm_cells;

/* `keys` must have been set; the first function does the rest. */
void bkm_cells_begin(bkm_cells *cells);
/* Reads the bucket `_main`; NULL: there is none. False with bolt->rule set on failure. */
bool bkm_cells_read(bkm_cells *cells, bkm_bolt *bolt, const bkm_bucket *main_bucket);
void bkm_cells_free(bkm_cells *cells);

/* An index that a value of the row has, of those that were odd. False when out of memory. */
bool bkm_cells_want(bkm_cells *cells, uint32_t row, bkm_span index);

/* Compares the entries with what is wanted. `missing`: rows, with a place for each wanted one, of which the
 * first `*missing_count` are set in the end; `stray[i]` = 1 for entries that nobody wants. False when out of
 * memory or there are too many entries. */
bool bkm_cells_compare(const bkm_cells *cells, const bkm_spans *entries, uint32_t *missing, size_t *missing_count,
                       uint8_t *stray);

/* The values of a key as they are stored; the column is empty before. False when out of memory. */
bool bkm_cells_stored(const bkm_cells *cells, uint8_t key, bkm_spans *column);
/* The same, decoded; a value that is not in the form that BuildKit writes is absent. */
bool bkm_cells_texts(const bkm_cells *cells, uint8_t key, bkm_spans *column);
/* 0 and not known where there is none; flags are 0 and 1. */
void bkm_cells_numbers(const bkm_cells *cells, uint8_t key, int64_t *values, uint8_t *known);
/* Strings of lists, and the row of each (malloc'ed). */
bool bkm_cells_lists(const bkm_cells *cells, uint8_t key, int32_t **rows, bkm_spans *strings);

#endif
